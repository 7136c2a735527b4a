//! Writes to the store what this node wants to be there.

mod subnets;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use causeway_model::{NodeIdentity, NodeRecord};
use ipnetwork::IpNetwork;
use tokio::time::Instant;

use super::listing::OwnKey;
use super::state::TaskState;
use super::store::{self, Failure, bounded};
use super::{Reach, Report, value};
use crate::etcd::{Client, Compare, CompareResult, KeyValue, RangeRequest, RequestOp, TxnRequest};

/// The server's limit is 128 operations a transaction.
const OPERATIONS: usize = 100;
/// The server's limit for a request is 1.5 MiB.
const BYTES: usize = 1 << 20;
/// Leases are renewed this often at least.
const LONGEST: Duration = Duration::from_secs(60);

/// What is known of this node's keys, and the leases they hang on.
#[derive(Default)]
pub(super) struct Publisher {
    /// The node's record and its containers.
    own: BTreeMap<String, OwnKey>,
    short: Option<i64>,
    long: Option<i64>,
    renew_long: Option<Instant>,
    /// As the subnet records have it.
    reach: Option<Reach>,
    /// Subnets are as they should be until another node changes them.
    settled: bool,
    /// Revision of our last change of them.
    subnets_at: i64,
    /// At which revision the keys of this node's parts were made.
    parts: BTreeMap<IpNetwork, i64>,
    /// The same of the key of the node's record; 0: it has none yet.
    claimed: i64,
    /// Something removed the node's record: other nodes may take its containers to be gone.
    doubted: bool,
    /// There was no subnet: any change may bring one.
    waiting: bool,
}

impl Publisher {
    /// Takes in all keys of this node.
    pub(super) fn reset(&mut self, own: Vec<(String, OwnKey)>) {
        self.own = own.into_iter().collect();
        self.settled = false;
    }

    /// Takes in a change of a key of this node; says whether it is one.
    pub(super) fn saw(&mut self, key: String, held: OwnKey) -> bool {
        let known = self.own.get(&key);
        if known.is_some_and(|known| known.revision >= held.revision) {
            return false;
        }
        self.own.insert(key, held);
        true
    }

    /// Deletions need not be known any more: nothing older will be seen.
    pub(super) fn forget_until(&mut self, revision: i64) {
        self.own.retain(|_, held| held.entry.is_some() || held.revision > revision);
    }

    /// Takes in a change of who has a subnet; says whether it concerns this node. One in its name that
    /// it does not have was written by something else, and goes.
    pub(super) fn saw_subnet(
        &mut self,
        state: &TaskState,
        subnet: IpNetwork,
        owner: Option<&NodeIdentity>,
        revision: i64,
    ) -> bool {
        let named = owner == Some(&state.settings.identity);
        let ours = (named || state.previous.contains(&subnet)) && revision > self.subnets_at;
        self.settled &= !(ours || self.waiting);
        ours || self.waiting
    }

