//! Bridge, veth pair and their settings.

use causeway_host::paths;
use causeway_kernel::{
    ANNOUNCE_SYSCTLS, BridgeSpec, Link, LinkChange, PortChange, Sysctl, VethSpec, VlanRange,
};
use cni_plugin::{CniResult, Code, Error};
use serde_json::json;

use super::{AddContext, Links, random_mac};
use crate::config::Mode;
use crate::ipam::{Ipam, with_ipam};
use crate::record::Record;
use crate::undo::{Done, Undo};
use crate::vxlan::{self, Underlay};
use crate::{fault, node, plan, spoof};

impl<'a> AddContext<'a> {
    /// The links and the IPAM plugin's answer, side by side if the plugin allows it. Both are
    /// waited for, whatever the other says.
    pub(super) fn links_and_lease(
        &self,
        record: &mut Record,
        undo: &mut Undo<'a>,
    ) -> Result<(Links, Option<CniResult>), Error> {
        let Some(ipam) = self.ipam() else {
            return Ok((self.links(record, undo)?, None));
        };
        let facts = self.host_facts()?;
        let told = ipam.reads_host_addresses().then(|| {
            let reserved = json!(facts.reserved());
            with_ipam(self.request, |ipam| drop(ipam.insert("hostAddresses".to_owned(), reserved)))
        });
        let ipam = Ipam { request: told.as_ref().unwrap_or(self.request), ..ipam };
        undo.push(Done::Lease);
        let (links, leased) = self.links_beside(&ipam, record, undo)?;
        let leased = self.unused(&ipam, &links, leased)?;
        self.check_collision(facts, &leased)?;
        Ok((links, Some(leased)))
    }

    fn links_beside(
        &self,
        ipam: &Ipam<'_>,
        record: &mut Record,
        undo: &mut Undo<'a>,
    ) -> Result<(Links, CniResult), Error> {
        if !ipam.only_computes() {
            let links = self.links(record, undo)?;
            return Ok((links, self.reclaim().lease(ipam)?));
        }
        let reclaim = self.reclaim();
        std::thread::scope(|scope| {
            let lease = scope.spawn(move || reclaim.lease(ipam));
            let links = self.links(record, undo);
            let lease = lease.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Its refusal is what the user can act on.
            let lease = lease?;
            Ok((links?, lease))
        })
    }

    /// The links of either mode, up.
    fn links(&self, record: &mut Record, undo: &mut Undo<'a>) -> Result<Links, Error> {
        match self.config.mode {
            Mode::Bridge => self.bridged_links(record, undo),
            Mode::Ptp => self.ptp_links(record, undo),
        }
    }

    /// Bridge, vxlan and veth pair, up.
    fn bridged_links(&self, record: &mut Record, undo: &mut Undo<'a>) -> Result<Links, Error> {
        let tunnel = match &self.config.vxlan {
            Some(vxlan) => Some((vxlan, Underlay::find(self.host, vxlan)?)),
            None => None,
        };
        let fits = tunnel.as_ref().map(|(vxlan, underlay)| underlay.inner_mtu(vxlan));
        let mut mtu = self.mtu(fits)?;
        let mut bridge = self.bridge(mtu)?;
        if let (Some(overlay), None, None) = (mtu, self.config.mtu, fits) {
            mtu = Some(self.follow_overlay(&mut bridge, overlay)?);
        }
        if let Some((vxlan, underlay)) = &tunnel {
            vxlan::ensure(self.host, vxlan, underlay, &bridge, mtu.unwrap_or(bridge.mtu))?;
        }
        self.veth(record, Some(&bridge), Some(mtu.unwrap_or(bridge.mtu)))?;
        undo.push(Done::Veth(record.host_ifname.clone()));
        let (host, container) = self.ends(record)?;
        self.port(&host)?;
        let foreign_ports = self.has_foreign_ports(&bridge)?;
        let links = Links { bridge: Some(bridge), host, container, foreign_ports };
        self.spoof_check(&links, undo)?;
        // The host end is up since it was made; with this the port forwards.
        self.container_up(&links.container)?;
        Ok(links)
    }

