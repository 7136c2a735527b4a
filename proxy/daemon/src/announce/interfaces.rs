//! On which interface an address is announced (rows L-09, L-35, L-43). Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_host::paths::{BRIDGE_ALIAS, VXLAN_ALIAS};
use causeway_kernel::{Link, LinkKind, Mac};
use causeway_ruleset::name;
use ipnetwork::IpNetwork;

/// Why a link can never announce, after its name.
pub(super) const USELESS: &str = "is a port of a bridge or bond, does not use ARP, or leads to \
                                  containers or other nodes";

/// An interface of this node that leads out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Index of the link.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its own addresses, each with the subnet.
    pub networks: Vec<IpNetwork>,
    /// Default gateways that are reached by it.
    pub gateways: Vec<IpAddr>,
    /// Why nothing can be announced there at present, in words.
    pub unfit: Option<String>,
}

/// Who may announce, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interfaces {
    /// All that could.
    pub all: Vec<Interface>,
    /// Only these, by name, if any are named; with or without an address of the subnet.
    pub only: Vec<String>,
    /// Names of links that can never announce.
    pub barred: Vec<String>,
    /// Addresses that this node has, each with the name of its link, whatever the link is.
    pub own: BTreeMap<IpAddr, String>,
    /// Links that frames of a family (`true`: IPv6) cannot be read from, with why.
    pub deaf: BTreeMap<(u32, bool), String>,
}

/// Why an address is announced on no interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unplaced {
    /// In words.
    pub reason: String,
    /// Something is broken. Otherwise the address is none for this node's segments: a router may
    /// bring its packets here without ARP.
    pub broken: bool,
}

/// The interface that a link is, if addresses of load balancers can ever be announced there: not a
/// member of a bridge or bond, and none that leads to containers or other nodes.
///
/// What is down or without carrier is one, and says so. A bond has the state of the bond; a bridge
/// has carrier when a port of it has.
pub(super) fn interface(
    link: &Link,
    links: &[Link],
    networks: &[(u32, IpNetwork)],
    gateways: Vec<IpAddr>,
) -> Option<Interface> {
    let mac = link.mac.filter(|_| link.resolves)?;
    if is_member(link, links) || is_ours(link) {
        return None;
    }
    let unfit = match (link.up, link.carrier) {
        (true, true) => None,
        (true, false) => Some(format!("{} has no carrier", link.name)),
        (false, _) => Some(format!("{} is down", link.name)),
    };
    let own = networks.iter().filter(|(index, _)| *index == link.index);
    Some(Interface {
        index: link.index,
        name: link.name.clone(),
        mac,
        networks: own.map(|(_, network)| *network).collect(),
        gateways,
        unfit,
    })
}

/// A VRF passes on what its members take in as if it were theirs.
fn is_member(link: &Link, links: &[Link]) -> bool {
    let vrf = LinkKind::Other("vrf".to_owned());
    link.master.is_some_and(|index| {
        !links.iter().any(|master| master.index == index && master.kind == vrf)
    })
}

/// Whether the plugins or the overlay made it.
fn is_ours(link: &Link) -> bool {
    if let LinkKind::Vxlan(vxlan) = &link.kind
        && link.name == causeway_overlay::device_name(vxlan.id)
    {
        return true;
    }
    let Some(alias) = link.alias.as_deref() else { return false };
    let network = alias.split_once(' ').and_then(|(_, rest)| rest.split_once('/'));
    let attachment =
        network.is_some_and(|(network, _)| alias.starts_with(&name::owner_network_prefix(network)));
    attachment || alias == BRIDGE_ALIAS || alias.starts_with(VXLAN_ALIAS)
}

impl Interfaces {
    /// The one of this index.
    pub(super) fn get(&self, index: u32) -> Option<&Interface> {
        self.all.iter().find(|interface| interface.index == index)
    }

