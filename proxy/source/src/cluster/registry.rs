//! Which subnets of the cluster network this node takes. Pure.
//!
//! In this order (row O-34): those asked for, or none; those that it has; those that it had, unless
//! another node has them now, which is a loss and not for the program to settle (row O-38); the one
//! with the number of the node's address (row S-11); free ones from a random one on. Reserved ones
//! are for those who ask (row O-36).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{ClusterConfig, NodeIdentity, part_len};
use ipnetwork::IpNetwork;

use super::Subnets;

/// What a node wants.
#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    pub(super) identity: &'a NodeIdentity,
    pub(super) config: &'a ClusterConfig,
    /// These or none.
    pub(super) asked: &'a [IpNetwork],
    /// What the node had.
    pub(super) previous: &'a [IpNetwork],
    /// Addresses of the node.
    pub(super) ips: &'a [IpAddr],
    pub(super) random: u64,
}

/// Who has what: parts as the nodes agreed on them, so that no two overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// Owners; `None`: the record cannot be read.
    pub(super) subnets: BTreeMap<IpNetwork, Option<NodeIdentity>>,
    pub(super) reservations: BTreeSet<IpNetwork>,
}

/// A subnet of the cluster network for each of its families, or why not: never `Held`.
pub(super) fn choose(wish: &Wish<'_>, taken: &Taken) -> Result<Vec<IpNetwork>, Subnets> {
    if let Some(lost) = lost(wish, taken) {
        return Err(lost);
    }
    wish.config.cluster_cidrs.iter().map(|cluster| wish.part_of(*cluster, taken)).collect()
}

/// Something that this node had, still wants, and another one has.
fn lost(wish: &Wish<'_>, taken: &Taken) -> Option<Subnets> {
    let still_wanted = |subnet: &&IpNetwork| {
        let asked = wish.asked.iter().find(|asked| asked.is_ipv4() == subnet.is_ipv4());
        wish.fits(**subnet) && asked.is_none_or(|asked| asked == *subnet)
    };
    wish.previous.iter().filter(still_wanted).find_map(|subnet| {
        let owner = taken.subnets.get(subnet)?.as_ref()?;
        (owner != wish.identity).then(|| Subnets::Lost { subnet: *subnet, owner: owner.clone() })
    })
}

impl Wish<'_> {
    fn part_of(&self, cluster: IpNetwork, taken: &Taken) -> Result<IpNetwork, Subnets> {
        let family = |subnet: &&IpNetwork| subnet.is_ipv4() == cluster.is_ipv4();
        if let Some(asked) = self.asked.iter().find(family) {
            return self.asked_for(*asked, taken);
        }
        let length = part_len(cluster, self.config.node_subnet_len);
        let fits = |subnet: &&IpNetwork| subnet.prefix() == length && within(cluster, **subnet);
        // Of several, what it is known to have: the others something else wrote in its name.
        let own = taken.subnets.iter().filter(|(_, owner)| owner.as_ref() == Some(self.identity));
        let own = own.map(|(subnet, _)| *subnet).filter(|subnet| fits(&subnet));
        if let Some(own) = own.min_by_key(|subnet| (!self.previous.contains(subnet), *subnet)) {
            return Ok(own);
        }
        let free = |subnet: &IpNetwork| taken.free(*subnet);
        if let Some(previous) = self.previous.iter().filter(fits).find(|subnet| free(subnet)) {
            return Ok(*previous);
        }
        let count = 1_u128.checked_shl(u32::from(length - cluster.prefix())).unwrap_or(u128::MAX);
        let part = |number: u128| part(cluster, length, number);
        let like = self.ips.iter().find(|ip| ip.is_ipv4() == cluster.is_ipv4());
        let preferred = like.or(self.ips.first()).map(|ip| number(*ip) % count);
        // The first part begins with the address of the cluster network itself: it comes last.
        let start = 1 + u128::from(self.random) % (count - 1).max(1);
        let in_order = (start..count).chain(1..start.min(count)).chain([0]);
        let preferred = preferred.filter(|number| *number != 0);
        // As many parts as there are records may be taken, each once: one more look finds a free
        // one, unless all are taken.
        preferred
            .into_iter()
            .chain(in_order)
            .map(part)
            .find(free)
            .ok_or_else(|| self.full(cluster, length, taken))
    }

    fn asked_for(&self, asked: IpNetwork, taken: &Taken) -> Result<IpNetwork, Subnets> {
        let owner = taken.subnets.get(&asked).filter(|owner| owner.as_ref() != Some(self.identity));
        let Some(owner) = owner else { return Ok(asked) };
        let owner = owner.as_ref().map_or_else(
            || "a node whose record cannot be read".to_owned(),
            |owner| format!("node {} (machine id {})", owner.node, owner.machine_id),
        );
        Err(Subnets::None(format!(
            "node-subnet {asked} belongs to {owner}: choose another one, or omit the setting"
        )))
    }

    fn full(&self, cluster: IpNetwork, length: u8, taken: &Taken) -> Subnets {
        let within = |subnets: &mut dyn Iterator<Item = &IpNetwork>| {
            subnets.filter(|subnet| overlap(cluster, **subnet)).count()
        };
        Subnets::None(format!(
            "cluster-cidr {cluster} has no /{length} left for this node: nodes have {}, {} are \
             reserved: use a wider cluster network or smaller node subnets (node-subnet-len), \
             remove reservations, or wait until the leases of removed nodes expire",
            within(&mut taken.subnets.keys()),
            within(&mut taken.reservations.iter()),
        ))
    }

    /// Whether it is a subnet of the cluster network as the settings cut it, or one asked for.
    fn fits(&self, subnet: IpNetwork) -> bool {
        self.asked.contains(&subnet) || is_part(self.config, subnet)
    }
}

impl Taken {
    fn free(&self, subnet: IpNetwork) -> bool {
        !self.subnets.contains_key(&subnet) && !self.reservations.contains(&subnet)
    }
}

/// Whether it is a subnet of the cluster network as the nodes agreed on them.
pub(super) fn is_part(config: &ClusterConfig, subnet: IpNetwork) -> bool {
    config.cluster_cidrs.iter().any(|cluster| {
        subnet.prefix() == part_len(*cluster, config.node_subnet_len) && within(*cluster, subnet)
    })
}

/// The part of this number.
fn part(cluster: IpNetwork, length: u8, number: u128) -> IpNetwork {
    let network = match cluster.network() {
        IpAddr::V4(address) => {
            let shift = 32 - u32::from(length);
            let offset = u32::try_from(number).ok().and_then(|number| number.checked_shl(shift));
            IpAddr::V4((u32::from(address) | offset.unwrap_or(0)).into())
        }
        IpAddr::V6(address) => {
            let offset = number.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(address) | offset).into())
        }
    };
    IpNetwork::new(network, length).unwrap_or(cluster)
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn within(cluster: IpNetwork, subnet: IpNetwork) -> bool {
    subnet.prefix() >= cluster.prefix() && overlap(cluster, subnet)
}

fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

#[cfg(test)]
mod tests;
