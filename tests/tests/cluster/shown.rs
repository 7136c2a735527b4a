//! What users see of many nodes: `get nodes`, `get pods`, `status`, `trace`, readiness.

use causeway_tests::Lab;
use causeway_tests::cluster::{Cluster, Setup};

/// Rows: C-04
#[test]
fn nodes_are_listed_and_a_store_that_is_away_is_seen_but_breaks_nothing() {
    let lab = Lab::with_nodes(2);
    let mut cluster = Cluster::start(&lab, Setup::default());
    let pod = cluster.pod(1, "app:cs-pod");
    cluster.settled();
    let daemon = &cluster.daemons[0];
    daemon.until("the other is known", || daemon.causeway(&["get", "pods", "-A"]).ok() != "");
    let shown = daemon.causeway(&["get", "nodes", "-o", "wide"]).ok();
    let lines: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let titles =
        ["NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "SUBNET", "VTEP", "MTU"];
    assert_eq!(lines[0][..9], titles, "{shown}");
    assert_eq!(lines.len(), 3, "{shown}");
    for (number, line) in (1..=2).zip(&lines[1..]) {
        assert_eq!(line[..3], [&*format!("node{number}"), "Ready", "<none>"], "{shown}");
        assert!(line[5].starts_with(&Lab::node_address(number - 1)), "{shown}");
        assert_eq!(line[6], format!("10.0.{number}.0/24"), "{shown}");
        assert_eq!((line[7].split(':').count(), line[8]), (6, "1450"), "{shown}");
    }
    let pods = daemon.causeway(&["get", "pods", "-A", "-o", "wide"]).ok();
    assert!(pods.lines().any(|line| line.contains(pod.ip()) && line.contains("node2")), "{pods}");
    let trace = daemon.causeway(&["trace", "node", &format!("{}:80", pod.ip())]).ok();
    let way = format!("{} is in 10.0.2.0/24 of node node2: encapsulated, by cwov1 to", pod.ip());
    assert!(trace.contains(&way), "{trace}");
    let status = daemon.causeway(&["status"]).ok();
    for wanted in ["Subnets:   10.0.1.0/24 (leased)", "Peers:     1/1 ready", ", MTU 1450, VTEP "] {
        assert!(status.contains(wanted), "{status}");
    }

    cluster.etcd.kill();
    let daemon = &cluster.daemons[0];
    daemon.until("it is seen", || daemon.status().cluster.is_some_and(|one| !one.connected));
    let status = daemon.causeway(&["status"]);
    assert_eq!(status.code(), 1, "{status:?}");
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    for wanted in [", away for ", "State:     DEGRADED", "10.0.1.0/24 (leased, "] {
        assert!(said.contains(wanted), "{said}");
    }
    let nodes = daemon.causeway(&["get", "nodes"]).ok();
    assert!(nodes.lines().nth(2).is_some_and(|line| line.contains("Unknown")), "{nodes}");
    for path in ["/readyz", "/healthz", "/livez"] {
        daemon.get(path);
    }
}
