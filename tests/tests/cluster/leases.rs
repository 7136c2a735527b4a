//! Who has which subnet of the cluster network.

use std::collections::BTreeSet;

use causeway_tests::cluster::{Cluster, Setup, all_ping, stays, until, within};
use causeway_tests::{Daemon, Lab};

fn subnet(daemon: &Daemon<'_>) -> Option<String> {
    daemon.status().subnets.first().map(|one| one.subnet.clone())
}

/// Rows: O-38, C-08
#[test]
fn a_subnet_taken_while_its_owner_slept_is_not_taken_back() {
    let lab = Lab::with_nodes(3);
    let setup = Setup { nodes: 2, ..Setup::default().ttls(3, 6).unasked() };
    let mut cluster = Cluster::start(&lab, setup);
    let pod = cluster.pod(1, "");
    let taken = subnet(&cluster.daemons[1]).expect("it has one");
    cluster.daemons[1].signal(libc::SIGSTOP);
    let key = format!("/causeway/v1/subnets/{}", taken.replace('/', "-"));
    cluster.etcd.until("its lease is over", |etcd| etcd.get(&key).is_none());
    cluster.setup = cluster.setup.clone().own(2, "--node-subnet", &taken);
    cluster.join();
    let third = &cluster.daemons[2];
    third.until("it has what it asked for", || subnet(third).as_deref() == Some(&taken));
    let other = cluster.pod(2, "");

    cluster.daemons[1].signal(libc::SIGCONT);
    let second = &cluster.daemons[1];
    second.until("it is told", || {
        let status = second.status();
        let lost = status
            .subnets
            .iter()
            .any(|one| one.lease == "lost" && one.owner.as_deref() == Some("node3"));
        lost && status.degraded.iter().any(|line| line.contains(&taken) && line.contains("node3"))
    });
    assert_eq!(second.causeway(&["status"]).code(), 1);
    let refused = lab.nodes[1].pod();
    let refused = cluster.runtime(1).add(&refused.attachment("eth0"));
    let refused = refused.expect_err("no address without a subnet");
    assert_eq!(refused.error_code(), 11, "{refused:?}");
    let why = refused.error().to_string();
    assert!(why.contains(&taken) && why.contains("node3"), "{why}");
    assert!(cluster.etcd.get(&key).is_some_and(|value| value.contains("node3")));
    // The first node goes by what the store says.
    lab.nodes[0].assert_ping(other.ip());

    // The way out: once its containers are gone, it takes another one by itself.
    cluster.remove(&pod);
    second.until("another one", || subnet(second).is_some_and(|now| now != taken));
    // The bridge follows with the next container.
    let new = cluster.pod(1, "");
    second.until("all is well", || second.status().degraded.is_empty());
    cluster.settled();
    let first = cluster.pod(0, "");
    assert_eq!(all_ping(&[first, new, other]), 6);
}

