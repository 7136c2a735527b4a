//! A node that is taken out of the cluster for good: its record, its containers, and its parts of
//! the cluster network, in one transaction that fails if any of it has changed.

use causeway_model::{NodeIdentity, NodeRecord, SubnetRecord};
use ipnetwork::IpNetwork;

use super::keys::{Key, Keys};
use super::store::{self, Failure, bounded};
use super::{ClusterSettings, value};
use crate::etcd::{Client, Compare, CompareResult, KeyValue, RangeRequest, RequestOp, TxnRequest};

/// Races lost in a row before this is given up.
const RACES: usize = 100;

/// What a node had in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Its subnets of the cluster network: other nodes may get them from now on.
    pub subnets: Vec<IpNetwork>,
    /// How many containers it had published.
    pub containers: usize,
    /// Revision of the store without it; 0: there was nothing to remove.
    pub revision: i64,
}

/// Which node is to go, and on whose word.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    /// One of this name that is gone: as long as none of this name lives.
    Gone(&'a str),
    /// This one, on its own word. What another machine of its name has stays.
    Own(&'a NodeIdentity),
}

/// What the store has of a node.
struct Found {
    /// Of the node's record; 0: there is none.
    revision: i64,
    /// The record is that of another machine.
    other: bool,
    subnets: Vec<(IpNetwork, String, i64)>,
    containers: usize,
}

/// Takes this node out of the cluster. No daemon may run here: it would join again.
///
/// # Errors
/// In words: no endpoint answers, or the store refuses.
pub async fn leave(settings: &ClusterSettings) -> Result<Removal, String> {
    let keys = Keys::new(&settings.prefix);
    let mut why = "no etcd endpoint is set: set --etcd-endpoints".to_owned();
    for endpoint in &settings.endpoints {
        let client = match store::connect(settings, endpoint).await {
            Ok(client) => client,
            Err(error) => {
                why = error;
                continue;
            }
        };
        match remove(&client, &keys, Whose::Own(&settings.identity)).await {
            Ok(removed) => return removed,
            Err(failure) => why = format!("{endpoint}: {}", failure.into_text()),
        }
    }
    Err(why)
}

/// Removes a node, or says in words why it stays.
///
/// # Errors
/// The store.
pub(super) async fn remove(
    client: &Client,
    keys: &Keys,
    whose: Whose<'_>,
) -> Result<Result<Removal, String>, Failure> {
    for _ in 0..RACES {
        let found = look(client, keys, whose).await?;
        if let (Whose::Gone(name), true) = (whose, found.revision != 0) {
            return Ok(Err(format!(
                "node {name} is running: stop causewayd there, and run `causewayd leave` on it"
            )));
        }
        if found.is_empty() {
            return Ok(Ok(Removal::default()));
        }
        let done = bounded(client.txn(transaction(keys, whose, &found))).await?;
        if done.succeeded {
            return Ok(Ok(Removal {
                subnets: found.subnets.iter().map(|(subnet, ..)| *subnet).collect(),
                containers: found.containers,
                revision: done.header.map_or(0, |header| header.revision),
            }));
        }
    }
    Err(Failure::Away("the records of the node keep changing; retry".into()))
}

impl Whose<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Gone(name) => name,
            Self::Own(NodeIdentity { node, .. }) => node,
        }
    }

    fn owns(&self, owner: &NodeIdentity) -> bool {
        match self {
            Self::Gone(name) => owner.node == *name,
            Self::Own(own) => owner == *own,
        }
    }
}

impl Found {
    /// Another machine's record and containers are left out.
    fn is_empty(&self) -> bool {
        self.subnets.is_empty() && (self.other || self.revision == 0 && self.containers == 0)
    }
}

async fn look(client: &Client, keys: &Keys, whose: Whose<'_>) -> Result<Found, Failure> {
    let name = whose.name();
    let reads = TxnRequest::new().and_then([
        RequestOp::get(RangeRequest::one(keys.node(name))),
        RequestOp::get(RangeRequest::prefix(keys.subnets())),
        RequestOp::get(RangeRequest::prefix(keys.containers(name)).keys_only()),
    ]);
    let response = bounded(client.txn(reads)).await?;
    let ranges: Vec<&[KeyValue]> = response.ranges().map(|range| range.kvs.as_slice()).collect();
    let [node, subnets, containers] = ranges[..] else {
        return Err(Failure::Away("the response of the store is incomplete".into()));
    };
    let owned = |pair: &KeyValue| {
        let record = value::json::<SubnetRecord>(&pair.value).ok()?;
        let Some(Key::Subnet(subnet)) = keys.parse(&pair.key) else { return None };
        let key = keys.text(&Key::Subnet(subnet));
        whose.owns(&record.owner).then_some((subnet, key, pair.mod_revision))
    };
    let node = node.first();
    let record = node.map(|pair| value::json::<NodeRecord>(&pair.value));
    let other = record.is_some_and(|record| !record.is_ok_and(|it| whose.owns(&it.identity)));
    Ok(Found {
        revision: node.map_or(0, |pair| pair.mod_revision),
        other,
        subnets: subnets.iter().filter_map(owned).collect(),
        containers: if other { 0 } else { containers.len() },
    })
}

fn transaction(keys: &Keys, whose: Whose<'_>, found: &Found) -> TxnRequest {
    let (node, name) = (keys.node(whose.name()), whose.name());
    let unchanged =
        |key: &str, revision| Compare::mod_revision(key, CompareResult::Equal, revision);
    let mut compares = vec![unchanged(&node, found.revision)];
    let mut operations = Vec::new();
    if !found.other {
        operations.push(RequestOp::delete(node));
        operations.push(RequestOp::delete_prefix(keys.containers(name)));
    }
    for (_, key, revision) in &found.subnets {
        compares.push(unchanged(key, *revision));
        operations.push(RequestOp::delete(key.as_str()));
    }
    TxnRequest::new().when(compares).and_then(operations)
}
