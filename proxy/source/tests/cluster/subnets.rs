//! Who gets which subnet of the cluster network.

use std::collections::BTreeSet;
use std::time::Duration;

use causeway_model::NodeIdentity;
use causeway_source::cluster::{Command, Subnets};

use crate::etcd::Etcd;
use crate::node::{Node, config, container, ip, net, of_one, of_two, record, run, settings};

/// Rows: O-34, O-35, O-64
#[test]
fn twenty_nodes_at_once_get_twenty_subnets() {
    run(async {
        let etcd = Etcd::start();
        let all = (0..20).map(|number| {
            let mut settings = settings(&etcd, &format!("n{number}"));
            settings.config.cluster_cidrs = vec![net("10.0.0.0/16"), net("fd00:10::/48")];
            settings
        });
        let mut nodes: Vec<Node> = all.map(Node::bare).collect();
        for node in &nodes {
            // All of them prefer the same one.
            let mut record = record(&node.settings);
            record.ips = vec![ip("n7")];
            node.say_all(record);
        }
        let mut all = BTreeSet::new();
        for node in &mut nodes {
            let held = node.held().await;
            assert_eq!(held.len(), 2, "both families");
            for subnet in held {
                assert!(all.insert(subnet), "{subnet} twice");
                let owner = node.settings.identity.clone();
                let known = |seen: &crate::node::Seen| seen.view.subnets.contains_key(&subnet);
                node.until("its own record", known).await;
                assert_eq!(node.seen.view.subnets[&subnet].owner, owner);
            }
        }
        assert_eq!(all.len(), 40);
        assert!(all.contains(&net("10.0.7.0/24")));
    });
}

/// Rows: O-34, O-61
#[test]
fn a_node_that_comes_back_has_the_same_subnet() {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        assert_eq!(n2.held().await, [net("10.0.2.0/24")]);
        let lease = n2.seen.known.lease;
        let long = etcd.ctl(&["lease", "list"]);
        let mut n2 = Node::bare(n2.end());
        // Its address is another one by now.
        let mut changed = record(&n2.settings);
        changed.ips = vec![ip("n99")];
        n2.say_all(changed);
        assert_eq!(n2.held().await, [net("10.0.2.0/24")]);
        assert_eq!(n2.seen.known.lease, lease, "the lease is used on");
        assert_eq!(etcd.ctl(&["lease", "list"]), long, "no lease is left behind");
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.until("the new address", |seen| {
            seen.subnet_of("n2").is_some_and(|record| record.ips == [ip("n99")])
        })
        .await;
    });
}

/// Rows: O-33, O-42
#[test]
fn leases_are_kept_alive_without_a_write() {
    run(async {
        let etcd = Etcd::start();
        let mut short = settings(&etcd, "n2");
        short.subnet_ttl = Duration::from_secs(5);
        let mut n2 = Node::start(short);
        n2.held().await;
        n2.until("its record", |seen| seen.subnet_of("n2").is_some()).await;
        let before = (etcd.revision(), etcd.ctl(&["lease", "list"]));
        let gone = |seen: &crate::node::Seen| seen.subnet_of("n2").is_none();
        n2.never(Duration::from_secs(8), "gone", gone).await;
        assert_eq!((etcd.revision(), etcd.ctl(&["lease", "list"])), before);
    });
}

/// Rows: O-34, O-37
#[test]
fn what_a_node_had_is_free_for_it_only_while_nobody_has_it() {
    run(async {
        let etcd = Etcd::start();
        let mut had = settings(&etcd, "n2");
        had.previous = vec![net("10.0.77.0/24")];
        let mut n2 = Node::start(had.clone());
        assert_eq!(n2.held().await, [net("10.0.77.0/24")]);
        // A copy of its state under another name.
        had.identity = NodeIdentity { node: "n3".into(), machine_id: "machine-n3".into() };
        let mut n3 = Node::start(had);
        let lost =
            Subnets::Lost { subnet: net("10.0.77.0/24"), owner: n2.settings.identity.clone() };
        n3.until("refused", |seen| seen.subnets.as_ref() == Some(&lost)).await;
        n3.send(Command::TakeAnotherSubnet);
        assert_eq!(n3.held().await, [net("10.0.3.0/24")]);
    });
}

/// Rows: O-65
#[test]
fn asked_for_one_that_another_has_a_node_gets_none_until_it_is_free() {
    run(async {
        let etcd = Etcd::start();
        let mut first = settings(&etcd, "n2");
        first.asked = vec![net("10.0.50.0/24")];
        first.subnet_ttl = Duration::from_secs(3);
        let mut n2 = Node::start(first);
        assert_eq!(n2.held().await, [net("10.0.50.0/24")]);
        let mut second = settings(&etcd, "n3");
        second.asked = vec![net("10.0.50.0/24")];
        let mut n3 = Node::start(second);
        n3.until("refused", |seen| seen.subnets.is_some()).await;
        let Some(Subnets::None(why)) = &n3.seen.subnets else { panic!("{:?}", n3.seen.subnets) };
        assert!(why.contains("10.0.50.0/24 belongs to node n2 (machine id machine-n2)"), "{why}");
        drop(n2.end());
        assert_eq!(n3.held().await, [net("10.0.50.0/24")]);
    });
}

