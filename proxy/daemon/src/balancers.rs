//! Load balancer addresses, in words for `apply`, `status` and `describe`: pools, who waits for an
//! address, and why.

use std::collections::BTreeMap;

use causeway_api::{Applied, AppliedOutcome};
use causeway_model::ObjectKey;
use causeway_model::allocate::{PoolUse, Settled};

use crate::log;

/// So many stand in `status`.
const SHOWN: usize = 20;

/// Pools, and services that wait.
#[derive(Debug, Default)]
pub(crate) struct Balancers {
    /// How much of each pool is used.
    pub pools: Vec<PoolUse>,
    /// Whether there is a pool at all.
    has_pools: bool,
    /// Services that wait for an address, longest first.
    waiting: Vec<ObjectKey>,
    /// Why each of them does.
    why: BTreeMap<ObjectKey, String>,
    queue: Vec<ObjectKey>,
}

impl Balancers {
    /// Takes in who waits. Returns what is new of it, in few lines.
    #[must_use = "it is to be logged"]
    pub(crate) fn wait(&mut self, settled: Settled, has_pools: bool) -> Vec<String> {
        let Settled { waiting, queue, .. } = settled;
        let new = waiting.iter().filter(|(key, why)| self.of_service(key) != Some(why));
        let lines = if has_pools {
            let new = new.map(|(key, why)| {
                format!("service {key} waits for a load balancer address: {why}")
            });
            log::lines(new, SHOWN, |more| format!("{more} more wait for a load balancer address"))
        } else {
            one_line(new.map(|(key, why)| (key, why.as_str()))).into_iter().collect()
        };
        self.waiting = waiting.iter().map(|(key, _)| key.clone()).collect();
        self.why = waiting.into_iter().collect();
        (self.queue, self.has_pools) = (queue, has_pools);
        lines
    }

    /// In which order they come when it is looked again.
    pub(crate) fn queue(&self) -> &[ObjectKey] {
        &self.queue
    }

    /// Why a service waits.
    pub(crate) fn of_service(&self, key: &ObjectKey) -> Option<&str> {
        self.why.get(key).map(String::as_str)
    }

    /// Adds the warnings of `apply` about the services that it stored.
    pub(crate) fn warn(&self, applied: &mut Applied) {
        if !self.has_pools {
            return;
        }
        for result in applied.results.iter_mut().filter(|one| one.kind == "service") {
            let key = ObjectKey::new(result.namespace.as_str(), result.name.as_str());
            if !matches!(result.outcome, AppliedOutcome::Refused | AppliedOutcome::Deleted) {
                let why = self.of_service(&key);
                result
                    .warnings
                    .extend(why.map(|why| format!("no load balancer address yet: {why}")));
            }
        }
    }

    /// For `status`.
    pub(crate) fn all(&self) -> Vec<String> {
        let all = self.waiting.iter().filter_map(|key| Some((key, self.of_service(key)?)));
        if !self.has_pools {
            return one_line(all).into_iter().collect();
        }
        let all = all.map(|(key, why)| format!("service {key}: no load balancer address: {why}"));
        log::lines(all, SHOWN, |more| format!("{more} more wait for a load balancer address"))
    }
}

/// Services that wait for one reason.
fn one_line<'a>(mut all: impl Iterator<Item = (&'a ObjectKey, &'a str)>) -> Option<String> {
    let (key, why) = all.next()?;
    let (count, noun) = match all.count() {
        0 => (String::new(), "waits"),
        more => (format!(" and {more} more"), "wait"),
    };
    Some(format!("service {key}{count} {noun} for a load balancer address: {why}"))
}

#[cfg(test)]
mod tests;
