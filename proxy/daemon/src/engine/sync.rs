//! Plan, commit, answer; what is due; what happens after a failure.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_api::chain;
use causeway_model::{ObjectKey, limits};
use causeway_ruleset::plan::{Delta, NodePortAddresses, Plan, ServicePlan};

use super::{Asked, Engine, FULL_PERIOD, MANY_WRITTEN, Waiting};
use crate::backend;
use crate::clock;
use crate::conditions::{Change, Concern};
use crate::config::BackendKind;
use crate::host_ports;
use crate::membership::waiting;
use crate::request::Refused;
use crate::schedule::{Backoff, Gap, Pace, Retry, Schedule};
use crate::sharing;
use crate::state::{Committed, Touched};

/// Pause after a failed transaction.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(30) };
/// How often changes by other processes are looked for if nobody tells.
const POLL: Duration = Duration::from_millis(900);
/// Comparing everything takes a tenth of the time at most, unless a change would then stay
/// unnoticed for longer than the longest pause.
const GAP: Gap = Gap { times: 10, shortest: Duration::ZERO, longest: Duration::from_millis(300) };
/// How long after much work its memory is free for certain.
const LET_GO: Duration = Duration::from_secs(1);

/// Looks for changes by other processes, the first one after the first commit. `told`: the kernel
/// tells of them.
pub(super) fn looks(told: bool, now: Instant) -> Schedule {
    Schedule::later(Pace { period: (!told).then_some(POLL), gap: GAP }, now)
}

impl Engine {
    /// When something is due next.
    pub(super) fn next_due(&self) -> Instant {
        let alive = self.due.alive.due().into_iter();
        let due = [&self.due.flush, &self.due.trim, &self.due.manifests, &self.due.spool];
        let others = due.into_iter().filter_map(|deadline| deadline.due());
        let others = others.chain(self.writes.due());
        let others = others.chain(self.membership.due()).chain(waiting::due(&self.state.waiting));
        let others = others.chain(self.contest.due()).chain(self.isolation.due());
        match self.due.retry.due() {
            // It compares everything, too.
            Some(at) => alive.chain(others).fold(at, Instant::min),
            None => {
                alive.chain(others).chain(self.due.looks.due()).fold(self.due.full, Instant::min)
            }
        }
    }

    /// Reads what has changed on disk, brings the kernel to the plan, and answers.
    pub(crate) fn commit(&mut self) {
        self.end_grace();
        self.end_waiting();
        self.expire_writes(clock::now());
        self.retry_manifests();
        self.retry_spool();
        if mem::take(&mut self.pending.manifests) {
            self.change_objects(Asked::Manifests, None);
        }
        if mem::take(&mut self.pending.spool) {
            self.read_spool();
        }
        let now = clock::now();
        self.alive(now);
        self.report_contest(now);
        if self.due.looks.is_due(now) {
            self.pending.check = true;
        }
        // Before anybody is told, and before the spool forgets.
        let kept = self.keep_containers();
        if kept.is_ok() {
            self.publish_containers();
        }
        let synced = self.sync(now);
        self.say_left_out(now);
        let refused = synced.err().map(|error| {
            Refused::caused(
                503,
                "stored, but not in this node's kernel yet; causewayd tries again",
                &error,
            )
        });
        let refused = kept.err().or(refused);
        // While it is sought which service the kernel refuses nobody knows whose rules are there.
        let waiting = &mut self.pending.waiting;
        let ready = if self.isolation.searches() { Vec::new() } else { mem::take(waiting) };
        for waiting in ready {
            let refused = refused.clone();
            // Whoever asked may be gone.
            match waiting {
                Waiting::Event(pod, reply) => {
                    let pod = pod.as_ref();
                    let said = pod.map(|pod| host_ports::of_container(&self.state.plan, pod));
                    drop(reply.send(refused.map_or(Ok(said.unwrap_or_default()), Err)));
                }
                Waiting::Applied(mut applied, reply) => {
                    sharing::warn(&self.state.plan, &mut applied);
                    host_ports::warn(&self.state.plan, &mut applied);
                    self.state.left_out.warn(&mut applied);
                    drop(reply.send(refused.map_or(Ok(applied), Err)));
                }
            }
        }
        if !self.pending.queries.is_empty() {
            self.describe_connection();
        }
        for query in mem::take(&mut self.pending.queries) {
            self.front.answer(&self.state, query);
        }
        if self.due.flush.take(clock::now())
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
        if mem::take(&mut self.listed) {
            self.due.trim.set(now + LET_GO);
        } else if self.due.trim.take(now) {
            trim();
        }
    }

    fn give_memory_back(&mut self) {
        (self.written, self.listed) = (0, true);
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
        self.due.flush.clear();
        self.store.flush().map_err(|error| {
            tracing::error!(error = %chain(&error), "flush the store");
            self.pending.spooled.clear();
            Refused::caused(503, "the container cannot be stored", &error)
        })
    }

