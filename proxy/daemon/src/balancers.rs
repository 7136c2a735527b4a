//! Load balancer addresses, in words for `apply`, `status` and `describe`: pools, who waits for an
//! address, and why.

use causeway_api::{Applied, AppliedOutcome};
use causeway_model::ObjectKey;
use causeway_model::allocate::PoolUse;

use crate::log;

/// So many stand in `status`.
const SHOWN: usize = 20;

/// Pools, and services that wait.
#[derive(Debug, Default)]
pub(crate) struct Balancers {
    /// How much of each pool is used.
    pub pools: Vec<PoolUse>,
    /// Services that wait for an address, and why, longest first.
    pub waiting: Vec<(ObjectKey, String)>,
}

impl Balancers {
    /// Takes in who waits now; says what is new of it.
    pub(crate) fn wait(&mut self, waiting: Vec<(ObjectKey, String)>) {
        for (key, why) in waiting.iter().filter(|one| !self.waiting.contains(one)) {
            tracing::warn!("service {key} waits for a load balancer address: {why}");
        }
        self.waiting = waiting;
    }

    /// Why a service waits.
    pub(crate) fn of_service(&self, key: &ObjectKey) -> Option<&str> {
        let found = self.waiting.iter().find(|(other, _)| other == key);
        found.map(|(_, why)| why.as_str())
    }

    /// Adds the warnings of `apply` about the services that it stored.
    pub(crate) fn warn(&self, applied: &mut Applied) {
        if self.pools.is_empty() {
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
        if self.pools.is_empty() {
            let first = self.waiting.first();
            let line = |(key, why): &(ObjectKey, String)| {
                let (count, noun) = match self.waiting.len() {
                    1 => (String::new(), "waits"),
                    count => (format!(" and {} more", count - 1), "wait"),
                };
                format!("service {key}{count} {noun} for a load balancer address: {why}")
            };
            return first.map(line).into_iter().collect();
        }
        let all = self.waiting.iter();
        let all = all.map(|(key, why)| format!("service {key}: no load balancer address: {why}"));
        log::lines(all, SHOWN, |more| format!("{more} more wait for a load balancer address"))
    }
}

#[cfg(test)]
mod tests;
