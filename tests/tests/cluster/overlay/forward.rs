//! What rules of other programs do to packets of containers, and what ours do: who drops is named
//! with the commands that help, and only who leaves the cluster is masqueraded.

use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Lab, Ns};

use super::stage::{Families, Setup, Stage};

/// What `status` says of forwarding.
fn said(daemon: &Daemon<'_>) -> Option<String> {
    let all = daemon.status().degraded;
    all.iter().find_map(|text| text.strip_prefix("forward: ")).map(str::to_owned)
}

/// Whether each container reaches the other at once.
fn reached(one: &Ns, two: &[String]) -> Vec<bool> {
    two.iter().map(|ip| one.ping(ip)).collect()
}

/// A policy of drop on the first node: nothing passes, the daemon says `text` of it, and its
/// commands, typed as they stand there, let everything pass again.
fn check(lab: &Lab, families: Families, policy: &[&str], text: &str) {
    let stage = Stage::new(lab, Setup { pods: families, ..Setup::new("vxlan") });
    let (one, _) = stage.pod(0);
    let (_two, ips) = stage.pod(1);
    let (node, daemon) = (stage.node(0), &stage.daemons[0]);
    ips.iter().for_each(|ip| one.assert_ping(ip));
    assert_eq!(said(daemon), None);
    for command in policy {
        node.sh(command);
    }
    assert!(reached(&one, &ips).contains(&false));
    daemon.until("the drop is in status", || said(daemon).is_some());
    let reported = said(daemon).expect("a report");
    assert_eq!(reported, text);
    let shown = daemon.causeway(&["status"]);
    let printed = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.code() == Some(1) && printed.contains(text), "{shown:?}");
    for command in reported.split('`').skip(1).step_by(2) {
        node.sh(command);
    }
    ips.iter().for_each(|ip| one.assert_ping(ip));
    daemon.until("the report is gone", || said(daemon).is_none());
    let _internet = Server::tcp(&lab.internet, "internet", "0.0.0.0:80");
    let answer = one.tcp(&format!("{}:80", Lab::INTERNET)).expect("the internet");
    assert_eq!(answer.peer.ip().to_string(), Lab::node_address(0));
}

fn four(table: &str, program: &str, chain: &str) -> String {
    format!(
        "chain FORWARD of table {table} has policy drop and no rule that accepts 10.0.0.0/16: \
         traffic between containers of different nodes is dropped; allow it with `{program} -I \
         {chain} -s 10.0.0.0/16 -j ACCEPT` and `{program} -I {chain} -d 10.0.0.0/16 -j ACCEPT`"
    )
}

/// Rows: O-52, S-17
#[test]
fn a_forward_policy_of_drop_is_named_and_mended_by_what_the_report_says() {
    let lab = Lab::with_nodes(2);
    let policy = ["iptables-nft -P FORWARD DROP"];
    check(&lab, Families::V4, &policy, &four("ip filter", "iptables", "FORWARD"));
}

/// Row: O-52
#[test]
fn where_docker_has_a_chain_for_users_the_commands_name_it() {
    let lab = Lab::with_nodes(2);
    let policy = [
        "ip link add docker0 type bridge",
        "iptables-nft -P FORWARD DROP",
        "iptables-nft -N DOCKER-USER",
        "iptables-nft -A DOCKER-USER -j RETURN",
        "iptables-nft -A FORWARD -j DOCKER-USER",
        "iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "iptables-nft -A FORWARD -i docker0 -j ACCEPT",
    ];
    check(&lab, Families::V4, &policy, &four("ip filter", "iptables", "DOCKER-USER"));
}

/// Row: O-52
#[test]
fn the_older_iptables_is_asked_too() {
    let lab = Lab::with_nodes(2);
    let policy = ["iptables-legacy -P FORWARD DROP"];
    let text = four("ip filter of iptables-legacy", "iptables-legacy", "FORWARD");
    check(&lab, Families::V4, &policy, &text);
}

