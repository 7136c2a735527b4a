//! Carries out what [`crate::objects::writes`] decides: changes of objects on their way to the
//! cluster store.

use std::mem;
use std::time::Instant;

use causeway_api::Applied;
use causeway_model::ObjectKind;
use causeway_source::cluster::{Command, Write, WriteError};
use causeway_source::{Stored, claims};

use super::{CommitWaiter, Engine};
use crate::clock;
use crate::membership::Membership;
use crate::objects::writes::{Asked, Job, PreparedWrite, Seen, WriteEffect};
use crate::objects::{Staged, tell_written};
use crate::request::Reply;
use crate::state::{self, ClusterState, ObjectId, id_of};

impl Engine {
    /// Takes a change of objects: it is done at once, or through the cluster store.
    pub(super) fn change_objects(&mut self, asked: Asked, reply: Option<Reply<Applied>>) {
        let Some(seen) = seen(&self.state.cluster, &self.membership) else {
            return self.change_here(&asked, reply);
        };
        let effects = self.writes.ask(asked, reply, seen, clock::now());
        self.carry_out_writes(effects);
        self.advance_writes();
    }

    /// Without a cluster store.
    fn change_here(&mut self, asked: &Asked, reply: Option<Reply<Applied>>) {
        let (staged, applied) = match asked {
            Asked::Apply(apply) => self.stage().apply(apply),
            Asked::Delete(targets) => self.stage().delete(targets),
            Asked::Manifests => return self.read_manifests(),
            Asked::Balancers => return self.settle_balancers(),
        };
        let applied = self.write(staged).map(|()| applied);
        // Whoever waits comes before whoever asks next.
        self.settle_balancers();
        if let Some(reply) = reply {
            self.answer_later(applied, asked.waits(), reply);
        }
    }

    /// Begins the next change, if there is one and the store answers.
    pub(super) fn advance_writes(&mut self) {
        while let Some(seen) = seen(&self.state.cluster, &self.membership)
            && let Some(job) = self.writes.next(seen)
        {
            self.attempt(job);
        }
    }

    /// Stages a change and sends it.
    fn attempt(&mut self, job: Job) {
        let mut pass = None;
        let (staged, applied) = match &job.asked {
            Asked::Apply(apply) => self.stage().apply(apply),
            Asked::Delete(targets) => self.stage().delete(targets),
            Asked::Manifests => {
                let mut found = self.stage_manifests();
                let staged = mem::take(&mut found.staged);
                pass = Some(found);
                (staged, Applied::default())
            }
            Asked::Balancers => (self.stage().settle().0, Applied::default()),
        };
        let write = self.write_of(staged);
        let effects = self.writes.sent(job, PreparedWrite { applied, pass, write }, clock::now());
        self.carry_out_writes(effects);
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
        let seen = self.state.cluster.as_ref().map_or(0, |cluster| cluster.revision);
        Write { id: self.writes.next_id(), seen, put, delete, nodes }
    }

    /// What became of a write.
    pub(super) fn on_written(&mut self, id: u64, result: Result<i64, WriteError>) {
        let effects = self.writes.on_written(id, result, clock::now());
        self.carry_out_writes(effects);
        self.seen_writes();
    }

    /// Goes on with a write whose revision has been seen.
    pub(super) fn seen_writes(&mut self) {
        let seen = self.state.cluster.as_ref().map_or(0, |cluster| cluster.revision);
        let effects = self.writes.on_revision(seen);
        self.carry_out_writes(effects);
        self.advance_writes();
    }

    /// Gives up what has waited too long.
    pub(super) fn expire_writes(&mut self, now: Instant) {
        let effects = self.writes.expire(now);
        self.carry_out_writes(effects);
        self.advance_writes();
    }

    /// If the store is away, what waits for its turn is refused.
    pub(super) fn refuse_writes(&mut self) {
        let Some(seen) = seen(&self.state.cluster, &self.membership) else { return };
        let effects = self.writes.refuse(seen, clock::now());
        self.carry_out_writes(effects);
    }

    fn carry_out_writes(&mut self, effects: Vec<WriteEffect>) {
        for effect in effects {
            match effect {
                WriteEffect::Attempt(job) => self.attempt(job),
                WriteEffect::Send(write) => {
                    if let Some(cluster) = &self.cluster {
                        cluster.send(Command::Write(write));
                    }
                }
                // Whoever asked may be gone.
                WriteEffect::Answer(reply, answer) => drop(reply.send(answer)),
                WriteEffect::AnswerLater(applied, reply) => {
                    self.pending.waiting.push(CommitWaiter::Applied(applied, reply));
                }
                WriteEffect::Reported(pass, refused) => self.report_manifests(*pass, refused),
                WriteEffect::ManifestsLater(again) => {
                    self.manifests_wait = true;
                    if let Some(again) = again {
                        self.deadlines.manifests.set(again);
                    }
                }
                WriteEffect::BalancersLater(again) => self.deadlines.balancers.set(again),
                WriteEffect::ClaimAnew => self.objects.claim_anew(&self.state.index),
                WriteEffect::Stored(put, gone) => {
                    self.state.progress.writes += 1;
                    tell_written(put.into_iter(), gone.into_iter());
                }
                WriteEffect::Conflicted => self.state.progress.conflicts += 1,
            }
        }
    }

    /// Reads the manifest directory again, if its time has come.
    pub(super) fn retry_manifests(&mut self) {
        if self.deadlines.manifests.take(clock::now()) {
            self.pending.manifests = true;
        }
    }
}

/// `None` without a cluster store.
fn seen<'a>(cluster: &'a Option<ClusterState>, membership: &Membership) -> Option<Seen<'a>> {
    let (has_viewed, has_answered) = (membership.has_viewed(), membership.has_answered());
    cluster.as_ref().map(|cluster| Seen { cluster, has_viewed, has_answered })
}
