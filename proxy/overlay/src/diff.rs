//! From the present and the wanted state of the kernel to steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::MacAddress;
use ipnetwork::IpNetwork;

use crate::{Hop, Observed, ObservedLink, ObservedRoute, Step, VxlanLink, Wanted};

/// What to change. `underlay` is the index of the device for direct routes. Empty if nothing
/// differs (I4).
///
/// What is put comes in the order in which packets need it, from the device to the route; what is
/// removed comes after that and the other way round. A device whose attributes cannot be changed
/// goes first, as its successor has the same name; one that nothing needs any more goes last.
pub fn diff(held: &Observed, wanted: &Wanted, underlay: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let left = link(held, wanted.link.as_ref(), &mut steps);
    let fdb = fdb(&left.fdb, &wanted.fdb);
    steps.extend(fdb.before);
    let same = |ip: &IpAddr, mac: &MacAddress| left.neighbours.get(ip) == Some(mac);
    let neighbours = wanted.neighbours.iter().filter(|(ip, mac)| !same(ip, mac));
    steps.extend(neighbours.map(|(ip, mac)| Step::PutNeighbour(*ip, *mac)));
    let device = left.link.map(|link| link.index);
    let routes = routes(&left.routes, &wanted.routes, &|hop| match hop {
        Hop::Tunnel => device,
        Hop::Direct(_) => Some(underlay),
    });
    steps.extend(routes.before);
    steps.extend(routes.after);
    let stale = left.neighbours.keys().filter(|ip| !wanted.neighbours.contains_key(ip));
    steps.extend(stale.map(|ip| Step::RemoveNeighbour(*ip)));
    steps.extend(fdb.after);
    if let (None, Some(link)) = (&wanted.link, &held.link) {
        steps.push(Step::RemoveLink { index: link.index });
    }
    steps
}

/// What is left of what the kernel holds once the device is right.
struct Left<'a> {
    /// The device, if it stays.
    link: Option<&'a ObservedLink>,
    neighbours: BTreeMap<IpAddr, MacAddress>,
    fdb: BTreeSet<(MacAddress, IpAddr)>,
    routes: BTreeSet<ObservedRoute>,
}

/// Steps before those for one kind of thing that packets need, and steps after them.
#[derive(Default)]
struct Around {
    before: Vec<Step>,
    after: Vec<Step>,
}

fn link<'a>(held: &'a Observed, wanted: Option<&VxlanLink>, steps: &mut Vec<Step>) -> Left<'a> {
    match (&held.link, wanted) {
        (Some(link), Some(wanted)) if link.fits => alter(held, (link, wanted), steps),
        (Some(link), Some(wanted)) => {
            steps.push(Step::RemoveLink { index: link.index });
            make(wanted, steps);
            let others = held.routes.iter().filter(|route| route.dev != link.index);
            Left::bare(others.cloned().collect())
        }
        (None, Some(wanted)) => {
            make(wanted, steps);
            Left::bare(held.routes.clone())
        }
        // What is on the device goes with it; its routes may have to be replaced before.
        (_, None) => Left::bare(held.routes.clone()),
    }
}

impl Left<'_> {
    fn bare(routes: BTreeSet<ObservedRoute>) -> Self {
        Self { link: None, neighbours: BTreeMap::new(), fdb: BTreeSet::new(), routes }
    }
}

fn make(wanted: &VxlanLink, steps: &mut Vec<Step>) {
    steps.push(Step::AddLink(wanted.clone()));
    steps.push(Step::SetLink { mac: None, mtu: None, up: true });
    steps.extend(wanted.addresses.iter().map(|ip| Step::AddAddress(*ip)));
}

fn alter<'a>(
    held: &'a Observed,
    (link, wanted): (&'a ObservedLink, &VxlanLink),
    steps: &mut Vec<Step>,
) -> Left<'a> {
    let mac = (link.mac != Some(wanted.mac)).then_some(wanted.mac);
    let mtu = (link.mtu != wanted.mtu).then_some(wanted.mtu);
    if mac.is_some() || mtu.is_some() || !link.up {
        steps.push(Step::SetLink { mac, mtu, up: !link.up });
    }
    let hosts: BTreeSet<IpNetwork> =
        wanted.addresses.iter().map(|ip| IpNetwork::from(*ip)).collect();
    steps.extend(hosts.difference(&link.addresses).map(|host| Step::AddAddress(host.ip())));
    let stale: BTreeSet<IpNetwork> = link.addresses.difference(&hosts).copied().collect();
    steps.extend(stale.iter().map(|address| Step::RemoveAddress(*address)));
    let mut left = Left {
        link: Some(link),
        neighbours: held.neighbours.clone(),
        fdb: held.fdb.clone(),
        routes: held.routes.clone(),
    };
    if mac.is_some() {
        left.neighbours.clear();
    }
    // The last IPv4 address of a device takes all IPv4 routes through it along.
    if stale.iter().any(IpNetwork::is_ipv4) && !hosts.iter().any(IpNetwork::is_ipv4) {
        left.routes.retain(|route| route.dev != link.index || route.subnet.is_ipv6());
    }
    left
}

/// One destination for each address that is wanted (row O-62).
fn fdb(held: &BTreeSet<(MacAddress, IpAddr)>, wanted: &BTreeMap<MacAddress, IpAddr>) -> Around {
    let mut steps = Around::default();
    for (mac, ip) in wanted {
        let mut others: Vec<&(MacAddress, IpAddr)> =
            held.iter().filter(|(of, to)| of == mac && to != ip).collect();
        let present = held.contains(&(*mac, *ip));
        if !present {
            // This one is what the put replaces.
            others.pop();
        }
        steps.before.extend(others.into_iter().map(|(mac, to)| Step::RemoveFdb(*mac, *to)));
        if !present {
            steps.before.push(Step::PutFdb(*mac, *ip));
        }
    }
    let stale = held.iter().filter(|(mac, _)| !wanted.contains_key(mac));
    steps.after.extend(stale.map(|(mac, ip)| Step::RemoveFdb(*mac, *ip)));
    steps
}

/// One route for each subnet that is wanted. `device` tells the index of a hop's device if it is
/// there already.
fn routes(
    held: &BTreeSet<ObservedRoute>,
    wanted: &BTreeMap<IpNetwork, Hop>,
    device: &dyn Fn(&Hop) -> Option<u32>,
) -> Around {
    let mut steps = Around::default();
    for (subnet, hop) in wanted {
        let gateway = match hop {
            Hop::Tunnel => subnet.network(),
            Hop::Direct(ip) => *ip,
        };
        let right =
            device(hop).map(|dev| ObservedRoute { subnet: *subnet, dev, gateway: Some(gateway) });
        let present = right.as_ref().is_some_and(|right| held.contains(right));
        let mut others: Vec<&ObservedRoute> = held
            .iter()
            .filter(|route| route.subnet == *subnet && Some(*route) != right.as_ref())
            .collect();
        if !present {
            // This one is what the put replaces.
            others.pop();
        }
        steps.before.extend(others.into_iter().cloned().map(Step::RemoveRoute));
        if !present {
            steps.before.push(Step::PutRoute(*subnet, hop.clone()));
        }
    }
    let stale = held.iter().filter(|route| !wanted.contains_key(&route.subnet));
    steps.after.extend(stale.cloned().map(Step::RemoveRoute));
    steps
}

#[cfg(test)]
mod tests;
