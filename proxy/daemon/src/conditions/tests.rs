use super::*;

fn degraded(conditions: &Conditions) -> Vec<String> {
    conditions.degraded().collect()
}

#[test]
fn what_changed_is_told() {
    let mut conditions = Conditions::default();
    let spool = || Concern::Spool;
    assert_eq!(conditions.clear(&spool()), Change::Absent);
    assert_eq!(conditions.set(spool(), "a".to_owned()), Change::Appeared);
    assert_eq!(conditions.set(spool(), "a".to_owned()), Change::Same);
    assert_eq!(conditions.update(spool(), Some("b".to_owned())), Change::Changed);
    assert_eq!((degraded(&conditions), conditions.count()), (vec!["spool: b".to_owned()], 1));
    assert!(conditions.mentions("b") && !conditions.mentions("a"));
    assert_eq!(conditions.update(spool(), None), Change::Cleared);
    assert_eq!(conditions.count(), 0);
}

#[test]
fn the_order_is_that_of_the_names() {
    let mut conditions = Conditions::default();
    let address = "127.0.0.1:80".parse().expect("an address");
    for concern in [
        Concern::Rules,
        Concern::Directory("/b".into()),
        Concern::Subnet,
        Concern::RuleWatch,
        Concern::NodeFile,
        Concern::Directory("/a".into()),
        Concern::Listener("metrics-listen", address),
        Concern::HeldNodes,
        Concern::StoredObjects,
        Concern::HealthCheckPort(ObjectKey::new("default", "web")),
        Concern::Store,
    ] {
        conditions.set(concern, "x\ny".to_owned());
    }
    let names: Vec<String> = degraded(&conditions).into_iter().step_by(2).collect();
    let wanted = [
        "--metrics-listen 127.0.0.1:80: x",
        "health check port of service default/web: x",
        "held nodes: x",
        "node.json: x",
        "rules: x",
        "store: x",
        "store: x",
        "subnet: x",
        "watch of /a: x",
        "watch of /b: x",
        "watch of the rules: x",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn of_many_lines_those_that_are_new_are_told() {
    let mut conditions = Conditions::default();
    let lines = |all: &[&str]| all.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    assert_eq!(conditions.set_lines(Concern::Overlay, lines(&["a", "b"])), ["a", "b"]);
    assert_eq!(conditions.set_lines(Concern::Overlay, lines(&["b", "c"])), ["c"]);
    assert_eq!(degraded(&conditions), ["overlay: b", "overlay: c"]);
    assert_eq!(conditions.set_lines(Concern::Overlay, Vec::new()), [""; 0]);
    assert_eq!(conditions.count(), 0);
}

#[test]
fn warnings_are_added_replaced_and_taken() {
    let mut conditions = Conditions::default();
    let lines = |all: &[&str]| all.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    let port = Concern::HealthCheckPort(ObjectKey::new("default", "web"));
    conditions.warn(Concern::Sysctls, lines(&["a"]));
    conditions.warn(Concern::Sysctls, lines(&["b"]));
    conditions.warn(port.clone(), Vec::new());
    assert!(!conditions.has_warned(&port));
    assert_eq!(conditions.set_warnings(port.clone(), lines(&["c", "d"])), ["c", "d"]);
    assert_eq!(conditions.set_warnings(port.clone(), lines(&["d"])), [""; 0]);
    let all: Vec<String> = conditions.warnings().collect();
    let wanted = ["health check port of service default/web: d", "sysctls: a", "sysctls: b"];
    assert_eq!(all, wanted);
    assert_eq!(conditions.warnings_of(&Concern::Sysctls), ["a", "b"]);
    assert_eq!(conditions.take_warnings(&port), ["d"]);
    assert!(!conditions.has_warned(&port));
    assert_eq!(conditions.update_warnings(Concern::Mtu, lines(&["e"])), ["e"]);
    assert_eq!(conditions.update_warnings(Concern::Mtu, Vec::new()), [""; 0]);
    assert!(!conditions.has_warned(&Concern::Mtu), "it is forgotten");
    conditions.set_warnings(Concern::Localhost, Vec::new());
    assert!(conditions.has_warned(&Concern::Localhost), "it was, and is over");
}

#[test]
fn what_does_not_decode_stays_when_the_store_answers() {
    let mut conditions = Conditions::default();
    conditions.set(Concern::StoredObjects, "objects".to_owned());
    conditions.set(Concern::Store, "away".to_owned());
    assert_eq!(degraded(&conditions), ["store: away", "store: objects"]);
    conditions.clear(&Concern::Store);
    assert_eq!(degraded(&conditions), ["store: objects"]);
}
