//! The subnets of this node: claimed by compare-and-swap, kept on a long lease of their own.

use std::collections::{BTreeMap, BTreeSet};

use causeway_model::{NodeIdentity, SubnetRecord};
use ipnetwork::IpNetwork;

use super::{Publisher, seconds};
use crate::cluster::keys::{Key, Keys};
use crate::cluster::registry::{Taken, Wish, choose, is_part};
use crate::cluster::state::TaskState;
use crate::cluster::store::{self, Failure, bounded};
use crate::cluster::{Reach, Subnets, random, value};
use crate::etcd::{Client, Compare, CompareResult, KeyValue, RangeRequest, RequestOp, TxnRequest};

/// Races lost in a row before the connection is looked at.
const RACES: usize = 1000;

/// Who has what, as read at one revision.
#[derive(Default)]
struct Registered {
    records: BTreeMap<IpNetwork, Entry>,
    reservations: BTreeSet<IpNetwork>,
}

struct Entry {
    owner: Option<NodeIdentity>,
    value: Vec<u8>,
    lease: i64,
    revision: i64,
    created: i64,
}

impl Publisher {
    /// Takes subnets, or writes how they are reached, or says why there are none.
    pub(super) async fn publish_subnets(
        &mut self,
        state: &mut TaskState,
        client: &Client,
    ) -> Result<(), Failure> {
        let Some(reach) = state.wanted.reach.clone() else { return Ok(()) };
        if state.lost || self.settled && self.reach.as_ref() == Some(&reach) {
            return Ok(());
        }
        for _ in 0..RACES {
            let mut there = Registered::read(client, state).await?;
            there.put_right(&self.parts, &state.settings.identity);
            let chosen = choose(&wish(state, &reach), &there.taken());
            self.waiting = matches!(chosen, Err(Subnets::None(_)));
            let subnets = match chosen {
                Ok(subnets) => subnets,
                Err(none) => {
                    state.lost = matches!(none, Subnets::Lost { .. });
                    (self.settled, self.reach) = (true, Some(reach));
                    self.adopt_long(state, client, &there).await?;
                    state.say_subnets(none);
                    return Ok(());
                }
            };
            let lease = self.long_lease(state, client, &there).await?;
            state.long_lease = Some(lease);
            match self.settle(state, client, (&there, &subnets), (&reach, lease)).await {
                Ok(true) => {
                    (self.settled, self.reach) = (true, Some(reach));
                    state.previous.clone_from(&subnets);
                    state.say_subnets(Subnets::Held(subnets));
                    return Ok(());
                }
                // Another node was faster: look again.
                Ok(false) => {}
                Err(Failure::NoLease) => self.long = None,
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Away("other nodes keep changing subnets".into()))
    }

    /// The lease that our records hang on, if it lives.
    async fn adopt_long(
        &mut self,
        state: &TaskState,
        client: &Client,
        there: &Registered,
    ) -> Result<(), Failure> {
        let ttl = seconds(state.settings.subnet_ttl);
        let own = there.own(&state.settings.identity).map(|(_, entry)| entry.lease).next();
        if let (None, Some(lease)) = (self.long, own)
            && lease != 0
            && store::lease_lives(client, lease, ttl).await?
        {
            self.long = Some(lease);
        }
        Ok(())
    }

    async fn long_lease(
        &mut self,
        state: &TaskState,
        client: &Client,
        there: &Registered,
    ) -> Result<i64, Failure> {
        self.adopt_long(state, client, there).await?;
        match self.long {
            Some(lease) => Ok(lease),
            None => {
                let lease = store::grant(client, seconds(state.settings.subnet_ttl)).await?;
                self.long = Some(lease);
                Ok(lease)
            }
        }
    }

    /// Writes records of both families in one transaction. `false`: another node was faster.
    async fn settle(
        &mut self,
        state: &TaskState,
        client: &Client,
        (there, subnets): (&Registered, &[IpNetwork]),
        (reach, lease): (&Reach, i64),
    ) -> Result<bool, Failure> {
        let (mut compares, mut operations) = (Vec::new(), Vec::new());
        let unchanged =
            |key: &str, revision| Compare::mod_revision(key, CompareResult::Equal, revision);
        for subnet in subnets {
            let key = state.keys.text(&Key::Subnet(*subnet));
            let bytes = value::encode(&record(state, *subnet, reach));
            let entry = there.records.get(subnet);
            if entry.is_some_and(|entry| entry.value == bytes && entry.lease == lease) {
                continue;
            }
            compares.push(unchanged(&key, entry.map_or(0, |entry| entry.revision)));
            let known = self.parts.contains_key(subnet) || state.settings.asked.contains(subnet);
            if entry.is_none() && !known {
                let reserved = state.keys.text(&Key::Reservation(*subnet));
                compares.push(Compare::create_revision(reserved, CompareResult::Equal, 0));
            }
            operations.push(RequestOp::put(key, bytes, lease));
        }
        for (subnet, entry) in there.own(&state.settings.identity) {
            if !subnets.contains(subnet) {
                let key = state.keys.text(&Key::Subnet(*subnet));
                compares.push(unchanged(&key, entry.revision));
                operations.push(RequestOp::delete(key));
            }
        }
        if operations.is_empty() {
            self.know_parts(there, subnets);
            return Ok(true);
        }
        let done =
            bounded(client.txn(TxnRequest::new().when(compares).and_then(operations))).await?;
        if done.succeeded {
            self.subnets_at = done.header.map_or(0, |header| header.revision);
            self.know_parts(there, subnets);
        }
        Ok(done.succeeded)
    }
}

impl Publisher {
    /// Since when this node has its parts.
    fn know_parts(&mut self, there: &Registered, subnets: &[IpNetwork]) {
        let since = |subnet| there.records.get(subnet).map_or(self.subnets_at, |one| one.created);
        self.parts = subnets.iter().map(|subnet| (*subnet, since(subnet))).collect();
    }
}

fn wish<'a>(state: &'a TaskState, reach: &'a Reach) -> Wish<'a> {
    Wish {
        identity: &state.settings.identity,
        config: &state.settings.config,
        asked: &state.settings.asked,
        previous: &state.previous,
        ips: &reach.ips,
        random: random(),
    }
}

fn record(state: &TaskState, subnet: IpNetwork, reach: &Reach) -> SubnetRecord {
    SubnetRecord {
        subnet,
        owner: state.settings.identity.clone(),
        ips: reach.ips.clone(),
        vtep: reach.vtep,
        mtu: reach.mtu,
        created: 0,
    }
}

impl Registered {
    /// Of keys that are not node subnets of this cluster, nothing: one such key would be many
    /// nodes' parts.
    async fn read(client: &Client, state: &TaskState) -> Result<Self, Failure> {
        let (keys, config): (&Keys, _) = (&state.keys, &state.settings.config);
        let txn = TxnRequest::new().and_then([
            RequestOp::get(RangeRequest::prefix(keys.subnets())),
            RequestOp::get(RangeRequest::prefix(keys.reservations()).keys_only()),
        ]);
        let mut there = Self::default();
        for found in bounded(client.txn(txn)).await?.ranges() {
            for pair in &found.kvs {
                match keys.parse(&pair.key) {
                    Some(Key::Subnet(subnet)) if is_part(config, subnet) => {
                        there.records.insert(subnet, Entry::of(pair));
                    }
                    Some(Key::Reservation(subnet)) if is_part(config, subnet) => {
                        there.reservations.insert(subnet);
                    }
                    _ => {}
                }
            }
        }
        Ok(there)
    }

