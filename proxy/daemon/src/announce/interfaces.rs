//! On which interface an address is announced (rows L-09, L-35, L-43). Pure.

use std::net::IpAddr;

use causeway_host::paths::{BRIDGE_ALIAS, VXLAN_ALIAS};
use causeway_kernel::{Link, LinkKind, Mac};
use causeway_ruleset::name;
use ipnetwork::IpNetwork;

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
        let near = |interface: &&Interface| self.allows(interface) && interface.is_near(address);
        let mut near: Vec<&Interface> = self.all.iter().filter(near).collect();
        // Named ones need no address, in the order in which they were named.
        if near.is_empty() {
            let named = self.only.iter().filter_map(|name| self.named(name));
            near.extend(named);
        }
        near.sort_by_key(|interface| (interface.unfit.is_some(), Some(interface.index) != current));
        match near.first() {
            None => Err(self.nowhere(address)),
            Some(Interface { unfit: Some(unfit), .. }) => {
                Err(Unplaced { reason: unfit.clone(), broken: true })
            }
            Some(interface) => Ok(interface),
        }
    }

    /// Names that are no interface, for an event (row L-09).
    pub(super) fn missing(&self) -> Vec<&str> {
        let missing = self.only.iter().filter(|name| self.named(name).is_none());
        missing.map(String::as_str).collect()
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
        let reason = format!(
            "no interface {} is fit to announce on; name another one (--lb-interface)",
            self.missing().join(", ")
        );
        Unplaced { reason, broken: true }
    }
}

impl Interface {
    fn is_near(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests;