    /// Subnets have to be looked at.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
    }

    /// A lease expired: what hung on it has to be written again.
    pub(super) fn needs_lease(&self) -> bool {
        self.short.is_none() || self.long.is_none() && !self.settled
    }

    /// Keeps leases alive. Returns when to come again.
    pub(super) async fn renew(
        &mut self,
        state: &TaskState,
        client: &Client,
    ) -> Result<Duration, Failure> {
        let now = Instant::now();
        let period = |ttl: Duration| (ttl / 3).min(LONGEST).max(Duration::from_millis(100));
        if let Some(id) = self.short
            && !store::keep_alive(client, id).await?
        {
            self.short = None;
        }
        if let Some(id) = self.long
            && self.renew_long.is_none_or(|at| now >= at)
        {
            self.renew_long = Some(now + period(state.settings.subnet_ttl));
            if !store::keep_alive(client, id).await? {
                (self.long, self.settled) = (None, false);
            }
        }
        Ok(period(state.settings.endpoint_ttl).min(period(state.settings.subnet_ttl)))
    }

    /// Brings about what is wanted, as far as this node may take part.
    pub(super) async fn publish(
        &mut self,
        state: &mut TaskState,
        client: &Client,
    ) -> Result<(), Failure> {
        let Some(record) = state.wanted.node.clone() else { return Ok(()) };
        let lease = self.short_lease(state, client).await?;
        let done = self.publish_short(state, client, (&record, lease)).await;
        if done == Err(Failure::NoLease) {
            self.short = None;
        }
        let excluded = done?;
        if excluded.is_none() {
            self.publish_subnets(state, client).await?;
        }
        state.say_excluded(excluded);
        Ok(())
    }

    /// Node and containers. Returns why not if another node of this name lives.
    async fn publish_short(
        &mut self,
        state: &TaskState,
        client: &Client,
        (record, lease): (&NodeRecord, i64),
    ) -> Result<Option<String>, Failure> {
        let excluded = self.claim_node(state, client, (record, lease)).await?;
        if excluded.is_none() && state.wanted.complete {
            self.publish_containers(state, client, lease).await?;
        }
        Ok(excluded)
    }

    /// The lease of an earlier session or run while it lasts, else a new one.
    async fn short_lease(
        &mut self,
        state: &mut TaskState,
        client: &Client,
    ) -> Result<i64, Failure> {
        if let Some(lease) = self.short {
            return Ok(lease);
        }
        let ttl = seconds(state.settings.endpoint_ttl);
        let lease = match state.known.lease.filter(|lease| self.is_ours(state, *lease)) {
            Some(lease) if store::lease_lives(client, lease, ttl).await? => lease,
            _ => store::grant(client, ttl).await?,
        };
        self.short = Some(lease);
        state.lease_is_ours = true;
        if state.known.lease != Some(lease) {
            state.known.lease = Some(lease);
            state.say(Report::Lease(lease));
        }
        Ok(lease)
    }

    /// Whether a lease is of this node and not of one that its state was copied from.
    fn is_ours(&self, state: &TaskState, lease: i64) -> bool {
        let identity = &state.settings.identity;
        let record = self.own.get(&state.keys.node(&identity.node));
        let record = record.and_then(|held| held.entry.as_ref());
        state.lease_is_ours
            || record.is_some_and(|(bytes, of)| {
                let record = value::json::<NodeRecord>(bytes);
                *of == lease && record.is_ok_and(|record| record.identity == *identity)
            })
    }

    /// Writes the node's record, unless another node of this name lives: then says so.
    async fn claim_node(
        &mut self,
        state: &TaskState,
        client: &Client,
        (record, lease): (&NodeRecord, i64),
    ) -> Result<Option<String>, Failure> {
        let key = state.keys.node(&record.identity.node);
        let wanted = Some((value::encode(record), lease));
        loop {
            if let Some(held) = self.own.get(&key)
                && held.entry == wanted
            {
                if self.claimed == 0 {
                    self.claimed = held.created;
                }
                return Ok(None);
            }
            let found = bounded(client.get(RangeRequest::one(key.as_str()))).await?;
            let found = found.kvs.first();
            if let Some(other) = found
                && other.lease != lease
                && Some(other.lease) != state.known.lease
                && !self.is_false(other, record)
                && let Some(why) = clash(&other.value, record)
            {
                self.own.insert(key, OwnKey::of(other));
                return Ok(Some(why));
            }
            let at = found.map_or(0, |pair| pair.mod_revision);
            let bytes = wanted.as_ref().map(|(bytes, _)| bytes.clone()).unwrap_or_default();
            let txn = TxnRequest::new()
                .when([Compare::mod_revision(key.as_str(), CompareResult::Equal, at)])
                .and_then([RequestOp::put(key.as_str(), bytes, lease)]);
            let done = bounded(client.txn(txn)).await?;
            if done.succeeded {
                let revision = done.header.map_or(at, |header| header.revision);
                self.doubted |= found.is_none() && self.claimed != 0;
                self.claimed = found.map_or(revision, |pair| pair.create_revision);
                self.own.insert(key, OwnKey { revision, created: self.claimed, entry: wanted });
                return Ok(None);
            }
        }
    }

    /// Whether no daemon wrote this record of our name. A daemon's hangs on a lease; and another
    /// machine waits until the key is gone, which it is not since we made it.
    fn is_false(&self, other: &KeyValue, ours: &NodeRecord) -> bool {
        let machine = value::json::<NodeRecord>(&other.value).map(|one| one.identity.machine_id);
        let of_another = machine.ok().as_ref() != Some(&ours.identity.machine_id);
        other.lease == 0 || of_another && other.create_revision == self.claimed
    }

    /// Writes containers that differ, removes those that are not there any more.
    async fn publish_containers(
        &mut self,
        state: &TaskState,
        client: &Client,
        lease: i64,
    ) -> Result<(), Failure> {
        let me = &state.settings.identity.node;
        let node = state.keys.node(me);
        let mut todo = self.differences(state, lease).into_iter().peekable();
        while todo.peek().is_some() {
            let (mut batch, mut size) = (Vec::new(), 0);
            while let Some((_, bytes)) = todo.peek()
                && batch.len() < OPERATIONS
                && (size == 0 || size + bytes.as_ref().map_or(0, Vec::len) < BYTES)
            {
                size += bytes.as_ref().map_or(1, Vec::len);
                batch.extend(todo.next());
            }
            let operation = |(key, bytes): &(String, Option<Vec<u8>>)| match bytes {
                Some(bytes) => RequestOp::put(key.as_str(), bytes.as_slice(), lease),
                None => RequestOp::delete(key.as_str()),
            };
            let operations: Vec<RequestOp> = batch.iter().map(operation).collect();
            // As long as the node of this name is this one.
            let txn = TxnRequest::new()
                .when([Compare::lease(node.as_str(), CompareResult::Equal, lease)])
                .and_then(operations);
            let done = bounded(client.txn(txn)).await?;
            if !done.succeeded {
                self.own.remove(&node);
                return Err(Failure::NoLease);
            }
            let revision = done.header.map_or(0, |header| header.revision);
            for (key, bytes) in batch {
                let entry = bytes.map(|bytes| (bytes, lease));
                self.own.insert(key, OwnKey { revision, created: 0, entry });
            }
        }
        self.doubted = false;
        Ok(())
    }

    /// Keys of containers with what they should say; `None`: they should not be there.
    fn differences(&self, state: &TaskState, lease: i64) -> Vec<(String, Option<Vec<u8>>)> {
        let me = &state.settings.identity.node;
        let text = |key: &causeway_model::EndpointKey| {
            state.keys.text(&super::keys::Key::Container(me.clone(), key.clone()))
        };
        let mut wanted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (key, container) in &state.wanted.containers {
            wanted.insert(text(key), value::encode(container));
        }
        let prefix = state.keys.containers(me);
        let there = self.own.range(prefix.clone()..);
        let there = there.take_while(|(key, _)| key.starts_with(&prefix));
        let surplus = there
            .filter(|(key, held)| held.entry.is_some() && !wanted.contains_key(*key))
            .map(|(key, _)| (key.clone(), None));
        let mut all: Vec<_> = surplus.collect();
        all.extend(wanted.into_iter().filter_map(|(key, bytes)| {
            let entry = self.own.get(&key).and_then(|held| held.entry.as_ref());
            let same = entry.is_some_and(|(there, of)| *there == bytes && *of == lease);
            (!same || self.doubted).then_some((key, Some(bytes)))
        }));
        all
    }
}

fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1)
}

/// Why a living node of our name is not one that we follow.
fn clash(other: &[u8], ours: &NodeRecord) -> Option<String> {
    let name = &ours.identity.node;
    let other: NodeRecord = match value::json(other) {
        Ok(other) => other,
        Err(why) => return Some(format!("the record of node {name} cannot be read: {why}")),
    };
    let ips: Vec<String> = other.ips.iter().map(IpAddr::to_string).collect();
    let at = ips.join(", ");
    if other.identity.machine_id != ours.identity.machine_id {
        return Some(format!(
            "another node named {name} is running at {at} (machine id {}): give one of them \
             another --node-name, or stop that one; the name is free shortly after",
            other.identity.machine_id
        ));
    }
    if other.boot_id != ours.boot_id {
        let moved = other.ips.iter().all(|ip| !ours.ips.contains(ip));
        return moved.then(|| {
            format!(
                "a node named {name} with this machine id is running at {at}: if this machine is a \
                 clone of that one, give it its own machine id (systemd-machine-id-setup) and \
                 --node-name; if it was moved, the name is free shortly"
            )
        });
    }
    (other.started >= ours.started && other != *ours).then(|| {
        format!(
            "another causewayd is running on this machine as node {name} at {at}: stop one of \
             them, or give it another --node-name"
        )
    })
}

#[cfg(test)]
mod tests;