    /// A part that this node has had since its key was made is still its own, whatever the record
    /// says: other daemons take none whose key is there. A reservation is for the time after it.
    fn put_right(&mut self, parts: &BTreeMap<IpNetwork, i64>, me: &NodeIdentity) {
        for (subnet, since) in parts {
            self.reservations.remove(subnet);
            if let Some(entry) = self.records.get_mut(subnet)
                && entry.created == *since
            {
                entry.owner = Some(me.clone());
            }
        }
    }

    fn taken(&self) -> Taken {
        let owners = self.records.iter().map(|(subnet, entry)| (*subnet, entry.owner.clone()));
        Taken { subnets: owners.collect(), reservations: self.reservations.clone() }
    }

    fn own(&self, me: &NodeIdentity) -> impl Iterator<Item = (&IpNetwork, &Entry)> {
        self.records.iter().filter(move |(_, entry)| entry.owner.as_ref() == Some(me))
    }
}

impl Entry {
    fn of(pair: &KeyValue) -> Self {
        let record: Result<SubnetRecord, String> = value::json(&pair.value);
        Self {
            owner: record.ok().map(|record| record.owner),
            value: pair.value.clone(),
            lease: pair.lease,
            revision: pair.mod_revision,
            created: pair.create_revision,
        }
    }
}
