//! Which vanished nodes are believed to be gone, and which are held for a while (row C-10).
//!
//! The lease of a node that dies runs out, and its record vanishes: that is believed at once. But a
//! store that stood still lets all leases run out the moment it goes on, and one that was wiped has
//! no records at all. So if more than half of the peers vanish together soon after the store came
//! back, or in a list of everything, they are held for one TTL: living nodes publish themselves again
//! in that time. An only peer is no majority of itself. The last word on time is a monotonic clock's
//! (row C-09).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use causeway_model::EndpointKey;

/// Vanished nodes, and nodes that came back with containers not heard of since.
#[derive(Clone, Debug)]
pub(super) struct NodeGrace {
    ttl: Duration,
    /// When the store last began to answer.
    connected: Option<Instant>,
    /// Nodes that vanished less than a TTL ago and did not come back, believed or held.
    vanished: BTreeMap<String, Instant>,
    in_grace: BTreeMap<String, Grace>,
    /// Those of [`Grace::Missing`] that vanished with too many others.
    held: BTreeSet<String>,
}

#[derive(Clone, Debug)]
enum Grace {
    /// Its record is not there.
    Missing {
        until: Instant,
        /// Containers that were put since.
        confirmed: BTreeSet<EndpointKey>,
    },
    /// Its record is there again.
    Returning {
        until: Instant,
        /// Containers that were not put since.
        stale: BTreeSet<EndpointKey>,
    },
}

/// How nodes vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The store said so.
    Change,
    /// The same, and its containers are there: its lease, on which all of it hangs, did not run out.
    Alone,
    /// They are missing in a list of all.
    Reset,
    /// They are missing in a list of all, and the store has been wiped or restored since they were
    /// seen.
    OtherStore,
}

/// What is believed to be gone in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// A node did not come back.
    Node(String),
    /// A node came back without these containers.
    Containers(String, BTreeSet<EndpointKey>),
}

