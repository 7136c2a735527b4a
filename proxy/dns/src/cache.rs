//! Answers of other servers, kept for as long as they said; pure, time is an argument.
//!
//! The key is name without case, type, class, DO and CD (row D-54), time is counted from an arbitrary
//! beginning and never by the wall clock. What may be kept, and how long, says [`chain`]; how long
//! something old may still be given says RFC 8767 with the numbers of row D-52.

mod chain;
mod key;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;

use crate::{Question, Reply};

use chain::Worth;
pub(crate) use key::CacheKey;

/// So many answers are kept at most, CoreDNS's number.
const MAX_ENTRIES: usize = 9_984;

/// And so many bytes, by an estimate: answers of 64 KiB must not make gigabytes.
const MAX_BYTES: usize = 8 << 20;

/// An old answer may be given for so long after its end (RFC 8767 says one to three days at most;
/// CoreDNS and row D-52 an hour).
const MAX_STALE: Duration = Duration::from_secs(3600);

/// After a failed refresh an old answer is given at once for so long (RFC 8767 section 5).
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// What an old answer says that it is good for, seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;

/// "The upstream does not know" is kept for so long, seconds (RFC 2308 section 7.1, RFC 9520).
const FAILURE_TTL: u32 = 5;

/// A name is busy that was asked so often in this minute or the one before.
const BUSY: u32 = 10;

const MINUTE: Duration = Duration::from_secs(60);

/// So many entries that were used are passed over before one goes all the same.
const PATIENCE: usize = 8;

/// Whether old answers are given while the upstreams are away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// They end with their TTL.
    #[default]
    Never,
    /// They are; NXDOMAIN and NODATA replace them.
    WhileAway,
    /// They are, and for an hour they outlast NXDOMAIN and NODATA too.
    EvenIfDenied,
}

/// What the cache has for a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Good, TTLs counted down. `refresh`: the name is busy and ends soon, ask again beside it.
    Fresh {
        /// To the client.
        reply: Reply,
        /// Once for each life of an entry.
        refresh: bool,
    },
    /// Past its end. `at_once`: a refresh failed a moment ago, so do not try again.
    Stale {
        /// For the case that nothing fresh comes.
        reply: Reply,
        /// Give it without asking.
        at_once: bool,
    },
    /// Nothing of use.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    reply: Reply,
    bytes: usize,
    stored: Duration,
    life: Duration,
    /// A refresh failed; until then no other is tried.
    failed_until: Duration,
    refreshing: bool,
    /// Used since the hand passed it.
    used: bool,
    minute: Duration,
    /// Questions since `minute` began, and in the minute before.
    asked: (u32, u32),
}

/// Answers by question, at most 9,984 and 8 MiB.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    stale: Stale,
    entries: BTreeMap<Rc<CacheKey>, Entry>,
    /// The keys of `entries` in the order in which they are looked at for removal.
    ring: VecDeque<Rc<CacheKey>>,
    bytes: usize,
    evicted: u64,
}

impl Cache {
    /// An empty one.
    pub(crate) fn new(stale: Stale) -> Self {
        Self { stale, ..Self::default() }
    }

    /// What there is for a question.
    pub(crate) fn look(&mut self, key: &CacheKey, now: Duration) -> Kept {
        let Some(entry) = self.entries.get_mut(key) else { return Kept::Nothing };
        let age = now.saturating_sub(entry.stored);
        if age < entry.life {
            let refresh = entry.hit(now, age);
            return Kept::Fresh { reply: aged(&entry.reply, age), refresh };
        }
        let old = age - entry.life < MAX_STALE;
        if self.stale == Stale::Never || !old || entry.reply.code == ResponseCode::ServFail {
            return Kept::Nothing;
        }
        entry.used = true;
        Kept::Stale { reply: stale(&entry.reply), at_once: now < entry.failed_until }
    }

