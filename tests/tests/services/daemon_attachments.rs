//! The daemon keeps what attachments are owed: host ports, masquerade, address checks.

use causeway_tests::{Attachment, Daemon, Lab, Pod, Runtime};
use serde_json::{Value, json};

/// A network whose attachments have all kinds of rules, by `backend`.
fn network(lab: &Lab, backend: &str) -> Value {
    let mut list = lab.nodes[0].conflist("kept", "10.0.1.0/24");
    list["plugins"][0]["ipMasqBackend"] = json!(backend);
    list["plugins"][0]["macspoofchk"] = json!(true);
    list["plugins"][1]["backend"] = json!(backend);
    list
}

fn with_port(pod: &Pod, port: u16) -> Attachment {
    pod.attachment("eth0").runtime_config(json!({ "portMappings": [
        { "hostPort": port, "containerPort": 80, "protocol": "tcp" } ] }))
}

fn degraded(daemon: &Daemon<'_>) -> bool {
    daemon.status().degraded.iter().any(|one| one.contains("another process removed"))
}

/// Whole rulesets and single elements; the kernel reports it, so nobody waits for a period.
///
/// Rows: RC1
#[test]
fn flushed_rules_of_attachments_come_back() {
    let flushes = [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft flush table inet causeway_masq; nft flush table bridge causeway_spoof"),
        ("nftables", "nft flush map inet causeway_hostport any4"),
        ("nftables", "nft flush map inet causeway_masq sources4"),
        ("nftables", "nft flush set bridge causeway_spoof guarded"),
        ("iptables", "iptables -t nat -F"),
        ("iptables", "iptables -t nat -F; iptables -t nat -X; iptables -t raw -F"),
    ];
    for backend in ["nftables", "iptables"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let daemon = Daemon::start(node);
        let runtime = Runtime::new(node, network(&lab, backend));
        let pods: [Pod; 2] = [(); 2].map(|()| node.pod());
        let attached = [with_port(&pods[0], 8080), with_port(&pods[1], 8081)];
        attached.iter().for_each(|one| drop(runtime.add_ok(one)));
        let stands = || attached.iter().all(|one| runtime.check(one).is_ok());
        assert!(stands(), "{backend}");
        for (_, flush) in flushes.iter().filter(|(of, _)| *of == backend) {
            node.sh(flush);
            let took = daemon.until(&format!("{backend}: {flush}"), stands);
            causeway_tests::say(&format!("{backend}: {flush}: back within {took:?}"));
            daemon.until("status is content", || !degraded(&daemon));
        }
        assert!(daemon.log().contains("host ports 8080/tcp of kept/"), "{}", daemon.log());
        // Neither comes back after its DEL.
        runtime.del_ok(&attached[0]);
        node.sh("nft flush ruleset");
        daemon.until("the other one is back", || runtime.check(&attached[1]).is_ok());
        assert!(!node.rules().contains("8080"), "{backend}: {}", node.rules());
        runtime.del_ok(&attached[1]);
        assert!(!node.rules().contains("8081"), "{backend}: {}", node.rules());
    }
}

/// What cannot be put back is named for as long as it is missing.
///
/// Rows: RC1
#[test]
fn missing_rules_of_attachments_are_named() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start(node);
    let runtime = Runtime::new(node, network(&lab, "nftables"));
    let pod = node.pod();
    let attached = with_port(&pod, 8080);
    runtime.add_ok(&attached);
    // Another one's table in the place of ours: a set of another type cannot be made. In one
    // transaction, because the daemon repairs what it finds between two.
    node.sh("nft 'delete table inet causeway_hostport; add table inet causeway_hostport; \
                  add set inet causeway_hostport any4 { type ipv4_addr; }'");
    daemon.until("it is named", || degraded(&daemon));
    let status = daemon.status();
    let text = status.degraded.join("\n");
    assert!(text.contains(&format!("host ports 8080/tcp of kept/{}/eth0", pod.id)), "{text}");
    node.sh("nft delete table inet causeway_hostport");
    daemon.until("it is back", || runtime.check(&attached).is_ok());
    daemon.until("status is content", || !degraded(&daemon));
}