impl NodeGrace {
    /// Holds for `ttl`, the lifetime of a node's record after the last word of its node.
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            connected: None,
            vanished: BTreeMap::new(),
            in_grace: BTreeMap::new(),
            held: BTreeSet::new(),
        }
    }

    /// The store answers, for the first time or again: whoever is in its grace can be heard of from now on.
    pub(super) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
        for grace in self.in_grace.values_mut() {
            let (Grace::Missing { until, .. } | Grace::Returning { until, .. }) = grace;
            *until = (*until).max(now + self.ttl);
        }
    }

    /// Records of `nodes` vanished together; those of `alive` other peers are there. Returns which
    /// are to be believed gone now; the others are held. Held ones stay so, if named again.
    ///
    /// Few that vanish at a doubtful time are held, too, for the moment in which others may follow
    /// them.
    pub(super) fn vanished(
        &mut self,
        now: Instant,
        nodes: &BTreeSet<String>,
        alive: usize,
        cause: Cause,
    ) -> BTreeSet<String> {
        let (ttl, grace) = (self.ttl, &self.in_grace);
        self.vanished.retain(|node, at| {
            now.saturating_duration_since(*at) < ttl || grace.contains_key(node)
        });
        for node in nodes {
            self.vanished.entry(node.clone()).or_insert(now);
        }
        let doubtful = cause != Cause::Change || self.recently_connected(now);
        let mut believed = BTreeSet::new();
        for node in nodes {
            match self.in_grace.get(node) {
                Some(Grace::Missing { .. }) => {}
                Some(Grace::Returning { .. }) | None if doubtful => {
                    let until = now + self.moment();
                    let missing = Grace::Missing { until, confirmed: BTreeSet::new() };
                    self.in_grace.insert(node.clone(), missing);
                }
                Some(Grace::Returning { .. }) | None => {
                    self.in_grace.remove(node);
                    believed.insert(node.clone());
                }
            }
        }
        // One of one is no majority: a node of two that dies is as dead as one of ten.
        let most = self.vanished.len() > alive.max(1);
        if cause == Cause::OtherStore || doubtful && most {
            self.alarm(now);
        }
        believed
    }

    /// The record of a node is there (again). `containers`: those known of it, asked for only if it
    /// was held; what is not confirmed of them by the end of the hold goes then.
    pub(super) fn returned(
        &mut self,
        now: Instant,
        node: &str,
        containers: impl IntoIterator<Item = EndpointKey>,
    ) {
        self.vanished.remove(node);
        self.held.remove(node);
        let moment = self.moment();
        let Some(grace) = self.in_grace.get_mut(node) else { return };
        let Grace::Missing { until, confirmed } = grace else { return };
        let stale: BTreeSet<_> =
            containers.into_iter().filter(|key| !confirmed.contains(key)).collect();
        // It may have come back at the last moment.
        let until = (*until).max(now + moment);
        *grace = Grace::Returning { until, stale };
        self.forget_whole(node);
    }

    /// A container was put.
    pub(super) fn confirm(&mut self, node: &str, key: &EndpointKey) {
        match self.in_grace.get_mut(node) {
            Some(Grace::Missing { confirmed, .. }) => drop(confirmed.insert(key.clone())),
            Some(Grace::Returning { stale, .. }) => {
                stale.remove(key);
                self.forget_whole(node);
            }
            None => {}
        }
    }

    /// A container was removed. Whether that is to be believed: not while its node is held.
    pub(super) fn container_gone(&mut self, node: &str, key: &EndpointKey) -> bool {
        match self.in_grace.get_mut(node) {
            Some(Grace::Missing { confirmed, .. }) => {
                confirmed.remove(key);
                false
            }
            Some(Grace::Returning { .. }) => {
                self.confirm(node, key);
                true
            }
            None => true,
        }
    }

    /// What is gone by now, each said once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Gone> {
        let over: Vec<String> = self
            .in_grace
            .iter()
            .filter(|(_, grace)| grace.until() <= now)
            .map(|(node, _)| node.clone())
            .collect();
        let mut gone = Vec::new();
        for node in over {
            self.held.remove(&node);
            match self.in_grace.remove(&node) {
                Some(Grace::Missing { .. }) => gone.push(Gone::Node(node)),
                Some(Grace::Returning { stale, .. }) => gone.push(Gone::Containers(node, stale)),
                None => {}
            }
        }
        gone
    }

    /// When something may be due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.in_grace.values().map(Grace::until).min()
    }

    /// Whether a node's record is missing and the node is not believed gone: it stays as it was.
    pub(super) fn is_missing(&self, node: &str) -> bool {
        matches!(self.in_grace.get(node), Some(Grace::Missing { .. }))
    }

    /// Whether containers of a node that are not listed may be there: it is held, or came back a
    /// moment ago.
    pub(super) fn doubts(&self, node: &str) -> bool {
        self.in_grace.contains_key(node)
    }

    /// Nodes that vanished with too many others: reason for an alarm.
    pub(super) fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// All who are away are held for one TTL since they vanished.
    fn alarm(&mut self, now: Instant) {
        for (node, grace) in &mut self.in_grace {
            if let Grace::Missing { until, .. } = grace {
                let since = self.vanished.get(node).copied().unwrap_or(now);
                *until = (*until).max(since + self.ttl);
                self.held.insert(node.clone());
            }
        }
    }

    /// The store gives every lease a full TTL when it comes back, and looks for those that ran out
    /// now and then: they may run out a little later than a TTL from then.
    fn recently_connected(&self, now: Instant) -> bool {
        let long = self.ttl + self.ttl / 4;
        self.connected.is_some_and(|at| now.saturating_duration_since(at) < long)
    }

    /// In which nodes that vanish together have vanished, and a node that comes back has published
    /// its containers.
    fn moment(&self) -> Duration {
        self.ttl / 8
    }

    /// Forgets a node that is back with all its containers.
    fn forget_whole(&mut self, node: &str) {
        if let Some(Grace::Returning { stale, .. }) = self.in_grace.get(node)
            && stale.is_empty()
        {
            self.in_grace.remove(node);
        }
    }
}

impl Grace {
    fn until(&self) -> Instant {
        match self {
            Self::Missing { until, .. } | Self::Returning { until, .. } => *until,
        }
    }
}

#[cfg(test)]
mod tests;