    /// Both ends of the new veth pair, the container's ready to come up.
    pub(super) fn ends(&self, record: &Record) -> Result<(Link, Link), Error> {
        let gone = |name: &str| {
            Error::new(Code::Io, format!("interface {name} disappeared while it was being set up"))
        };
        let host = self.host.link(&record.host_ifname).map_err(fault::kernel)?;
        let host = host.ok_or_else(|| gone(&record.host_ifname))?;
        self.prepare_container()?;
        let container = self.inside.link(&self.key.ifname).map_err(fault::kernel)?;
        let container = container.ok_or_else(|| gone(&self.key.ifname))?;
        Ok((host, container))
    }

    pub(super) fn container_up(&self, container: &Link) -> Result<(), Error> {
        if self.config.container_down {
            return Ok(());
        }
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        self.inside.change_link(container.index, &up).map_err(fault::kernel)
    }

    /// `mtu` of the configuration, else what `fits` the tunnel, else the daemon's word.
    pub(super) fn mtu(&self, fits: Option<u32>) -> Result<Option<u32>, Error> {
        match self.config.mtu.or(fits) {
            Some(mtu) => Ok(Some(mtu)),
            None => node::overlay_mtu(&self.config.run_dir),
        }
    }

    /// The bridge: made, or the one that is there, up. Two first ADDs may race for it (row F10).
    fn bridge(&self, mtu: Option<u32>) -> Result<Link, Error> {
        let name = self.config.bridge.as_str();
        let found = self.host.link(name).map_err(fault::kernel)?;
        let link = match found {
            Some(link) => link,
            None => self.make_bridge(name, mtu)?,
        };
        if let Some(change) = plan::bridge_change(&link, self.config)? {
            self.host.change_link(link.index, &change).map_err(|error| self.refused(error))?;
        }
        best_effort(&[(format!("net/ipv6/conf/{name}/accept_ra"), "0")]);
        Ok(link)
    }

