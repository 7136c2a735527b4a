//! Nodes die, come back, move, lose their devices.

use std::time::Duration;

use causeway_tests::cluster::{
    Cluster, Setup, all_ping, asked, endpoints, in_rotation, named, service, shares, stays, until,
    within,
};
use causeway_tests::traffic::IMPATIENCE;
use causeway_tests::{Daemon, Finished, Lab, Node};
use serde_json::json;

const VIP: &str = "10.96.1.100:8080";
const SERVICE: &str = "http-server-svc";

/// Rows: O-60, O-61, C-12, C-13
#[test]
fn a_dead_node_leaves_rotation_keeps_its_routes_and_comes_back() {
    let lab = Lab::with_nodes(3);
    let mut cluster = Cluster::start(&lab, Setup::default());
    let pods = cluster.two_each("app:cs-pod");
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    cluster.endpoints(SERVICE, 6);
    cluster.die(1);
    let limit = 2 * cluster.setup.endpoint_ttl + Duration::from_secs(2);
    for daemon in [&cluster.daemons[0], &cluster.daemons[2]] {
        within(limit, "out of rotation", || in_rotation(daemon, SERVICE) == 4);
        let status = daemon.status();
        let dead = status.peers.iter().find(|peer| peer.name == "node2").expect("it is known");
        assert_eq!(dead.state, "NotReady");
        assert_eq!(dead.subnets, ["10.0.2.0/24"]);
    }
    let shown = cluster.daemons[0].causeway(&["get", "nodes"]).ok();
    assert!(
        shown.lines().any(|line| line.contains("node2") && line.contains("NotReady")),
        "{shown}"
    );
    let living = ["10.0.1.2", "10.0.1.3", "10.0.3.2", "10.0.3.3"];
    for from in [&*lab.nodes[0], &*lab.nodes[2], &*pods[0]] {
        assert_eq!(asked(from, VIP, 4), living);
    }
    for node in [0, 2] {
        let routes = lab.nodes[node].sh("ip route show proto 197");
        assert!(routes.contains("10.0.2.0/24"), "{routes}");
    }
    cluster.revive(1);
    cluster.settled();
    cluster.endpoints(SERVICE, 6);
    assert_eq!(all_ping(&pods), 30);
    let status = cluster.daemons[1].status();
    assert_eq!(status.subnets[0].subnet, "10.0.2.0/24");
    let shares = shares(&asked(&lab.nodes[0], VIP, 12));
    assert_eq!(shares.len(), 6, "{shares:?}");
    assert!(shares.values().all(|count| *count == 2), "{shares:?}");
}

/// Rows: O-64
#[test]
fn a_split_underlay_shorter_and_longer_than_the_leases() {
    let lab = Lab::with_nodes(3);
    let cluster = Cluster::start(&lab, Setup::default().ttls(3, 7).unasked());
    let pods = cluster.two_each("app:cs-pod");
    let before: Vec<_> = cluster.daemons.iter().map(|daemon| daemon.status().subnets).collect();
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    cluster.endpoints(SERVICE, 6);
    // Node 1 is alone; the store is with the others.
    for (seconds, longer_than_endpoints) in [(1, false), (5, true), (10, true)] {
        cluster.daemons[0].apply(&[named("passing", "10.96.1.101", 30081, &json!({}))]);
        cluster.endpoints("passing", 6);
        lab.split(&["port0"], &["port1", "port2", "etcd0"]);
        stays(Duration::from_secs(seconds), "both halves go on inside", || {
            pods[0].ping(pods[1].ip()) && pods[2].ping(pods[4].ip())
        });
        if longer_than_endpoints {
            endpoints(&cluster.daemons[1], SERVICE, 4);
            assert_eq!(shares(&asked(&pods[2], VIP, 4)).len(), 4);
        }
        // What one half deletes is gone in the other once they hear of each other.
        cluster.daemons[1].request("DELETE", "/v1/services/default/passing", b"").expect("deleted");
        lab.heal();
        cluster.settled();
        cluster.everywhere("the other service is gone", |daemon| {
            in_rotation(daemon, "passing") == usize::MAX
        });
        assert!(pods[0].tcp_within("10.96.1.101:8080", IMPATIENCE).is_err());
        cluster.endpoints(SERVICE, 6);
        assert_eq!(all_ping(&pods), 30);
        let after: Vec<_> = cluster.daemons.iter().map(|daemon| daemon.status().subnets).collect();
        let names = |all: &[Vec<causeway_api::SubnetStatus>]| {
            all.iter().map(|one| one[0].subnet.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&before), "after {seconds} s");
    }
    let keys = cluster.etcd.keys("/causeway/v1/subnets/");
    assert_eq!(keys.len(), 3, "{keys:?}");
}