/// Rows: O-65
#[test]
fn a_cloned_node_gets_nothing_of_the_first_ones() {
    let lab = Lab::with_nodes(3);
    let setup = Setup { nodes: 1, ..Setup::default().unasked() };
    let mut cluster = Cluster::start(&lab, setup);
    let theirs = subnet(&cluster.daemons[0]).expect("it has one");
    for node in [1, 2] {
        let (from, to) = (lab.nodes[0].dir().join("state"), lab.nodes[node].dir());
        lab.nodes[0].sh(&format!("cp -a {} {}/", from.display(), to.display()));
    }
    let pod = cluster.pod(0, "");
    // Another name: it remembers a subnet, which is not its.
    cluster.join();
    let second = &cluster.daemons[1];
    second.until("one of its own", || subnet(second).is_some_and(|own| own != theirs));
    assert_eq!(subnet(&cluster.daemons[0]).as_deref(), Some(theirs.as_str()));
    let own = cluster.pod(1, "");
    own.assert_ping(pod.ip());

    // The same name on another machine: kept out, with words, while the first lives.
    std::fs::write(lab.nodes[2].dir().join("machine-id"), "0123456789abcdef0123456789abcdef\n")
        .expect("write a machine id");
    cluster.setup = cluster.setup.clone();
    let mut arguments = cluster.setup.arguments(0, &cluster.etcd.url());
    arguments.extend(["--node-subnet".to_owned(), theirs.clone()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let clone = Daemon::start_with(&lab.nodes[2], &arguments);
    clone.until("it is kept out", || {
        let status = clone.status();
        status.degraded.iter().any(|line| line.contains("node1"))
            && status.subnets.iter().all(|one| one.lease != "leased")
    });
    assert_eq!(clone.causeway(&["status"]).code(), 1);
    stays(cluster.setup.endpoint_ttl, "the first keeps its containers", || own.ping(pod.ip()));
    assert_eq!(subnet(&cluster.daemons[0]).as_deref(), Some(theirs.as_str()));
    assert!(cluster.daemons[0].status().degraded.is_empty());
}

/// Rows: O-65
#[test]
fn a_subnet_that_another_has_is_refused_by_name() {
    let lab = Lab::with_nodes(2);
    let setup = Setup { nodes: 1, ..Setup::default() };
    let mut cluster = Cluster::start(&lab, setup.unasked().own(0, "--node-subnet", "10.0.7.0/24"));
    cluster.setup = cluster.setup.clone().own(1, "--node-subnet", "10.0.7.0/24");
    // Not even with the first one's very state directory.
    let (theirs, own) = (lab.nodes[0].dir().join("state"), lab.nodes[1].dir().join("state"));
    std::os::unix::fs::symlink(&theirs, &own).expect("link the state directory");
    let arguments = cluster.setup.arguments(1, &cluster.etcd.url());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let refused = Daemon::refused(&lab.nodes[1], &arguments);
    assert_eq!(refused.code(), 1, "{refused:?}");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains(&own.display().to_string()), "{why}");
    std::fs::remove_file(&own).expect("remove the link");
    cluster.join();
    let second = &cluster.daemons[1];
    second.until("refused", || {
        let status = second.status();
        status.degraded.iter().any(|line| line.contains("10.0.7.0/24") && line.contains("node1"))
    });
    let refused = cluster.runtime(1).add(&lab.nodes[1].pod().attachment("eth0"));
    assert_eq!(refused.expect_err("no subnet").error_code(), 11);
}

/// The subnet that a node gets first goes by its address, the one that it keeps does not.
///
/// Rows: O-23, O-37, O-38c
#[test]
fn a_node_that_boots_with_another_address_keeps_its_subnet() {
    let lab = Lab::with_nodes(2);
    let mut cluster = Cluster::start(&lab, Setup::default().unasked());
    let pods = cluster.two_each("");
    let own = subnet(&cluster.daemons[1]).expect("it has one");
    let key = format!("/causeway/v1/subnets/{}", own.replace('/', "-"));
    for (from, to) in [("3", "77"), ("77", "78")] {
        cluster.daemons[1].kill();
        lab.nodes[1].ip(&format!(
            "addr del 172.18.0.{from}/24 dev eth0\naddr add 172.18.0.{to}/24 dev eth0\n\
             route replace default via 172.18.0.1\n"
        ));
        cluster.daemons[1].again();
        cluster.settled();
        assert_eq!(subnet(&cluster.daemons[1]).as_deref(), Some(own.as_str()));
        cluster.everywhere("all is well", |daemon| daemon.status().degraded.is_empty());
        let address = format!("172.18.0.{to}\"");
        cluster.etcd.until("its record has the new address", |etcd| {
            etcd.get(&key).is_some_and(|value| value.contains(&address))
        });
        until("the other goes there", || pods[0].ping(pods[2].ip()));
        assert_eq!(all_ping(&pods), 12);
    }
    assert_eq!(cluster.etcd.keys("/causeway/v1/subnets/").len(), 2);
    let new = cluster.pod(1, "");
    new.assert_ping(pods[0].ip());
}

/// Rows: O-15, O-60
#[test]
fn routes_of_a_dead_node_end_with_the_lease_of_its_subnet() {
    let lab = Lab::with_nodes(2);
    let mut cluster = Cluster::start(&lab, Setup::default().ttls(3, 9));
    let pods = cluster.two_each("");
    let overlay = || {
        let node = &lab.nodes[0];
        let all = ["ip route show proto 197", "ip neigh show dev cwov1 nud permanent"];
        let fdb = "bridge fdb show dev cwov1 | grep dst || true";
        all.map(|words| node.sh(words)).join("") + &node.sh(fdb)
    };
    let before = overlay();
    assert!(before.contains("10.0.2.0/24"), "{before}");
    cluster.die(1);
    let status = || cluster.daemons[0].status();
    until("it is not heard of", || status().peers.iter().any(|peer| peer.state == "NotReady"));
    assert_eq!(overlay(), before);
    within(3 * cluster.setup.subnet_ttl, "nothing leads there", || overlay().is_empty());
    assert_eq!(cluster.etcd.keys("/causeway/v1/subnets/"), ["/causeway/v1/subnets/10.0.1.0-24"]);
    cluster.revive(1);
    cluster.settled();
    until("they are reached again", || pods[0].ping(pods[2].ip()));
    assert_eq!(all_ping(&pods), 12);
}

/// Rows: O-34, O-35
#[test]
fn nodes_that_start_together_get_a_subnet_each() {
    let lab = Lab::with_nodes(20);
    let setup = Setup { overlay: "none", ..Setup::default().ttls(20, 60).unasked() };
    let cluster = Cluster::start(&lab, setup);
    let all: BTreeSet<_> = cluster.daemons.iter().filter_map(subnet).collect();
    assert_eq!(all.len(), 20, "{all:?}");
    assert_eq!(cluster.etcd.keys("/causeway/v1/subnets/").len(), 20);
}

/// Rows: O-41
#[test]
fn a_node_with_other_settings_is_kept_out() {
    let lab = Lab::with_nodes(2);
    let setup = Setup { nodes: 1, ..Setup::default() };
    let mut cluster = Cluster::start(&lab, setup);
    cluster.setup = cluster.setup.clone().own(1, "--vxlan-port", "4789");
    cluster.join();
    let second = &cluster.daemons[1];
    second.until("told what differs", || {
        let words = "vxlan-port: 4789 here, 8472 in the store";
        second.status().degraded.iter().any(|line| line.contains(words))
    });
    until("the first sees no second", || cluster.daemons[0].status().peers.is_empty());
    let keys = cluster.etcd.keys("/causeway/v1/subnets/");
    assert_eq!(keys, ["/causeway/v1/subnets/10.0.1.0-24"]);
}
