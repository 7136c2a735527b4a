//! Who lives.

use std::time::Duration;

use causeway_source::cluster::{Command, Removal, Subnets, WriteError, leave};

use crate::etcd::Etcd;
use crate::node::{Node, container, ip, net, of_one, record, run, settings};

/// Rows: C-12, C-13, O-60
#[test]
fn a_dead_node_goes_with_its_containers_and_leaves_its_subnet() {
    of_one(async |etcd, n2| {
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.until("the container", |seen| seen.has_container("n2", "a")).await;
        let settings = n2.end();
        n3.until("the death", |seen| !seen.has_node("n2") && !seen.has_container("n2", "a")).await;
        assert!(n3.seen.subnet_of("n2").is_some());
        // The lease is gone: all is published again.
        let n2 = Node::start(settings);
        n2.send(Command::Containers(vec![container("b", "10.0.2.3")]));
        n3.until("the new life", |seen| seen.has_node("n2") && seen.has_container("n2", "b")).await;
    });
}

/// Rows: O-42
#[test]
fn a_restart_uses_the_lease_on_and_nobody_notices() {
    of_one(async |etcd, n2| {
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.until("all", |seen| {
            seen.has_container("n2", "a") && seen.subnet_of("n2").is_some() && seen.has_node("n3")
        })
        .await;
        n3.held().await;
        let before = etcd.revision();
        let mut n2 = Node::bare(n2.end());
        n2.send(Command::Node(record(&n2.settings)));
        n2.send(Command::Reach(n2.reach(vec![ip("n2")])));
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        n2.held().await;
        // Longer than the lease: it is renewed.
        n2.never(Duration::from_secs(8), "death", |seen| !seen.has_node("n2")).await;
        assert_eq!(etcd.revision(), before, "nothing was written");
        assert!(n2.seen.same);
    });
}

/// Rows: C-08
#[test]
fn a_lease_that_is_revoked_is_granted_anew() {
    of_one(async |etcd, n2| {
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.until("the container", |seen| seen.has_container("n2", "a")).await;
        let text = etcd.ctl(&["lease", "list"]);
        let leases: Vec<&str> = text.lines().skip(1).collect();
        assert!(leases.len() >= 3, "{text}");
        for lease in leases {
            etcd.ctl(&["lease", "revoke", lease]);
        }
        let all = |etcd: &Etcd| etcd.keys("/causeway/v1/").len() == 6;
        etcd.until("all is back", all).await;
        n3.until("all", |seen| {
            seen.has_container("n2", "a")
                && seen.subnet_of("n2").is_some()
                && seen.subnet_of("n3").is_some()
        })
        .await;
        assert_eq!(n2.seen.subnets, Some(Subnets::Held(vec![net("10.0.2.0/24")])));
    });
}

/// Rows: O-37, O-64
#[test]
fn another_machine_of_the_name_waits_for_the_first_ones_end() {
    run(async {
        let etcd = Etcd::start();
        let mut first = Node::start(settings(&etcd, "n2"));
        first.held().await;
        let mut other = first.settings.clone();
        other.identity.machine_id = "machine-x".into();
        // A copy of the state, too.
        other.known = first.seen.known.clone();
        let mut second = Node::bare(other);
        let mut says = record(&second.settings);
        says.ips = vec![ip("n9")];
        says.started = 5;
        second.say_all(says);
        second.until("excluded", |seen| seen.excluded.is_some()).await;
        let why = second.seen.excluded.clone().unwrap();
        assert!(why.contains("is running at 172.18.0.2 (machine id machine-n2)"), "{why}");
        assert!(etcd.get("/causeway/v1/nodes/n2").contains("machine-n2"));
        assert_eq!(etcd.keys("/causeway/v1/subnets/").len(), 1);
        drop(first.end());
        second.until("in", |seen| seen.excluded.is_none()).await;
        let held = second.held().await;
        assert_ne!(held, [net("10.0.2.0/24")], "the first one's lease still runs");
    });
}

