//! The store goes away, loses its history or its data, stands still: the nodes go on.

use std::time::Duration;

use causeway_tests::cluster::{
    Cluster, Placed, Setup, answers, asked, in_rotation, named, service, stays, until, within,
};
use causeway_tests::steady::Pings;
use causeway_tests::{Daemon, Etcd, Lab};
use serde_json::json;

const VIP: &str = "10.96.1.100:8080";
const SERVICE: &str = "http-server-svc";

fn start(lab: &Lab) -> (Cluster<'_>, Vec<Placed>) {
    let cluster = Cluster::start(lab, Setup::default());
    let pods: Vec<Placed> =
        (0..lab.nodes.len()).map(|node| cluster.pod(node, "app:cs-pod")).collect();
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    cluster.endpoints(SERVICE, pods.len());
    (cluster, pods)
}

fn ips(pods: &[Placed]) -> Vec<&str> {
    pods.iter().map(Placed::ip).collect()
}

fn away(daemon: &Daemon<'_>) -> bool {
    let status = daemon.status();
    let cluster = status.cluster.expect("a cluster store");
    !cluster.connected && cluster.away.is_some() && !status.degraded.is_empty()
}

fn all_three(cluster: &Cluster<'_>) -> bool {
    cluster.daemons.iter().all(|daemon| in_rotation(daemon, SERVICE) == 3)
}

/// Nothing is degraded, all is published, every node sees all others.
fn well(cluster: &Cluster<'_>, containers: usize) {
    cluster.everywhere("connected and well", |daemon| {
        let status = daemon.status();
        status.cluster.is_some_and(|cluster| cluster.connected) && status.degraded.is_empty()
    });
    cluster.settled();
    cluster.etcd.until("all containers are published", |etcd| {
        etcd.keys("/causeway/v1/containers/").len() == containers
    });
    let nodes = cluster.daemons.len();
    cluster.etcd.until("all nodes", |etcd| etcd.keys("/causeway/v1/nodes/").len() == nodes);
}

/// Rows: C-02, C-03, C-04, C-05, C-08, O-67
#[test]
fn a_stopped_store_stops_nothing() {
    let lab = Lab::with_nodes(3);
    let (mut cluster, mut pods) = start(&lab);
    let pings = Pings::start(&pods[0], pods[1].ip());
    cluster.etcd.kill();
    cluster.everywhere("degraded", away);
    let shown = cluster.daemons[1].causeway(&["status"]);
    assert_eq!(shown.code(), 1, "{shown:?}");
    let refused = cluster.daemons[0].causeway(&["delete", "service", SERVICE]);
    assert_eq!(refused.code(), 1, "{refused:?}");

    // Far longer than containers live without a word of their node.
    let long = 2 * cluster.setup.endpoint_ttl + Duration::from_secs(1);
    stays(long, "all endpoints in rotation", || all_three(&cluster));
    assert_eq!(asked(&lab.nodes[2], VIP, 3), ips(&pods));

    // Containers come and go, and their own node knows of it at once.
    let new = cluster.pod(0, "app:cs-pod");
    until("in rotation on its node", || in_rotation(&cluster.daemons[0], SERVICE) == 4);
    new.assert_ping(pods[2].ip());
    let gone = pods.remove(1);
    cluster.remove(&gone);
    until("out of rotation on its node", || in_rotation(&cluster.daemons[1], SERVICE) == 2);

    // A daemon that starts now knows what it knew.
    cluster.daemons[2].kill();
    cluster.daemons[2].again();
    assert!(away(&cluster.daemons[2]));
    assert_eq!(in_rotation(&cluster.daemons[2], SERVICE), 3);
    pods[1].assert_ping(pods[0].ip());
    // So does one that starts on a node that has just booted.
    reboot(&mut cluster, 2);
    assert_eq!(in_rotation(&cluster.daemons[2], SERVICE), 3);
    lab.nodes[2].assert_ping(pods[0].ip());

    cluster.etcd.again();
    let pinged = pings.end();
    // The pinged container itself was removed on purpose; up to then nothing was lost.
    assert!(pinged.sent > 100, "{pinged:?}");
    pods.insert(1, new);
    well(&cluster, 3);
    cluster.endpoints(SERVICE, 3);
    let mut expected = ips(&pods);
    expected.sort_unstable();
    assert_eq!(asked(&lab.nodes[1], VIP, 3), expected);
}

/// What a boot leaves of a node: the state directory, no rule, no link, no route.
fn reboot(cluster: &mut Cluster<'_>, node: usize) {
    cluster.daemons[node].kill();
    let ns = &cluster.lab.nodes[node];
    ns.sh("nft flush ruleset; ip link del cwov1; ip route flush proto 197; ip -6 route flush proto 197");
    cluster.daemons[node].again();
}

