//! ADD: the plan's values become links, addresses, routes and rules; a failure takes all back.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use causeway_kernel::{
    AddressSpec, BridgeSpec, Link, LinkChange, Netlink, Netns, PortChange, RecordKey, Records,
    Sysctl, VethSpec, announce,
};
use causeway_ruleset::name;
use cni_plugin::{CniResult, Code, Error, Request};
use ipnetwork::IpNetwork;

use crate::config::{self, Checked};
use crate::ipam::Ipam;
use crate::plan::{self, Addressing, Ends};
use crate::record::{self, Record};
use crate::undo::{Done, Scene, Undo};
use crate::{del, fault, masq, node, spoof, vxlan};

/// How long an operation on the same attachment may hold us up (row F12).
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(20);
/// Time for carrier and a forwarding port, and for duplicate address detection.
const SETTLE: Duration = Duration::from_secs(5);
/// Names tried for the host end.
const NAMES: u32 = 10;

/// Everything an ADD works with.
struct Site<'a> {
    request: &'a Request,
    config: &'a Checked,
    key: &'a RecordKey,
    /// Alias of the host end and comment of the rules.
    owner: String,
    /// `CNI_NETNS`
    netns_path: &'a str,
    netns: &'a Netns,
    host: &'a Netlink,
    inside: &'a Netlink,
    records: &'a Records,
}

/// The links of an attachment while it is made.
struct Links {
    bridge: Link,
    host: Link,
    container: Link,
}

/// Attaches the container of `request`.
///
/// # Errors
/// Whatever failed; nothing is left behind but the bridge, which other attachments may use.
pub(crate) fn add(request: &Request) -> Result<CniResult, Error> {
    let config = &Checked::of(request)?;
    let netns_path = request.netns.as_deref().unwrap_or_default();
    let netns = &Netns::open(netns_path).map_err(|error| fault::netns(&error))?;
    let key = &record::key(request);
    let records = &Records::new(&config.run_dir, record::KIND);
    let _lock = records.lock(key, LOCK_WAIT).map_err(|error| fault::kernel(&error))?;
    let host = &Netlink::open().map_err(|error| fault::kernel(&error))?;
    let inside = &Netlink::open_in(netns).map_err(|error| fault::kernel(&error))?;
    let owner = name::owner(&key.network, &key.container_id, &key.ifname);
    let site = Site { request, config, key, owner, netns_path, netns, host, inside, records };
    let host_ifname = site.claim()?;
    let mut undo = Undo::new(site.scene());
    let result = site.attach(host_ifname, &mut undo)?;
    undo.commit();
    Ok(result)
}

