//! What is due, brought to disk and kernel, and answered.

use std::mem;
use std::time::{Duration, Instant};

use causeway_api::chain;
use causeway_ruleset::plan::NodePortAddresses;

use super::{Asked, CommitWaiter, Engine, MANY_WRITTEN};
use crate::backend;
use crate::clock;
use crate::conditions::Concern;
use crate::host_ports;
use crate::membership::waiting;
use crate::reconcile::{Synced, Work};
use crate::request::Refused;
use crate::sharing;
use crate::state::Touched;

/// How long after much work its memory is free for certain.
const LET_GO: Duration = Duration::from_secs(1);

impl Engine {
    /// When something is due next.
    pub(super) fn next_due(&self) -> Instant {
        let alive = self.deadlines.alive.due().into_iter();
        let due = [
            &self.deadlines.flush,
            &self.deadlines.trim,
            &self.deadlines.manifests,
            &self.deadlines.spool,
            &self.deadlines.balancers,
        ];
        let others = due.into_iter().filter_map(|deadline| deadline.due());
        let others = others.chain(self.writes.due());
        let others = others.chain(self.membership.due()).chain(waiting::due(&self.state.waiting));
        alive.chain(others).fold(self.reconciler.due(), Instant::min)
    }

    /// Reads what has changed on disk, brings the kernel to the plan, and answers.
    pub(crate) fn commit(&mut self) {
        self.end_grace();
        self.end_waiting();
        self.expire_writes(clock::now());
        self.retry_manifests();
        self.retry_spool();
        // Whoever waits comes before what the manifest directory has new.
        self.settle_balancers();
        if mem::take(&mut self.pending.manifests) {
            self.change_objects(Asked::Manifests, None);
        }
        if mem::take(&mut self.pending.spool) {
            self.read_spool();
        }
        self.settle_balancers();
        let now = clock::now();
        self.alive(now);
        self.reconciler.on_time(&mut self.state.conditions, now);
        // Before anybody is told, and before the spool forgets.
        let kept = self.keep_containers();
        if kept.is_ok() {
            self.publish_containers();
        }
        let synced = self.sync(now);
        self.report_left_out(now);
        let refused = synced.err().map(|error| {
            Refused::caused(
                503,
                "stored, but not in this node's kernel yet; causewayd tries again",
                &error,
            )
        });
        let refused = kept.err().or(refused);
        self.answer_waiting(refused.as_ref());
        if !self.pending.queries.is_empty() {
            self.report_connection();
            self.state.balancers.pools = self.objects.pool_use();
        }
        for query in mem::take(&mut self.pending.queries) {
            self.front.answer(&self.state, query, || self.followers.conntrack_trouble());
        }
        if self.deadlines.flush.take(clock::now())
            && let Err(error) = self.store.flush()
        {
            tracing::error!(error = %chain(&error), "flush the snapshot of the cluster");
        }
        if self.written > MANY_WRITTEN {
            self.give_memory_back();
        }
        self.trim_later();
    }

    /// Whoever listed the store, and sled's threads, let go of much only a moment later.
    fn trim_later(&mut self) {
        let now = clock::now();
        if mem::take(&mut self.trim_pending) {
            self.deadlines.trim.set(now + LET_GO);
        } else if self.deadlines.trim.take(now) {
            trim();
        }
    }

    fn give_memory_back(&mut self) {
        (self.written, self.trim_pending) = (0, true);
        if let Err(error) = self.store.shrink() {
            // It is opened again with the next use.
            tracing::error!(error = %chain(&error), "open the store again");
        }
        trim();
    }

    /// Makes sure that a kill loses no container.
    fn keep_containers(&mut self) -> Result<(), Refused> {
        if self.pending.publish.is_empty() {
            return Ok(());
        }
        self.deadlines.flush.clear();
        self.store.flush().map_err(|error| {
            tracing::error!(error = %chain(&error), "flush the store");
            self.pending.spooled.clear();
            Refused::caused(503, "the container cannot be stored", &error)
        })
    }

    /// Answers whoever waits for the commit. `refused`: it failed.
    fn answer_waiting(&mut self, refused: Option<&Refused>) {
        // While it is sought which service the kernel refuses nobody knows whose rules are there.
        let waiting = &mut self.pending.waiting;
        let ready = if self.reconciler.is_searching() { Vec::new() } else { mem::take(waiting) };
        for waiting in ready {
            let refused = refused.cloned();
            // Whoever asked may be gone.
            match waiting {
                CommitWaiter::Event(pod, reply) => {
                    let pod = pod.as_ref();
                    let said = pod.map(|pod| host_ports::of_container(&self.state.plan, pod));
                    drop(reply.send(refused.map_or(Ok(said.unwrap_or_default()), Err)));
                }
                CommitWaiter::Applied(mut applied, reply) => {
                    sharing::warn(&self.state.plan, &mut applied);
                    host_ports::warn(&self.state.plan, &mut applied);
                    self.state.left_out.warn(&mut applied);
                    self.state.balancers.warn(&mut applied);
                    drop(reply.send(refused.map_or(Ok(applied), Err)));
                }
            }
        }
    }

    /// Brings the kernel to what was taken in.
    fn sync(&mut self, started: Instant) -> backend::Result<()> {
        let node = mem::take(&mut self.pending.node);
        let work = Work {
            touched: mem::take(&mut self.pending.touched),
            facts: node.then(|| self.planning()),
            is_awaited: !self.pending.waiting.is_empty(),
        };
        let synced = self.reconciler.sync(&mut self.state, work, started);
        self.pending.left_out |= self.reconciler.take_left_out_changed();
        let Some(Synced { commit, is_first }) = synced? else { return Ok(()) };
        if is_first {
            self.settle();
        }
        if let Some(commit) = commit {
            self.followers.committed(&mut self.state, &commit);
            self.hold_addresses(&commit);
            self.front.synced(&self.state, &commit);
            self.tell_names(&commit.touched);
        } else if is_first {
            self.tell_names(&Touched::default());
        }
        // Only here: what a commit that failed left over is not told of yet.
        if let Some(names) = &mut self.names {
            names.settle(&self.state);
        }
        for event in mem::take(&mut self.pending.spooled) {
            if let Err(error) = self.spool.remove(&event) {
                tracing::warn!(error = %error, "remove a delivered event from the spool");
            }
        }
        Ok(())
    }

    /// What had to wait until our rules are in the kernel for the first time.
    fn settle(&mut self) {
        let localhost = self.facts.node_ports == NodePortAddresses::All;
        let problems = self.sysctls.after_rules(localhost);
        self.warn(Concern::Sysctls, problems);
        match self.reconciler.remove_other() {
            Ok(removed) => {
                for what in removed {
                    tracing::info!(what, "removed what the other backend had left");
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "remove the other backend's rules");
                self.state.conditions.set(Concern::OtherBackend, chain(&error));
            }
        }
        let progress = &self.state.progress;
        let services = self.state.index.services().len();
        let containers = self.state.index.container_count();
        let took = clock::now() - progress.started;
        tracing::info!(services, containers, ms = took.as_millis(), "the rules are in the kernel");
        self.notifier.say("READY=1");
        trim();
    }

    fn alive(&mut self, now: Instant) {
        if let Some(period) = self.notifier.watchdog()
            && self.deadlines.alive.take(now)
        {
            self.notifier.say("WATCHDOG=1");
            self.deadlines.alive.set(now + period / 2);
        }
    }
}

/// Gives back what is free: the copies of a start or of much work are several times what stays.
fn trim() {
    // SAFETY: glibc's allocator may be asked that at any time.
    unsafe { libc::malloc_trim(0) };
}
