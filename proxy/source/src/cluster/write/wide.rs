//! An object with more claims than a transaction of etcd compares and writes: in one transaction
//! all the same.
//!
//! The server counts comparisons and operations of each level of transactions within transactions
//! (`--max-txn-ops`, `checkTxnRequest` in etcd's `v3rpc/key.go`), all of which are one change. And
//! one comparison covers a stretch of keys: none of the claims between two of ours has been written
//! since ours were read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Item, Outcome};
use crate::cluster::store::{Failure, bounded};
use crate::etcd::{Client, Compare, CompareResult, KeyValue, RangeRequest, RequestOp, TxnRequest};

/// Operations of a level; three of them are below the server's 128.
const LEVEL: usize = 40;
/// Stretches of an area of claims, of which there are four: with what the object itself needs, no
/// more than a level.
const STRETCHES: usize = 8;
/// Claims are read so many times in a row: other nodes may write theirs in between.
const ROUNDS: usize = 50;

/// Writes it, or says why not.
pub(super) async fn write(client: &Client, seen: i64, item: &Item) -> Result<Outcome, Failure> {
    let stretches = stretches(item);
    let reads: Vec<RequestOp> = stretches.iter().cloned().map(RequestOp::get).collect();
    for _ in 0..ROUNDS {
        let there = bounded(client.txn(TxnRequest::new().and_then(reads.clone()))).await?;
        let at = there.header.map_or(0, |header| header.revision);
        let found: BTreeMap<&[u8], &KeyValue> = there
            .ranges()
            .flat_map(|range| &range.kvs)
            .map(|pair| (pair.key.as_slice(), pair))
            .collect();
        let puts = match judge(item, seen, &found) {
            Judged::Conflict(revision) => return Ok(Outcome::Conflict(revision)),
            Judged::Puts { claims, others } => {
                for (claim, held) in others {
                    if let Err(held) = item.absent_owner(client, claim, held).await? {
                        return Ok(Outcome::Held(held));
                    }
                }
                claims
            }
        };
        let done = bounded(client.txn(transaction(item, (seen, at), &stretches, &puts))).await?;
        if done.succeeded {
            let revision = done.header.map(|header| header.revision);
            return Ok(Outcome::Done(revision.filter(|_| done.changed())));
        }
        let object = done.ranges().flat_map(|range| &range.kvs).next();
        match object {
            Some(object) if object.mod_revision > seen => {
                return Ok(Outcome::Conflict(object.mod_revision));
            }
            // Another node deleted it, which leaves no revision: it was later than the decision.
            None if item.existed() => return Ok(Outcome::Conflict(seen + 1)),
            // Another node wrote a claim of these stretches.
            _ => {}
        }
    }
    Err(Failure::Away("address and port claims keep changing; retry".into()))
}

/// What is to be done about claims as they were read.
#[derive(Debug, PartialEq, Eq)]
enum Judged<'a> {
    /// One was written after the decision.
    Conflict(i64),
    Puts {
        claims: Vec<&'a str>,
        /// A claim of each other owner, whose object must not exist.
        others: Vec<(&'a str, &'a KeyValue)>,
    },
}

fn judge<'a>(item: &'a Item, seen: i64, found: &BTreeMap<&[u8], &'a KeyValue>) -> Judged<'a> {
    let (mut claims, mut others, mut newest) = (Vec::new(), BTreeMap::new(), 0);
    for claim in item.new.iter().chain(&item.kept) {
        let Some(held) = found.get(claim.as_bytes()) else {
            claims.push(claim.as_str());
            continue;
        };
        newest = newest.max(held.mod_revision);
        if held.value != item.owner.as_bytes() {
            others.entry(held.value.as_slice()).or_insert((claim.as_str(), *held));
            claims.push(claim.as_str());
        }
    }
    if newest > seen {
        return Judged::Conflict(newest);
    }
    Judged::Puts { claims, others: others.into_values().collect() }
}

fn transaction(
    item: &Item,
    (seen, read_at): (i64, i64),
    stretches: &[RangeRequest],
    puts: &[&str],
) -> TxnRequest {
    let key = item.object.as_str();
    let mut compares = vec![Compare::mod_revision(key, CompareResult::Less, seen + 1)];
    if item.existed() {
        compares.push(Compare::create_revision(key, CompareResult::Greater, 0));
    }
    compares.extend(stretches.iter().map(|stretch| {
        let first = Compare::mod_revision(stretch.key.clone(), CompareResult::Less, read_at + 1);
        first.until(stretch.range_end.clone())
    }));
    let mut operations = vec![match &item.value {
        Some(value) => RequestOp::put(key, value.as_slice(), 0),
        None => RequestOp::delete(key),
    }];
    operations.extend(puts.iter().map(|claim| RequestOp::put(*claim, item.owner.as_str(), 0)));
    operations.extend(item.dropped.iter().map(|claim| RequestOp::delete(claim.as_str())));
    TxnRequest::new()
        .when(compares)
        .and_then(packed(operations))
        .or_else([RequestOp::get(RangeRequest::one(key).keys_only())])
}

/// Operations of one level, with transactions in them until they fit.
fn packed(mut operations: Vec<RequestOp>) -> Vec<RequestOp> {
    while operations.len() > LEVEL {
        let levels = operations.chunks(LEVEL);
        operations =
            levels.map(|level| RequestOp::txn(TxnRequest::new().and_then(level))).collect();
    }
    operations
}

/// Ranges that hold all claims that the object is to have, and as few others as can be.
fn stretches(item: &Item) -> Vec<RangeRequest> {
    let claims: BTreeSet<&String> = item.new.iter().chain(&item.kept).collect();
    let mut areas: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for claim in claims {
        let area = claim.rsplit_once('/').map_or("", |(area, _)| area);
        areas.entry(area).or_default().push(claim);
    }
    let mut all = Vec::new();
    for claims in areas.into_values() {
        for stretch in claims.chunks(claims.len().div_ceil(STRETCHES)) {
            let [first, .., last] = stretch else {
                all.extend(stretch.iter().map(|claim| RangeRequest::one(claim.as_str())));
                continue;
            };
            let range_end = [last.as_bytes(), &[0]].concat();
            all.push(RangeRequest { range_end, ..RangeRequest::one(first.as_str()) });
        }
    }
    all
}

#[cfg(test)]
mod tests;