/// The permanent FDB entries of the overlay: Ethernet address and tunnel end.
fn fdb(node: &Node) -> Vec<String> {
    let text = node.sh("bridge fdb show dev cwov1 | grep dst || true");
    let pair = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let at = words.iter().position(|word| *word == "dst").expect("a tunnel end");
        format!("{} {}", words[0], words[at + 1])
    };
    let mut all: Vec<String> = text.lines().map(pair).collect();
    all.sort();
    all
}

/// Rows: O-37, O-62
#[test]
fn a_node_with_a_new_address_is_followed() {
    let lab = Lab::with_nodes(3);
    let mut cluster = Cluster::start(&lab, Setup::default());
    let pods = cluster.two_each("app:cs-pod");
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    cluster.endpoints(SERVICE, 6);
    // First under a daemon that runs, then between two runs.
    for (from, to, running) in [("3", "33", true), ("33", "34", false)] {
        if !running {
            cluster.daemons[1].kill();
        }
        lab.nodes[1].ip(&format!(
            "addr del 172.18.0.{from}/24 dev eth0\naddr add 172.18.0.{to}/24 dev eth0\n\
             route replace default via 172.18.0.1\n"
        ));
        if !running {
            cluster.daemons[1].again();
        }
        let address = format!("172.18.0.{to}");
        for (index, daemon) in cluster.daemons.iter().enumerate().filter(|(index, _)| *index != 1) {
            let node = &lab.nodes[index];
            daemon.until("the new address", || {
                let entries = fdb(node);
                entries.len() == 2
                    && entries.iter().filter(|one| one.ends_with(&address)).count() == 1
            });
        }
        cluster.settled();
        until("all reach each other", || pods[0].ping(pods[2].ip()) && pods[3].ping(pods[4].ip()));
        assert_eq!(all_ping(&pods), 30);
        cluster.endpoints(SERVICE, 6);
        let status = cluster.daemons[1].status();
        assert_eq!(status.subnets[0].subnet, "10.0.2.0/24");
        // The node port answers at the new address.
        assert_eq!(asked(&lab.client, &format!("{address}:30080"), 6).len(), 6);
    }
}

/// Rows: O-63, O-13, O-05
#[test]
fn a_device_made_anew_or_renumbered_is_put_right() {
    let lab = Lab::with_nodes(2);
    let cluster = Cluster::start(&lab, Setup::default());
    let pods = cluster.two_each("");
    let before = fdb(&lab.nodes[0]);
    for damage in [
        "ip link del cwov1",
        "ip link set cwov1 address 02:00:00:00:00:99",
        "ip link set cwov1 down",
        "ip neigh flush dev cwov1 nud permanent",
        "bridge fdb flush dev cwov1 || bridge fdb show dev cwov1",
        "ip route flush proto 197",
        "ip addr flush dev cwov1",
        "ip link set cwov1 mtu 1400",
    ] {
        lab.nodes[0].sh(damage);
        within(Duration::from_secs(12), damage, || pods[0].ping(pods[2].ip()));
        assert_eq!(all_ping(&pods), 12, "{damage}");
        assert_eq!(fdb(&lab.nodes[0]), before, "{damage}");
    }
    cluster.settled();
}

