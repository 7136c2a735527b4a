use std::collections::BTreeMap;

use super::*;
use crate::testing::random_history;

/// Rows: P90
#[test]
fn i6_any_history_ends_in_the_plan_of_its_end() {
    for seed in 0..300 {
        let steps = random_history(seed);
        let mut before = BTreeMap::new();
        for (number, step) in steps.iter().enumerate() {
            let fresh = Plan::fresh(step.plan.facts.clone(), &step.services);
            assert_eq!(step.plan, fresh, "seed {seed}, step {number}");
            check_delta(&before, step.delta.services.as_slice(), &step.plan);
            check_places(&step.plan);
            before = step.plan.services.clone();
        }
    }
}

fn check_delta(before: &BTreeMap<ObjectKey, Arc<ServicePlan>>, delta: &[Change], after: &Plan) {
    let mut plans = before.clone();
    for (key, old, new) in delta {
        assert_ne!(old, new, "{key}");
        assert_eq!(plans.get(key), old.as_ref(), "{key}");
        match new {
            Some(new) => plans.insert(key.clone(), Arc::clone(new)),
            None => plans.remove(key),
        };
    }
    assert_eq!(plans, after.services);
    assert!(delta.is_sorted_by(|a, b| a.0 < b.0));
}

/// What the module promises of every plan.
fn check_places(plan: &Plan) {
    let (mut places, mut clusters) = (BTreeSet::new(), BTreeMap::new());
    for (key, service) in &plan.services {
        assert!(!service.ports.is_empty(), "{key}");
        for port in &service.ports {
            clusters.insert(port.vip.0, key);
            for frontend in &port.frontends {
                let family = port.family;
                assert!(places.insert((frontend.at, family, port.protocol)), "{key} {frontend:?}");
            }
        }
    }
    for (at, ..) in places {
        if let At::External(address, _) = at {
            assert_eq!(clusters.get(&address), None, "{at:?}");
        }
    }
}
