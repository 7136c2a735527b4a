//! What nodes say to each other, and objects that several of them write.

use std::net::IpAddr;
use std::time::Duration;

use causeway_model::{NodeRecord, Object};
use causeway_source::Stored;
use causeway_source::cluster::{Command, Write, WriteError};

use crate::etcd::Etcd;
use crate::node::{
    Node, bulky, claims, config, container, of_one, of_two, record, run, service, settings,
};

/// Rows: C-12, O-30, O-31
#[test]
fn nodes_see_each_other_with_containers_and_subnets() {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n2.send(Command::Container(
            container("a", "10.0.2.2").record.key,
            Some(container("a", "10.0.2.2")),
        ));
        n3.until("n2", |seen| seen.has_node("n2") && seen.has_container("n2", "a")).await;
        n3.until("its subnet", |seen| seen.subnet_of("n2").is_some()).await;
        let subnet = n3.seen.subnet_of("n2").unwrap();
        assert_eq!((subnet.subnet.to_string().as_str(), subnet.mtu), ("10.0.2.0/24", Some(1450)));
        let seen = n3.seen.view.nodes["n2"].clone();
        assert!(seen.created > 0);
        assert_eq!(NodeRecord { created: 0, ..seen }, record(&n2.settings));
        assert_eq!(
            etcd.keys("/causeway/v1/"),
            [
                "/causeway/v1/config",
                "/causeway/v1/containers/n2/causeway/a/eth0",
                "/causeway/v1/nodes/n2",
                "/causeway/v1/nodes/n3",
                "/causeway/v1/subnets/10.0.2.0-24",
                "/causeway/v1/subnets/10.0.3.0-24",
            ]
        );
        n2.until("n3", |seen| seen.has_node("n3")).await;
        assert!(n2.seen.containers.is_empty(), "own containers are not reported");
        n2.send(Command::Container(container("a", "10.0.2.2").record.key, None));
        n3.until("gone", |seen| !seen.has_container("n2", "a")).await;
    });
}

/// Rows: C-12
#[test]
fn own_keys_are_as_wanted_whoever_changes_them() {
    run(async {
        let etcd = Etcd::start();
        let n2 = Node::start(settings(&etcd, "n2"));
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let path = "/causeway/v1/containers/n2/causeway/a/eth0";
        etcd.until("published", |etcd| etcd.get(path).contains("10.0.2.2")).await;
        let value = etcd.get(path);
        etcd.ctl(&["del", path]);
        etcd.until("written again", |etcd| etcd.get(path) == value).await;
        etcd.ctl(&["put", path, "{}"]);
        etcd.until("mended", |etcd| etcd.get(path) == value).await;
        let other = "/causeway/v1/containers/n2/causeway/zombie/eth0";
        etcd.ctl(&["put", other, &value]);
        etcd.until("removed", |etcd| etcd.get(other).is_empty()).await;
        etcd.ctl(&["del", "/causeway/v1/nodes/n2"]);
        etcd.until("the node is back", |etcd| !etcd.get("/causeway/v1/nodes/n2").is_empty()).await;
        etcd.until("and its container", |etcd| etcd.get(path) == value).await;
    });
}

/// Rows: C-12
#[test]
fn objects_are_written_by_comparing() {
    of_two(async |etcd, mut n2, mut n3| {
        let web = service("web", "10.96.0.1");
        n2.apply(std::slice::from_ref(&web)).await.unwrap();
        assert!(n2.seen.has_object("web"));
        assert_eq!(etcd.get("/causeway/v1/claims/address/10.96.0.1"), "default/web");
        // n3 has not looked at its reports since: it decides on an older revision.
        let mut changed = service("web", "10.96.0.1");
        changed.origin = causeway_source::Origin::Manifest("web.yaml".into());
        let id = n3.ask(vec![(changed.clone(), Vec::new())], &[]);
        let Err(WriteError::Conflict(at)) = n3.answer(id).await else { panic!("no conflict") };
        n3.until("the revision", |seen| seen.known.revision >= at).await;
        assert!(n3.seen.has_object("web"));
        let id = n3.ask(vec![(changed, claims(&web))], &[]);
        n3.answer(id).await.unwrap();
        let elsewhere =
            causeway_source::Origin::Elsewhere { node: "n3".into(), file: "web.yaml".into() };
        n2.until("the change", |seen| seen.view.objects.iter().any(|one| one.origin == elsewhere))
            .await;
        let id = n2.ask(Vec::new(), &[web]);
        n2.answer(id).await.unwrap();
        n3.until("gone", |seen| !seen.has_object("web")).await;
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 0);
    });
}

