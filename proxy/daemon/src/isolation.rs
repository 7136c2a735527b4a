//! Which services the kernel refuses: a transaction is all or nothing, so one service that the kernel
//! does not take would keep out the rules of all other services. Pure.
//!
//! When a transaction fails, the largest of the services that it changes is left out, then the two
//! largest, the four largest and so on, until the rest goes in. Then those are added again, all
//! together first and then half by half, until it is known which do not go in. They stay out until
//! they change, and are tried again then, after growing pauses. The attempts are bounded: services
//! that could not be tried one by one stay out together.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::{Duration, Instant};

use causeway_model::ObjectKey;

use crate::schedule::{Backoff, Retry};

/// Attempts for one failed transaction. One service of ten thousand takes 42 at most.
const TRIES: u32 = 128;
/// How long a refused service stays out although it changes.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// What is known of services that the kernel refuses.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    refused: BTreeMap<ObjectKey, Refusal>,
    /// How often services that are tried again were refused before.
    before: BTreeMap<ObjectKey, u32>,
    search: Option<Search>,
    /// Services that go in or out with the next plan.
    moved: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Refusal {
    why: String,
    /// When it is tried again at the earliest.
    retry: Retry,
    /// It is another one since.
    changed: bool,
}

/// A search for what the kernel refuses.
#[derive(Debug)]
struct Search {
    /// Left out for now.
    out: BTreeSet<ObjectKey>,
    step: Step,
    /// What the kernel last said.
    why: String,
    tries: u32,
}

#[derive(Debug)]
enum Step {
    /// The first so many of these are out.
    Leaving(Vec<ObjectKey>, usize),
    /// A group is in again; other groups wait.
    Adding(Vec<ObjectKey>, Vec<Vec<ObjectKey>>),
}

impl Isolation {
    /// Whether a service has no rules for now.
    pub(crate) fn is_out(&self, key: &ObjectKey) -> bool {
        let waits = |search: &Search| search.out.contains(key);
        self.refused.contains_key(key) || self.search.as_ref().is_some_and(waits)
    }

    /// Notes that services changed. Yields those that have to be planned again beside them.
    pub(crate) fn take_changed(
        &mut self,
        changed: &BTreeSet<ObjectKey>,
        now: Instant,
    ) -> BTreeSet<ObjectKey> {
        for (key, refusal) in &mut self.refused {
            refusal.changed |= changed.contains(key);
        }
        if self.search.is_none() {
            let again =
                self.refused.iter().filter(|(_, one)| one.due().is_some_and(|at| at <= now));
            let again: Vec<ObjectKey> = again.map(|(key, _)| key.clone()).collect();
            for key in again {
                let times = self.refused.remove(&key).map_or(0, |refusal| refusal.retry.failures());
                self.before.insert(key.clone(), times);
                self.moved.insert(key);
            }
        }
        mem::take(&mut self.moved)
    }

    /// Services that are gone are not remembered.
    pub(crate) fn forget(&mut self, exists: impl Fn(&ObjectKey) -> bool) {
        self.refused.retain(|key, _| exists(key));
        self.before.retain(|key, _| exists(key));
    }

    /// A transaction failed. `suspects` are the services that it changed, the largest first. `true`:
    /// the next attempt is one without some of them, at once.
    pub(crate) fn failed(
        &mut self,
        suspects: impl FnOnce() -> Vec<ObjectKey>,
        why: &str,
        now: Instant,
    ) -> bool {
        let Some(Search { mut out, step, tries, .. }) = self.search.take() else {
            let suspects = suspects();
            let (out, step) = (BTreeSet::new(), Step::Leaving(suspects, 0));
            return self.leave_more(Search { out, step, why: why.to_owned(), tries: 0 });
        };
        let why = why.to_owned();
        let Step::Adding(mut group, mut waiting) = step else {
            return self.leave_more(Search { out, step, why, tries });
        };
        out.extend(group.iter().cloned());
        self.moved.extend(group.iter().cloned());
        if let [key] = group.as_slice() {
            out.remove(key);
            self.refuse(key.clone(), &why, now);
        } else {
            let second = group.split_off(group.len().div_ceil(2));
            waiting.extend([second, group]);
        }
        self.add_more(Search { out, step: Step::Adding(Vec::new(), waiting), why, tries }, now)
    }

    /// A transaction went through. `true`: the next attempt is one with more services, at once.
    pub(crate) fn succeeded(&mut self, now: Instant) -> bool {
        let Some(Search { out, step, why, tries }) = self.search.take() else {
            self.before.clear();
            return false;
        };
        let waiting = match step {
            Step::Leaving(mut suspects, count) => {
                suspects.truncate(count);
                vec![suspects]
            }
            Step::Adding(_, waiting) => waiting,
        };
        self.add_more(Search { out, step: Step::Adding(Vec::new(), waiting), why, tries }, now)
    }

    /// Whether a search is under way.
    pub(crate) fn searches(&self) -> bool {
        self.search.is_some()
    }

    /// When a service is to be tried again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.refused.values().filter_map(Refusal::due).min()
    }

    /// The services that are refused, with why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&ObjectKey, &str)> {
        self.refused.iter().map(|(key, refusal)| (key, refusal.why.as_str()))
    }

    /// Leaves twice as many out.
    fn leave_more(&mut self, mut search: Search) -> bool {
        let Step::Leaving(suspects, count) = &mut search.step else { return false };
        if *count == suspects.len() {
            // It is not about them.
            self.moved.extend(search.out);
            return false;
        }
        *count = (2 * *count).clamp(1, suspects.len());
        let more = suspects.iter().take(*count).filter(|key| !search.out.contains(*key));
        let more: Vec<ObjectKey> = more.cloned().collect();
        self.moved.extend(more.iter().cloned());
        search.out.extend(more);
        search.tries += 1;
        self.search = Some(search);
        true
    }

    /// Adds the next group. `true`: there is something to do.
    fn add_more(&mut self, mut search: Search, now: Instant) -> bool {
        let Step::Adding(group, waiting) = &mut search.step else { return false };
        let Some(next) = waiting.pop() else { return !self.moved.is_empty() };
        if search.tries >= TRIES {
            let why = format!("one of several services concerned: {}", search.why);
            for key in next.into_iter().chain(mem::take(waiting).into_iter().flatten()) {
                self.refuse(key, &why, now);
            }
            return !self.moved.is_empty();
        }
        search.tries += 1;
        for key in &next {
            search.out.remove(key);
        }
        self.moved.extend(next.iter().cloned());
        *group = next;
        self.search = Some(search);
        true
    }

    fn refuse(&mut self, key: ObjectKey, why: &str, now: Instant) {
        let mut retry = Retry::after(self.before.remove(&key).unwrap_or(0));
        retry.failed(BACKOFF, now);
        self.refused.insert(key, Refusal { why: why.to_owned(), retry, changed: false });
    }
}

impl Refusal {
    /// As long as a service is what was refused, it is not tried again.
    fn due(&self) -> Option<Instant> {
        self.retry.due().filter(|_| self.changed)
    }
}

#[cfg(test)]
mod tests;