    fn make_bridge(&self, name: &str, mtu: Option<u32>) -> Result<Link, Error> {
        // A pinned address does not change, or become zero, as ports come and go.
        let mac = random_mac();
        let spec = BridgeSpec {
            name,
            mtu,
            mac: Some(mac),
            vlan_filtering: !self.config.port.vlans.is_empty(),
        };
        match self.host.add_bridge(&spec) {
            Ok(link) => {
                // For `causewayd cleanup --all`, which removes no bridge of other programs.
                drop(self.host.set_alias(name, paths::BRIDGE_ALIAS));
                if !self.config.dad {
                    // While a link-local address is tentative, no neighbour is solicited for
                    // packets that are forwarded (`ndisc_send_ns` in net/ipv6/ndisc.c): the first
                    // container would be out of their reach for two seconds.
                    best_effort(&[(format!("net/ipv6/conf/{name}/accept_dad"), "0")]);
                }
                self.guard_localhost(&link);
                self.pin_mtu(link, mtu)
            }
            Err(error) if error.is_exists() => {
                self.host.link(name).map_err(fault::kernel)?.ok_or_else(|| {
                    Error::new(
                        Code::TryAgainLater,
                        format!("bridge {name} was created and removed by another process"),
                    )
                })
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// A daemon that was stopped leaves `route_localnet` on for all links, and their guards to those
    /// that it saw. Without it nothing of ours needs one here. Links get theirs before they come up:
    /// one that is up loses what it sends at that moment (`qdisc_graft` in net/sched/sch_api.c stops
    /// its queues).
    pub(super) fn guard_localhost(&self, link: &Link) {
        let on = (Sysctl { netns: None }).read("net/ipv4/conf/all/route_localnet");
        if on.is_ok_and(|on| on.as_deref() == Some("1"))
            && let Err(error) = self.host.guard_localhost(link.index)
        {
            fault::warn(&error);
        }
    }

    /// Why a bridge could not be made or changed.
    fn refused(&self, error: causeway_kernel::Error) -> Error {
        let lacking = error.raw() == Some(libc::EOPNOTSUPP);
        let refused = fault::kernel(error);
        if !lacking || self.config.port.vlans.is_empty() {
            return refused;
        }
        let msg = format!(
            "vlan: this kernel does not support VLAN filtering on bridges \
             (CONFIG_BRIDGE_VLAN_FILTERING); remove vlan and vlanTrunk or use another kernel for \
             bridge {}",
            self.config.bridge
        );
        Error { msg, ..refused }
    }

    /// A bridge takes the smallest MTU of its ports, and 1500 without any, until its own is set
    /// once more after creation (`br_change_mtu` in net/bridge/br_device.c).
    fn pin_mtu(&self, link: Link, mtu: Option<u32>) -> Result<Link, Error> {
        if mtu.is_some() {
            let change = LinkChange { mtu, ..LinkChange::default() };
            self.host.change_link(link.index, &change).map_err(fault::kernel)?;
        }
        Ok(link)
    }

    /// The veth pair, under another name if something took ours since it was looked for.
    /// A port of `bridge` is up from the start; without a bridge the host end stays down.
    pub(super) fn veth(
        &self,
        record: &mut Record,
        bridge: Option<&Link>,
        mtu: Option<u32>,
    ) -> Result<(), Error> {
        let mut salt = 0;
        loop {
            let made = self.host.add_veth(&VethSpec {
                name: &record.host_ifname,
                master: bridge.map(|bridge| bridge.index),
                mtu,
                alias: &self.owner,
                peer_name: &self.key.ifname,
                peer_mac: self.config.mac,
                peer_netns: self.netns,
                up: bridge.is_some(),
            });
            match made {
                Ok(()) => return Ok(()),
                Err(error) if error.is_exists() => {}
                Err(error) => return Err(fault::kernel(error)),
            }
            let inside = self.inside.link(&self.key.ifname);
            if inside.map_err(fault::kernel)?.is_some() {
                return Err(Error::new(
                    Code::InvalidEnvironment,
                    format!("CNI_IFNAME: interface {} already exists", self.key.ifname),
                ));
            }
            (record.host_ifname, salt) = self.free_name(salt)?;
            self.write(record)?;
        }
    }

    /// Sysctls of the container's end that have to be there before it is up.
    fn prepare_container(&self) -> Result<(), Error> {
        let ifname = &self.key.ifname;
        let dad = if self.config.dad { "1" } else { "0" };
        let mut wanted = vec![(format!("net/ipv6/conf/{ifname}/accept_dad"), dad)];
        wanted.extend(ANNOUNCE_SYSCTLS.map(|key| (key.replace("IFNAME", ifname), "1")));
        if self.config.dad {
            wanted.push((format!("net/ipv6/conf/{ifname}/enhanced_dad"), "1"));
        }
        self.netns.run(|| best_effort(&wanted)).map_err(fault::netns)
    }

    /// Settings of the container's bridge port.
    fn port(&self, host: &Link) -> Result<(), Error> {
        let port = &self.config.port;
        best_effort(&[(format!("net/ipv6/conf/{}/accept_ra", host.name), "0")]);
        if port.hairpin || port.isolated {
            let change = PortChange {
                hairpin: port.hairpin.then_some(true),
                isolated: port.isolated.then_some(true),
            };
            self.host.change_port(host.index, &change).map_err(fault::kernel)?;
        }
        self.vlans(host, &port.vlans)
    }

    pub(super) fn vlans(&self, port: &Link, vlans: &[VlanRange]) -> Result<(), Error> {
        if vlans.is_empty() {
            return Ok(());
        }
        if !self.config.port.keep_default_vlan {
            let given = self.host.vlans(port.index).map_err(fault::kernel)?;
            self.host.delete_vlans(port.index, &given).map_err(fault::kernel)?;
        }
        self.host.add_vlans(port.index, vlans, false).map_err(fault::kernel)
    }

    fn spoof_check(&self, links: &Links, undo: &mut Undo<'a>) -> Result<(), Error> {
        let (true, Some(mac)) = (self.config.mac_spoof_check, links.container.mac) else {
            return Ok(());
        };
        undo.push(Done::Spoof(links.host.name.clone()));
        spoof::add(&self.config.run_dir, self.key, &links.host.name, mac)
    }
}

/// Sets sysctls of the calling thread's namespace as far as the kernel lets us: what it
/// lacks or refuses is no reason to fail.
pub(super) fn best_effort(wanted: &[(String, &str)]) {
    for pair in wanted {
        if let Err(error) = (Sysctl { netns: None }).ensure(std::slice::from_ref(pair))
            && !error.is_not_found()
        {
            fault::warn(&error);
        }
    }
}
