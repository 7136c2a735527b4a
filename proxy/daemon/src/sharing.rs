//! Services that ask for one address and port, or one node port: which of them answers there, in
//! words for `apply`, `status` and `describe`. Pure.

use std::collections::BTreeMap;

use causeway_api::{Applied, AppliedOutcome};
use causeway_model::ObjectKey;
use causeway_ruleset::plan::{Contest, Plan};

use crate::log;

/// So many stand in `status`.
const SHOWN: usize = 20;

/// What a service does not have, and what it has that other services claim.
pub(crate) fn of_service(plan: &Plan, key: &ObjectKey) -> Vec<String> {
    let concerned = |contest: &Contest| contest.loser == *key || contest.owner == *key;
    plan.all_contests().filter(concerned).map(|contest| said(&contest)).collect()
}

/// For `status`.
pub(crate) fn all(plan: &Plan) -> Vec<String> {
    let contests = plan.all_contests();
    let all = contests.map(|contest| format!("service {}: {}", contest.loser, said(&contest)));
    log::lines(all, SHOWN, |more| {
        format!(
            "{more} more addresses and ports claimed by two services; see: causeway describe \
             service"
        )
    })
}

/// Adds the warnings of `apply` about the services that it stored.
pub(crate) fn warn(plan: &Plan, applied: &mut Applied) {
    let mut found: BTreeMap<ObjectKey, Vec<String>> = BTreeMap::new();
    for contest in plan.all_contests() {
        let text = said(&contest);
        found.entry(contest.loser).or_default().push(text.clone());
        found.entry(contest.owner).or_default().push(text);
    }
    if found.is_empty() {
        return;
    }
    for result in &mut applied.results {
        let stored = match result.outcome {
            AppliedOutcome::Created | AppliedOutcome::Configured | AppliedOutcome::Unchanged => {
                result.kind == "service"
            }
            AppliedOutcome::Deleted
            | AppliedOutcome::NotFound
            | AppliedOutcome::Skipped
            | AppliedOutcome::Refused => false,
        };
        let key = ObjectKey::new(result.namespace.as_str(), result.name.as_str());
        if let (true, Some(texts)) = (stored, found.get(&key)) {
            result.warnings.extend(texts.iter().cloned());
        }
    }
}

fn said(Contest { loser, place, owner }: &Contest) -> String {
    format!(
        "{place} is claimed by services {owner} and {loser}: connections go to {owner}; give one \
         of them another address or port"
    )
}
