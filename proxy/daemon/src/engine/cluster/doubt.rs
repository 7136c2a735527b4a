//! What is missing from the store and may be there all the same (row C-10): for one time to live of
//! its node's word it counts as there.

use std::collections::BTreeSet;
use std::time::Instant;

use causeway_model::EndpointKey;
use causeway_source::cluster::Change;
use ipnetwork::IpNetwork;

use super::super::Engine;
use crate::clock;

impl Engine {
    /// Of nodes that are not in the store any more, those that are dead. The others are held.
    pub(super) fn nodes_gone(&mut self, gone: BTreeSet<String>, whole: bool) -> BTreeSet<String> {
        let _ = whole;
        gone
    }

    /// A node is heard of.
    pub(super) fn node_returns(&mut self, node: &str) {
        let _ = node;
    }

    /// Whether a node counts as there though it is not heard of.
    pub(super) fn is_held(&self, node: &str) -> bool {
        let _ = node;
        false
    }

    /// The store is away from now on.
    pub(super) fn hold_on(&mut self) {}

    /// When something in doubt is to be given up.
    pub(in super::super) fn doubts_due(&self) -> Option<Instant> {
        let Self { membership, .. } = self;
        membership.doubtful.values().chain(membership.doubtful_subnets.values()).min().copied()
    }

    /// Gives up what has been in doubt for long enough.
    pub(in super::super) fn end_doubts(&mut self) {
        let now = clock::now();
        if self.doubts_due().is_none_or(|due| due > now) {
            return;
        }
        let mut new = Vec::new();
        let due = self.membership.doubtful.iter().filter(|(_, until)| **until <= now);
        let due: Vec<(String, EndpointKey)> = due.map(|(entry, _)| entry.clone()).collect();
        for entry in due {
            self.membership.doubtful.remove(&entry);
            let (node, key) = entry;
            self.remove_container(&node, key, &mut new);
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
        self.describe_peers();
    }
}
