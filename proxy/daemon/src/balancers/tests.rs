use super::*;

fn waiting(names: &[&str]) -> Settled {
    let one = |name: &&str| (ObjectKey::new("default", *name), "why".to_owned());
    Settled { waiting: names.iter().map(one).collect(), ..Settled::default() }
}

#[test]
fn who_waits_is_named_with_or_without_pools() {
    let mut balancers = Balancers::default();
    assert_eq!(balancers.all(), [""; 0]);
    let line = "service default/a waits for a load balancer address: why";
    assert_eq!(balancers.wait(waiting(&["a"]), false), [line]);
    assert_eq!(balancers.all(), [line]);
    assert_eq!(balancers.wait(waiting(&["a"]), false), [""; 0], "that is known");
    let line = "service default/b and 1 more wait for a load balancer address: why";
    assert_eq!(balancers.wait(waiting(&["a", "b", "c"]), false), [line]);
    let line = "service default/a and 2 more wait for a load balancer address: why";
    assert_eq!(balancers.all(), [line]);
    assert_eq!(balancers.of_service(&ObjectKey::new("default", "c")), Some("why"));
    assert_eq!(balancers.of_service(&ObjectKey::new("other", "c")), None);
    assert_eq!(balancers.wait(waiting(&["a", "b", "c"]), true), [""; 0]);
    let all = balancers.all();
    assert_eq!((all.len(), &*all[1]), (3, "service default/b: no load balancer address: why"));
    assert_eq!(balancers.wait(waiting(&["c"]), true), [""; 0]);
    assert_eq!(balancers.of_service(&ObjectKey::new("default", "a")), None);
    assert_eq!(balancers.all(), ["service default/c: no load balancer address: why"]);
}

/// A cluster that moves in without a pool has thousands of them.
#[test]
fn however_many_wait_the_log_has_few_lines() {
    let names: Vec<String> = (0..45_000).map(|number| format!("s{number:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut balancers = Balancers::default();
    let lines = balancers.wait(waiting(&names), true);
    assert_eq!((lines.len(), &*lines[20]), (21, "44980 more wait for a load balancer address"));
    assert_eq!(balancers.wait(waiting(&names), true), [""; 0]);
    let lines = Balancers::default().wait(waiting(&names), false);
    let wanted = "service default/s00000 and 44999 more wait for a load balancer address: why";
    assert_eq!(lines, [wanted]);
}

/// Whether there are pools is known before anybody has asked how much of them is used.
#[test]
fn apply_warns_of_a_service_that_waits() {
    let mut balancers = Balancers::default();
    let line = "service default/a waits for a load balancer address: why";
    assert_eq!(balancers.wait(waiting(&["a"]), true), [line]);
    let mut applied = Applied::default();
    applied.results.push(causeway_api::AppliedObject {
        document: 0,
        kind: "service".to_owned(),
        namespace: "default".to_owned(),
        name: "a".to_owned(),
        outcome: AppliedOutcome::Created,
        refusal: None,
        warnings: Vec::new(),
    });
    balancers.warn(&mut applied);
    assert_eq!(applied.results[0].warnings, ["no load balancer address yet: why"]);
}