/// Rows: C-12
#[test]
fn one_of_two_gets_an_address() {
    of_two(async |etcd, mut n2, mut n3| {
        for round in 0..10 {
            let ip = format!("10.96.1.{round}");
            let (a, b) = (format!("a{round}"), format!("b{round}"));
            let one = n2.ask(vec![(service(&a, &ip), Vec::new())], &[]);
            let other = n3.ask(vec![(service(&b, &ip), Vec::new())], &[]);
            let (one, other) = (n2.answer(one).await, n3.answer(other).await);
            assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
            let lost = one.and(other).unwrap_err();
            assert!(matches!(lost, WriteError::Conflict(_)), "{lost:?}");
        }
        assert_eq!(etcd.keys("/causeway/v1/objects/").len(), 10);
    });
}

/// Rows: C-12
#[test]
fn claims_without_an_object_are_taken_over_and_others_named() {
    of_one(async |etcd, mut n2| {
        let (one, two) = (service("one", "10.96.0.1"), service("two", "10.96.0.2"));
        n2.apply(&[one.clone(), two.clone()]).await.unwrap();
        etcd.ctl(&["del", "/causeway/v1/objects/service/default/one"]);
        n2.until("gone", |seen| !seen.has_object("one")).await;
        n2.apply(&[service("three", "10.96.0.1")]).await.unwrap();
        assert_eq!(etcd.get("/causeway/v1/claims/address/10.96.0.1"), "default/three");
        let refused = n2.apply(&[service("four", "10.96.0.2")]).await.unwrap_err();
        let WriteError::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("10.96.0.2 belongs to default/two"), "{why}");
        // A claim that another process deleted is there again with the next write.
        etcd.ctl(&["del", "/causeway/v1/claims/address/10.96.0.2"]);
        let at = etcd.revision();
        n2.until("seen", |seen| seen.known.revision >= at).await;
        let id = n2.ask(vec![(two.clone(), claims(&two))], &[]);
        n2.answer(id).await.unwrap();
        assert_eq!(etcd.get("/causeway/v1/claims/address/10.96.0.2"), "default/two");
        n2.until("seen", |seen| seen.known.revision > at).await;
        // An address that moves from one to another in one write.
        let without = service("two", "10.96.0.22");
        let id =
            n2.ask(vec![(service("five", "10.96.0.2"), Vec::new()), (without, claims(&two))], &[]);
        n2.answer(id).await.unwrap();
        assert_eq!(etcd.get("/causeway/v1/claims/address/10.96.0.2"), "default/five");
    });
}

/// Rows: C-12
#[test]
fn what_somebody_else_deleted_meanwhile_takes_no_claim_from_its_heir() {
    of_two(async |etcd, mut n2, mut n3| {
        let (web, heir) = (service("web", "10.96.0.1"), service("heir", "10.96.0.1"));
        n2.apply(std::slice::from_ref(&web)).await.unwrap();
        n3.until("web", |seen| seen.has_object("web")).await;
        let id = n2.ask(Vec::new(), std::slice::from_ref(&web));
        n2.answer(id).await.unwrap();
        n2.until("gone", |seen| !seen.has_object("web")).await;
        n2.apply(&[heir]).await.unwrap();
        // n3 has not looked since: what it decides is about the service that is gone.
        let seen = n3.seen.known.revision;
        let delete = vec![(web.object.kind(), web.object.key().clone(), claims(&web))];
        n3.send(Command::Write(Write { id: 1, seen, delete, ..Write::default() }));
        let put = vec![(service("web", "10.96.0.2"), claims(&web))];
        n3.send(Command::Write(Write { id: 2, seen, put, ..Write::default() }));
        for id in [1, 2] {
            let answer = n3.answer(id).await;
            let Err(WriteError::Conflict(at)) = answer else { panic!("{answer:?}") };
            n3.until("the revision", |seen| seen.known.revision >= at).await;
        }
        assert_eq!(etcd.get("/causeway/v1/claims/address/10.96.0.1"), "default/heir");
        assert!(!n3.seen.has_object("web"));
    });
}