/// Rows: O-37
#[test]
fn the_older_of_two_daemons_of_a_machine_gives_way() {
    run(async {
        let etcd = Etcd::start();
        let mut old = Node::start(settings(&etcd, "n2"));
        old.held().await;
        let mut new = Node::bare(settings(&etcd, "n2"));
        let mut says = record(&new.settings);
        says.started = 100;
        new.say_all(says);
        new.held().await;
        old.until("excluded", |seen| seen.excluded.is_some()).await;
        let why = old.seen.excluded.clone().unwrap();
        assert!(why.contains("another causewayd is running on this machine"), "{why}");
        drop(new.end());
        old.until("in again", |seen| seen.excluded.is_none()).await;
    });
}

/// Rows: RB8
#[test]
fn a_node_that_is_gone_is_removed_with_its_leases_and_a_living_one_is_not() {
    of_one(async |etcd, n2| {
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.until("the container", |seen| seen.has_container("n2", "a")).await;
        let before = etcd.keys("/causeway/v1/");
        let id = n3.remove("n2");
        let refused = n3.answer(id).await;
        let lives =
            |why: &String| why.contains("node n2 is running") && why.contains("causewayd leave");
        assert!(matches!(&refused, Err(WriteError::Refused(why)) if lives(why)), "{refused:?}");
        assert_eq!(etcd.keys("/causeway/v1/"), before);
        let settings = n2.end();
        n3.until("the death", |seen| !seen.has_node("n2")).await;
        // What was written by hand hangs on no lease.
        let left = "/causeway/v1/containers/n2/causeway/b/eth0";
        etcd.ctl(&["put", left, &serde_json::to_string(&container("b", "10.0.2.3")).unwrap()]);
        let id = n3.remove("n2");
        let revision = n3.answer(id).await.unwrap();
        n3.until("the end", |seen| seen.known.revision >= revision).await;
        assert!(n3.seen.subnet_of("n2").is_none() && !n3.seen.has_container("n2", "b"));
        let left: Vec<String> = etcd.keys("/causeway/v1/");
        assert!(
            left.iter().all(|key| !key.contains("/n2") && !key.contains("10.0.2.0")),
            "{left:?}"
        );
        // Once more, and one that never was: nothing to do.
        for name in ["n2", "n9"] {
            let id = n3.remove(name);
            assert!(n3.answer(id).await.is_ok());
        }
        // One that comes back after all is welcome.
        let mut n2 = Node::start(settings);
        assert_eq!(n2.held().await, [net("10.0.2.0/24")]);
    });
}

/// Rows: RB8
#[test]
fn a_node_that_leaves_is_gone_at_once_and_touches_nobody_elses() {
    of_one(async |etcd, n2| {
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.send(Command::Containers(vec![container("c", "10.0.3.2")]));
        n3.held().await;
        n3.until("the container", |seen| seen.has_container("n2", "a")).await;
        let mine = n2.end();
        // Another machine of the name: only what is its own goes.
        let mut other = mine.clone();
        other.identity.machine_id = "machine-x".into();
        let before = etcd.keys("/causeway/v1/");
        assert_eq!(leave(&other).await, Ok(Removal::default()));
        assert_eq!(etcd.keys("/causeway/v1/"), before);
        let gone = leave(&mine).await.unwrap();
        assert_eq!((gone.subnets, gone.containers), (vec![net("10.0.2.0/24")], 1));
        n3.until("the end", |seen| {
            !seen.has_node("n2") && seen.subnet_of("n2").is_none() && !seen.has_container("n2", "a")
        })
        .await;
        assert!(n3.seen.subnet_of("n3").is_some());
        assert_eq!(leave(&mine).await, Ok(Removal::default()));
        let mut nowhere = mine;
        nowhere.endpoints = vec!["http://127.0.0.1:9".into()];
        let why = leave(&nowhere).await.unwrap_err();
        assert!(why.contains("127.0.0.1:9"), "{why}");
    });
}
