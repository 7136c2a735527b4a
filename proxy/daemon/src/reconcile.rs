//! Brings the kernel to the plan. What changes is planned and applied; what another process changed is
//! looked for and put right; what failed is tried again as a whole, without the services that the
//! kernel refuses. Whether something is due follows from the time that is given; how long it took,
//! which the next one waits for, is read from the clock.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_api::chain;
use causeway_model::ObjectKey;
use causeway_ruleset::plan::{Delta, Plan, PlanContext, ServicePlan};

use crate::backend::{self, Backend};
use crate::clock;
use crate::conditions::{Change, Concern, Conditions};
use crate::config::BackendKind;
use crate::contest::Contest;
use crate::host_ports;
use crate::isolation::Isolation;
use crate::schedule::{Backoff, Gap, Pace, Retry, Schedule};
use crate::state::{Committed, State, Touched};

/// How often everything is compared though no change is known of (row 91).
const FULL_PERIOD: Duration = Duration::from_secs(3600);
/// Pause after a failed transaction.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(30) };
/// How often changes by other processes are looked for if the kernel does not tell of them.
const POLL: Duration = Duration::from_millis(900);
/// Comparing everything takes a tenth of the time at most, unless a change would then stay
/// unnoticed for longer than the longest pause.
const GAP: Gap = Gap { times: 10, shortest: Duration::ZERO, longest: Duration::from_millis(300) };

/// Owns the rules in the kernel.
#[derive(Debug)]
pub(crate) struct Reconciler {
    backend: Backend,
    unsynced: Unsynced,
    /// Repairs, and who makes them necessary.
    contest: Contest,
    /// Services that the kernel refuses.
    isolation: Isolation,
    /// Next comparison of everything.
    next_full: Instant,
    /// Attempts to bring the kernel to the plan, if it does not hold that.
    retry: Retry,
    /// Looks for changes by other processes: they were told of, or the kernel does not tell.
    looks: Schedule,
    /// Another process may have changed our rules.
    may_differ: bool,
    /// What has no rules may be different.
    left_out_changed: bool,
    /// The kernel has held the plan once.
    first_sync_done: bool,
}

/// Changes that the kernel does not hold yet.
#[derive(Debug, Default)]
struct Unsynced {
    touched: Touched,
    delta: Delta,
}

/// What was taken in since the last time.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// What it concerns.
    pub touched: Touched,
    /// What planning knows of this node now, if that may be different.
    pub facts: Option<PlanContext>,
    /// A client waits for it.
    pub is_awaited: bool,
}

/// The kernel holds the plan.
#[derive(Debug)]
pub(crate) struct Synced {
    /// For those who follow; `None`: nothing at all has changed.
    pub commit: Option<Committed>,
    /// For the first time.
    pub is_first: bool,
}

impl Reconciler {
    /// What the kernel holds is not known: the first sync compares everything. `notifies`: the kernel
    /// tells of changes that other processes make.
    pub(crate) fn new(backend: Backend, notifies: bool, now: Instant) -> Self {
        let period = (!notifies).then_some(POLL);
        Self {
            backend,
            unsynced: Unsynced::default(),
            contest: Contest::default(),
            isolation: Isolation::default(),
            next_full: now + FULL_PERIOD,
            retry: Retry::at(now),
            looks: Schedule::later(Pace { period, gap: GAP }, now),
            may_differ: false,
            left_out_changed: false,
            first_sync_done: false,
        }
    }

    /// When something is due next.
    pub(crate) fn due(&self) -> Instant {
        let others = self.contest.due().into_iter().chain(self.isolation.due());
        match self.retry.due() {
            // It compares everything, too.
            Some(at) => others.fold(at, Instant::min),
            None => others.chain(self.looks.due()).fold(self.next_full, Instant::min),
        }
    }

    /// Another process changed rules that may be ours.
    pub(crate) fn on_change(&mut self, by: Option<(String, u32)>) {
        self.may_differ = true;
        self.contest.changed(by);
    }

    /// What follows from the time alone.
    pub(crate) fn on_time(&mut self, conditions: &mut Conditions, now: Instant) {
        self.report_contest(conditions, now);
        if self.looks.is_due(now) {
            self.may_differ = true;
        }
    }

    /// Whether it is sought which service the kernel refuses: nobody knows whose rules are there.
    pub(crate) fn is_searching(&self) -> bool {
        self.isolation.searches()
    }

    /// Whether what has no rules may be different since this was asked.
    pub(crate) fn take_left_out_changed(&mut self) -> bool {
        mem::take(&mut self.left_out_changed)
    }

    /// Removes what the other backend left here in an earlier run. Says what.
    ///
    /// # Errors
    /// It could not be removed.
    pub(crate) fn remove_other(&self) -> backend::Result<Vec<String>> {
        self.backend.remove_other()
    }