#[test]
fn five_thousand_services_take_seconds() {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n2.held().await;
        let one =
            |n: u32| service(&format!("s{n}"), &format!("10.96.{}.{}", 1 + n / 250, 1 + n % 250));
        let all: Vec<_> = (0..5000).map(one).collect();
        let began = tokio::time::Instant::now();
        n2.apply(&all).await.unwrap();
        println!("5000 services written and seen in {:?}", began.elapsed());
        assert_eq!(n2.seen.view.objects.len(), 5000);
        n3.until("all", |seen| seen.view.objects.len() == 5000).await;
        // A list of several pages.
        let mut n4 = Node::start(settings(&etcd, "n4"));
        n4.until("a list", |seen| seen.resets == 1).await;
        assert_eq!(n4.seen.view.objects.len(), 5000);
        let id = n2.ask(Vec::new(), &all);
        n2.answer(id).await.unwrap();
        n3.until("none", |seen| seen.view.objects.is_empty()).await;
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 0);
    });
}

#[test]
fn revisions_of_others_are_seen_too() {
    of_one(async |etcd, mut n2| {
        etcd.ctl(&["put", "/somebody/else", "1"]);
        let at = etcd.revision();
        n2.until("its revision", |seen| seen.known.revision >= at).await;
        let gone = bulky("none", 1);
        let id = n2.ask(Vec::new(), &[gone]);
        let revision = n2.answer(id).await.unwrap();
        assert!(revision <= n2.seen.known.revision, "nothing was written, so it is seen");
    });
}

/// A service that claims the addresses of these numbers in 10.96.0.0/16.
fn wide(name: &str, numbers: std::ops::Range<u32>) -> Stored {
    let mut wide = service(name, "None");
    if let Object::Service(service) = &mut wide.object {
        let ip = |n: u32| IpAddr::from((0x0a60_0000 + n).to_be_bytes());
        service.cluster_ips = numbers.map(ip).collect::<Vec<_>>().into();
    }
    wide
}

/// Rows: RD3
#[test]
fn a_service_of_many_claims_is_stored_as_a_whole_or_not_at_all() {
    of_two(async |etcd, mut n2, mut n3| {
        n2.apply(&[service("near", "10.96.5.0")]).await.expect("one claim");
        // 10.96.5.0 is among them.
        let refused = n2.apply(&[wide("rtp", 1_000..2_000)]).await.unwrap_err();
        let WriteError::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("belongs to default/near"), "{why}");
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 1);
        let stored = wide("rtp", 2_000..3_000);
        n2.apply(std::slice::from_ref(&stored)).await.expect("a thousand claims");
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 1_001);
        // Another node that decides by the same revision gets none of them, and no more than that.
        n3.until("the object", |seen| seen.view.objects.len() == 2).await;
        let refused = n3.apply(&[service("late", "10.96.11.0")]).await.unwrap_err();
        assert!(matches!(refused, WriteError::Refused(_)), "{refused:?}");
        let refused = n3.apply(&[wide("too", 2_500..3_500)]).await.unwrap_err();
        assert!(matches!(refused, WriteError::Refused(_)), "{refused:?}");
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 1_001);
        let id = n2.ask(Vec::new(), &[stored]);
        n2.answer(id).await.expect("all of them");
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 1);
    });
}

/// Rows: RD3
#[test]
fn of_two_nodes_one_gets_a_wide_service_and_the_other_decides_anew() {
    of_two(async |etcd, mut n2, mut n3| {
        let (one, other) = (wide("one", 1..501), wide("other", 400..900));
        let (first, second) =
            (n2.ask(vec![(one, Vec::new())], &[]), n3.ask(vec![(other, Vec::new())], &[]));
        let (first, second) = (n2.answer(first).await, n3.answer(second).await);
        assert_eq!(
            usize::from(first.is_ok()) + usize::from(second.is_ok()),
            1,
            "{first:?} {second:?}"
        );
        assert_eq!(etcd.keys("/causeway/v1/claims/").len(), 500);
    });
}