/// Rows: C-06, O-39
#[test]
fn a_compacted_store_is_read_again() {
    let lab = Lab::with_nodes(2);
    let (cluster, pods) = start(&lab);
    // While one node does not hear of it, history goes.
    lab.split(&["port1"], &[Etcd::PORT]);
    cluster.daemons[0].apply(&[named("second", "10.96.1.101", 30081, &json!({}))]);
    for _ in 0..20 {
        cluster.etcd.ctl(&["put", "/causeway-other/key", "x"]).ok();
    }
    cluster.etcd.compact();
    cluster.everywhere("the one notices", |daemon| daemon.status().node != "node2" || away(daemon));
    lab.heal();
    well(&cluster, 2);
    cluster.endpoints("second", 2);
    assert_eq!(asked(&lab.nodes[1], "10.96.1.101:8080", 2), ips(&pods));
    // Reading again once is enough: nobody turns in circles.
    let before = cluster.etcd.revision();
    stays(Duration::from_secs(2), "quiet", || cluster.etcd.revision() <= before + 2);
}

/// Rows: C-10
#[test]
fn a_wiped_store_takes_nothing_away() {
    let lab = Lab::with_nodes(3);
    let (mut cluster, pods) = start(&lab);
    let pings = Pings::start(&pods[0], pods[1].ip());
    cluster.etcd.wipe();
    cluster.everywhere("held", |daemon| {
        daemon.status().cluster.is_some_and(|cluster| cluster.connected && cluster.held_objects > 0)
    });
    for daemon in &cluster.daemons {
        assert_eq!(in_rotation(daemon, SERVICE), 3);
        let status = daemon.status();
        let told = status.degraded.iter().any(|line| line.contains("causeway apply"));
        assert!(told, "{:?}", status.degraded);
        assert_eq!(asked(&lab.nodes[0], VIP, 3), ips(&pods));
    }
    cluster.etcd.until("nodes are back", |etcd| etcd.keys("/causeway/v1/nodes/").len() == 3);
    cluster.etcd.until("subnets are back", |etcd| etcd.keys("/causeway/v1/subnets/").len() == 3);
    // The remedy that is told.
    let all = cluster.daemons[1].causeway(&["get", "services", "-A", "-o", "yaml"]).ok();
    let file = lab.nodes[1].dir().join("all.yaml");
    std::fs::write(&file, all).expect("write the services");
    cluster.daemons[1].causeway(&["apply", "-f", &file.display().to_string()]).ok();
    well(&cluster, 3);
    cluster.endpoints(SERVICE, 3);
    let pinged = pings.end();
    assert_eq!(pinged.lost, 0, "{pinged:?}");
}

/// Rows: C-11
#[test]
fn a_restored_store_is_noticed() {
    let lab = Lab::with_nodes(2);
    let (mut cluster, mut pods) = start(&lab);
    let backup = cluster.etcd.snapshot();
    pods.insert(1, cluster.pod(0, "app:cs-pod"));
    cluster.daemons[1].apply(&[named("later", "10.96.1.101", 30081, &json!({}))]);
    cluster.endpoints("later", 3);
    cluster.etcd.restore(&backup);
    cluster.everywhere("the lost object is held", |daemon| {
        daemon.status().cluster.is_some_and(|cluster| cluster.connected && cluster.held_objects > 0)
    });
    assert_eq!(asked(&lab.nodes[1], "10.96.1.101:8080", 3), ips(&pods));
    cluster.daemons[0].apply(&[named("later", "10.96.1.101", 30081, &json!({}))]);
    well(&cluster, 3);
    cluster.endpoints("later", 3);
}

/// Rows: C-07, C-10
#[test]
fn a_store_that_stood_still_takes_nobody_out() {
    let lab = Lab::with_nodes(3);
    let (cluster, pods) = start(&lab);
    cluster.etcd.pause();
    // The connections stay open: only silence tells.
    let took = within(Duration::from_secs(20), "noticed", || cluster.daemons.iter().all(away));
    assert!(took < Duration::from_secs(15), "{took:?}");
    stays(cluster.setup.endpoint_ttl, "all endpoints in rotation", || all_three(&cluster));
    cluster.etcd.resume();
    // All short leases may have run out while it stood still.
    stays(Duration::from_secs(6), "all endpoints in rotation", || all_three(&cluster));
    well(&cluster, 3);
    assert_eq!(asked(&lab.nodes[0], VIP, 3), ips(&pods));
}

/// Rows: C-07
#[test]
fn a_connection_cut_in_silence_is_noticed_and_made_again() {
    let lab = Lab::with_nodes(3);
    let (cluster, pods) = start(&lab);
    lab.split(&["port0"], &[Etcd::PORT]);
    until("noticed", || away(&cluster.daemons[0]));
    // The other nodes receive nothing from it: its containers go, its own view stays.
    for daemon in &cluster.daemons[1..] {
        daemon.until("out of rotation", || in_rotation(daemon, SERVICE) == 2);
    }
    assert_eq!(in_rotation(&cluster.daemons[0], SERVICE), 3);
    assert_eq!(answers(&lab.nodes[0], VIP, 3).len(), 3);
    pods[0].assert_ping(pods[1].ip());
    lab.heal();
    well(&cluster, 3);
    cluster.endpoints(SERVICE, 3);
}
