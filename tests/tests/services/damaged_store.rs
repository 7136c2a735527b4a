//! The daemon's own store, damaged while the daemon was away: it starts, serves what it can know,
//! and says what is missing.

use std::path::{Path, PathBuf};

use causeway_tests::{Daemon, Lab, Node, Pod, Runtime};
use serde_json::{Value, json};

use super::daemon_start::{address, service, slice};

/// A service whose endpoints are containers.
fn selecting(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } })
}

/// A container that the service is for.
fn attach(node: &Node, runtime: &Runtime<'_>) -> (Pod, String) {
    let pod = node.pod();
    let result = runtime.add_ok(&pod.attachment("eth0"));
    let address = result["ips"][0]["address"].as_str().expect("an address").to_owned();
    (pod, address.split('/').next().unwrap_or_default().to_owned())
}

fn snapshots(store: &Path) -> Vec<PathBuf> {
    let entries = store.read_dir().unwrap_or_else(|e| panic!("{}: {e}", store.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"snap."))
    };
    paths.filter(is).collect()
}

/// Rows: RC5
#[test]
fn a_daemon_whose_store_is_damaged_starts_and_says_what_is_missing() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let state = node.dir().join("state");
    let store = state.join("store");
    let mut daemon = Daemon::start(node);
    daemon.manifest("web.json", &selecting("web").to_string());
    daemon.until("the manifest is read", || daemon.count("services") == 1);
    daemon.apply(&[service("applied"), slice("applied", &["10.0.1.200"])]);
    let mut list = node.conflist("blue", "10.0.1.0/24");
    list["plugins"][1]["labels"] = json!({ "app": "web" });
    let runtime = Runtime::new(node, list);
    let (pod, ip) = attach(node, &runtime);
    let endpoints = |daemon: &Daemon<'_>| {
        let object = daemon.get("/v1/endpoints/default/web");
        object["subsets"][0]["addresses"][0]["ip"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(endpoints(&daemon), ip);
    let before = (address(&daemon, "web"), address(&daemon, "applied"));

    // A snapshot alone costs nothing: sled's log beside it holds all.
    for bytes in [&b""[..], &[0x5a; 300]] {
        daemon.kill();
        let found = snapshots(&store);
        assert!(!found.is_empty(), "sled writes one when it opens");
        for path in found {
            std::fs::write(path, bytes).expect("written");
        }
        daemon.again();
        let status = daemon.status();
        assert_eq!(status.degraded, [""; 0]);
        let said = |line: &String| line.starts_with("store: ") && line.contains("nothing is lost");
        assert!(status.warnings.iter().any(said), "{status:?}");
        assert_eq!((address(&daemon, "web"), address(&daemon, "applied")), before);
        assert_eq!(endpoints(&daemon), ip);
    }

    // The log as well: what other places know is served, what only the store knew is named.
    daemon.kill();
    std::fs::write(store.join("db"), vec![0x5a; 1 << 20]).expect("written");
    daemon.again();
    let aside = state.join("store.damaged-1").display().to_string();
    let is_lost = |daemon: &Daemon<'_>| {
        let degraded = daemon.status().degraded;
        let said = |line: &String| line.starts_with("store: ") && line.contains(&aside);
        assert!(degraded.len() <= 1 && degraded.iter().all(said), "{degraded:?}");
        !degraded.is_empty()
    };
    for _ in 0..2 {
        assert!(is_lost(&daemon));
        assert_eq!(daemon.causeway(&["status"]).code(), 1);
        assert_eq!(daemon.count("services"), 1);
        assert_eq!(address(&daemon, "web"), before.0);
        assert_eq!(endpoints(&daemon), ip);
        // A restart, of whatever kind, does not hide it.
        daemon.kill();
        daemon.again();
    }
    daemon.apply(&[service("applied"), slice("applied", &["10.0.1.200"])]);
    std::fs::remove_dir_all(&aside).expect("removed");
    assert!(!is_lost(&daemon));
    // The container's end is taken as ever.
    runtime.del_ok(&pod.attachment("eth0"));
    assert_eq!(endpoints(&daemon), "");
    daemon.stop();
}

/// Rows: RC5
#[test]
fn remembered_settings_that_do_not_decode_stop_no_daemon() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    daemon.stop();
    let file = node.dir().join("state/sysctls.json");
    std::fs::write(&file, "").expect("written");
    daemon.again();
    let warnings = daemon.status().warnings;
    let aside = file.with_extension("json.damaged");
    let said = |line: &String| line.contains(&aside.display().to_string());
    assert!(aside.exists() && warnings.iter().any(said), "{warnings:?}");
}