    /// Where `address` is announced: on one interface, since a segment with two is to hear of one
    /// hardware address only. The one that announces it already (`current`) stays as long as it is
    /// as good as any.
    ///
    /// # Errors
    /// Why nowhere.
    pub(super) fn choose(
        &self,
        address: IpAddr,
        current: Option<u32>,
    ) -> Result<&Interface, Unplaced> {
        if let Some(link) = self.own.get(&address) {
            let reason =
                format!("{address} is an address of this node, on {link}; take it out of the pool");
            return Err(Unplaced { reason, broken: true });
        }
        let near = |interface: &&Interface| self.allows(interface) && interface.is_near(address);
        let mut near: Vec<&Interface> = self.all.iter().filter(near).collect();
        // Named ones need no address, in the order in which they were named.
        if near.is_empty() {
            let named = self.only.iter().filter_map(|name| self.named(name));
            near.extend(named);
        }
        near.sort_by_key(|interface| {
            let unfit = self.unfit(interface, address).is_some();
            let others = Some(interface.index) != current;
            (unfit, others, Reverse(interface.longest_prefix(address)))
        });
        let Some(interface) = near.first() else { return Err(self.nowhere(address)) };
        let unfit = self.unfit(interface, address).cloned();
        match interface.reserved(address).or(unfit) {
            Some(reason) => Err(Unplaced { reason, broken: true }),
            None => Ok(interface),
        }
    }

    /// Why it cannot announce this address at present.
    fn unfit<'a>(&'a self, interface: &'a Interface, address: IpAddr) -> Option<&'a String> {
        let deaf = self.deaf.get(&(interface.index, address.is_ipv6()));
        interface.unfit.as_ref().or(deaf)
    }

    /// Names that are no interface, for an event (row L-09).
    pub(super) fn missing(&self) -> Vec<&str> {
        let missing = self.only.iter().filter(|name| self.named(name).is_none());
        missing.filter(|name| !self.barred.contains(name)).map(String::as_str).collect()
    }

    /// Names that are links which can never announce.
    pub(super) fn useless(&self) -> impl Iterator<Item = &str> {
        self.only.iter().filter(|name| self.barred.contains(name)).map(String::as_str)
    }

    fn named(&self, name: &str) -> Option<&Interface> {
        self.all.iter().find(|interface| interface.name == name)
    }

    fn allows(&self, interface: &Interface) -> bool {
        self.only.is_empty() || self.only.contains(&interface.name)
    }

    fn nowhere(&self, address: IpAddr) -> Unplaced {
        if self.only.is_empty() {
            let reason = format!(
                "{address} is in the subnet of no interface of this node; choose a pool of one, or \
                 name the interface (--lb-interface)"
            );
            return Unplaced { reason, broken: false };
        }
        let missing = self.missing().into_iter().map(|name| format!("{name} is not there"));
        let useless = self.useless().map(|name| format!("{name} {USELESS}"));
        let all: Vec<String> = missing.chain(useless).collect();
        let reason = format!(
            "none of the named interfaces can announce it: {}; name another one (--lb-interface)",
            all.join(", ")
        );
        Unplaced { reason, broken: true }
    }
}

impl Interface {
    fn is_near(&self, address: IpAddr) -> bool {
        self.longest_prefix(address).is_some()
    }

    /// Of its subnets that have the address; `None`: none has it.
    fn longest_prefix(&self, address: IpAddr) -> Option<u8> {
        let near = self.networks.iter().filter(|network| network.contains(address));
        near.map(IpNetwork::prefix).max()
    }

    /// Why no machine may have the address, if it is one that its subnet keeps for itself: the first
    /// and last one of IPv4 (RFC 1122, section 3.2.1.3; not of /31, RFC 3021), the anycast address of
    /// routers of IPv6 (RFC 4291, section 2.6.1; not of /127, RFC 6164).
    fn reserved(&self, address: IpAddr) -> Option<String> {
        let near = self.networks.iter().filter(|network| network.contains(address));
        near.filter_map(|network| {
            let what = match network {
                IpNetwork::V4(network) if network.prefix() >= 31 => return None,
                IpNetwork::V6(network) if network.prefix() >= 127 => return None,
                IpNetwork::V4(network) if network.network() == address => "the network address",
                IpNetwork::V4(network) if network.broadcast() == address => "the broadcast address",
                IpNetwork::V6(network) if network.network() == address => {
                    "the anycast address of routers"
                }
                IpNetwork::V4(_) | IpNetwork::V6(_) => return None,
            };
            let (network, prefix) = (network.network(), network.prefix());
            Some(format!("{address} is {what} of {network}/{prefix}; take it out of the pool"))
        })
        .next()
    }
}

#[cfg(test)]
mod tests;