    /// Plans what changed and brings the kernel there. `None`: it is not time for that.
    ///
    /// # Errors
    /// The kernel does not hold the plan; it is tried again.
    pub(crate) fn sync(
        &mut self,
        state: &mut State,
        work: Work,
        started: Instant,
    ) -> backend::Result<Option<Synced>> {
        let Work { touched, facts, is_awaited } = work;
        let replanned = facts.is_some_and(|facts| replan(&mut state.plan, facts));
        let delta = self.plan(state, started, replanned, &touched);
        let unchanged = delta.is_empty();
        self.unsynced.delta.append(delta);
        merge_touched(&mut self.unsynced.touched, touched);
        if (replanned || self.isolation.searches()) && self.retry.due().is_none() {
            self.retry = Retry::at(started);
        }
        let looking = self.looks_now(started);
        let (full, result) = match self.retry.due() {
            Some(at) if at > started && !is_awaited => return Ok(None),
            Some(_) => (true, self.full_sync(&state.plan)),
            // What other processes did is looked at next.
            None if !unchanged => (false, self.apply_delta(state)),
            None if self.next_full <= started => (true, self.check_drift(state, true)),
            None if looking => (false, self.check_drift(state, false)),
            None => (false, Ok(false)),
        };
        let now = clock::now();
        match result {
            Ok(differed) => Ok(Some(self.synced(state, (started, now), full, differed))),
            Err(error) => {
                self.failed(state, &error, now);
                Err(error)
            }
        }
    }

    /// Brings the plan up to date.
    fn plan(
        &mut self,
        state: &mut State,
        now: Instant,
        replanned: bool,
        touched: &Touched,
    ) -> Delta {
        let all = || state.index.services().keys().cloned().collect();
        let mut concerned = if replanned { all() } else { touched.services.clone() };
        let moved = self.isolation.take_changed(&concerned, now);
        concerned.extend(moved);
        let denied = state.plan.denied_count();
        let mut delta = self.plan_services(state, &concerned);
        self.left_out_changed |= denied != state.plan.denied_count();
        if replanned || !self.first_sync_done || !touched.containers.is_empty() {
            let (index, node) = (&state.index, &state.node.name);
            let containers = index.containers_of(node);
            let ips = containers.flat_map(|(one, _)| one.record.ips.iter().copied());
            delta.append(state.plan.set_containers(ips));
            let ports = host_ports::planned(&state.host_ports, index, node);
            delta.append(state.plan.set_host_ports(ports));
        }
        delta
    }

    fn plan_services(&self, state: &mut State, concerned: &BTreeSet<ObjectKey>) -> Delta {
        let (index, isolation) = (&state.index, &self.isolation);
        let left_out = RefCell::new(BTreeMap::new());
        let iptables = state.settings.backend == BackendKind::Iptables;
        let resolve = |key: &ObjectKey| {
            let mut resolved = index.resolve(key).filter(|_| !isolation.is_out(key))?;
            if iptables && let Err(excess) = resolved.fits_iptables() {
                resolved.left_out.service = Some(excess);
            }
            if !resolved.left_out.is_empty() {
                left_out.borrow_mut().insert(key.clone(), resolved.left_out.clone());
            }
            Some(resolved)
        };
        let delta = state.plan.update(concerned, &resolve);
        state.left_out.planned(concerned, left_out.into_inner());
        delta
    }

    /// Whether other processes may have changed our rules and looking is not too early.
    fn looks_now(&mut self, now: Instant) -> bool {
        if !self.may_differ {
            return false;
        }
        let early = self.looks.earliest() > now;
        if early {
            self.looks.wanted_at_earliest();
        }
        !early
    }

    /// Looks whether the kernel still holds what it did, and puts it right. Whether it did not.
    fn check_drift(&mut self, state: &mut State, closely: bool) -> backend::Result<bool> {
        let differed = match closely {
            true => self.full_sync(&state.plan)?,
            false => {
                let started = clock::now();
                let differed = self.backend.check_drift(&state.plan)?;
                self.looked(started);
                differed
            }
        };
        if differed {
            self.repaired(state);
        }
        Ok(differed)
    }

    /// Compares everything and puts it right. Whether something differed.
    fn full_sync(&mut self, plan: &Plan) -> backend::Result<bool> {
        let started = clock::now();
        let differed = self.backend.full_sync(plan)?;
        self.looked(started);
        self.next_full = clock::now() + FULL_PERIOD;
        Ok(differed)
    }

    /// Everything was compared, since `started`.
    fn looked(&mut self, started: Instant) {
        self.may_differ = false;
        let now = clock::now();
        self.looks.done(now - started, now);
    }

    /// Brings a change to the kernel. If that fails, another process may have changed our rules:
    /// everything is compared then.
    fn apply_delta(&mut self, state: &mut State) -> backend::Result<bool> {
        match self.backend.apply_delta(&state.plan, &self.unsynced.delta) {
            Ok(()) => {
                if self.may_differ {
                    self.looks.wanted_at_earliest();
                }
                Ok(true)
            }
            Err(error) => {
                state.progress.failures += 1;
                tracing::warn!(error = %chain(&error), "a change was refused; compare everything");
                self.full_sync(&state.plan)?;
                self.repaired(state);
                Ok(true)
            }
        }
    }