impl<'a> Site<'a> {
    fn scene(&self) -> Scene<'a> {
        Scene {
            key: self.key,
            run_dir: &self.config.run_dir,
            host: self.host,
            records: self.records,
            ipam: self.ipam(),
        }
    }

    fn ipam(&self) -> Option<Ipam<'a>> {
        let request = self.request;
        self.config.ipam.as_deref().map(|plugin| Ipam { plugin, request })
    }

    /// A free name for the host end. Refuses a second ADD before the lease of the first one is
    /// touched (rows C59, C61); clears away an attachment that died without DEL.
    fn claim(&self) -> Result<String, Error> {
        if self.inside.link(&self.key.ifname).map_err(|error| fault::kernel(&error))?.is_some() {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_IFNAME: interface {} already exists in {}; use another name or DEL first",
                    self.key.ifname, self.netns_path
                ),
            ));
        }
        let record = self.records.read::<Record>(self.key);
        if !matches!(record, Ok(None)) {
            self.clear(record.ok().flatten())?;
        }
        self.free_name(0).map(|(name, _)| name)
    }

    fn clear(&self, record: Option<Record>) -> Result<(), Error> {
        let detachment = del::Detachment {
            request: self.request,
            key: self.key,
            run_dir: &self.config.run_dir,
            bridge: &self.config.bridge,
            ipam: self.config.ipam.as_deref(),
            host: self.host,
        };
        if del::host_end(&detachment, record.as_ref())
            .map_err(|error| fault::kernel(&error))?
            .is_some()
        {
            return Err(self.duplicate());
        }
        fault::collected(del::detach(&detachment, record.as_ref()))
    }

    fn duplicate(&self) -> Error {
        Error::new(
            Code::InvalidEnvironment,
            format!(
                "container {} already has {} on network {}; duplicate ADD is not allowed, DEL first",
                self.key.container_id, self.key.ifname, self.key.network
            ),
        )
    }

    /// The first name from `salt` on that nothing has, and the salt after it.
    fn free_name(&self, salt: u32) -> Result<(String, u32), Error> {
        for salt in salt..NAMES {
            let name = plan::host_ifname(&self.owner, salt);
            match self.host.link(&name).map_err(|error| fault::kernel(&error))? {
                None => return Ok((name, salt + 1)),
                Some(link) if link.alias.as_deref() == Some(self.owner.as_str()) => {
                    return Err(self.duplicate());
                }
                Some(_) => {}
            }
        }
        Err(Error::new(
            Code::TryAgainLater,
            format!("no free interface name for the host end of {}", self.key.container_id),
        ))
    }

    fn attach(&self, host_ifname: String, undo: &mut Undo<'a>) -> Result<CniResult, Error> {
        let mut record = Record {
            netns: self.netns_path.to_owned(),
            bridge: self.config.bridge.clone(),
            host_ifname,
            masq: self.config.ip_masq && self.config.ipam.is_some(),
            spoof: self.config.mac_spoof_check,
            ipam: self.config.ipam.clone().unwrap_or_default(),
            vlan_gateway: self.gateway_link_name(),
            ..Record::new(self.key.clone())
        };
        self.write(&record)?;
        undo.push(Done::Record);
        let (links, leased) = self.links_and_lease(&mut record, undo)?;
        let mut dns = self.config.dns.clone();
        let mut addressing = None;
        if let Some(leased) = leased {
            if dns.is_empty() {
                dns = leased.dns.clone();
            }
            addressing = Some(Addressing::of(self.config.gateway, leased)?);
        }
        record.mac = plan::mac_text(links.container.mac);
        record.addresses = addressing.iter().flat_map(Addressing::addresses).collect();
        self.write(&record)?;
        let mut vlan_gateway = None;
        if let Some(addressing) = &addressing {
            self.configure_container(&links.container, addressing)?;
            vlan_gateway = self.configure_gateway(&links.bridge, addressing)?;
            self.masquerade(&record, undo)?;
        }
        let links = self.settle(links, addressing.as_ref())?;
        let ends = Ends {
            bridge: &links.bridge,
            host: &links.host,
            container: &links.container,
            vlan_gateway: vlan_gateway.as_ref(),
            netns: self.netns_path,
        };
        Ok(plan::result(&ends, addressing, dns, self.request.prev_result.as_ref()))
    }

    fn write(&self, record: &Record) -> Result<(), Error> {
        self.records.write(self.key, record).map_err(|error| fault::kernel(&error))
    }

    fn gateway_link_name(&self) -> Option<String> {
        let vlan = self.config.port.vlan.filter(|_| self.config.gateway.enabled)?;
        Some(config::gateway_link(&self.config.bridge, vlan))
    }

    /// The links and the IPAM plugin's answer, side by side where the plugin allows it. Both are
    /// waited for, whatever the other says.
    fn links_and_lease(
        &self,
        record: &mut Record,
        undo: &mut Undo<'a>,
    ) -> Result<(Links, Option<CniResult>), Error> {
        let Some(ipam) = self.ipam() else {
            return Ok((self.links(record, undo)?, None));
        };
        undo.push(Done::Lease);
        if !ipam.only_computes() {
            let links = self.links(record, undo)?;
            return Ok((links, Some(ipam.add()?)));
        }
        std::thread::scope(|scope| {
            let lease = scope.spawn(move || ipam.add());
            let links = self.links(record, undo);
            let lease = lease.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Its refusal is what the user can act on.
            let lease = lease?;
            Ok((links?, Some(lease)))
        })
    }

    /// Bridge, vxlan and veth pair, up.
    fn links(&self, record: &mut Record, undo: &mut Undo<'a>) -> Result<Links, Error> {
        let mtu = self.mtu()?;
        let bridge = self.bridge(mtu)?;
        if let Some(vxlan) = &self.config.vxlan {
            vxlan::ensure(self.host, vxlan, &bridge, mtu.unwrap_or(bridge.mtu))?;
        }
        self.veth(record, &bridge, mtu.unwrap_or(bridge.mtu))?;
        let gone = |name: &str| {
            Error::new(Code::Io, format!("interface {name} vanished while it was set up"))
        };
        let host = self
            .host
            .link(&record.host_ifname)
            .map_err(|error| fault::kernel(&error))?
            .ok_or_else(|| gone(&record.host_ifname))?;
        undo.push(Done::Veth(host.index));
        self.prepare_container()?;
        let container = self
            .inside
            .link(&self.key.ifname)
            .map_err(|error| fault::kernel(&error))?
            .ok_or_else(|| gone(&self.key.ifname))?;
        self.port(&host)?;
        let links = Links { bridge, host, container };
        self.spoof_check(&links, undo)?;
        // The host end is up since it was made; with this the port forwards.
        if !self.config.container_down {
            let up = LinkChange { up: Some(true), ..LinkChange::default() };
            self.inside
                .change_link(links.container.index, &up)
                .map_err(|error| fault::kernel(&error))?;
        }
        Ok(links)
    }

    /// `mtu` of the configuration, else what fits the tunnel, else the daemon's word.
    fn mtu(&self) -> Result<Option<u32>, Error> {
        if self.config.mtu.is_some() {
            return Ok(self.config.mtu);
        }
        match &self.config.vxlan {
            Some(vxlan) => vxlan::mtu(self.host, vxlan).map(Some),
            None => Ok(node::read(&self.config.run_dir)?.overlay_mtu),
        }
    }

    /// The bridge: made, or the one that is there, up. Two first ADDs may race for it (row F10).
    fn bridge(&self, mtu: Option<u32>) -> Result<Link, Error> {
        let name = self.config.bridge.as_str();
        let found = self.host.link(name).map_err(|error| fault::kernel(&error))?;
        let link = match found {
            Some(link) => link,
            None => self.make_bridge(name, mtu)?,
        };
        if let Some(change) = plan::bridge_change(&link, self.config)? {
            self.host.change_link(link.index, &change).map_err(|error| fault::kernel(&error))?;
        }
        best_effort(None, &[(format!("net/ipv6/conf/{name}/accept_ra"), "0")]);
        Ok(link)
    }

    fn make_bridge(&self, name: &str, mtu: Option<u32>) -> Result<Link, Error> {
        // A pinned address does not change, or become zero, as ports come and go.
        let mac = plan::local_mac(RandomState::new().build_hasher().finish());
        let spec = BridgeSpec {
            name,
            mtu,
            mac: Some(mac),
            vlan_filtering: !self.config.port.vlans.is_empty(),
        };
        match self.host.add_bridge(&spec) {
            Ok(link) => self.pin_mtu(link, mtu),
            Err(error) if error.is_exists() => {
                self.host.link(name).map_err(|error| fault::kernel(&error))?.ok_or_else(|| {
                    Error::new(
                        Code::TryAgainLater,
                        format!("bridge {name} was made and removed by others meanwhile"),
                    )
                })
            }
            Err(error) => Err(fault::kernel(&error)),
        }
    }

    /// A bridge takes the smallest MTU of its ports, and 1500 without any, until its own is set
    /// once more after creation (`br_change_mtu` in net/bridge/br_device.c).
    fn pin_mtu(&self, link: Link, mtu: Option<u32>) -> Result<Link, Error> {
        if mtu.is_some() {
            let change = LinkChange { mtu, ..LinkChange::default() };
            self.host.change_link(link.index, &change).map_err(|error| fault::kernel(&error))?;
        }
        Ok(link)
    }

    /// The veth pair, under another name where something took ours since it was looked for.
    fn veth(&self, record: &mut Record, bridge: &Link, mtu: u32) -> Result<(), Error> {
        let mut salt = 0;
        loop {
            let made = self.host.add_veth(&VethSpec {
                name: &record.host_ifname,
                master: Some(bridge.index),
                mtu: Some(mtu),
                alias: &self.owner,
                peer_name: &self.key.ifname,
                peer_mac: self.config.mac,
                peer_netns: self.netns,
                up: true,
            });
            match made {
                Ok(()) => return Ok(()),
                Err(error) if error.is_exists() => {}
                Err(error) => return Err(fault::kernel(&error)),
            }
            let inside = self.inside.link(&self.key.ifname);
            if inside.map_err(|error| fault::kernel(&error))?.is_some() {
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
        let mut wanted = vec![
            (format!("net/ipv4/conf/{ifname}/arp_notify"), "1"),
            (format!("net/ipv6/conf/{ifname}/accept_dad"), dad),
        ];
        if self.config.dad {
            wanted.push((format!("net/ipv6/conf/{ifname}/enhanced_dad"), "1"));
        }
        self.netns.run(|| best_effort(None, &wanted)).map_err(|error| fault::netns(&error))
    }

    /// Settings of the container's bridge port.
    fn port(&self, host: &Link) -> Result<(), Error> {
        let port = &self.config.port;
        best_effort(None, &[(format!("net/ipv6/conf/{}/accept_ra", host.name), "0")]);
        if port.hairpin || port.isolated {
            let change = PortChange {
                hairpin: port.hairpin.then_some(true),
                isolated: port.isolated.then_some(true),
            };
            self.host.change_port(host.index, &change).map_err(|error| fault::kernel(&error))?;
        }
        self.vlans(host, &port.vlans)
    }

    fn vlans(&self, port: &Link, vlans: &[causeway_kernel::VlanRange]) -> Result<(), Error> {
        if vlans.is_empty() {
            return Ok(());
        }
        if !self.config.port.keep_default_vlan {
            let given = self.host.vlans(port.index).map_err(|error| fault::kernel(&error))?;
            self.host.delete_vlans(port.index, &given).map_err(|error| fault::kernel(&error))?;
        }
        self.host.add_vlans(port.index, vlans, false).map_err(|error| fault::kernel(&error))
    }

    fn spoof_check(&self, links: &Links, undo: &mut Undo<'a>) -> Result<(), Error> {
        let (true, Some(mac)) = (self.config.mac_spoof_check, links.container.mac) else {
            return Ok(());
        };
        undo.push(Done::Spoof(links.host.name.clone()));
        spoof::add(&self.config.run_dir, self.key, &links.host.name, mac)
    }

    /// Addresses and routes inside the container.
    fn configure_container(&self, link: &Link, addressing: &Addressing) -> Result<(), Error> {
        if addressing.has_ipv6() {
            self.enable_ipv6()?;
        }
        for address in addressing.addresses() {
            let spec = AddressSpec { address, nodad: !self.config.dad };
            self.inside.add_address(link.index, &spec).map_err(|error| fault::kernel(&error))?;
        }
        if self.config.dad && addressing.has_ipv6() {
            self.inside
                .wait_addresses(link.index, SETTLE)
                .map_err(|error| fault::kernel(&error))?;
        }
        self.inside
            .add_routes(&addressing.route_specs(link.index))
            .map_err(|error| fault::kernel(&error))
    }

    /// IPv6 on the container's interfaces; its addresses outlive a link that goes down.
    fn enable_ipv6(&self) -> Result<(), Error> {
        let ifname = &self.key.ifname;
        let wanted = [
            ("net/ipv6/conf/lo/disable_ipv6".to_owned(), "0"),
            (format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0"),
            (format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1"),
        ];
        self.netns.run(|| require_ipv6(&wanted)).map_err(|error| fault::netns(&error))?
    }

    /// Gateway addresses and forwarding on the host. Returns the link of a vlan's gateway.
    fn configure_gateway(
        &self,
        bridge: &Link,
        addressing: &Addressing,
    ) -> Result<Option<Link>, Error> {
        if !self.config.gateway.enabled {
            return Ok(None);
        }
        let vlan_gateway =
            self.gateway_link_name().map(|name| self.vlan_gateway(&name, bridge)).transpose()?;
        self.gateway_addresses(vlan_gateway.as_ref().unwrap_or(bridge), &addressing.gateways)?;
        let mut forwarding = Vec::new();
        if addressing.gateways.iter().any(IpNetwork::is_ipv4) {
            forwarding.push(("net/ipv4/ip_forward".to_owned(), "1"));
        }
        if addressing.gateways.iter().any(IpNetwork::is_ipv6) {
            forwarding.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
        }
        Sysctl { netns: None }.ensure(&forwarding).map_err(|error| fault::kernel(&error))?;
        Ok(vlan_gateway)
    }

    fn gateway_addresses(&self, link: &Link, wanted: &[IpNetwork]) -> Result<(), Error> {
        let present = self.host.addresses(link.index).map_err(|error| fault::kernel(&error))?;
        let present: Vec<_> = present.into_iter().map(|state| state.address).collect();
        let force = self.config.gateway.force_address;
        let changes = plan::address_changes(&link.name, wanted, &present, force)?;
        for address in changes.remove {
            self.host.delete_address(link.index, address).map_err(|error| fault::kernel(&error))?;
        }
        if changes.add.iter().any(IpNetwork::is_ipv6) {
            require_ipv6(&[(format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0")])?;
        }
        let added = !changes.add.is_empty();
        for address in changes.add {
            let spec = AddressSpec { address, nodad: !self.config.dad };
            match self.host.add_address(link.index, &spec) {
                Err(error) if !error.is_exists() => return Err(fault::kernel(&error)),
                Ok(()) | Err(_) => {}
            }
        }
        if added { self.pin_mac(link) } else { Ok(()) }
    }

    /// A gateway keeps its address as ports come and go. One that lost its last port may have
    /// none: then it gets one.
    fn pin_mac(&self, link: &Link) -> Result<(), Error> {
        let now = self.host.link_by_index(link.index).map_err(|error| fault::kernel(&error))?;
        let mac = now
            .and_then(|link| link.mac)
            .filter(|mac| mac.0 != [0; 6])
            .unwrap_or_else(|| plan::local_mac(RandomState::new().build_hasher().finish()));
        let change = LinkChange { mac: Some(mac), ..LinkChange::default() };
        self.host.change_link(link.index, &change).map_err(|error| fault::kernel(&error))
    }

    /// `<bridge>.<vlan>`: a veth pair of the host whose other end is a port of the vlan.
    fn vlan_gateway(&self, name: &str, bridge: &Link) -> Result<Link, Error> {
        let find = || self.host.link(name).map_err(|error| fault::kernel(&error));
        if let Some(link) = find()? {
            return Ok(link);
        }
        let here = Netns::current().map_err(|error| fault::netns(&error))?;
        let port = plan::host_ifname(name, 0);
        let made = self.host.add_veth(&VethSpec {
            name: &port,
            master: Some(bridge.index),
            mtu: Some(bridge.mtu),
            alias: name,
            peer_name: name,
            peer_mac: None,
            peer_netns: &here,
            up: false,
        });
        match made {
            Err(error) if !error.is_exists() => return Err(fault::kernel(&error)),
            Ok(()) | Err(_) => {}
        }
        let gone = || Error::new(Code::TryAgainLater, format!("{name} vanished while it was made"));
        let port =
            self.host.link(&port).map_err(|error| fault::kernel(&error))?.ok_or_else(gone)?;
        let link = find()?.ok_or_else(gone)?;
        let native: Vec<_> =
            self.config.port.vlans.iter().filter(|vlan| vlan.pvid).copied().collect();
        self.vlans(&port, &native)?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        for index in [port.index, link.index] {
            self.host.change_link(index, &up).map_err(|error| fault::kernel(&error))?;
        }
        Ok(link)
    }

    fn masquerade(&self, record: &Record, undo: &mut Undo<'a>) -> Result<(), Error> {
        if !record.masq {
            return Ok(());
        }
        let exclude = match &self.config.masq_exclude {
            Some(exclude) => exclude.clone(),
            None => node::read(&self.config.run_dir)?.never_masqueraded(),
        };
        undo.push(Done::Masquerade(record.addresses.clone()));
        masq::add(&masq::Masquerade {
            key: self.key,
            addresses: &record.addresses,
            exclude: &exclude,
            run_dir: &self.config.run_dir,
            backend: self.config.masq_backend,
        })
    }

    /// The runtime may have given the container up meanwhile (row F17).
    fn same_namespace(&self) -> Result<(), Error> {
        match Netns::open(self.netns_path) {
            Ok(now) if now.is_same(self.netns) => Ok(()),
            Ok(_) => Err(Error::new(
                Code::InvalidNetns,
                format!("CNI_NETNS: {} became another namespace meanwhile", self.netns_path),
            )),
            Err(error) => Err(fault::netns(&error)),
        }
    }

    /// Waits for a forwarding port, tells the neighbours, and reads the links as they are now.
    fn settle(&self, links: Links, addressing: Option<&Addressing>) -> Result<Links, Error> {
        let mut now = links;
        if !self.config.container_down {
            now.host = self
                .host
                .wait_forwarding(now.host.index, SETTLE)
                .map_err(|error| fault::kernel(&error))?;
            if let (Some(addressing), Some(mac)) = (addressing, now.container.mac) {
                let addresses: Vec<_> = addressing.ips.iter().map(|ip| ip.address.ip()).collect();
                // Neighbours that miss it learn the address a little later.
                if let Err(error) = announce(self.netns, &self.key.ifname, mac, &addresses) {
                    eprintln!("causeway-bridge: {}", fault::kernel(&error));
                }
            }
        }
        self.same_namespace()?;
        let bridge =
            self.host.link_by_index(now.bridge.index).map_err(|error| fault::kernel(&error))?;
        now.bridge = bridge.ok_or_else(|| {
            Error::new(Code::Io, format!("bridge {} was removed meanwhile", now.bridge.name))
        })?;
        Ok(now)
    }
}

/// Sets what the kernel has; what it lacks or refuses is no reason to fail.
fn best_effort(netns: Option<&Netns>, wanted: &[(String, &str)]) {
    for pair in wanted {
        if let Err(error) = (Sysctl { netns }).ensure(std::slice::from_ref(pair))
            && !error.is_not_found()
        {
            eprintln!("causeway-bridge: {error}");
        }
    }
}

/// Sets IPv6 sysctls of the calling thread's namespace; a kernel without IPv6 is a clear error
/// (row F37).
fn require_ipv6(wanted: &[(String, &str)]) -> Result<(), Error> {
    let sysctl = Sysctl { netns: None };
    let known =
        sysctl.read("net/ipv6/conf/all/disable_ipv6").map_err(|error| fault::kernel(&error))?;
    if known.is_none() {
        return Err(Error::new(
            Code::Io,
            "this kernel runs without IPv6; remove the IPv6 range from ipam or boot without \
             ipv6.disable=1",
        ));
    }
    sysctl.ensure(wanted).map_err(|error| fault::kernel(&error))
}