/// What `get nodes` lists.
fn listed(daemon: &Daemon<'_>) -> Vec<String> {
    let shown = daemon.causeway(&["get", "nodes", "-o", "name"]).ok();
    shown.lines().map(|line| line.trim_start_matches("node/").to_owned()).collect()
}

/// How a program ended, and all that it printed.
fn ended(finished: &Finished) -> (i32, String) {
    let [errors, answer] =
        [&finished.stderr, &finished.stdout].map(|one| String::from_utf8_lossy(one));
    (finished.code(), format!("{errors}{answer}"))
}

/// Rows: RB8
#[test]
fn a_node_that_is_gone_is_deleted_and_one_that_goes_leaves_in_order() {
    let lab = Lab::with_nodes(3);
    let mut cluster = Cluster::start(&lab, Setup::default());
    let pods = cluster.two_each("app:cs-pod");
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    cluster.endpoints(SERVICE, 6);
    let delete = |cluster: &Cluster<'_>, name: &str| {
        ended(&cluster.daemons[0].causeway(&["delete", "node", name]))
    };
    let leave = |cluster: &Cluster<'_>, flags: &[&str]| ended(&cluster.daemons[2].leave(flags));
    for name in ["node1", "node2"] {
        let (code, said) = delete(&cluster, name);
        assert!(code == 1 && said.contains("was not deleted") && said.contains("lives"), "{said}");
    }
    assert!(delete(&cluster, "node9").1.contains("not found"));

    // One dies for good: its lease of a day ends by the administrator's word.
    cluster.die(1);
    cluster.daemons[0].until("its death", || {
        let status = cluster.daemons[0].status();
        status.peers.iter().any(|peer| peer.name == "node2" && peer.state == "NotReady")
    });
    let (code, said) = delete(&cluster, "node2");
    assert!(code == 0 && said.contains("node \"node2\" deleted"), "{said}");
    for node in [0, 2] {
        let daemon = &cluster.daemons[node];
        daemon.until("it is forgotten", || listed(daemon) == ["node1", "node3"]);
        until("its routes are gone", || {
            !lab.nodes[node].sh("ip route show proto 197").contains("10.0.2.0/24")
        });
    }
    let keys = cluster.etcd.keys("/causeway/v1/subnets/");
    assert!(keys.len() == 2 && !keys.iter().any(|key| key.contains("10.0.2.0")), "{keys:?}");
    assert_eq!(delete(&cluster, "node2").0, 1, "there is none");

    // One leaves: at once, and not while containers or the daemon are there.
    let (code, said) = leave(&cluster, &[]);
    assert!(code == 1 && said.contains("another causewayd"), "{said}");
    cluster.daemons[2].stop();
    let (code, said) = leave(&cluster, &[]);
    assert!(code == 1 && said.contains("containers are attached"), "{said}");
    assert_eq!(in_rotation(&cluster.daemons[0], SERVICE), 4, "nothing was given up");
    let (code, said) = leave(&cluster, &["--force"]);
    assert!(code == 0 && said.contains("released 10.0.3.0/24 and 2 con"), "{said}");
    let daemon = &cluster.daemons[0];
    // Long before any lease of it runs out.
    within(Duration::from_secs(2), "it is forgotten", || {
        listed(daemon) == ["node1"] && in_rotation(daemon, SERVICE) == 2
    });
    until("its routes are gone", || {
        !lab.nodes[0].sh("ip route show proto 197").contains("10.0.3.0/24")
    });
    assert!(!lab.nodes[2].run_dir().join("node.json").exists());
    assert!(leave(&cluster, &["--force"]).1.contains("has no records in the cluster"));
    let shares = shares(&asked(&pods[0], VIP, 4));
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["10.0.1.2", "10.0.1.3"]);
    // It may come again.
    cluster.daemons[2].again();
    let daemon = &cluster.daemons[0];
    daemon.until("it is back", || listed(daemon) == ["node1", "node3"]);
    endpoints(daemon, SERVICE, 4);
}