/// Rows: O-41
#[test]
fn objects_are_written_in_as_many_transactions_as_it_takes() {
    of_one(async |_etcd, mut n2| {
        let heavy: Vec<_> = (0..20).map(|n| bulky(&format!("heavy{n}"), 250_000)).collect();
        n2.apply(&heavy).await.expect("as many transactions as it takes");
    });
}

/// Rows: O-41
#[test]
fn other_settings_keep_a_node_out_until_they_are_alike() {
    of_one(async |etcd, _n2| {
        let mut other = settings(&etcd, "n3");
        other.config.vxlan_port = 4789;
        let mut n3 = Node::start(other);
        n3.until("excluded", |seen| seen.excluded.is_some()).await;
        let why = n3.seen.excluded.clone().unwrap();
        assert!(why.contains("vxlan-port: 4789 here, 8472 in the store"), "{why}");
        let refused = n3.apply(&[service("web", "10.96.0.1")]).await.unwrap_err();
        assert!(matches!(refused, WriteError::Refused(_)), "{refused:?}");
        assert_eq!(etcd.keys("/causeway/v1/nodes/"), ["/causeway/v1/nodes/n2"]);
        assert_eq!(etcd.keys("/causeway/v1/subnets/").len(), 1);
        n3.settings.config = config();
        let mut n3 = Node::start(n3.end());
        n3.held().await;
        assert_eq!(n3.seen.excluded, None);
    });
}

/// Rows: C-14
#[test]
fn what_a_newer_version_wrote_is_named_and_left_alone() {
    of_one(async |etcd, mut n2| {
        let odd = "/causeway/v1/objects/service/default/odd";
        etcd.ctl(&["put", odd, "{\"format\":2}"]);
        etcd.ctl(&["put", "/causeway/v1/leaders/x", "n9"]);
        n2.until("named", |seen| seen.view.unreadable.len() == 2).await;
        assert!(n2.seen.view.unreadable.contains_key(odd));
        assert_eq!(etcd.get(odd), "{\"format\":2}");
        let resets = n2.seen.resets;
        // More of the same is no reason to read everything again.
        for round in 0..5 {
            etcd.ctl(&["put", odd, &format!("{{\"format\":{round}}}")]);
        }
        n2.never(Duration::from_secs(2), "a reset", |seen| seen.resets > resets).await;
        etcd.ctl(&["del", odd]);
        n2.until("one less", |seen| seen.view.unreadable.len() == 1).await;
        let text = etcd.get("/causeway/v1/config");
        etcd.ctl(&["put", "/causeway/v1/config", &text.replace("\"schema\":1", "\"schema\":2")]);
        n2.until("excluded", |seen| seen.excluded.is_some()).await;
        let why = n2.seen.excluded.clone().unwrap();
        assert!(why.contains("version 2") && why.contains("install the newer"), "{why}");
        // Longer than the short lease: the node was in and stays where others find it.
        let kept = etcd.keys("/causeway/v1/nodes/");
        n2.never(Duration::from_secs(8), "in", |seen| seen.excluded.is_none()).await;
        assert_eq!(etcd.keys("/causeway/v1/nodes/"), kept);
        etcd.ctl(&["put", "/causeway/v1/config", &text]);
        n2.until("in again", |seen| seen.excluded.is_none()).await;
    });
}

/// Keys that nobody can read, that come and go: no reason to read everything again, and a word about
/// them now and then.
///
/// Rows: RH7
#[test]
fn keys_that_do_not_decode_decide_nothing_about_the_work_they_are() {
    of_one(async |etcd, mut n2| {
        for round in 0..50 {
            etcd.ctl(&["put", &format!("/causeway/v1/nodes/x{}", round % 7), "?"]);
            etcd.ctl(&["del", &format!("/causeway/v1/nodes/x{}", (round + 3) % 7)]);
        }
        let last = etcd.revision();
        n2.until("all of it", |seen| seen.known.revision >= last).await;
        n2.until("named", |seen| !seen.view.unreadable.is_empty()).await;
        n2.never(Duration::from_secs(3), "named again", |seen| seen.named > 1).await;
        assert_eq!((n2.seen.resets, n2.seen.connection.clone()), (1, Some(Ok(()))));
    });
}