/// Rows: O-36
#[test]
fn reservations_stay_and_are_for_those_who_ask() {
    run(async {
        let etcd = Etcd::start();
        let path = "/causeway/v1/reservations/10.0.2.0-24";
        etcd.ctl(&["put", path, "for the printer"]);
        let mut n2 = Node::start(settings(&etcd, "n2"));
        let held = n2.held().await;
        assert_ne!(held, [net("10.0.2.0/24")]);
        let mut asks = settings(&etcd, "n9");
        asks.asked = vec![net("10.0.2.0/24")];
        asks.subnet_ttl = Duration::from_secs(3);
        let mut n9 = Node::start(asks);
        assert_eq!(n9.held().await, [net("10.0.2.0/24")]);
        drop(n9.end());
        etcd.until("the lease is gone", |etcd| {
            etcd.get("/causeway/v1/subnets/10.0.2.0-24").is_empty()
        })
        .await;
        assert_eq!(etcd.get(path), "for the printer");
    });
}

/// Rows: O-32
#[test]
fn a_full_network_says_what_to_do_and_ends_when_one_leaves() {
    run(async {
        let etcd = Etcd::start();
        let small = |name: &str| {
            let mut settings = settings(&etcd, name);
            settings.config.cluster_cidrs = vec![net("10.0.0.0/23")];
            settings.subnet_ttl = Duration::from_secs(3);
            settings
        };
        let (mut n2, mut n3) = (Node::start(small("n2")), Node::start(small("n3")));
        n2.held().await;
        n3.held().await;
        let mut n4 = Node::start(small("n4"));
        n4.until("none", |seen| seen.subnets.is_some()).await;
        let Some(Subnets::None(why)) = &n4.seen.subnets else { panic!("{:?}", n4.seen.subnets) };
        assert!(why.contains("10.0.0.0/23 has no /24 left") && why.contains("have 2"), "{why}");
        assert_eq!(config().node_subnet_len, 24);
        let left = n3.held().await;
        drop(n3.end());
        assert_eq!(n4.held().await, left);
    });
}

/// Rows: O-38, C-08
#[test]
fn a_subnet_taken_while_its_node_slept_is_not_taken_back() {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        assert_eq!(n2.held().await, [net("10.0.2.0/24")]);
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.held().await;
        // What the lease's end and another node's luck come to.
        let asleep = n2.end();
        let path = "/causeway/v1/subnets/10.0.2.0-24";
        let other = etcd.get(path).replace("\"n2\"", "\"n8\"").replace("machine-n2", "machine-n8");
        etcd.ctl(&["put", path, &other]);
        let mut n2 = Node::start(asleep);
        let owner = NodeIdentity { node: "n8".into(), machine_id: "machine-n8".into() };
        let lost = Subnets::Lost { subnet: net("10.0.2.0/24"), owner };
        n2.until("lost", |seen| seen.subnets.as_ref() == Some(&lost)).await;
        // Nothing that the node does afterwards touches the record, not even when it is free.
        n2.send(Command::Reach(n2.reach(vec![ip("n55")])));
        let mut changed = record(&n2.settings);
        changed.ips = vec![ip("n55")];
        n2.send(Command::Node(changed));
        n3.until("the node's word", |seen| seen.view.nodes["n2"].ips == [ip("n55")]).await;
        assert_eq!(etcd.get(path), other);
        etcd.ctl(&["del", path]);
        n3.until("gone", |seen| !seen.view.subnets.contains_key(&net("10.0.2.0/24"))).await;
        n2.until("gone", |seen| !seen.view.subnets.contains_key(&net("10.0.2.0/24"))).await;
        assert_eq!(n2.seen.subnets.as_ref(), Some(&lost));
        n2.send(Command::TakeAnotherSubnet);
        assert_eq!(n2.held().await, [net("10.0.55.0/24")]);
    });
}

/// Rows: O-38, C-08
#[test]
fn a_node_that_slept_longer_than_its_lease_finds_the_new_owner() {
    run(async {
        let etcd = Etcd::start();
        let mut sleeper = settings(&etcd, "n2");
        sleeper.subnet_ttl = Duration::from_secs(2);
        let mut n2 = Node::start(sleeper);
        assert_eq!(n2.held().await, [net("10.0.2.0/24")]);
        let asleep = n2.end();
        let mut asks = settings(&etcd, "n3");
        asks.asked = vec![net("10.0.2.0/24")];
        let mut n3 = Node::start(asks);
        assert_eq!(n3.held().await, [net("10.0.2.0/24")]);
        let mut n2 = Node::start(asleep);
        let owner = n3.settings.identity.clone();
        let lost = Subnets::Lost { subnet: net("10.0.2.0/24"), owner };
        n2.until("lost", |seen| seen.subnets.as_ref() == Some(&lost)).await;
        let path = "/causeway/v1/subnets/10.0.2.0-24";
        assert!(etcd.get(path).contains("machine-n3"));
        n3.send(Command::Reach(n3.reach(vec![ip("n33")])));
        etcd.until("the owner goes on", |etcd| etcd.get(path).contains("172.18.0.33")).await;
    });
}

