//! Steps into the kernel: one request each.

use std::net::IpAddr;

use causeway_kernel::{
    AddressSpec, Error, FdbEntry, LinkChange, LinkKind, Mac, Netlink, Result, RouteSpec, Sysctl,
    VxlanAttributes,
};
use causeway_model::MacAddress;
use causeway_overlay::{
    Hop, ObservedRoute, OtherVxlan, ROUTE_PROTOCOL, Step, VxlanLink, Wanted, clash,
};
use ipnetwork::IpNetwork;

use super::look::{SeenDevice, attributes};

/// Takes steps.
pub(super) struct StepRunner<'a> {
    netlink: &'a Netlink,
    link: Option<&'a VxlanLink>,
    seen: SeenDevice,
    /// Index of the device for direct routes.
    underlay: u32,
    /// Index of the vxlan device; it changes when that is made anew.
    device: Option<u32>,
    /// A device that is made is guarded before it comes up.
    pub(super) guarded: bool,
}

impl<'a> StepRunner<'a> {
    pub(super) fn new(
        netlink: &'a Netlink,
        wanted: &'a Wanted,
        seen: SeenDevice,
        underlay: u32,
    ) -> Self {
        let device = seen.held.link.as_ref().map(|link| link.index);
        Self { netlink, link: wanted.link.as_ref(), seen, underlay, device, guarded: false }
    }

    /// The vxlan device, by index.
    pub(super) fn device(&self) -> Option<u32> {
        self.device
    }

    /// Takes all steps that can be taken; says in words what failed. `repair`: others made them
    /// necessary.
    pub(super) fn take(&mut self, steps: &[Step], repair: bool) -> Vec<String> {
        let mut failures = Vec::new();
        for step in steps {
            match repair {
                true => tracing::warn!("the overlay was changed by others: {}", words(step)),
                false => tracing::debug!("overlay: {}", words(step)),
            }
            let Err(error) = self.step(step) else { continue };
            failures.push(self.explain(step, &error));
            if matches!(step, Step::AddLink(_) | Step::RemoveLink { .. }) {
                // All that follows is about it, or waits for it.
                break;
            }
        }
        failures
    }

