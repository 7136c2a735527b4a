//! Changes of objects on their way to the cluster store: one at a time, in order. Pure: what is to
//! be done comes out as effects, in order.
//!
//! What is asked is staged against what this node has seen, written by comparing revisions, and
//! answered when the write has come back as a change and is in the kernel. If another node wrote
//! first it is staged anew from what was asked, once that is seen.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use causeway_api::{Applied, Apply};
use causeway_model::{ObjectKey, ObjectKind};
use causeway_source::cluster::{Write, WriteError};
use serde_json::value::RawValue;

use super::Pass;
use crate::clock;
use crate::request::{Refused, Reply, Target};
use crate::state::{ClusterState, ObjectId, id_of};

/// How long the store may take for a write, and to let us see it.
const PATIENCE: Duration = Duration::from_secs(10);
/// More for each object of a write.
const PATIENCE_EACH: Duration = Duration::from_millis(10);
/// How long a change waits for its turn.
const QUEUED: Duration = Duration::from_secs(60);
/// When manifest directory and load balancer addresses are tried again after the store has refused
/// them.
const AGAIN: Duration = Duration::from_secs(10);
/// How often a change is staged anew before it is given up.
const ATTEMPTS: u32 = 10;
/// What to do while the store is away.
const REMEDY: &str = "check the cluster store and retry; running services are not affected";

/// Who wants objects changed, and how.
#[derive(Debug)]
pub(crate) enum Asked {
    /// `causeway apply`
    Apply(Apply<Box<RawValue>>),
    /// `causeway delete`
    Delete(Vec<Target>),
    /// The manifest directory.
    Manifests,
    /// Whoever waits for a load balancer address.
    Balancers,
}

impl Asked {
    /// Whether who asks waits for the kernel.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Apply(apply) => apply.wait,
            Self::Delete(_) | Self::Manifests | Self::Balancers => true,
        }
    }
}

/// A change that is asked for.
#[derive(Debug)]
pub(crate) struct Job {
    /// What.
    pub asked: Asked,
    /// `None` if no client waits (any more).
    reply: Option<Reply<Applied>>,
    /// Given up then, if it had no turn.
    until: Instant,
    /// How often it was staged.
    attempts: u32,
}

/// The change whose turn it is.
#[derive(Debug)]
struct Current {
    job: Job,
    id: u64,
    applied: Applied,
    /// What is written and what is deleted, for the log.
    ids: (Vec<ObjectId>, Vec<ObjectId>),
    /// What the manifest directory had, if it is that.
    pass: Option<Pass>,
    progress: WriteProgress,
    /// Given up then.
    until: Instant,
}

/// How far a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteProgress {
    /// Not answered.
    Sent,
    /// Done at this revision, which is not seen yet.
    Written(i64),
    /// Another node wrote first, at this revision, which is not seen yet.
    Conflict(i64),
}

/// A change as it was staged.
#[derive(Debug)]
pub(crate) struct PreparedWrite {
    /// What whoever asked is answered.
    pub applied: Applied,
    /// What the manifest directory had, if it is that.
    pub pass: Option<Pass>,
    /// What the store is to write; of [`Writes::next_id`].
    pub write: Write,
}

/// What is known of the cluster store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Connection, revision, and whether this node is excluded.
    pub cluster: &'a ClusterState,
    /// It has said what there is.
    pub has_viewed: bool,
    /// It has answered, or was found not to.
    pub has_answered: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum WriteEffect {
    /// Staged from what was asked, then handed to [`Writes::sent`].
    Attempt(Job),
    /// Sent to the store.
    Send(Write),
    /// Answered at once.
    Answer(Reply<Applied>, Result<Applied, Refused>),
    /// Answered when the rules are in the kernel.
    AnswerLater(Applied, Reply<Applied>),
    /// A pass over the manifest directory is over; why it was not written.
    Reported(Box<Pass>, Option<Refused>),
    /// The manifest directory is read again when the store is back, or then.
    ManifestsLater(Option<Instant>),
    /// Load balancer addresses are given then.
    BalancersLater(Instant),
    /// What staging has claimed is given back.
    ClaimAnew,
    /// The store has it: what was put, what is gone.
    Stored(Vec<ObjectId>, Vec<ObjectId>),
    /// Another node wrote first.
    Conflicted,
}

/// All changes under way.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    queue: VecDeque<Job>,
    current: Option<Current>,
    last: u64,
}

impl Writes {
    /// When the first change is given up.
    pub(crate) fn due(&self) -> Option<Instant> {
        let queued = self.queue.iter().map(|job| job.until);
        queued.chain(self.current.iter().map(|current| current.until)).min()
    }

