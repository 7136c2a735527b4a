//! Objects and their claims, written by compare-and-swap: a write since the decision wins.

mod wide;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use causeway_model::{ObjectKey, ObjectKind};

use super::keys::{Key, Keys};
use super::removal::{self, Whose};
use super::store::{Failure, bounded};
use super::{Write, WriteError, value};
use crate::etcd::{Client, Compare, CompareResult, KeyValue, RangeRequest, RequestOp, TxnRequest};
use crate::size::claims;

/// The server's limit is 128 comparisons and 128 operations.
const MOST: usize = 120;
/// The server's limit for a request is 1.5 MiB.
const BYTES: usize = 1 << 20;
/// Claims are set right so many times in a row.
const ROUNDS: usize = 10;
/// Transactions under way at once.
const FLIGHT: usize = 8;

/// One object with what it claims: never split.
#[derive(Clone, Debug)]
struct Item {
    object: String,
    /// `None`: deleted.
    value: Option<Vec<u8>>,
    owner: String,
    new: Vec<String>,
    kept: Vec<String>,
    dropped: Vec<String>,
}

/// The outcome of a transaction.
enum Outcome {
    /// At this revision; `None`: there was nothing to change.
    Done(Option<i64>),
    /// Another writer's revision.
    Conflict(i64),
    /// This claim is as it was when it was decided, and another's.
    Held(String),
}

/// Writes it all. Returns the revision at which it is visible.
pub(super) async fn write(
    client: Client,
    keys: Arc<Keys>,
    me: String,
    mut write: Write,
) -> Result<i64, WriteError> {
    let (seen, nodes) = (write.seen, std::mem::take(&mut write.nodes));
    let items = items(&keys, &me, write);
    let moved = moved(&items);
    // Who takes what another one gives up comes behind that one.
    let (after, first): (Vec<Item>, Vec<Item>) =
        items.into_iter().partition(|item| item.new.iter().any(|claim| moved.contains(claim)));
    let mut revision = seen;
    for items in [first, after] {
        let (wide, narrow): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| item.width() > MOST);
        revision = further(revision, all(&client, seen, batches(narrow)).await)?;
        // One by one: each needs that no other claim near its own is written meanwhile.
        for item in wide {
            let done = wide::write(&client, seen, &item).await;
            revision = further(revision, outcome(seen, done))?;
        }
    }
    for node in nodes {
        let done = match removal::remove(&client, &keys, Whose::Gone(&node)).await {
            Ok(Ok(removed)) => Ok(removed.revision),
            Ok(Err(why)) => Err(WriteError::Refused(why)),
            Err(Failure::Refused(why)) => Err(WriteError::Denied(why)),
            Err(other) => Err(WriteError::Away(other.into_text())),
        };
        revision = further(revision, done)?;
    }
    Ok(revision)
}

/// The newest revision. What was written is to be seen, too, before the rest is decided again.
fn further(revision: i64, done: Result<i64, WriteError>) -> Result<i64, WriteError> {
    match done {
        Ok(at) => Ok(revision.max(at)),
        Err(WriteError::Conflict(at)) => Err(WriteError::Conflict(revision.max(at))),
        Err(error) => Err(error),
    }
}

/// The outcome of a transaction, in the terms of who asked.
fn outcome(seen: i64, done: Result<Outcome, Failure>) -> Result<i64, WriteError> {
    match done {
        Ok(Outcome::Done(at)) => Ok(at.unwrap_or(seen)),
        Ok(Outcome::Conflict(at)) => Err(WriteError::Conflict(at)),
        Ok(Outcome::Held(why)) => Err(WriteError::Refused(why)),
        Err(Failure::Refused(why)) => Err(WriteError::Denied(why)),
        Err(other) => Err(WriteError::Away(other.into_text())),
    }
}

/// Several transactions at once. The newest revision, or the worst of what went wrong.
async fn all(client: &Client, seen: i64, batches: Vec<Vec<Item>>) -> Result<i64, WriteError> {
    let permits = Arc::new(Semaphore::new(FLIGHT));
    let mut running = JoinSet::new();
    for batch in batches {
        let (client, permits) = (client.clone(), Arc::clone(&permits));
        running.spawn(async move {
            // Nobody closes it.
            let permit = permits.acquire().await;
            let done = one(client, seen, batch).await;
            drop(permit);
            done
        });
    }
    let (mut revision, mut failure) = (seen, None);
    while let Some(done) = running.join_next().await {
        let done = done.map_err(|error| WriteError::Away(error.to_string()));
        match done.and_then(|done| outcome(seen, done)) {
            Ok(at) => revision = revision.max(at),
            Err(error) => failure = combine(failure, error),
        }
    }
    match failure {
        Some(WriteError::Conflict(at)) => Err(WriteError::Conflict(revision.max(at))),
        Some(other) => Err(other),
        None => Ok(revision),
    }
}

