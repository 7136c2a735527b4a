//! Which device carries the overlay: the one that has the node's address, where packets to the
//! other nodes leave by it; else those that the routes to them lead through (routed fabrics, whose
//! nodes have their address on lo or a dummy device).

use std::collections::BTreeMap;

/// MTU of Ethernet: what is left if no route leads anywhere.
const ETHERNET: u32 = 1500;

/// A device of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// MTU in bytes; of a way by it, that of the route if this one is less.
    pub mtu: u32,
    /// Packets to other nodes can leave by it: neither lo nor a dummy device nor the overlay itself.
    pub leads_out: bool,
}

/// What carries the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// The device that most of the other nodes are reached by.
    pub index: u32,
    /// Tunnels are bound to it; otherwise their packets follow the routes of the moment.
    pub bound: bool,
    /// The least MTU of the devices and routes that the other nodes are reached by.
    pub mtu: u32,
}

/// Chooses by the device `home` that has the node's address, those by which packets to the other
/// nodes leave, one per node, and the one of the default route.
///
/// Tunnels are bound to `home` or to none: routes change, and a bound device would have to be made
/// again with each change.
pub fn carrier(
    home: Device,
    ways: impl IntoIterator<Item = Device>,
    outside: Option<Device>,
) -> Carrier {
    let mut used: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
    for way in ways.into_iter().filter(|way| way.leads_out) {
        let (mtu, count) = used.entry(way.index).or_insert((way.mtu, 0));
        *mtu = way.mtu.min(*mtu);
        *count += 1;
    }
    if let Some((mtu, _)) = used.get(&home.index).filter(|_| home.leads_out) {
        return Carrier { index: home.index, bound: true, mtu: home.mtu.min(*mtu) };
    }
    let most = used.iter().max_by_key(|(index, (_, count))| (*count, u32::MAX - **index));
    if let Some((index, _)) = most {
        let mtu = used.values().map(|(mtu, _)| *mtu).min().unwrap_or(ETHERNET);
        return Carrier { index: *index, bound: false, mtu };
    }
    if home.leads_out {
        return Carrier { index: home.index, bound: true, mtu: home.mtu };
    }
    match outside.filter(|device| device.leads_out) {
        Some(device) => Carrier { index: device.index, bound: false, mtu: device.mtu },
        None => Carrier { index: home.index, bound: false, mtu: home.mtu.min(ETHERNET) },
    }
}

#[cfg(test)]
mod tests;