    /// A number for a write.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Takes a change in. Its turn comes with [`Self::next`].
    pub(crate) fn ask(
        &mut self,
        asked: Asked,
        reply: Option<Reply<Applied>>,
        seen: Seen<'_>,
        now: Instant,
    ) -> Vec<WriteEffect> {
        let away = seen.away(now);
        if matches!(asked, Asked::Manifests) {
            if away.is_some() {
                return vec![WriteEffect::ManifestsLater(None)];
            }
            if self.queue.iter().any(|job| matches!(job.asked, Asked::Manifests)) {
                return Vec::new();
            }
        } else if matches!(asked, Asked::Balancers) {
            let queued = |job: &Job| matches!(job.asked, Asked::Balancers);
            // It is asked for again when the store is back.
            if away.is_some() || self.queue.iter().any(queued) {
                return Vec::new();
            }
        } else if let Some(refused) = away {
            return answer(reply, refused);
        }
        // Until the store has answered for the first time, its patience is what counts.
        let until = now + if seen.has_viewed { QUEUED } else { PATIENCE };
        self.queue.push_back(Job { asked, reply, until, attempts: 0 });
        Vec::new()
    }

    /// The next change, if there is one and the store answers.
    pub(crate) fn next(&mut self, seen: Seen<'_>) -> Option<Job> {
        if self.current.is_some() || !seen.takes_writes() {
            return None;
        }
        self.queue.pop_front()
    }

    /// A change was staged: what of it goes to the store.
    pub(crate) fn sent(
        &mut self,
        mut job: Job,
        prepared: PreparedWrite,
        now: Instant,
    ) -> Vec<WriteEffect> {
        job.attempts += 1;
        let PreparedWrite { applied, pass, write } = prepared;
        let put = write.put.iter().map(|(stored, _)| id_of(stored)).collect();
        let gone = write.delete.iter().map(|(kind, key, _)| (*kind, key.clone()));
        // One line for a node and what was applied for it.
        let mut gone: BTreeSet<ObjectId> = gone.collect();
        gone.extend(write.nodes.iter().map(|name| (ObjectKind::Node, ObjectKey::new("", &**name))));
        let ids = (put, gone.into_iter().collect());
        let until = now + patience(&write);
        let current =
            Current { job, id: write.id, applied, ids, pass, progress: WriteProgress::Sent, until };
        if write.put.is_empty() && write.delete.is_empty() && write.nodes.is_empty() {
            return finish(current, None);
        }
        self.current = Some(current);
        vec![WriteEffect::Send(write)]
    }

    /// What became of a write.
    pub(crate) fn on_written(
        &mut self,
        id: u64,
        result: Result<i64, WriteError>,
        now: Instant,
    ) -> Vec<WriteEffect> {
        let Some(mut current) = self.current.take_if(|current| current.id == id) else {
            return Vec::new();
        };
        match result {
            Ok(revision) => {
                let (put, gone) = mem::take(&mut current.ids);
                let mut effects = vec![WriteEffect::Stored(put, gone)];
                current.progress = WriteProgress::Written(revision);
                current.until = now + PATIENCE;
                if !current.job.asked.waits()
                    && let Some(reply) = current.job.reply.take()
                {
                    effects.push(WriteEffect::Answer(reply, Ok(mem::take(&mut current.applied))));
                }
                self.current = Some(current);
                effects
            }
            Err(WriteError::Conflict(_)) if current.job.attempts >= ATTEMPTS => {
                let text = format!(
                    "other nodes wrote first {ATTEMPTS} times in a row; a large change may be \
                     stored in part, try again"
                );
                let mut effects = vec![WriteEffect::Conflicted];
                effects.extend(give_up(current, Refused::new(503, text), now));
                effects
            }
            Err(WriteError::Conflict(revision)) => {
                current.progress = WriteProgress::Conflict(revision);
                current.until = now + PATIENCE;
                self.current = Some(current);
                vec![WriteEffect::Conflicted]
            }
            Err(error @ WriteError::Away(_)) => {
                let text = format!("whether it was stored is not known; {REMEDY}");
                give_up(current, Refused::caused(503, &text, &error), now)
            }
            Err(error @ (WriteError::Refused(_) | WriteError::Denied(_))) => {
                let refused = Refused::caused(503, "the objects cannot be stored", &error);
                give_up(current, refused, now)
            }
        }
    }