/// What says more of the two: a refusal, the store's first, then that nothing is known, then the newer
/// conflict.
fn combine(one: Option<WriteError>, other: WriteError) -> Option<WriteError> {
    use WriteError::{Away, Conflict, Denied, Refused};
    Some(match (one, other) {
        (Some(Denied(why)), _) | (_, Denied(why)) => Denied(why),
        (Some(Refused(why)), _) | (_, Refused(why)) => Refused(why),
        (Some(Away(why)), _) | (_, Away(why)) => Away(why),
        (Some(Conflict(one)), Conflict(other)) => Conflict(one.max(other)),
        (None, Conflict(other)) => Conflict(other),
    })
}

async fn one(client: Client, seen: i64, batch: Vec<Item>) -> Result<Outcome, Failure> {
    let mut stale_claims = Vec::new();
    for _ in 0..ROUNDS {
        let response = bounded(client.txn(transaction(&batch, seen, &stale_claims))).await?;
        if response.succeeded {
            let revision = response.header.map(|header| header.revision);
            return Ok(Outcome::Done(revision.filter(|_| response.changed())));
        }
        let found: Vec<&KeyValue> = response.ranges().flat_map(|range| &range.kvs).collect();
        if let Some(newest) = found.iter().map(|one| one.mod_revision).filter(|at| *at > seen).max()
        {
            return Ok(Outcome::Conflict(newest));
        }
        // Another process deleted it, which leaves no revision: it was later than the decision.
        if batch.iter().any(|item| item.existed() && !item.is_among(&found)) {
            return Ok(Outcome::Conflict(seen + 1));
        }
        stale_claims.clear();
        for item in &batch {
            match item.stale_claims(&client, &found).await? {
                Ok(claims) => stale_claims.extend(claims),
                Err(held) => return Ok(Outcome::Held(held)),
            }
        }
    }
    Err(Failure::Away("address and port claims keep changing; retry".into()))
}

/// A claim that is not as its objects have it: another process changed one key alone.
struct Astray {
    claim: String,
    /// 0: it is absent.
    revision: i64,
    /// Key of the object that it names, if that is another one, and does not exist.
    absent: Option<String>,
}

impl Item {
    /// Claims of this object that are older than the decision and yet not as it was decided, to be
    /// set right; or one that another object has, in words.
    async fn stale_claims(
        &self,
        client: &Client,
        found: &[&KeyValue],
    ) -> Result<Result<Vec<Astray>, String>, Failure> {
        let mut all = Vec::new();
        for (claims, kept) in [(&self.new, false), (&self.kept, true)] {
            for claim in claims {
                let held = found.iter().find(|one| one.key == claim.as_bytes());
                let revision = held.map_or(0, |held| held.mod_revision);
                let ours = held.is_some_and(|held| held.value == self.owner.as_bytes());
                if (held.is_none() && !kept) || (ours && kept) {
                    continue;
                }
                let mut absent = None;
                if let Some(held) = held
                    && !ours
                {
                    match self.absent_owner(client, claim, held).await? {
                        Ok(object) => absent = Some(object),
                        Err(held) => return Ok(Err(held)),
                    }
                }
                all.push(Astray { claim: claim.clone(), revision, absent });
            }
        }
        Ok(Ok(all))
    }

    /// The key of the object that a claim names, if that does not exist.
    async fn absent_owner(
        &self,
        client: &Client,
        claim: &str,
        held: &KeyValue,
    ) -> Result<Result<String, String>, Failure> {
        let owner = String::from_utf8_lossy(&held.value).into_owned();
        let objects = self.object.strip_suffix(&self.owner).unwrap_or(&self.object);
        let object = format!("{objects}{owner}");
        let range = RangeRequest::one(object.as_str()).keys_only();
        if bounded(client.get(range)).await?.kvs.is_empty() {
            return Ok(Ok(object));
        }
        Ok(Err(format!("{claim} belongs to {owner}: choose another one, or delete {owner} first")))
    }
}

