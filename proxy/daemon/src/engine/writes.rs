//! Changes of objects on their way to the cluster store: one at a time, in order.
//!
//! What is asked is staged against what this node has seen, written by comparing revisions, and
//! answered when the write has come back as a change and is in the kernel. If another node wrote
//! first it is staged anew from what was asked, once that is seen.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use causeway_api::{Applied, Apply};
use causeway_model::{ObjectKey, ObjectKind};
use causeway_source::cluster::{Command, Write, WriteError};
use causeway_source::{Stored, claims};
use serde_json::value::RawValue;

use super::{Engine, Waiting};
use crate::clock;
use crate::objects::{Pass, Staged, tell_written};
use crate::request::{Refused, Reply, Target};
use crate::state::{self, ObjectId, id_of};

/// How long the store may take for a write, and to let us see it.
const PATIENCE: Duration = Duration::from_secs(10);
/// More for each object of a write.
const PATIENCE_EACH: Duration = Duration::from_millis(10);
/// How long a change waits for its turn.
const QUEUED: Duration = Duration::from_secs(60);
/// When the manifest directory is tried again after the store has refused it.
const MANIFESTS_AGAIN: Duration = Duration::from_secs(10);
/// How often a change is staged anew before it is given up.
const ATTEMPTS: u32 = 10;
/// What to do while the store is away.
const REMEDY: &str = "check the cluster store and retry; running services are not affected";

/// Who wants objects changed, and how.
#[derive(Debug)]
pub(super) enum Asked {
    /// `causeway apply`
    Apply(Apply<Box<RawValue>>),
    /// `causeway delete`
    Delete(Vec<Target>),
    /// The manifest directory.
    Manifests,
}

/// A change that is asked for.
#[derive(Debug)]
struct Job {
    asked: Asked,
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
    progress: Progress,
    /// Given up then.
    until: Instant,
}

/// How far a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Not answered.
    Sent,
    /// Done at this revision, which is not seen yet.
    Written(i64),
    /// Another node wrote first, at this revision, which is not seen yet.
    Conflict(i64),
}

/// All changes under way.
#[derive(Debug, Default)]
pub(super) struct Writes {
    queue: VecDeque<Job>,
    current: Option<Current>,
    last: u64,
}

impl Writes {
    /// When the first change is given up.
    pub(super) fn due(&self) -> Option<Instant> {
        let queued = self.queue.iter().map(|job| job.until);
        queued.chain(self.current.iter().map(|current| current.until)).min()
    }
}

impl Engine {
    /// Takes a change of objects: it is done at once, or through the cluster store.
    pub(super) fn change_objects(&mut self, asked: Asked, reply: Option<Reply<Applied>>) {
        if self.state.cluster.is_some() {
            return self.queue_change(asked, reply);
        }
        let wait = waits(&asked);
        let applied = match &asked {
            Asked::Apply(apply) => self.stage().apply(apply),
            Asked::Delete(targets) => self.stage().delete(targets),
            Asked::Manifests => return self.read_manifests(),
        };
        let (staged, applied) = applied;
        let applied = self.write(staged).map(|()| applied);
        if let Some(reply) = reply {
            self.answer_later(applied, wait, reply);
        }
    }

    fn queue_change(&mut self, asked: Asked, reply: Option<Reply<Applied>>) {
        if matches!(asked, Asked::Manifests) {
            if self.away().is_some() {
                self.manifests_wait = true;
                return;
            }
            if self.writes.queue.iter().any(|job| matches!(job.asked, Asked::Manifests)) {
                return;
            }
        } else if let Some(refused) = self.away() {
            return answer(reply, Err(refused));
        }
        // Until the store has answered for the first time, its patience is what counts.
        let patience = if self.membership.has_viewed() { QUEUED } else { PATIENCE };
        let until = clock::now() + patience;
        self.writes.queue.push_back(Job { asked, reply, until, attempts: 0 });
        self.advance_writes();
    }

    /// Why no change can be made at present.
    fn away(&self) -> Option<Refused> {
        let cluster = self.state.cluster.as_ref()?;
        if let Some(excluded) = &cluster.excluded {
            let text = format!("this node is not part of the cluster: {excluded}");
            return Some(Refused::new(503, text));
        }
        let (since, why) = cluster.connection.as_ref().err()?;
        if !self.membership.has_answered() {
            return None;
        }
        let away = clock::words(clock::now().saturating_duration_since(*since));
        let text = format!("the cluster store is unreachable for {away}; {REMEDY}");
        let mut refused = Refused::new(503, text);
        refused.problem.causes.push(why.clone());
        Some(refused)
    }

