//! What users see of many nodes: `get nodes`, `get pods`, `status`, `trace`, readiness.

use causeway_tests::cluster::{Cluster, Setup, in_rotation, service};
use causeway_tests::{Lab, Runtime};
use serde_json::json;

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
    let way = format!("{} is in 10.0.2.0/24 of node node2: encapsulated by cwov1 to", pod.ip());
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
    for wanted in [", unreachable for ", "State:     DEGRADED", "10.0.1.0/24 (leased, "] {
        assert!(said.contains(wanted), "{said}");
    }
    let nodes = daemon.causeway(&["get", "nodes"]).ok();
    assert!(nodes.lines().nth(2).is_some_and(|line| line.contains("Unknown")), "{nodes}");
    for path in ["/readyz", "/healthz", "/livez"] {
        daemon.get(path);
    }
}

/// Two nodes with the same private network, as runtimes make them.
///
/// Rows: RB6
#[test]
fn an_endpoint_outside_the_cluster_networks_counts_on_its_own_node() {
    let lab = Lab::with_nodes(2);
    let cluster = Cluster::start(&lab, Setup::default());
    let shared = cluster.pod(0, "app:cs-pod");
    let runtimes: Vec<Runtime<'_>> = cluster
        .daemons
        .iter()
        .map(|daemon| {
            let node = daemon.node();
            let mut list = node.conflist("shop", "10.4.0.0/24");
            list["plugins"][0]["bridge"] = json!("br-shop");
            list["plugins"][1]["socket"] = json!(daemon.socket());
            Runtime::new(node, list)
        })
        .collect();
    let pods: Vec<_> = cluster.daemons.iter().map(|daemon| daemon.node().pod()).collect();
    for (runtime, pod) in runtimes.iter().zip(&pods) {
        let result = runtime.add_ok(&pod.attachment("eth0").args("CAUSEWAY_LABELS=app:cs-pod"));
        assert_eq!(result["ips"][0]["address"], "10.4.0.2/24");
    }
    cluster.daemons[0].apply(&[service("10.96.0.77", &json!({}))]);
    cluster.everywhere("each has the shared one and its own", |daemon| {
        let all = daemon.causeway(&["get", "pods", "-A"]).ok();
        pods.iter().all(|pod| all.contains(&pod.id)) && in_rotation(daemon, "http-server-svc") == 2
    });
    for (daemon, other) in cluster.daemons.iter().zip(["node2", "node1"]) {
        let text = daemon.causeway(&["describe", "service", "http-server-svc"]).ok();
        assert!(text.contains(&format!("{}:", shared.ip())), "{text}");
        let remark = format!("usable on their own node only: 10.4.0.2 of node {other}; outside");
        assert!(text.contains(&remark), "{text}");
    }
}
