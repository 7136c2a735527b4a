//! Whose word about a node or a part of the cluster network counts, whatever records come and go in
//! the store. Pure.
//!
//! Daemons keep to rules: a node's name and its part are free once their keys are gone, and only then
//! does another node write them. So a record that changes hands without that was written by something
//! else. What stood before counts on while its node lives, which has one lifetime of a node's record
//! to put it right; a node that does so is not disturbed by what anything writes in its name.

use std::collections::BTreeMap;
use std::time::Instant;

use causeway_model::{NodeIdentity, NodeRecord, Peer, SubnetRecord};
use ipnetwork::IpNetwork;

/// Records that are in the store and do not count, or not yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Newcomers {
    nodes: BTreeMap<String, (NodeRecord, Instant)>,
    subnets: BTreeMap<IpNetwork, (SubnetRecord, Instant)>,
}

impl Newcomers {
    /// Whether a node's record takes the place of the one that is known. If not, it does so at
    /// `until`, unless another one is read before.
    pub(super) fn node(
        &mut self,
        known: Option<&NodeRecord>,
        new: &NodeRecord,
        until: Instant,
    ) -> bool {
        let name = &new.identity.node;
        let counts = known.is_none_or(|known| {
            known.identity == new.identity || known.created == 0 || new.created > known.created
        });
        if counts {
            self.nodes.remove(name);
        } else {
            let since = self.nodes.get(name).map_or(until, |(_, since)| *since);
            self.nodes.insert(name.clone(), (new.clone(), since));
        }
        counts
    }

    /// The same of a part of the cluster network. `holds`: the owner of the known record lives, and
    /// has no newer part.
    pub(super) fn subnet(
        &mut self,
        known: Option<&SubnetRecord>,
        new: &SubnetRecord,
        holds: bool,
        until: Instant,
    ) -> bool {
        let counts =
            known.is_none_or(|known| known.owner == new.owner || known.created == 0 || !holds);
        if counts {
            self.subnets.remove(&new.subnet);
        } else {
            let since = self.subnets.get(&new.subnet).map_or(until, |(_, since)| *since);
            self.subnets.insert(new.subnet, (new.clone(), since));
        }
        counts
    }

    /// The record of a node is gone from the store.
    pub(super) fn node_gone(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// The record of a part is gone from the store.
    pub(super) fn subnet_gone(&mut self, subnet: IpNetwork) {
        self.subnets.remove(&subnet);
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let nodes = self.nodes.values().map(|(_, until)| *until);
        nodes.chain(self.subnets.values().map(|(_, until)| *until)).min()
    }

    /// All have more time: the store was away.
    pub(super) fn extend(&mut self, until: Instant) {
        self.nodes.values_mut().for_each(|(_, at)| *at = until);
        self.subnets.values_mut().for_each(|(_, at)| *at = until);
    }

    /// What counts from now on, each said once.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<NodeRecord>, Vec<SubnetRecord>) {
        (take_due(&mut self.nodes, now), take_due(&mut self.subnets, now))
    }

    /// What does not count, in words, with the remedy.
    pub(super) fn describe(&self) -> Vec<String> {
        let by = |owner: &NodeIdentity| format!("{} (machine id {})", owner.node, owner.machine_id);
        let nodes = self.nodes.values().map(|(record, _)| {
            let machine = &record.identity.machine_id;
            format!("nodes/{} says that its machine id is {machine}", record.identity.node)
        });
        let subnets = self.subnets.values().map(|(record, _)| {
            format!("the record of {} says that it is of node {}", record.subnet, by(&record.owner))
        });
        nodes.chain(subnets).collect()
    }
}

fn take_due<K: Ord + Clone, T>(all: &mut BTreeMap<K, (T, Instant)>, now: Instant) -> Vec<T> {
    let over = all.iter().filter(|(_, (_, until))| *until <= now);
    let over: Vec<K> = over.map(|(key, _)| key.clone()).collect();
    over.iter().filter_map(|key| Some(all.remove(key)?.0)).collect()
}

/// Whether the owner of a part lives and has no other one of its family that was made later: then it
/// has not given it up.
pub(super) fn holds(
    record: &SubnetRecord,
    nodes: &BTreeMap<String, NodeRecord>,
    subnets: &BTreeMap<IpNetwork, SubnetRecord>,
) -> bool {
    let lives = nodes.get(&record.owner.node).is_some_and(|node| node.identity == record.owner);
    lives && !is_given_up(record, subnets)
}

/// Whether the owner of a part has another one of its family that was made later.
pub(super) fn is_given_up(
    record: &SubnetRecord,
    subnets: &BTreeMap<IpNetwork, SubnetRecord>,
) -> bool {
    subnets.values().any(|other| {
        other.owner == record.owner
            && other.subnet.is_ipv4() == record.subnet.is_ipv4()
            && other.created > record.created
    })
}

/// A record that was read, as old as the one of its owner that it takes the place of: whatever removes
/// a key makes no newcomer of the node that puts it back.
pub(super) fn aged(known: Option<&SubnetRecord>, mut new: SubnetRecord) -> SubnetRecord {
    let own = known.filter(|known| known.owner == new.owner && known.created != 0);
    new.created = own.map_or(new.created, |known| known.created.min(new.created));
    new
}

/// The nodes with the parts that they have: of one name the machine that lives, else the one whose
/// record is the oldest; of each family the oldest part, and the way to the node by the oldest of all.
pub(super) fn peers(
    nodes: &BTreeMap<String, NodeRecord>,
    subnets: &BTreeMap<IpNetwork, SubnetRecord>,
) -> BTreeMap<String, Peer> {
    let silent = |name: &str| Peer {
        name: name.to_owned(),
        ips: Vec::new(),
        subnets: Vec::new(),
        vtep: None,
        mtu: None,
        record: None,
        since: 0,
    };
    let living = nodes.iter().map(|(name, record)| {
        let (ips, since) = (record.ips.clone(), record.created);
        (name.clone(), Peer { ips, since, record: Some(record.clone()), ..silent(name) })
    });
    let mut peers: BTreeMap<String, Peer> = living.collect();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut by_age: Vec<&SubnetRecord> = subnets.values().collect();
    by_age.sort_by_key(|record| record.created);
    for record in by_age {
        let NodeIdentity { node, machine_id } = &record.owner;
        // What another machine of this name had is not where this one's containers are.
        let living = nodes.get(node).map(|record| &record.identity);
        if living.is_some_and(|living| living.machine_id != *machine_id)
            || *owners.entry(node).or_insert(machine_id) != machine_id
        {
            continue;
        }
        let peer = peers.entry(node.clone()).or_insert_with(|| silent(node));
        let family = |subnet: &IpNetwork| subnet.is_ipv4() == record.subnet.is_ipv4();
        if peer.subnets.iter().any(family) {
            continue;
        }
        if peer.subnets.is_empty() {
            peer.ips.clone_from(&record.ips);
            (peer.vtep, peer.mtu, peer.since) = (record.vtep, record.mtu, record.created);
        }
        peer.subnets.push(record.subnet);
        peer.subnets.sort();
    }
    peers
}

#[cfg(test)]
mod tests;