    /// What an upstream answered, `bytes` long. It is kept if it may be.
    pub(crate) fn put(&mut self, key: CacheKey, question: &Question, given: Given<'_>) {
        let Given { reply, bytes, now } = given;
        let life = match chain::worth(question, reply) {
            Worth::Nothing => 0,
            Worth::Failure => {
                if self.keep_instead(&key, now) {
                    return;
                }
                FAILURE_TTL
            }
            Worth::Denial(seconds) => {
                if self.stale == Stale::EvenIfDenied && self.outlasts_denial(&key, now) {
                    return;
                }
                seconds
            }
            Worth::Answer(seconds) => seconds,
        };
        if life == 0 {
            // What was kept is contradicted by what must not be kept.
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.life = Duration::ZERO;
                entry.refreshing = false;
            }
            return;
        }
        let records = [&reply.answers, &reply.authority, &reply.additional].map(Vec::len);
        let records = records.iter().sum::<usize>() * size_of::<Record>();
        let bytes = bytes + records + size_of::<Entry>();
        let entry = Entry {
            reply: chain::bounded(reply, life),
            bytes,
            stored: now,
            life: Duration::from_secs(life.into()),
            failed_until: Duration::ZERO,
            refreshing: false,
            used: false,
            minute: now,
            asked: (0, 0),
        };
        self.insert(key, entry);
    }

    /// No upstream answered: [`Cache::put`] of SERVFAIL, for a question whose name has no answer.
    pub(crate) fn failed(&mut self, key: CacheKey, question: &Question, now: Duration) {
        let reply = failure();
        self.put(key, question, Given { reply: &reply, bytes: 12, now });
    }

    /// Everything is old from now on.
    pub(crate) fn expire(&mut self, now: Duration) {
        for entry in self.entries.values_mut() {
            entry.life = entry.life.min(now.saturating_sub(entry.stored));
        }
    }

    /// How many answers are kept.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many went to make room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// A failure never takes the place of something better.
    fn keep_instead(&mut self, key: &CacheKey, now: Duration) -> bool {
        let stale = self.stale;
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.refreshing = false;
        if entry.reply.code == ResponseCode::ServFail {
            return false;
        }
        let age = now.saturating_sub(entry.stored);
        if age >= entry.life {
            entry.failed_until = now + AFTER_FAILURE;
        }
        age < entry.life || (stale != Stale::Never && age - entry.life < MAX_STALE)
    }

    fn outlasts_denial(&mut self, key: &CacheKey, now: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let end = entry.stored + entry.life + MAX_STALE;
        let good = entry.reply.code == ResponseCode::NoError && !entry.reply.answers.is_empty();
        if good && now < end {
            entry.refreshing = false;
            entry.failed_until = now + AFTER_FAILURE;
        }
        good && now < end
    }

    fn insert(&mut self, key: CacheKey, mut entry: Entry) {
        self.bytes += entry.bytes;
        if let Some(before) = self.entries.get_mut(&key) {
            self.bytes -= before.bytes;
            (entry.minute, entry.asked, entry.used) = (before.minute, before.asked, before.used);
            *before = entry;
        } else {
            let key = Rc::new(key);
            self.ring.push_back(Rc::clone(&key));
            self.entries.insert(key, entry);
        }
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            self.evict();
        }
    }

    /// The hand of a clock: what was used since it came by last stays for another round.
    fn evict(&mut self) {
        for attempt in 0.. {
            let Some(key) = self.ring.pop_front() else { return };
            let used =
                self.entries.get_mut(&key).is_some_and(|entry| std::mem::take(&mut entry.used));
            if used && attempt < PATIENCE {
                self.ring.push_back(key);
                continue;
            }
            if let Some(entry) = self.entries.remove(&key) {
                self.bytes -= entry.bytes;
            }
            self.evicted += 1;
            return;
        }
    }
}

/// What [`Cache::put`] is given beside the question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// As it came.
    pub(crate) reply: &'a Reply,
    /// Length of the message.
    pub(crate) bytes: usize,
    /// When it came.
    pub(crate) now: Duration,
}

impl Entry {
    /// Counts a question; whether the entry is to be refreshed before it ends: it is busy, and less than a tenth of its life is left.
    fn hit(&mut self, now: Duration, age: Duration) -> bool {
        self.used = true;
        let gone = now.saturating_sub(self.minute);
        if gone > MINUTE {
            let before = if gone > 2 * MINUTE { 0 } else { self.asked.0 };
            (self.minute, self.asked) = (now, (0, before));
        }
        self.asked.0 += 1;
        let ends = (self.life - age) * 10 < self.life;
        let refresh = ends
            && self.asked.0.max(self.asked.1) >= BUSY
            && !self.refreshing
            && self.reply.code != ResponseCode::ServFail;
        self.refreshing |= refresh;
        refresh
    }
}

/// SERVFAIL.
pub(crate) fn failure() -> Reply {
    Reply::of(ResponseCode::ServFail, false)
}

/// With TTLs counted down.
fn aged(reply: &Reply, age: Duration) -> Reply {
    let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    with_ttl(reply, |ttl| ttl.saturating_sub(seconds))
}

fn stale(reply: &Reply) -> Reply {
    with_ttl(reply, |_| STALE_TTL)
}

fn with_ttl(reply: &Reply, ttl: impl Fn(u32) -> u32) -> Reply {
    let mut reply = reply.clone();
    let sections = [&mut reply.answers, &mut reply.authority, &mut reply.additional];
    for record in sections.into_iter().flatten() {
        record.ttl = ttl(record.ttl);
    }
    reply
}

#[cfg(test)]
mod tests;
