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