    /// Begins the next change, if there is one and the store answers.
    pub(super) fn advance_writes(&mut self) {
        while self.writes.current.is_none() && self.membership.has_viewed() && self.connected() {
            let Some(job) = self.writes.queue.pop_front() else { return };
            self.attempt(job);
        }
    }

    fn connected(&self) -> bool {
        let cluster = self.state.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.connection.is_ok() && cluster.excluded.is_none())
    }

    /// Stages a change and sends it.
    fn attempt(&mut self, mut job: Job) {
        job.attempts += 1;
        let mut pass = None;
        let staged = match &job.asked {
            Asked::Apply(apply) => self.stage().apply(apply),
            Asked::Delete(targets) => self.stage().delete(targets),
            Asked::Manifests => {
                let mut found = self.stage_manifests();
                let staged = mem::take(&mut found.staged);
                pass = Some(found);
                (staged, Applied::default())
            }
        };
        let (staged, applied) = staged;
        let write = self.write_of(staged);
        let until = clock::now() + patience(&write);
        let put = write.put.iter().map(|(stored, _)| id_of(stored)).collect();
        let gone = write.delete.iter().map(|(kind, key, _)| (*kind, key.clone()));
        // One line for a node and what was applied for it.
        let mut gone: BTreeSet<ObjectId> = gone.collect();
        gone.extend(write.nodes.iter().map(|name| (ObjectKind::Node, ObjectKey::new("", &**name))));
        let gone = gone.into_iter().collect();
        let (id, progress, ids) = (write.id, Progress::Sent, (put, gone));
        let mut current = Current { job, id, applied, ids, pass, progress, until };
        if write.put.is_empty() && write.delete.is_empty() && write.nodes.is_empty() {
            return self.finish(&mut current, None);
        }
        if let Some(cluster) = &self.cluster {
            cluster.send(Command::Write(write));
        }
        self.writes.current = Some(current);
    }

    /// What to say to the store. What it has lost goes here and now.
    fn write_of(&mut self, mut staged: Staged) -> Write {
        let nodes = staged.take_nodes().into_iter().collect();
        let (put, gone) = staged.parts();
        let (lost, gone): (Vec<ObjectId>, Vec<ObjectId>) =
            gone.into_iter().partition(|id| self.membership.is_missing_in_store(id));
        self.ask_membership(|membership, _| membership.forget_missing(&lost));
        let former = |id: &ObjectId| {
            let known = if self.membership.is_missing_in_store(id) {
                None
            } else {
                state::stored(&self.state.index, id)
            };
            known.as_ref().map(claims).unwrap_or_default()
        };
        let put = put.into_iter().map(|stored| {
            let former = former(&id_of(&stored));
            (stored, former)
        });
        let put: Vec<(Stored, Vec<String>)> = put.collect();
        let delete = gone.into_iter().map(|id| (former(&id), id));
        let delete: Vec<(ObjectKind, _, Vec<String>)> =
            delete.map(|(former, (kind, key))| (kind, key, former)).collect();
        self.writes.last += 1;
        let seen = self.state.cluster.as_ref().map_or(0, |cluster| cluster.revision);
        Write { id: self.writes.last, seen, put, delete, nodes }
    }

    /// What became of a write.
    pub(super) fn on_written(&mut self, id: u64, result: Result<i64, WriteError>) {
        let Some(mut current) = self.writes.current.take_if(|current| current.id == id) else {
            return;
        };
        match result {
            Ok(revision) => {
                self.state.progress.writes += 1;
                let (put, gone) = mem::take(&mut current.ids);
                tell_written(put.into_iter(), gone.into_iter());
                current.progress = Progress::Written(revision);
                current.until = clock::now() + PATIENCE;
                if !waits(&current.job.asked) {
                    answer(current.job.reply.take(), Ok(mem::take(&mut current.applied)));
                }
                self.writes.current = Some(current);
            }
            Err(WriteError::Conflict(revision)) => {
                self.state.progress.conflicts += 1;
                if current.job.attempts >= ATTEMPTS {
                    let text = format!(
                        "other nodes wrote first {ATTEMPTS} times in a row; a large change may be \
                         stored in part, try again"
                    );
                    return self.give_up(current, Refused::new(503, text));
                }
                current.progress = Progress::Conflict(revision);
                current.until = clock::now() + PATIENCE;
                self.writes.current = Some(current);
            }
            Err(error @ WriteError::Away(_)) => {
                let text = format!("whether it was stored is not known; {REMEDY}");
                self.give_up(current, Refused::caused(503, &text, &error));
            }
            Err(error @ (WriteError::Refused(_) | WriteError::Denied(_))) => {
                self.give_up(current, Refused::caused(503, "the objects cannot be stored", &error));
            }
        }
        self.seen_writes();
    }

    /// Goes on with a write whose revision has been seen.
    pub(super) fn seen_writes(&mut self) {
        let seen = self.state.cluster.as_ref().map_or(0, |cluster| cluster.revision);
        let reached = |current: &mut Current| match current.progress {
            Progress::Sent => false,
            Progress::Written(revision) | Progress::Conflict(revision) => revision <= seen,
        };
        if let Some(mut current) = self.writes.current.take_if(reached) {
            if let Progress::Conflict(_) = current.progress {
                self.objects.claim_anew(&self.state.index);
                self.attempt(current.job);
            } else {
                self.finish(&mut current, None);
            }
        }
        self.advance_writes();
    }

    /// The end of a change: answered when what it did is in the kernel.
    fn finish(&mut self, current: &mut Current, refused: Option<Refused>) {
        if let Some(pass) = current.pass.take() {
            self.report_manifests(pass, refused.clone());
        }
        let Some(reply) = current.job.reply.take() else { return };
        match refused {
            Some(refused) => drop(reply.send(Err(refused))),
            None => {
                let applied = mem::take(&mut current.applied);
                self.pending.waiting.push(Waiting::Applied(applied, reply));
            }
        }
    }

    fn give_up(&mut self, mut current: Current, refused: Refused) {
        if matches!(current.job.asked, Asked::Manifests) {
            self.manifests_later();
        }
        self.finish(&mut current, Some(refused));
        self.objects.claim_anew(&self.state.index);
    }

    /// Gives up what has waited too long.
    pub(super) fn expire_writes(&mut self, now: Instant) {
        if let Some(current) = self.writes.current.take_if(|current| current.until <= now) {
            let text = match current.progress {
                Progress::Sent => format!(
                    "the cluster store does not answer a write; whether it was stored is not \
                     known; {REMEDY}"
                ),
                Progress::Written(revision) => format!(
                    "stored at revision {revision}, but this node has not received it; {REMEDY}"
                ),
                Progress::Conflict(revision) => format!(
                    "another node wrote first, at revision {revision}, which this node has not \
                     received; a large change may be stored in part; {REMEDY}"
                ),
            };
            self.give_up(current, Refused::new(503, text));
        }
        while self.writes.queue.front().is_some_and(|job| job.until <= now)
            && let Some(job) = self.writes.queue.pop_front()
        {
            self.put_off(job, || {
                Refused::new(503, format!("the cluster store has not answered; {REMEDY}"))
            });
        }
        self.advance_writes();
    }

    /// The store is away: what waits for its turn is refused.
    pub(super) fn refuse_writes(&mut self) {
        let Some(refused) = self.away() else { return };
        for job in mem::take(&mut self.writes.queue) {
            self.put_off(job, || refused.clone());
        }
    }

    fn put_off(&mut self, job: Job, refused: impl FnOnce() -> Refused) {
        if matches!(job.asked, Asked::Manifests) {
            self.manifests_later();
        }
        answer(job.reply, Err(refused()));
    }

    /// The manifest directory is read again when the store is back, or after a while.
    fn manifests_later(&mut self) {
        self.manifests_wait = true;
        self.deadlines.manifests.set(clock::now() + MANIFESTS_AGAIN);
    }

    /// Reads the manifest directory again, if its time has come.
    pub(super) fn retry_manifests(&mut self) {
        if self.deadlines.manifests.take(clock::now()) {
            self.pending.manifests = true;
        }
    }
}

/// Whether who asks waits for the kernel.
fn waits(asked: &Asked) -> bool {
    match asked {
        Asked::Apply(apply) => apply.wait,
        Asked::Delete(_) | Asked::Manifests => true,
    }
}

fn patience(write: &Write) -> Duration {
    let objects = u32::try_from(write.put.len() + write.delete.len()).unwrap_or(u32::MAX);
    PATIENCE + PATIENCE_EACH.saturating_mul(objects)
}

/// Whoever asked may be gone.
fn answer(reply: Option<Reply<Applied>>, answer: Result<Applied, Refused>) {
    if let Some(reply) = reply {
        drop(reply.send(answer));
    }
}