    /// Goes on with a write whose revision has been seen.
    pub(crate) fn on_revision(&mut self, seen: i64) -> Vec<WriteEffect> {
        let reached = |current: &mut Current| match current.progress {
            WriteProgress::Sent => false,
            WriteProgress::Written(revision) | WriteProgress::Conflict(revision) => {
                revision <= seen
            }
        };
        match self.current.take_if(reached) {
            Some(current) if matches!(current.progress, WriteProgress::Conflict(_)) => {
                vec![WriteEffect::ClaimAnew, WriteEffect::Attempt(current.job)]
            }
            Some(current) => finish(current, None),
            None => Vec::new(),
        }
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<WriteEffect> {
        let mut effects = Vec::new();
        if let Some(current) = self.current.take_if(|current| current.until <= now) {
            let text = match current.progress {
                WriteProgress::Sent => format!(
                    "the cluster store does not answer a write; whether it was stored is not \
                     known; {REMEDY}"
                ),
                WriteProgress::Written(revision) => format!(
                    "stored at revision {revision}, but this node has not received it; {REMEDY}"
                ),
                WriteProgress::Conflict(revision) => format!(
                    "another node wrote first, at revision {revision}, which this node has not \
                     received; a large change may be stored in part; {REMEDY}"
                ),
            };
            effects.extend(give_up(current, Refused::new(503, text), now));
        }
        while self.queue.front().is_some_and(|job| job.until <= now)
            && let Some(job) = self.queue.pop_front()
        {
            let text = format!("the cluster store has not answered; {REMEDY}");
            effects.extend(put_off(job, Refused::new(503, text), now));
        }
        effects
    }

    /// If the store is away, what waits for its turn is refused.
    pub(crate) fn refuse(&mut self, seen: Seen<'_>, now: Instant) -> Vec<WriteEffect> {
        let Some(refused) = seen.away(now) else { return Vec::new() };
        let jobs = mem::take(&mut self.queue).into_iter();
        jobs.flat_map(|job| put_off(job, refused.clone(), now)).collect()
    }
}

impl Seen<'_> {
    /// Why no change can be made at present.
    fn away(&self, now: Instant) -> Option<Refused> {
        if let Some(excluded) = &self.cluster.excluded {
            let text = format!("this node is not part of the cluster: {excluded}");
            return Some(Refused::new(503, text));
        }
        let (since, why) = self.cluster.connection.as_ref().err()?;
        if !self.has_answered {
            return None;
        }
        let away = clock::words(now.saturating_duration_since(*since));
        let text = format!("the cluster store is unreachable for {away}; {REMEDY}");
        let mut refused = Refused::new(503, text);
        refused.problem.causes.push(why.clone());
        Some(refused)
    }

    fn takes_writes(&self) -> bool {
        self.has_viewed && self.cluster.connection.is_ok() && self.cluster.excluded.is_none()
    }
}

/// The end of a change: answered when what it did is in the kernel.
fn finish(current: Current, refused: Option<Refused>) -> Vec<WriteEffect> {
    let mut effects = Vec::new();
    effects.extend(current.pass.map(|pass| WriteEffect::Reported(Box::new(pass), refused.clone())));
    effects.extend(current.job.reply.map(|reply| match refused {
        Some(refused) => WriteEffect::Answer(reply, Err(refused)),
        None => WriteEffect::AnswerLater(current.applied, reply),
    }));
    effects
}

fn give_up(current: Current, refused: Refused, now: Instant) -> Vec<WriteEffect> {
    let mut effects = Vec::new();
    effects.extend(later(&current.job, now));
    effects.extend(finish(current, Some(refused)));
    effects.push(WriteEffect::ClaimAnew);
    effects
}

fn put_off(job: Job, refused: Refused, now: Instant) -> Vec<WriteEffect> {
    let mut effects = Vec::new();
    effects.extend(later(&job, now));
    effects.extend(answer(job.reply, refused));
    effects
}

/// What nobody asks for again is tried again.
fn later(job: &Job, now: Instant) -> Option<WriteEffect> {
    let again = now + AGAIN;
    match job.asked {
        Asked::Manifests => Some(WriteEffect::ManifestsLater(Some(again))),
        Asked::Balancers => Some(WriteEffect::BalancersLater(again)),
        Asked::Apply(_) | Asked::Delete(_) => None,
    }
}

/// Whoever asked may be gone.
fn answer(reply: Option<Reply<Applied>>, refused: Refused) -> Vec<WriteEffect> {
    reply.map(|reply| WriteEffect::Answer(reply, Err(refused))).into_iter().collect()
}

fn patience(write: &Write) -> Duration {
    let objects = u32::try_from(write.put.len() + write.delete.len()).unwrap_or(u32::MAX);
    PATIENCE + PATIENCE_EACH.saturating_mul(objects)
}

#[cfg(test)]
mod tests;