/// Rows: O-38
#[test]
fn a_record_that_somebody_deletes_is_back_at_once() {
    of_one(async |etcd, n2| {
        let path = "/causeway/v1/subnets/10.0.2.0-24";
        let value = etcd.get(path);
        etcd.ctl(&["del", path]);
        etcd.until("back", |etcd| etcd.get(path) == value).await;
        n2.send(Command::Reach(n2.reach(vec![ip("n55")])));
        etcd.until("changed", |etcd| etcd.get(path).contains("172.18.0.55")).await;
    });
}

/// Rows: O-34
#[test]
fn another_one_asked_for_replaces_what_the_node_had() {
    of_one(async |etcd, n2| {
        let mut asks = n2.end();
        asks.asked = vec![net("10.0.60.0/24")];
        let mut n2 = Node::start(asks);
        assert_eq!(n2.held().await, [net("10.0.60.0/24")]);
        let only = ["/causeway/v1/subnets/10.0.60.0-24"];
        assert_eq!(etcd.keys("/causeway/v1/subnets/"), only);
    });
}

/// Half of an IPv6 network of four thousand million parts, by one key: nobody looks through it part
/// by part, and nobody loses a part to it.
///
/// Rows: RH7
#[test]
fn keys_of_another_length_take_no_part_and_no_time() {
    run(async {
        let etcd = Etcd::start();
        for key in ["reservations/fd00:10::-33", "reservations/fd00:10:8000::-33"] {
            etcd.ctl(&["put", &format!("/causeway/v1/{key}"), "all of it"]);
        }
        let wide = |name: &str| {
            let mut settings = settings(&etcd, name);
            settings.config.cluster_cidrs = vec![net("fd00:10::/32")];
            settings
        };
        let began = tokio::time::Instant::now();
        let mut n2 = Node::start(wide("n2"));
        let held = n2.held().await;
        assert_eq!((held.len(), held[0].prefix()), (1, 64));
        let value = etcd.get(&format!("/causeway/v1/subnets/{}-64", held[0].network()));
        let value = value.replace(&held[0].to_string(), "fd00:10::/33").replace("n2", "n8");
        etcd.ctl(&["put", "/causeway/v1/subnets/fd00:10::-33", &value]);
        let mut n3 = Node::start(wide("n3"));
        assert_eq!(n3.held().await[0].prefix(), 64);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        n2.until("named", |seen| seen.view.unreadable.len() == 3).await;
        assert_eq!(n2.held().await, held);
        assert!(n3.seen.subnet_of("n8").is_none());
    });
}

/// What a living node says of itself stands, whatever is written over it or removed.
///
/// Rows: RH7
#[test]
fn a_living_node_puts_right_what_something_else_wrote() {
    of_two(async |etcd, n2, mut n3| {
        let all = ["nodes/n2", "subnets/10.0.2.0-24", "containers/n2/causeway/a/eth0"];
        let all = all.map(|key| format!("/causeway/v1/{key}"));
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        n3.until("the container", |seen| seen.has_container("n2", "a")).await;
        let good = all.clone().map(|key| etcd.get(&key));
        for (key, good) in all.iter().zip(&good) {
            for bad in [
                good.replace("machine-n2", "machine-n8"),
                good.replace("172.18.0.2", "172.18.0.66").replace("10.0.2.2", "10.0.2.66"),
                good.replace("\"started\":1", "\"started\":9999999999"),
                "?".to_owned(),
                String::new(),
            ] {
                etcd.ctl(&["put", key, &bad]);
                etcd.until("right again", |etcd| etcd.get(key) == *good).await;
            }
        }
        // Who took the node for dead sees its containers again.
        let before = etcd.revision();
        etcd.ctl(&["del", &all[0]]);
        etcd.until("back", |etcd| etcd.get(&all[0]) == good[0] && etcd.revision() >= before + 3)
            .await;
        // Reserved, and its record gone: the node has it all the same.
        etcd.ctl(&["put", "/causeway/v1/reservations/10.0.2.0-24", "for later"]);
        etcd.ctl(&["del", &all[1]]);
        etcd.until("back", |etcd| etcd.get(&all[1]) == good[1]).await;
        // A part in its name is none of its own.
        let other = "/causeway/v1/subnets/10.0.1.0-24";
        etcd.ctl(&["put", other, &good[1].replace("10.0.2.0/24", "10.0.1.0/24")]);
        etcd.until("gone", |etcd| etcd.get(other).is_empty()).await;
        assert_eq!(etcd.get(&all[1]), good[1]);
        let state = (&n2.seen.excluded, &n2.seen.subnets);
        assert_eq!(state, (&None, &Some(Subnets::Held(vec![net("10.0.2.0/24")]))));
    });
}
