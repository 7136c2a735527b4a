//! Services and endpoints without rules, and why, as text for `status` and `describe`: what is over
//! the limits, and what the kernel refuses. Pure.

use std::collections::{BTreeMap, BTreeSet};

use causeway_api::Applied;
use causeway_model::{LeftOut, ObjectKey};

use crate::isolation::Isolation;
use crate::log;

/// So many stand in `status`.
const SHOWN: usize = 20;

/// What of each service is left out.
#[derive(Debug, Default)]
pub(crate) struct LeftOutServices {
    over: BTreeMap<ObjectKey, Vec<String>>,
    refused: BTreeMap<ObjectKey, String>,
}

impl LeftOutServices {
    /// Takes in what planning found of the services that it planned again.
    pub(crate) fn planned(
        &mut self,
        planned: &BTreeSet<ObjectKey>,
        found: BTreeMap<ObjectKey, LeftOut>,
    ) {
        for key in planned {
            self.over.remove(key);
        }
        let worded = found.into_iter().map(|(key, left_out)| (key, over(&left_out)));
        self.over.extend(worded);
    }

    /// Takes in what the kernel refuses.
    pub(crate) fn refused(&mut self, isolation: &Isolation) {
        let word =
            |why: &str| format!("the kernel refuses its rules, so it has none on this node: {why}");
        self.refused = isolation.refused().map(|(key, why)| (key.clone(), word(why))).collect();
    }

    /// Of one service.
    pub(crate) fn of_service(&self, key: &ObjectKey) -> Vec<String> {
        let over = self.over.get(key).into_iter().flatten();
        over.chain(self.refused.get(key)).cloned().collect()
    }

    /// Adds the warnings of `apply` about the services that it stored.
    pub(crate) fn warn(&self, applied: &mut Applied) {
        for result in applied.results.iter_mut().filter(|one| one.kind == "service") {
            let key = ObjectKey::new(result.namespace.as_str(), result.name.as_str());
            result.warnings.extend(self.of_service(&key));
        }
    }

    /// Of all: one line each.
    pub(crate) fn all(&self) -> Option<String> {
        let over = self.over.iter().flat_map(|(key, all)| all.iter().map(move |one| (key, one)));
        let all = over.chain(&self.refused).map(|(key, text)| format!("{key}: {text}"));
        let shown = log::lines(all, SHOWN, |more| {
            format!("{more} more left out; see: causeway describe service")
        });
        (!shown.is_empty()).then(|| shown.join("\n"))
    }
}

fn over(left_out: &LeftOut) -> Vec<String> {
    let LeftOut { service, slices, containers } = left_out;
    let service = service.iter().map(|excess| format!("has no rules: {excess}"));
    let slices = slices
        .iter()
        .map(|(slice, excess)| format!("endpointslice {} is left out: {excess}", slice.name));
    let containers = containers
        .iter()
        .map(|(count, excess)| format!("{count} of its containers are left out: {excess}"));
    log::lines(service.chain(containers).chain(slices), SHOWN, |more| {
        format!("{more} more of its endpointslices left out")
    })
}

#[cfg(test)]
mod tests;
