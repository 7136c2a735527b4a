//! Addresses and routes of the container, and what makes the bridge its gateway.

use causeway_kernel::{
    AddressSpec, FORWARD_V6, Link, LinkChange, Netns, Sysctl, VethSpec, accept_ra_before_forwarding,
};
use cni_plugin::{Code, Error};
use ipnetwork::IpNetwork;

use super::links::best_effort;
use super::subnet_change::is_ours;
use super::{AddContext, SETTLE, random_mac};
use crate::config::Mode;
use crate::plan::{self, Addressing};
use crate::record::Record;
use crate::undo::{Done, Undo};
use crate::{fault, masq, node};

impl<'a> AddContext<'a> {
    /// Addresses and routes inside the container.
    pub(super) fn configure_container(
        &self,
        link: &Link,
        addressing: &Addressing,
    ) -> Result<(), Error> {
        if addressing.has_ipv6() {
            self.enable_ipv6()?;
        }
        for address in addressing.addresses() {
            let spec = AddressSpec { address, nodad: !self.config.dad };
            self.inside.add_address(link.index, &spec).map_err(fault::kernel)?;
        }
        if self.config.dad && addressing.has_ipv6() {
            self.inside.wait_addresses(link.index, SETTLE).map_err(fault::kernel)?;
        }
        let routes = match self.config.mode {
            Mode::Bridge => addressing.route_specs(link.index),
            Mode::Ptp => plan::ptp::container_routes(addressing, link.index),
        };
        self.inside.add_routes(&routes).map_err(fault::kernel)
    }