    /// Plans what changed and brings the kernel there.
    fn sync(&mut self, started: Instant) -> backend::Result<()> {
        let touched = mem::take(&mut self.pending.touched);
        let node = mem::take(&mut self.pending.node);
        let replanned = node && self.replan();
        let delta = self.plan(started, replanned, &touched);
        let unchanged = delta.is_empty();
        self.behind.delta.append(delta);
        merge_touched(&mut self.behind.touched, touched);
        if (replanned || self.isolation.searches()) && self.due.retry.due().is_none() {
            self.due.retry = Retry::at(started);
        }
        let looking = self.look_now(started);
        let (full, result) = match self.due.retry.due() {
            Some(at) if at > started && self.pending.waiting.is_empty() => return Ok(()),
            Some(_) => (true, self.whole()),
            // What others did is looked at next.
            None if !unchanged => (false, self.change()),
            None if self.due.full <= started => (true, self.look(true)),
            None if looking => (false, self.look(false)),
            None => (false, Ok(false)),
        };
        let now = clock::now();
        match result {
            Ok(differed) => {
                self.synced(started, now, full, differed);
                Ok(())
            }
            Err(error) => {
                self.failed(now, &error);
                Err(error)
            }
        }
    }

    /// Brings the plan up to date.
    fn plan(&mut self, now: Instant, replanned: bool, touched: &Touched) -> Delta {
        let mut concerned = if replanned { self.all_services() } else { touched.services.clone() };
        let moved = self.isolation.take_changed(&concerned, now);
        concerned.extend(moved);
        let (index, isolation) = (&self.state.index, &self.isolation);
        let left_out = RefCell::new(BTreeMap::new());
        let iptables = self.state.settings.backend == BackendKind::Iptables;
        let resolve = |key: &ObjectKey| {
            let mut resolved = index.resolve(key).filter(|_| !isolation.is_out(key))?;
            if iptables && let Err(excess) = limits::iptables(&resolved) {
                resolved.left_out.service = Some(excess);
            }
            if !resolved.left_out.is_empty() {
                left_out.borrow_mut().insert(key.clone(), resolved.left_out.clone());
            }
            Some(resolved)
        };
        let denied = self.state.plan.denied_count();
        let mut delta = self.state.plan.update(&concerned, &resolve);
        self.pending.left_out |= denied != self.state.plan.denied_count();
        self.state.left_out.planned(&concerned, left_out.into_inner());
        if replanned || !self.settled || !touched.containers.is_empty() {
            let containers = index.containers_of(&self.facts.name);
            let ips = containers.flat_map(|(one, _)| one.record.ips.iter().copied());
            delta.append(self.state.plan.set_containers(ips));
            let ports = host_ports::planned(&self.state.host_ports, index, &self.facts.name);
            delta.append(self.state.plan.set_host_ports(ports));
        }
        delta
    }

    /// Whether others may have changed our rules and looking is not too early.
    fn look_now(&mut self, now: Instant) -> bool {
        if !self.pending.check {
            return false;
        }
        let early = self.due.looks.earliest() > now;
        if early {
            self.due.looks.wanted_at_earliest();
        }
        !early
    }

    /// Looks whether the kernel still holds what it did, and puts it right. Whether it did not.
    fn look(&mut self, closely: bool) -> backend::Result<bool> {
        let differed = match closely {
            true => self.whole()?,
            false => {
                let started = clock::now();
                let differed = self.backend.look(&self.state.plan)?;
                self.looked(started);
                differed
            }
        };
        if differed {
            self.repaired();
        }
        Ok(differed)
    }

    /// Compares everything and puts it right. Whether something differed.
    fn whole(&mut self) -> backend::Result<bool> {
        let started = clock::now();
        let differed = self.backend.whole(&self.state.plan)?;
        self.looked(started);
        self.due.full = clock::now() + FULL_PERIOD;
        Ok(differed)
    }

    /// Everything was compared, since `started`.
    fn looked(&mut self, started: Instant) {
        self.pending.check = false;
        let now = clock::now();
        self.due.looks.done(now - started, now);
    }

    /// Brings a change to the kernel. Where that fails, somebody else may have changed our rules:
    /// everything is compared then.
    fn change(&mut self) -> backend::Result<bool> {
        match self.backend.change(&self.state.plan, &self.behind.delta) {
            Ok(()) => {
                if self.pending.check {
                    self.due.looks.wanted_at_earliest();
                }
                Ok(true)
            }
            Err(error) => {
                self.state.progress.failures += 1;
                tracing::warn!(error = %chain(&error), "a change was refused; compare everything");
                self.whole()?;
                self.repaired();
                Ok(true)
            }
        }
    }

    fn repaired(&mut self) {
        let now = clock::now();
        self.state.progress.repairs += 1;
        self.contest.repaired(now);
        let by = self.contest.by();
        tracing::warn!(by, "another process had changed the service rules; restored");
        self.due.looks.hold_off(self.contest.next(now));
        self.report_contest(now);
    }

