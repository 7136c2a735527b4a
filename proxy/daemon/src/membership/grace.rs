//! What is missing from the store and may be there all the same (row C-10): it counts as there until
//! its time is over. [`NodeGrace`](super::node_grace::NodeGrace) decides about nodes and containers.

use std::collections::BTreeSet;
use std::time::Instant;

use causeway_model::EndpointKey;
use causeway_source::cluster::Change;
use ipnetwork::IpNetwork;

use super::changes::{Batch, few};
use super::node_grace::{Cause, Gone};
use super::{Effect, LocalState, LogRule, Membership, tenure};
use crate::clock;
use crate::conditions::Concern;

impl Membership {
    /// Of nodes that are not in the store any more, those that are dead. The others may live.
    pub(super) fn nodes_gone(
        &mut self,
        mut gone: BTreeSet<String>,
        cause: Cause,
        now: Instant,
    ) -> BTreeSet<String> {
        // Ours comes back by itself.
        gone.remove(&*self.own);
        gone.retain(|name| self.nodes.contains_key(name));
        if gone.is_empty() {
            return gone;
        }
        let alive = self.nodes.keys().filter(|name| {
            **name != *self.own && !gone.contains(*name) && !self.nodes_grace.is_missing(name)
        });
        let alive = alive.count();
        self.nodes_grace.vanished(now, &gone, alive, cause)
    }

    /// A node is heard of.
    pub(super) fn node_returns(&mut self, node: &str, local: LocalState<'_>, now: Instant) {
        let keys = local.index.containers_of(node).map(|(one, _)| one.record.key.clone());
        self.nodes_grace.returned(now, node, keys);
    }

    /// Says which nodes vanished with too many others.
    pub(super) fn describe_held(&mut self) -> Vec<Effect> {
        let held = self.nodes_grace.held();
        if self.cluster.held_nodes == *held {
            return Vec::new();
        }
        self.cluster.held_nodes.clone_from(held);
        let text = (!held.is_empty()).then(|| {
            format!(
                "{} disappeared from the cluster store after an outage or a restore; treated as \
                 alive for {}, then removed unless they return",
                few(held.iter()),
                clock::words(self.ttl)
            )
        });
        vec![
            Effect::TouchNodes(held.iter().cloned().collect()),
            Effect::Condition(Concern::HeldNodes, text, LogRule::Paced),
        ]
    }

    /// A part of the cluster network is nobody's any more. While its node may live, so may that.
    pub(super) fn subnet_gone(&mut self, subnet: IpNetwork, now: Instant, new: &mut Vec<Change>) {
        self.newcomers.subnet_gone(subnet);
        let Some(record) = self.subnets.get(&subnet) else { return };
        // A node that lives and wants it puts the record back.
        if self.nodes_grace.is_missing(&record.owner.node)
            || tenure::holds(record, &self.nodes, &self.subnets)
        {
            self.subnets_grace.insert(subnet, now + self.ttl);
            return;
        }
        self.subnets_grace.remove(&subnet);
        self.subnets.remove(&subnet);
        new.push(Change::SubnetGone(subnet));
    }

    /// Parts whose record is gone, of nodes that have taken another one since, are nobody's.
    pub(super) fn drop_given_up(&mut self, new: &mut Vec<Change>) {
        let Self { subnets, subnets_grace, .. } = self;
        let given_up = subnets_grace.keys().copied().filter(|subnet| {
            subnets.get(subnet).is_none_or(|record| tenure::is_given_up(record, subnets))
        });
        for subnet in given_up.collect::<Vec<_>>() {
            subnets_grace.remove(&subnet);
            if subnets.remove(&subnet).is_some() {
                new.push(Change::SubnetGone(subnet));
            }
        }
    }

    /// Says which records do not count.
    pub(super) fn describe_newcomers(&self) -> Effect {
        let all = self.newcomers.describe();
        let text = (!all.is_empty()).then(|| {
            format!(
                "records of the cluster store that changed hands while their nodes live: {}; what \
                 stood before counts for {}: unless its node puts it right by then, see who writes \
                 below --etcd-prefix beside causewayd",
                few(all.iter()),
                clock::words(self.ttl)
            )
        });
        Effect::Condition(Concern::ClusterRecords, text, LogRule::AppearedPaced)
    }

    /// The store answers again: what is in doubt has all the time to be heard of.
    pub(super) fn renew_grace(&mut self, now: Instant) {
        self.nodes_grace.connected(now);
        let until = now + self.ttl;
        self.subnets_grace.values_mut().for_each(|at| *at = until);
        self.newcomers.extend(until);
    }

    /// When something in doubt is to be given up. Never while the store, which could tell, is away.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.cluster.connection.as_ref().ok()?;
        let subnets = self.subnets_grace.values().copied();
        let all = subnets.chain(self.nodes_grace.next());
        all.chain(self.newcomers.next()).min()
    }

    /// Gives up what has been in doubt for long enough.
    pub(crate) fn on_time(&mut self, local: LocalState<'_>, now: Instant) -> Vec<Effect> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut batch = Batch::new(local, now);
        let (nodes, subnets) = self.newcomers.due(now);
        nodes.into_iter().for_each(|record| self.take_node(record, &mut batch));
        subnets.into_iter().for_each(|record| self.take_subnet(record, &mut batch));
        for gone in self.nodes_grace.due(now) {
            match gone {
                Gone::Node(node) => self.remove_nodes(BTreeSet::from([node]), &mut batch),
                Gone::Containers(node, keys) => self.remove_containers(&node, keys, &mut batch),
            }
        }
        let due = self.subnets_grace.iter().filter(|(_, until)| **until <= now);
        let due: Vec<IpNetwork> = due.map(|(subnet, _)| *subnet).collect();
        for subnet in due {
            self.subnets_grace.remove(&subnet);
            if self.subnets.remove(&subnet).is_some() {
                batch.new.push(Change::SubnetGone(subnet));
            }
        }
        let mut effects = vec![Effect::Adopt { changes: batch.new, on_disk: false }];
        effects.extend(self.describe_held());
        effects.push(self.describe_newcomers());
        effects.extend(self.describe_peers(local));
        effects
    }

    fn remove_containers(&self, node: &str, keys: BTreeSet<EndpointKey>, batch: &mut Batch<'_>) {
        for key in keys {
            self.remove_container(node, key, batch);
        }
    }
}