/// Row: O-52
#[test]
fn a_table_of_both_families_is_named_once() {
    let lab = Lab::with_nodes(2);
    let policy = ["nft 'table inet fw { chain passing { type filter hook forward priority 0; \
                   policy drop; }; }'"];
    let insert = |words: &str| format!("`nft insert rule inet fw passing {words} accept`");
    let text = format!(
        "chain passing of table inet fw has policy drop and no rule that accepts 10.0.0.0/16 and \
         fd00:10::/48: traffic between containers of different nodes is dropped; allow it with {} \
         and {} and {} and {}",
        insert("ip saddr 10.0.0.0/16"),
        insert("ip daddr 10.0.0.0/16"),
        insert("ip6 saddr fd00:10::/48"),
        insert("ip6 daddr fd00:10::/48")
    );
    check(&lab, Families::Dual, &policy, &text);
}

/// Rows: O-50, O-54, O-56, S-18, S-19, S-27
#[test]
fn containers_of_other_nodes_see_the_source_and_the_internet_sees_the_node() {
    for overlay in ["vxlan", "host-gw"] {
        let lab = Lab::with_nodes(2);
        let setup = Setup { nodes: Families::Dual, pods: Families::Dual, ..Setup::new(overlay) };
        let stage = Stage::new(&lab, setup);
        let (one, ips) = stage.pod(0);
        let (two, to) = stage.pod(1);
        let at = [format!("{}:80", to[0]), format!("[{}]:80", to[1])];
        let _inside = at.map(|at| Server::tcp(&two, "two", &at));
        let _outside = [Lab::INTERNET.to_owned(), format!("[{}]", Lab::INTERNET6)]
            .map(|at| Server::tcp(&lab.internet, "internet", &format!("{at}:80")));
        let seen = |to: &str| {
            let to = if to.contains(':') { format!("[{to}]:80") } else { format!("{to}:80") };
            one.tcp(&to).expect("an answer").peer.ip().to_string()
        };
        assert_eq!([seen(&to[0]), seen(&to[1])], [ips[0].clone(), ips[1].clone()], "{overlay}");
        assert_eq!(seen(Lab::INTERNET), Lab::node_address(0), "{overlay}");
        assert_eq!(seen(Lab::INTERNET6), Lab::node_address6(0), "{overlay}");
        // What the node itself sends comes from its end of the way: an address of its own either
        // way, which lists of who may come can name.
        let own = stage.node(0).tcp(&format!("{}:80", to[0])).expect("an answer").peer.ip();
        let end = if overlay == "vxlan" { "10.0.1.0".to_owned() } else { Lab::node_address(0) };
        assert_eq!(own.to_string(), end, "{overlay}");
        // Marks of other programs, all their bits, change nothing of that.
        let node = stage.node(0);
        node.sh(
            "nft 'table inet other { chain marks { type filter hook prerouting priority -150; \
             meta mark set 0xffffbfff; }; chain kept { type filter hook postrouting priority 200; \
             meta mark & 0xffffbfff == 0xffffbfff ip daddr 10.0.0.0/16 counter; }; }'",
        );
        // If an agent for network policies looks, the addresses are the containers' own.
        node.sh(&format!(
            "nft 'add chain inet other agent {{ type filter hook forward priority 0; }}; add rule \
             inet other agent ip saddr {} ip daddr {} counter'",
            ips[0], to[0]
        ));
        assert_eq!(seen(&to[0]), ips[0], "{overlay}");
        assert_eq!(seen(Lab::INTERNET), Lab::node_address(0), "{overlay}");
        let counted = node.sh("nft list table inet other");
        assert_eq!(counted.matches("counter packets").count(), 2, "{counted}");
        assert!(!counted.contains("packets 0"), "{counted}");
        node.sh("nft delete table inet other");
    }
}