    /// Says whether another process keeps changing our rules.
    fn report_contest(&mut self, now: Instant) {
        let text = self.contest.report(now);
        match self.state.conditions.update(Concern::Repairs, text.clone()) {
            Change::Appeared => tracing::error!("{}", text.unwrap_or_default()),
            Change::Cleared => tracing::info!("no other process keeps changing the service rules"),
            Change::Changed | Change::Same | Change::Absent => {}
        }
    }

    /// The kernel holds the plan.
    fn synced(&mut self, started: Instant, now: Instant, full: bool, differed: bool) {
        let touched = mem::take(&mut self.behind.touched);
        let delta = mem::take(&mut self.behind.delta);
        let first = !mem::replace(&mut self.settled, true);
        let progress = &mut self.state.progress;
        let since = progress.behind.take().unwrap_or(started);
        if full || differed {
            progress.synced = Some(now);
        }
        if differed {
            progress.syncs += 1;
        }
        if full {
            progress.full_syncs += 1;
        }
        // A search for what the kernel refuses goes on at once.
        let searches = self.isolation.succeeded(now);
        self.due.retry = if searches { Retry::at(now) } else { Retry::default() };
        self.state.conditions.clear(&Concern::Rules);
        self.name_left_out();
        if first {
            self.settle();
        }
        let nothing = delta.is_empty()
            && touched.objects.is_empty()
            && touched.containers.is_empty()
            && touched.services.is_empty()
            && touched.nodes.is_empty();
        if first || differed || !nothing {
            let (took, latency) = (now - started, now - since);
            let commit = Committed { touched, delta, full, took, latency };
            self.front.synced(&mut self.state, &commit);
        }
        for event in mem::take(&mut self.pending.spooled) {
            if let Err(error) = self.spool.remove(&event) {
                tracing::warn!(error = %error, "remove a delivered event from the spool");
            }
        }
    }

    /// What had to wait until our rules are in the kernel for the first time.
    fn settle(&mut self) {
        let localhost = self.facts.node_ports == NodePortAddresses::All;
        let problems = self.sysctls.after_rules(localhost);
        self.warn(Concern::Sysctls, problems);
        match self.backend.remove_other() {
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

    fn failed(&mut self, now: Instant, error: &backend::Error) {
        self.state.progress.failures += 1;
        let text = chain(error);
        if !error.passing && self.isolate(&text, now) {
            tracing::warn!(error = text, "the kernel refuses rules; looking for the service");
            self.due.retry.again(now);
            return;
        }
        let pause = self.due.retry.failed(BACKOFF, now);
        tracing::error!(error = text, retry_ms = pause.as_millis(), "the rules are not in place");
        self.state.conditions.set(Concern::Rules, text);
        self.front.failed(&self.state);
    }

    /// Looks for services that the kernel refuses, which keep the others out. `true`: the next attempt
    /// is one without some.
    fn isolate(&mut self, why: &str, now: Instant) -> bool {
        let changes = &self.behind.delta.services;
        let suspects = || {
            let changed = changes.iter().filter_map(|(key, _, after)| Some((key, after.as_ref()?)));
            let mut suspects: Vec<_> = changed.map(|(key, plan)| (weight(plan), key)).collect();
            suspects.sort_by_key(|(weight, key)| (Reverse(*weight), *key));
            suspects.into_iter().map(|(_, key)| key.clone()).collect()
        };
        self.isolation.failed(suspects, why, now)
    }

    /// Says which services and endpoints have no rules.
    fn name_left_out(&mut self) {
        let index = &self.state.index;
        self.isolation.forget(|key| index.services().contains_key(key));
        self.state.left_out.refused(&self.isolation);
        let text = self.state.left_out.all();
        let change = self.state.conditions.update(Concern::LeftOut, text);
        self.pending.left_out |= !matches!(change, Change::Same | Change::Absent);
    }

    /// An empty plan with the node's present facts, where these are others. `true`: they are.
    fn replan(&mut self) -> bool {
        let facts = self.planning();
        let others = facts != self.state.plan.facts;
        if others {
            let guarded = Arc::clone(self.state.plan.guarded());
            self.state.plan = Plan::new(facts);
            self.state.plan.guard(guarded);
        }
        others
    }

    fn alive(&mut self, now: Instant) {
        if let Some(period) = self.notifier.watchdog()
            && self.due.alive.take(now)
        {
            self.notifier.say("WATCHDOG=1");
            self.due.alive.set(now + period / 2);
        }
    }
}

/// What a service puts into the kernel, about.
fn weight(service: &ServicePlan) -> usize {
    let ports = service.ports.iter();
    ports.map(|port| port.frontends.len() * (1 + port.cluster.len() + port.local.len())).sum()
}

fn merge_touched(earlier: &mut Touched, later: Touched) {
    earlier.objects.extend(later.objects);
    earlier.containers.extend(later.containers);
    earlier.services.extend(later.services);
    earlier.nodes.extend(later.nodes);
}

/// Gives back what is free: the copies of a start or of much work are several times what stays.
fn trim() {
    // SAFETY: glibc's allocator may be asked that at any time.
    unsafe { libc::malloc_trim(0) };
}