fn transaction(batch: &[Item], seen: i64, stale_claims: &[Astray]) -> TxnRequest {
    let (mut compares, mut puts, mut gets) = (Vec::new(), Vec::new(), Vec::new());
    for item in batch {
        let key = item.object.as_str();
        compares.push(Compare::mod_revision(key, CompareResult::Less, seen + 1));
        if item.existed() {
            compares.push(Compare::create_revision(key, CompareResult::Greater, 0));
        }
        gets.push(RequestOp::get(RangeRequest::one(key).keys_only()));
        puts.push(match &item.value {
            Some(value) => RequestOp::put(key, value.as_slice(), 0),
            None => RequestOp::delete(key),
        });
        for (claims, kept) in [(&item.new, false), (&item.kept, true)] {
            for claim in claims {
                let key = claim.as_str();
                gets.push(RequestOp::get(RangeRequest::one(key)));
                let wrong = stale_claims.iter().find(|one| one.claim == *claim);
                if wrong.is_some() || !kept {
                    puts.push(RequestOp::put(key, item.owner.as_str(), 0));
                }
                compares.push(match wrong {
                    None if kept => Compare::value(key, CompareResult::Equal, item.owner.as_str()),
                    None => Compare::create_revision(key, CompareResult::Equal, 0),
                    Some(one) => Compare::mod_revision(key, CompareResult::Equal, one.revision),
                });
                let absent = wrong.and_then(|one| one.absent.as_deref());
                compares.extend(
                    absent.map(|object| Compare::create_revision(object, CompareResult::Equal, 0)),
                );
            }
        }
        puts.extend(item.dropped.iter().map(|claim| RequestOp::delete(claim.as_str())));
    }
    TxnRequest::new().when(compares).and_then(puts).or_else(gets)
}

fn items(keys: &Keys, me: &str, write: Write) -> Vec<Item> {
    let put = write.put.into_iter().map(|(stored, former)| {
        let claims = claims(&stored.object);
        let value = Some(value::encode_stored(&stored, me));
        item(keys, (stored.object.kind(), stored.object.key()), value, (&claims, &former))
    });
    let delete = write
        .delete
        .iter()
        .map(|(kind, key, former)| item(keys, (*kind, key), None, (&[], former)));
    put.chain(delete).collect()
}

/// Of claims, those that the object has from now on and those that it had.
fn item(
    keys: &Keys,
    (kind, key): (ObjectKind, &ObjectKey),
    value: Option<Vec<u8>>,
    (now, former): (&[String], &[String]),
) -> Item {
    let (now, former): (BTreeSet<&String>, BTreeSet<&String>) =
        (now.iter().collect(), former.iter().collect());
    let texts = |claims: Vec<&&String>| -> Vec<String> {
        claims.into_iter().map(|claim| keys.text(&Key::Claim((**claim).clone()))).collect()
    };
    let object = keys.text(&Key::Object(kind, key.clone()));
    // As the key has it, so that the owner's key can be made of it.
    let owner = object.rsplitn(3, '/').take(2).collect::<Vec<_>>();
    Item {
        owner: owner.into_iter().rev().collect::<Vec<_>>().join("/"),
        object,
        value,
        new: texts(now.difference(&former).collect()),
        kept: texts(now.intersection(&former).collect()),
        dropped: texts(former.difference(&now).collect()),
    }
}

impl Item {
    /// Whether the decision was about an object that is there and has claims: those are not to be
    /// taken from whoever has them once it is gone.
    fn existed(&self) -> bool {
        !(self.kept.is_empty() && self.dropped.is_empty())
    }

    fn is_among(&self, found: &[&KeyValue]) -> bool {
        found.iter().any(|one| one.key == self.object.as_bytes())
    }

    /// How much of a transaction it takes, if claims are astray.
    fn width(&self) -> usize {
        let claims = self.new.len() + self.kept.len();
        (2 + 2 * claims).max(1 + claims + self.dropped.len())
    }

    fn bytes(&self) -> usize {
        self.object.len() * 3 + self.value.as_ref().map_or(0, Vec::len) + self.width() * 128
    }
}

/// As few transactions as can be, in order.
fn batches(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut all: Vec<Vec<Item>> = Vec::new();
    let (mut width, mut bytes) = (0, 0);
    for item in items {
        width += item.width();
        bytes += item.bytes();
        match all.last_mut() {
            Some(last) if width <= MOST && bytes <= BYTES => last.push(item),
            _ => {
                (width, bytes) = (item.width(), item.bytes());
                all.push(vec![item]);
            }
        }
    }
    all
}

/// Claims that one object gives up and another one takes.
fn moved(items: &[Item]) -> BTreeSet<String> {
    let dropped: BTreeSet<&String> = items.iter().flat_map(|item| &item.dropped).collect();
    let new = items.iter().flat_map(|item| &item.new);
    new.filter(|claim| dropped.contains(claim)).cloned().collect()
}

#[cfg(test)]
mod tests;