    /// What is set at the device beside what planning knows. Nobody counts it.
    pub(super) fn tune(&self, no_tx_checksum: bool) -> std::result::Result<(), String> {
        let (Some(link), Some(_)) = (self.link, self.device) else { return Ok(()) };
        let tuned = accept_no_advertisements(&link.name).and_then(|()| {
            if no_tx_checksum && self.netlink.tx_checksum(&link.name)? {
                self.netlink.set_tx_checksum(&link.name, false)?;
            }
            Ok(())
        });
        match tuned {
            // Another process removes it right now: the next look finds that.
            Err(error) if error.is_not_found() => Ok(()),
            tuned => tuned.map_err(|error| causeway_api::chain(&error)),
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let netlink = self.netlink;
        match step {
            Step::RemoveLink { index } => {
                netlink.delete_link(*index)?;
                self.device = None;
                Ok(())
            }
            Step::AddLink(link) => self.add_link(link),
            Step::SetLink { mac, mtu, up } => {
                let mac = mac.map(|mac| Mac(mac.0));
                let up = Some(true).filter(|_| *up);
                let change = LinkChange { mac, mtu: *mtu, up, ..LinkChange::default() };
                netlink.change_link(self.index()?, &change)
            }
            Step::AddAddress(address) => {
                let spec = AddressSpec { address: IpNetwork::from(*address), nodad: true };
                present(netlink.add_address(self.index()?, &spec))
            }
            Step::RemoveAddress(address) => netlink.delete_address(self.index()?, *address),
            Step::PutNeighbour(address, mac) => {
                netlink.put_neighbour(self.index()?, *address, Mac(mac.0))
            }
            Step::RemoveNeighbour(address) => netlink.delete_neighbour(self.index()?, *address),
            Step::PutFdb(mac, dst) => netlink.append_fdb(self.index()?, &entry(*mac, *dst)),
            Step::RemoveFdb(mac, dst) => netlink.delete_fdb(self.index()?, &entry(*mac, *dst)),
            Step::PutRoute(subnet, hop) => self.put_route(*subnet, hop),
            Step::RemoveRoute(route) => {
                let exact = self.seen.routes.get(route).map(Vec::as_slice).unwrap_or_default();
                exact.iter().try_for_each(|route| netlink.delete_route(route))
            }
        }
    }

    /// The index that everything on the vxlan device needs.
    fn index(&self) -> Result<u32> {
        self.device.ok_or_else(|| Error::errno("find the vxlan device", libc::ENODEV))
    }

    fn add_link(&mut self, link: &VxlanLink) -> Result<()> {
        let attributes = attributes(link);
        let made = self.netlink.add_vxlan_at(&link.name, link.mtu, Mac(link.mac.0), &attributes)?;
        self.device = Some(made.index);
        if self.guarded {
            // One that takes no guard is named by who looks after all links.
            drop(self.netlink.guard_localhost(made.index));
        }
        accept_no_advertisements(&link.name)
    }

    /// Replaces a route of ours; one of another program is never touched.
    fn put_route(&self, subnet: IpNetwork, hop: &Hop) -> Result<()> {
        let (dev, gateway, onlink) = match hop {
            Hop::Tunnel => (self.index()?, subnet.network(), true),
            Hop::Direct(gateway) => (self.underlay, *gateway, false),
        };
        let route = RouteSpec {
            gw: Some(gateway),
            onlink,
            protocol: Some(ROUTE_PROTOCOL),
            ..RouteSpec::new(subnet, dev)
        };
        let mut held = self.seen.routes.keys();
        let known = held.any(|held| held.subnet == subnet && held.dev != 0);
        let put = || match known {
            // Of a device that was removed, the route went with it; this makes it then.
            true => self.netlink.replace_route(&route),
            false => self.netlink.add_route(&route),
        };
        match put() {
            Err(error) if onlink && subnet.is_ipv6() && error.raw() == Some(libc::EINVAL) => {
                self.beside_others(gateway, dev, put)
            }
            done => done,
        }
    }

    /// IPv6 refuses a gateway `onlink` while another route leads to it by another device, be it the
    /// very one that is to be replaced. It has a route of its own meanwhile.
    fn beside_others(&self, gateway: IpAddr, dev: u32, put: impl Fn() -> Result<()>) -> Result<()> {
        let host = RouteSpec {
            protocol: Some(ROUTE_PROTOCOL),
            ..RouteSpec::new(IpNetwork::from(gateway), dev)
        };
        present(self.netlink.add_route(&host))?;
        let done = put();
        self.netlink.delete_route(&host)?;
        done
    }

    /// In words, with the remedy if one is known.
    fn explain(&self, step: &Step, error: &Error) -> String {
        let known = if let Step::PutRoute(subnet, _) = step {
            error.is_exists().then(|| self.same_route(*subnet)).flatten()
        } else {
            // The port is opened when the device comes up.
            let about_link = matches!(step, Step::AddLink(_) | Step::SetLink { up: true, .. });
            let taken = error.is_exists() || error.raw() == Some(libc::EADDRINUSE);
            self.link.filter(|_| about_link && taken).and_then(|link| self.same_tunnel(link))
        };
        known.unwrap_or_else(|| causeway_api::chain(error))
    }

    /// Who has our VNI and port (row O-18).
    fn same_tunnel(&self, wanted: &VxlanLink) -> Option<String> {
        let links = self.netlink.links().ok()?.into_iter();
        let others: Vec<OtherVxlan> = links
            .filter_map(|link| {
                let LinkKind::Vxlan(VxlanAttributes { id, port, local, .. }) = link.kind else {
                    return None;
                };
                Some(OtherVxlan { name: link.name, id, port, local })
            })
            .collect();
        Some(clash(wanted, &others))
    }

    /// Who has a route to a peer's subnet.
    fn same_route(&self, subnet: IpNetwork) -> Option<String> {
        let routes = self.netlink.routes_to(subnet).ok()?;
        let other = routes.iter().find(|route| route.protocol != Some(ROUTE_PROTOCOL))?;
        let dev = self.netlink.link_by_index(other.dev).ok().flatten();
        let dev = dev.map_or_else(|| format!("link {}", other.dev), |link| link.name);
        Some(format!(
            "there is a route to {subnet} by {dev} already that causewayd did not make; remove it \
             (ip route del {subnet} dev {dev})"
        ))
    }
}

/// A step as a line of a log.
fn words(step: &Step) -> String {
    match step {
        Step::RemoveLink { index } => format!("remove link {index}"),
        Step::AddLink(link) => {
            let VxlanLink { name, id, port, local, mtu, mac, .. } = link;
            format!("add vxlan device {name} id {id} port {port} local {local} mtu {mtu} mac {mac}")
        }
        Step::SetLink { mac, mtu, up } => {
            let mac = mac.map(|mac| format!(" mac {mac}")).unwrap_or_default();
            let mtu = mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
            format!("set the device{mac}{mtu}{}", if *up { " up" } else { "" })
        }
        Step::AddAddress(address) => format!("add address {address}"),
        Step::RemoveAddress(address) => format!("remove address {address}"),
        Step::PutNeighbour(address, mac) => format!("put neighbour {address} at {mac}"),
        Step::RemoveNeighbour(address) => format!("remove neighbour {address}"),
        Step::PutFdb(mac, to) => format!("put FDB entry {mac} to {to}"),
        Step::RemoveFdb(mac, to) => format!("remove FDB entry {mac} to {to}"),
        Step::PutRoute(subnet, Hop::Tunnel) => format!("put route {subnet} through the device"),
        Step::PutRoute(subnet, Hop::Direct(by)) => format!("put route {subnet} by {by}"),
        Step::RemoveRoute(ObservedRoute { subnet, .. }) => format!("remove a route to {subnet}"),
    }
}

/// Its addresses and routes come from us alone (row O-04).
fn accept_no_advertisements(device: &str) -> Result<()> {
    let key = format!("net/ipv6/conf/{device}/accept_ra");
    match (Sysctl { netns: None }).ensure(&[(key, "0")]) {
        // No IPv6.
        Err(error) if error.is_not_found() => Ok(()),
        done => done,
    }
}

fn entry(mac: MacAddress, dst: IpAddr) -> FdbEntry {
    FdbEntry { mac: Mac(mac.0), dst }
}

fn present(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.is_exists() => Ok(()),
        done => done,
    }
}
