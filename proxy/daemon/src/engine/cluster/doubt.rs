//! What is missing from the store and may be there all the same (row C-10): it counts as there until
//! its time is over. [`Hold`](super::super::hold::Hold) decides about nodes and containers.

use std::collections::BTreeSet;
use std::time::Instant;

use causeway_model::EndpointKey;
use causeway_source::cluster::Change;
use ipnetwork::IpNetwork;

use super::super::hold::{Cause, Gone};
use super::super::{Engine, tenure};
use super::Membership;
use super::view::{Batch, few};
use crate::clock;
use crate::conditions::{Change as Condition, Concern};

impl Engine {
    /// Of nodes that are not in the store any more, those that are dead. The others are held.
    pub(super) fn nodes_gone(
        &mut self,
        mut gone: BTreeSet<String>,
        cause: Cause,
    ) -> BTreeSet<String> {
        // Ours comes back by itself.
        gone.remove(&*self.facts.name);
        gone.retain(|name| self.membership.nodes.contains_key(name));
        if gone.is_empty() {
            return gone;
        }
        let nodes = self.membership.nodes.keys();
        let hold = &self.membership.hold;
        let alive = nodes.filter(|name| {
            **name != *self.facts.name && !gone.contains(*name) && !hold.holds(name)
        });
        let alive = alive.count();
        self.membership.hold.vanished(clock::now(), &gone, alive, cause)
    }

    /// A node is heard of.
    pub(super) fn node_returns(&mut self, node: &str) {
        let index = &self.state.index;
        let keys = index.containers_of(node).map(|(one, _)| one.record.key.clone());
        self.membership.hold.returned(clock::now(), node, keys);
    }

    /// Says which nodes are held.
    pub(super) fn describe_held(&mut self) {
        let held = self.membership.hold.held();
        let Some(cluster) = &mut self.state.cluster else { return };
        if cluster.held_nodes == *held {
            return;
        }
        cluster.held_nodes.clone_from(held);
        self.pending.touched.nodes.extend(held.iter().cloned());
        if held.is_empty() {
            self.state.conditions.clear(&Concern::HeldNodes);
            return;
        }
        let text = format!(
            "{} vanished from the cluster store after it was away or listed anew: it may have lost \
             them. They count as there for {} and are given up then, unless they are heard of",
            few(held.iter()),
            clock::words(self.state.settings.endpoint_ttl)
        );
        self.say_paced(Concern::HeldNodes, &text);
        self.state.conditions.set(Concern::HeldNodes, text);
    }

    /// A part of the cluster network is nobody's any more. While its node is held, so is that.
    pub(super) fn subnet_gone(&mut self, subnet: IpNetwork, new: &mut Vec<Change>) {
        let Membership { nodes, subnets, newcomers, hold, .. } = &mut self.membership;
        newcomers.subnet_gone(subnet);
        let Some(record) = subnets.get(&subnet) else { return };
        // A node that lives and wants it puts the record back.
        if hold.holds(&record.owner.node) || tenure::holds(record, nodes, subnets) {
            let until = clock::now() + self.state.settings.endpoint_ttl;
            self.membership.doubtful_subnets.insert(subnet, until);
            return;
        }
        self.membership.doubtful_subnets.remove(&subnet);
        self.membership.subnets.remove(&subnet);
        new.push(Change::SubnetGone(subnet));
    }

    /// Parts whose record is gone, of nodes that have taken another one since, are nobody's.
    pub(super) fn drop_given_up(&mut self, new: &mut Vec<Change>) {
        let Membership { subnets, doubtful_subnets, .. } = &mut self.membership;
        let given_up = doubtful_subnets.keys().copied().filter(|subnet| {
            subnets.get(subnet).is_none_or(|record| tenure::is_given_up(record, subnets))
        });
        for subnet in given_up.collect::<Vec<_>>() {
            doubtful_subnets.remove(&subnet);
            if subnets.remove(&subnet).is_some() {
                new.push(Change::SubnetGone(subnet));
            }
        }
    }

    /// Says which records do not count.
    pub(super) fn describe_newcomers(&mut self) {
        let all = self.membership.newcomers.describe();
        if all.is_empty() {
            self.state.conditions.clear(&Concern::ClusterRecords);
            return;
        }
        let text = format!(
            "records of the cluster store that changed hands while their nodes live: {}; what stood \
             before counts for {}: unless its node puts it right by then, see who writes below \
             --etcd-prefix beside causewayd",
            few(all.iter()),
            clock::words(self.state.settings.endpoint_ttl)
        );
        let change = self.state.conditions.set(Concern::ClusterRecords, text.clone());
        if change == Condition::Appeared {
            self.say_paced(Concern::ClusterRecords, &text);
        }
    }

    fn say_paced(&mut self, concern: Concern, text: &str) {
        if self.neighbourhood.said.may(concern, clock::now()) {
            tracing::error!("{text}");
        }
    }

    /// The store answers again: what is in doubt has all the time to be heard of.
    pub(super) fn doubt_anew(&mut self) {
        let now = clock::now();
        self.membership.hold.connected(now);
        let until = now + self.state.settings.endpoint_ttl;
        self.membership.doubtful_subnets.values_mut().for_each(|at| *at = until);
        self.membership.newcomers.extend(until);
    }

    /// When something in doubt is to be given up. Never while the store, which could tell, is away.
    pub(in super::super) fn doubts_due(&self) -> Option<Instant> {
        self.state.cluster.as_ref()?.connection.as_ref().ok()?;
        let subnets = self.membership.doubtful_subnets.values().copied();
        let all = subnets.chain(self.membership.hold.next());
        all.chain(self.membership.newcomers.next()).min()
    }

    /// Gives up what has been in doubt for long enough.
    pub(in super::super) fn end_doubts(&mut self) {
        let now = clock::now();
        if self.doubts_due().is_none_or(|due| due > now) {
            return;
        }
        let mut batch = Batch::default();
        let (nodes, subnets) = self.membership.newcomers.due(now);
        nodes.into_iter().for_each(|record| self.take_node(record, &mut batch));
        subnets.into_iter().for_each(|record| self.take_subnet(record, &mut batch));
        let mut new = batch.new;
        for gone in self.membership.hold.due(now) {
            match gone {
                Gone::Node(node) => self.remove_nodes(BTreeSet::from([node]), &mut new),
                Gone::Containers(node, keys) => self.remove_containers(&node, keys, &mut new),
            }
        }
        let due = self.membership.doubtful_subnets.iter().filter(|(_, until)| **until <= now);
        let due: Vec<IpNetwork> = due.map(|(subnet, _)| *subnet).collect();
        for subnet in due {
            self.membership.doubtful_subnets.remove(&subnet);
            if self.membership.subnets.remove(&subnet).is_some() {
                new.push(Change::SubnetGone(subnet));
            }
        }
        self.keep(&new);
        self.describe_held();
        self.describe_newcomers();
        self.describe_peers();
    }

    fn remove_containers(
        &mut self,
        node: &str,
        keys: BTreeSet<EndpointKey>,
        new: &mut Vec<Change>,
    ) {
        for key in keys {
            self.remove_container(node, key, new);
        }
    }
}
