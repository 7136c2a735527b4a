//! What operators meet in their first minutes: places that two services ask for, a node that is
//! about to go, the log, a watch over a restart.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

use causeway_tests::{DEADLINE, Daemon, Lab, bins};
use serde_json::{Value, json};

fn service(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

/// Rows: RD8
#[test]
fn who_shares_an_external_address_and_port_is_told() {
    let lab = Lab::one_node();
    let daemon = Daemon::start(&lab.nodes[0]);
    let spec = json!({ "externalIPs": ["192.0.2.77"], "ports": [{ "port": 80 }] });
    let alone = daemon.apply(&[service("two", &spec)]);
    assert_eq!(alone.results[0].warnings, [""; 0]);
    let told = "192.0.2.77:80/TCP is claimed by services default/one and default/two: connections \
                go to default/one";
    let warned =
        |applied: &causeway_api::Applied| applied.results[0].warnings.join("\n").contains(told);
    let taken = daemon.apply(&[service("one", &spec)]);
    assert!(warned(&taken), "{taken:?}");
    let again = daemon.apply(&[service("two", &spec)]);
    assert!(warned(&again), "{again:?}");
    let status = daemon.status();
    assert!(status.warnings.iter().any(|one| one.contains(told)), "{:?}", status.warnings);
    for name in ["one", "two"] {
        let shown = daemon.causeway(&["describe", "service", name]).ok();
        assert!(shown.contains(told), "{shown}");
    }
    // Another port is another place.
    let other = json!({ "externalIPs": ["192.0.2.77"], "ports": [{ "port": 81 }] });
    let moved = daemon.apply(&[service("two", &other)]);
    assert_eq!(moved.results[0].warnings, [""; 0]);
    assert!(!daemon.status().warnings.iter().any(|one| one.contains("192.0.2.77")));
}

/// Rows: RD9, P86
#[test]
fn a_node_that_is_about_to_be_deleted_is_not_eligible_and_lives() {
    let lab = Lab::one_node();
    let mut daemon = Daemon::start(&lab.nodes[0]);
    let node = |spec: &Value| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" }, "spec": spec });
    let status = |path: &str| {
        let (status, text) = daemon_status(&lab, path);
        (status, text.contains("\"nodeEligible\":true"))
    };
    assert_eq!(status("healthz"), (200, true));
    let taint =
        json!({ "key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule" });
    daemon.apply(&[node(&json!({ "taints": [taint] }))]);
    assert_eq!(status("healthz"), (503, false));
    assert_eq!(status("livez").0, 200);
    assert_eq!(status("readyz").0, 200);
    // It is stored with the node.
    daemon.stop();
    daemon.again();
    assert_eq!(status("healthz"), (503, false));
    daemon.apply(&[node(&json!({}))]);
    assert_eq!(status("healthz"), (200, true));
}

fn daemon_status(lab: &Lab, path: &str) -> (u16, String) {
    let script = format!("curl -s -i --max-time 5 127.0.0.1:10256/{path} || echo exit $?");
    let text = lab.nodes[0].sh(&script);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

fn event(id: &str, seq: u64, ip: Option<&str>) -> Value {
    let key = json!({ "network": "net", "containerID": id, "ifname": "eth0" });
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let record = ip.map(|ip| {
        json!({ "network": "net", "containerID": id, "ifname": "eth0", "ips": [ip], "created": 1,
            "labels": { "nerdctl/name": "w2", "nerdctl/namespace": "default", "app": "db" } })
    });
    json!({ "key": key, "seq": seq, "bootId": boot.trim(), "record": record })
}

/// One line each, with names; a container that nobody named is shown by nerdctl's name for it.
/// Rows: RA9, RA10, RD4
#[test]
fn the_log_names_what_comes_and_goes() {
    let lab = Lab::one_node();
    let mut daemon = Daemon::start(&lab.nodes[0]);
    let put = |seq, ip| {
        let body = event("default-0123456789abcdef", seq, ip).to_string();
        daemon.request("PUT", "/v1/events", body.as_bytes()).expect("an event");
    };
    put(1, Some("10.0.1.2"));
    let headless = json!({ "clusterIP": "None", "selector": { "app": "db" } });
    daemon.apply(&[service("web", &headless)]);
    let pods = daemon.causeway(&["get", "pods"]).ok();
    assert!(pods.lines().nth(1).is_some_and(|line| line.starts_with("w2 ")), "{pods}");
    let endpoints = daemon.causeway(&["get", "ep", "web"]).ok();
    assert!(endpoints.contains("10.0.1.2 "), "{endpoints}");
    let described = daemon.causeway(&["describe", "svc", "web"]).ok();
    assert!(described.contains("Endpoints:") && described.contains("10.0.1.2"), "{described}");
    daemon.causeway(&["delete", "svc", "web"]).ok();
    put(2, None);
    put(3, None);
    let lines = [
        "attached default/default-0123456789abcdef: 10.0.1.2 (container default-0123456789abcdef, \
         eth0 in net)",
        "stored service default/web",
        "deleted service default/web",
        "detached default/default-0123456789abcdef: 10.0.1.2 (container default-0123456789abcdef, \
         eth0 in net)",
    ];
    let log = daemon.log();
    for line in lines {
        assert_eq!(log.matches(line).count(), 1, "{line}");
    }
    daemon.stop();
    let quiet = Daemon::start_with(&lab.nodes[0], &["--log-level", "warn"]);
    quiet.apply(&[service("quiet", &json!({ "ports": [{ "port": 80 }] }))]);
    assert!(!quiet.log().contains("stored"), "{}", quiet.log());
    let refused = Daemon::refused(&lab.nodes[0], &["--log-level", "loud"]);
    assert_eq!(refused.code(), 2, "{refused:?}");
}

/// Rows: RA10
#[test]
fn a_watch_goes_on_when_the_daemon_is_back() {
    let lab = Lab::one_node();
    let mut daemon = Daemon::start(&lab.nodes[0]);
    let ports = json!({ "ports": [{ "port": 80 }] });
    daemon.apply(&[service("one", &ports)]);
    let mut command = lab.nodes[0].command(bins::ours("causeway"));
    command.arg("--socket").arg(daemon.socket()).args(["get", "svc", "-w", "-o", "name"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start causeway");
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let errors = sender.clone();
    std::thread::spawn(move || {
        stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    std::thread::spawn(move || {
        stderr.lines().map_while(Result::ok).try_for_each(|line| errors.send(line))
    });
    let next = || lines.recv_timeout(DEADLINE).expect("a line within the deadline");
    assert_eq!(next(), "service/one");
    for (name, killed) in [("two", false), ("three", true)] {
        if killed {
            daemon.kill();
        } else {
            daemon.stop();
        }
        assert_eq!(next(), "causewayd ended the watch; resuming when it is back");
        daemon.again();
        daemon.apply(&[service(name, &ports)]);
        assert_eq!(next(), format!("service/{name}"));
    }
    drop(child.kill());
    drop(child.wait());
}

/// Looking harms nobody; removing beside a daemon does.
/// Rows: RB10
#[test]
fn a_dry_run_of_cleanup_works_beside_a_daemon() {
    let lab = Lab::one_node();
    let daemon = Daemon::start(&lab.nodes[0]);
    daemon.apply(&[service("web", &json!({ "ports": [{ "port": 80 }] }))]);
    let rules = lab.nodes[0].nft();
    for arguments in [&["--dry-run"][..], &["--dry-run", "--all"]] {
        let said = Daemon::cleanup(&lab.nodes[0], arguments).ok();
        assert!(said.contains("would remove"), "{said}");
    }
    let refused = Daemon::cleanup(&lab.nodes[0], &[]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert_eq!(lab.nodes[0].nft(), rules);
    assert_eq!(daemon.count("services"), 1);
}

/// Rows: RA9
#[test]
fn the_shipped_examples_apply_together() {
    let lab = Lab::one_node();
    let daemon = Daemon::start(&lab.nodes[0]);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf");
    let applied = daemon.causeway(&["apply", "-f", folder]).ok();
    let wanted = ["service/http-server-vip created", "service/http-server-svc created"];
    assert_eq!(applied.lines().collect::<Vec<_>>(), wanted);
    let deleted = daemon.causeway(&["delete", "-f", folder]);
    assert_eq!(deleted.code(), 0, "{deleted:?}");
}
