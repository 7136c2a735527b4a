//! Kernel settings that the daemon makes, and gives back.

use causeway_tests::{Daemon, Lab};

/// Rows: P81
#[test]
fn connection_tracking_has_kube_proxys_times_and_gets_its_own_back() {
    const TIMES: [(&str, &str); 2] = [
        ("netfilter/nf_conntrack_tcp_timeout_established", "86400"),
        ("netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"),
    ];
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let before = TIMES.map(|(key, _)| node.sysctl(key));
    let room = node.sysctl("netfilter/nf_conntrack_max").parse::<u32>().expect("a number");
    let mut daemon = Daemon::start(node);
    for (key, value) in TIMES {
        assert_eq!(node.sysctl(key), value, "{key}");
    }
    let now = node.sysctl("netfilter/nf_conntrack_max").parse::<u32>().expect("a number");
    assert!(now >= room, "room for {room} connections became {now}");
    daemon.stop();
    Daemon::cleanup(node, &[]).ok();
    assert_eq!(TIMES.map(|(key, _)| node.sysctl(key)), before);
}

/// Rows: C-15
#[test]
fn the_password_of_the_store_stands_in_no_log_status_or_state() {
    const SECRET: &str = "Xyzzy-4711";
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let config = node.dir().join("causeway.toml");
    let text = format!(
        "store = \"etcd\"\netcd_endpoints = [\"http://127.0.0.1:9\"]\netcd_username = \"root\"\n\
         etcd_password = \"{SECRET}\"\n"
    );
    std::fs::write(&config, text).expect("write the settings");
    node.sh(&format!("chmod 644 {}", config.display()));
    let daemon = Daemon::start_with(node, &["--config", &config.display().to_string()]);
    daemon.until("it says that the store is away", || {
        daemon.status().cluster.is_some_and(|cluster| {
            !cluster.connected && cluster.reason.is_some() && cluster.endpoints.len() == 1
        })
    });
    let warnings = daemon.status().warnings;
    let wanted = format!("chmod 600 {}", config.display());
    assert!(warnings.iter().any(|line| line.ends_with(&wanted)), "{warnings:?}");
    for said in [daemon.get("/v1/status").to_string(), daemon.get("/v1/nodes").to_string()] {
        assert!(!said.contains(SECRET), "{said}");
    }
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
    let state = node.dir().join("state");
    let holds =
        format!("grep -rlF {SECRET} {} {} || true", state.display(), node.run_dir().display());
    assert_eq!(node.sh(&holds), "");
    // Nobody else reads the state at all.
    assert_eq!(node.sh(&format!("stat -c %a {}", state.display())).trim(), "700");
    let command = node.sh(&format!("tr '\\0' '\\n' </proc/{}/cmdline", daemon.pid()));
    assert!(!command.contains(SECRET), "{command}");
}