    fn repaired(&mut self, state: &mut State) {
        let now = clock::now();
        state.progress.repairs += 1;
        self.contest.repaired(now);
        let by = self.contest.by();
        tracing::warn!(by, "another process had changed the service rules; restored");
        self.looks.hold_off(self.contest.next(now));
        self.report_contest(&mut state.conditions, now);
    }

    /// Says whether another process keeps changing our rules.
    fn report_contest(&mut self, conditions: &mut Conditions, now: Instant) {
        let text = self.contest.report(now);
        match conditions.update(Concern::Repairs, text.clone()) {
            Change::Appeared => tracing::error!("{}", text.unwrap_or_default()),
            Change::Cleared => tracing::info!("no other process keeps changing the service rules"),
            Change::Changed | Change::Same | Change::Absent => {}
        }
    }

    /// The kernel holds the plan.
    fn synced(
        &mut self,
        state: &mut State,
        (started, now): (Instant, Instant),
        full: bool,
        differed: bool,
    ) -> Synced {
        let Unsynced { touched, delta } = mem::take(&mut self.unsynced);
        let is_first = !mem::replace(&mut self.first_sync_done, true);
        let progress = &mut state.progress;
        let since = progress.behind.take().unwrap_or(started);
        if full || differed {
            progress.synced = Some(now);
        }
        progress.syncs += u64::from(differed);
        progress.full_syncs += u64::from(full);
        // A search for what the kernel refuses goes on at once.
        let searches = self.isolation.succeeded(now);
        self.retry = if searches { Retry::at(now) } else { Retry::default() };
        state.conditions.clear(&Concern::Rules);
        self.name_left_out(state);
        let nothing = delta.is_empty() && is_untouched(&touched);
        let (took, latency) = (now - started, now - since);
        let commit = (is_first || differed || !nothing).then_some(Committed {
            touched,
            delta,
            full,
            took,
            latency,
        });
        Synced { commit, is_first }
    }

    fn failed(&mut self, state: &mut State, error: &backend::Error, now: Instant) {
        state.progress.failures += 1;
        let text = chain(error);
        if !error.passing && self.isolate(&text, now) {
            tracing::warn!(error = text, "the kernel refuses rules; looking for the service");
            self.retry.again(now);
            return;
        }
        let pause = self.retry.failed(BACKOFF, now);
        tracing::error!(error = text, retry_ms = pause.as_millis(), "the rules are not in place");
        state.conditions.set(Concern::Rules, text);
    }

    /// Looks for services that the kernel refuses, which keep the others out. `true`: the next attempt
    /// is one without some.
    fn isolate(&mut self, why: &str, now: Instant) -> bool {
        let changes = &self.unsynced.delta.services;
        let suspects = || {
            let changed = changes.iter().filter_map(|(key, _, after)| Some((key, after.as_ref()?)));
            let mut suspects: Vec<_> = changed.map(|(key, plan)| (weight(plan), key)).collect();
            suspects.sort_by_key(|(weight, key)| (Reverse(*weight), *key));
            suspects.into_iter().map(|(_, key)| key.clone()).collect()
        };
        self.isolation.failed(suspects, why, now)
    }

    /// Says which services and endpoints have no rules.
    fn name_left_out(&mut self, state: &mut State) {
        let index = &state.index;
        self.isolation.forget(|key| index.services().contains_key(key));
        state.left_out.refused(&self.isolation);
        let text = state.left_out.all();
        let change = state.conditions.update(Concern::LeftOut, text);
        self.left_out_changed |= !matches!(change, Change::Same | Change::Absent);
    }
}

/// An empty plan of these facts, if they are different. `true`: they are.
fn replan(plan: &mut Plan, facts: PlanContext) -> bool {
    let others = facts != plan.facts;
    if others {
        let guarded = Arc::clone(plan.guarded());
        *plan = Plan::new(facts);
        plan.guard(guarded);
    }
    others
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

fn is_untouched(touched: &Touched) -> bool {
    let Touched { objects, containers, services, nodes } = touched;
    objects.is_empty() && containers.is_empty() && services.is_empty() && nodes.is_empty()
}

#[cfg(test)]
impl Reconciler {
    /// The kernel is this one from now on.
    pub(crate) fn set_backend(&mut self, backend: Backend) {
        self.backend = backend;
    }

    /// As after a start.
    pub(crate) fn begin_anew(&mut self, backend: Backend) {
        *self = Self::new(backend, true, clock::now());
    }

    /// Whether the kernel has held the plan once.
    pub(crate) fn has_synced(&self) -> bool {
        self.first_sync_done
    }

    /// When a refused service is tried again.
    pub(crate) fn next_trial(&self) -> Option<Instant> {
        self.isolation.due()
    }
}

#[cfg(test)]
mod tests;