    /// IPv6 on the container's interfaces; its addresses outlive a link that goes down.
    fn enable_ipv6(&self) -> Result<(), Error> {
        let ifname = &self.key.ifname;
        let wanted = [
            ("net/ipv6/conf/lo/disable_ipv6".to_owned(), "0"),
            (format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0"),
        ];
        let keep = [(format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1")];
        let set = || require_ipv6(&wanted).map(|()| best_effort(&keep));
        self.netns.run(set).map_err(fault::netns)?
    }

    /// Gateway addresses and forwarding on the host. Returns the link of a vlan's gateway.
    pub(super) fn configure_gateway(
        &self,
        bridge: &Link,
        addressing: &Addressing,
    ) -> Result<Option<Link>, Error> {
        if !self.config.gateway.enabled {
            return Ok(None);
        }
        let vlan_gateway =
            self.gateway_link_name().map(|name| self.vlan_gateway(&name, bridge)).transpose()?;
        let link = vlan_gateway.as_ref().unwrap_or(bridge);
        let follows = self.config.auto_subnet && is_ours(bridge);
        self.gateway_addresses(link, &addressing.gateways, follows)?;
        self.forward(addressing)?;
        Ok(vlan_gateway)
    }

    /// Forwarding on the host for the families that have a gateway.
    pub(super) fn forward(&self, addressing: &Addressing) -> Result<(), Error> {
        let mut forwarding = Vec::new();
        if addressing.gateways.iter().any(IpNetwork::is_ipv4) {
            forwarding.push(("net/ipv4/ip_forward".to_owned(), "1"));
        }
        if addressing.gateways.iter().any(IpNetwork::is_ipv6) {
            let here = Sysctl { netns: None };
            if here.read(FORWARD_V6).map_err(fault::kernel)?.as_deref() == Some("0") {
                let keys = accept_ra_before_forwarding(self.host).map_err(fault::kernel)?;
                forwarding.extend(keys.into_iter().map(|key| (key, "2")));
            }
            forwarding.push((FORWARD_V6.to_owned(), "1"));
        }
        Sysctl { netns: None }.ensure(&forwarding).map_err(fault::kernel)
    }

    /// `follows`: gateways of the node's older subnets make room.
    fn gateway_addresses(
        &self,
        link: &Link,
        wanted: &[IpNetwork],
        follows: bool,
    ) -> Result<(), Error> {
        let _lock = follows.then(|| self.lock_gateways()).transpose()?;
        let present = self.host.addresses(link.index).map_err(fault::kernel)?;
        let present = if follows {
            self.retire_gateways(link, wanted, &present)?
        } else {
            present.into_iter().map(|state| state.address).collect()
        };
        let force = self.config.gateway.force_address;
        let changes = plan::address_changes(&link.name, wanted, &present, force)?;
        for address in changes.remove {
            self.host.delete_address(link.index, address).map_err(fault::kernel)?;
        }
        if changes.add.iter().any(IpNetwork::is_ipv6) {
            require_ipv6(&[(format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0")])?;
        }
        let added = !changes.add.is_empty();
        for address in changes.add {
            let spec = AddressSpec { address, nodad: !self.config.dad };
            match self.host.add_address(link.index, &spec) {
                Err(error) if !error.is_exists() => return Err(fault::kernel(error)),
                Ok(()) | Err(_) => {}
            }
        }
        if added { self.pin_mac(link) } else { Ok(()) }
    }

    /// A gateway keeps its address as ports come and go. One that lost its last port may have
    /// none: then it gets one.
    fn pin_mac(&self, link: &Link) -> Result<(), Error> {
        let now = self.host.link_by_index(link.index).map_err(fault::kernel)?;
        let mac =
            now.and_then(|link| link.mac).filter(|mac| mac.0 != [0; 6]).unwrap_or_else(random_mac);
        let change = LinkChange { mac: Some(mac), ..LinkChange::default() };
        self.host.change_link(link.index, &change).map_err(fault::kernel)
    }

    /// `<bridge>.<vlan>`: a veth pair of the host whose other end is a port of the vlan.
    fn vlan_gateway(&self, name: &str, bridge: &Link) -> Result<Link, Error> {
        let find = || self.host.link(name).map_err(fault::kernel);
        let port = plan::host_ifname(name, 0);
        // A container of the vlan could advertise itself as the node's router.
        let deaf =
            [name, port.as_str()].map(|link| (format!("net/ipv6/conf/{link}/accept_ra"), "0"));
        // It comes up last: one that is down was not finished.
        if let Some(link) = find()?.filter(|link| link.up) {
            best_effort(&deaf);
            return Ok(link);
        }
        let here = Netns::current().map_err(fault::netns)?;
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
            Err(error) if !error.is_exists() => return Err(fault::kernel(error)),
            Ok(()) | Err(_) => {}
        }
        let gone = || {
            Error::new(
                Code::TryAgainLater,
                format!("{name} disappeared while it was being created"),
            )
        };
        let port = self.host.link(&port).map_err(fault::kernel)?.ok_or_else(gone)?;
        let link = find()?.ok_or_else(gone)?;
        let native: Vec<_> =
            self.config.port.vlans.iter().filter(|vlan| vlan.pvid).copied().collect();
        self.vlans(&port, &native)?;
        best_effort(&deaf);
        self.guard_localhost(&link);
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        for index in [port.index, link.index] {
            self.host.change_link(index, &up).map_err(fault::kernel)?;
        }
        Ok(link)
    }

    /// Destinations that are not masqueraded, if masquerading is asked for.
    pub(super) fn never_masqueraded(&self) -> Result<Option<Vec<IpNetwork>>, Error> {
        match &self.config.masq_exclude {
            _ if !self.config.ip_masq => Ok(None),
            Some(exclude) => Ok(Some(exclude.clone())),
            None => node::never_masqueraded(&self.config.run_dir).map(Some),
        }
    }

    pub(super) fn masquerade(&self, record: &Record, undo: &mut Undo<'a>) -> Result<(), Error> {
        if !record.masq {
            return Ok(());
        }
        let exclude = record.masq_exclude.as_deref().unwrap_or_default();
        undo.push(Done::Masquerade(record.addresses.clone()));
        masq::add(&masq::Masquerade {
            key: self.key,
            addresses: &record.addresses,
            exclude,
            run_dir: &self.config.run_dir,
            backend: self.config.masq_backend,
        })
    }
}

/// Sets IPv6 sysctls of the calling thread's namespace; a kernel without IPv6 is a clear error
/// (row F37).
pub(super) fn require_ipv6(wanted: &[(String, &str)]) -> Result<(), Error> {
    let sysctl = Sysctl { netns: None };
    let known = sysctl.read("net/ipv6/conf/all/disable_ipv6").map_err(fault::kernel)?;
    if known.is_none() {
        return Err(Error::new(
            Code::Io,
            "IPv6 is disabled in this kernel; remove the IPv6 range from ipam or boot without \
             ipv6.disable=1",
        ));
    }
    sysctl.ensure(wanted).map_err(fault::kernel)
}
