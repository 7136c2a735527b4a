//! What happens to the store, and what nodes make of it.

use std::time::Duration;

use causeway_source::cluster::{Command, Write, WriteError};
use tokio::time::Instant;

use crate::etcd::{Etcd, VERSIONS};
use crate::node::{Node, Seen, bulky, container, net, of_one, of_two, run, service, settings};

/// Rows: C-02, C-03
#[test]
fn what_is_wanted_while_the_store_is_away_is_there_once_it_is_back() {
    run(async {
        let mut etcd = Etcd::start();
        etcd.kill();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        n2.until("away", |seen| matches!(seen.connection, Some(Err(_)))).await;
        assert_eq!(n2.seen.resets, 0);
        let why = n2.seen.connection.clone().unwrap().unwrap_err();
        assert!(why.contains(&etcd.url()) && why.contains("Connection refused"), "{why}");
        n2.send(Command::Containers(vec![container("a", "10.0.2.2"), container("b", "10.0.2.3")]));
        n2.send(Command::Container(container("a", "10.0.2.2").record.key, None));
        let refused = n2.apply(&[service("web", "10.96.0.1")]).await.unwrap_err();
        assert!(matches!(refused, WriteError::Away(_)), "{refused:?}");
        etcd.again();
        n2.until("connected", |seen| seen.is_connected() && seen.resets == 1).await;
        let path = "/causeway/v1/containers/n2/causeway";
        etcd.until("b alone", |etcd| etcd.keys(path) == [format!("{path}/b/eth0")]).await;
    });
}

/// Rows: C-04, O-64
#[test]
fn a_restart_of_the_store_is_two_messages() {
    run(async {
        let mut etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n2.held().await;
        n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        n3.held().await;
        n3.until("all", |seen| seen.has_node("n2") && seen.subnet_of("n2").is_some()).await;
        n3.until("web", |seen| seen.has_object("web")).await;
        etcd.kill();
        n3.until("away", |seen| matches!(seen.connection, Some(Err(_)))).await;
        assert!(n3.seen.has_node("n2") && n3.seen.has_object("web"));
        etcd.again();
        n3.until("back", |seen| seen.is_connected() && seen.resets > 1).await;
        assert!(n3.seen.same);
        assert!(n3.seen.has_node("n2") && n3.seen.has_object("web"));
        assert_eq!(n3.held().await, [net("10.0.3.0/24")]);
    });
}

/// etcd 3.6 says nothing on a watch from the next revision until something is written, not even when
/// it is asked how far it is.
///
/// Rows: RH11
#[test]
fn a_quiet_store_is_not_read_again() {
    run(async {
        let of = async |version| {
            let mut etcd = Etcd::of(version, false, &[]);
            let mut n2 = Node::start(settings(&etcd, "n2"));
            n2.held().await;
            etcd.kill();
            n2.until("away", |seen| matches!(seen.connection, Some(Err(_)))).await;
            etcd.again();
            n2.until("back", |seen| seen.is_connected() && seen.resets == 2).await;
            let before = etcd.revision();
            // Longer than a silence that is believed.
            let again = |seen: &Seen| seen.resets > 2 || !seen.is_connected();
            n2.never(Duration::from_secs(13), version, again).await;
            assert_eq!(etcd.revision(), before, "{version}: the store was not quiet");
            n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
            n2.until("the watch goes on", |seen| seen.has_object("web")).await;
            assert_eq!(n2.seen.resets, 2, "{version}");
        };
        let [debian, newest] = VERSIONS;
        tokio::join!(of(debian), of(newest));
    });
}

/// Rows: C-07, C-08
#[test]
fn a_store_that_stands_still_is_noticed_and_left_leases_are_granted_anew() {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.until("all", |seen| seen.has_container("n2", "a")).await;
        n2.held().await;
        n3.held().await;
        etcd.pause();
        let began = Instant::now();
        n3.until("away", |seen| matches!(seen.connection, Some(Err(_)))).await;
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        let id = n3.ask(vec![(service("web", "10.96.0.1"), Vec::new())], &[]);
        assert!(matches!(n3.answer(id).await, Err(WriteError::Away(_))));
        etcd.resume();
        n3.until("back", |seen| seen.is_connected()).await;
        n3.until("all", |seen| {
            seen.has_node("n2") && seen.has_node("n3") && seen.has_container("n2", "a")
        })
        .await;
        assert!(n3.seen.same);
    });
}

/// Rows: C-06, O-39, O-40
#[test]
fn history_that_is_gone_is_one_reset_with_what_changed_meanwhile() {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n2.held().await;
        n2.apply(&[service("web", "10.96.0.1"), service("old", "10.96.0.2")]).await.unwrap();
        n3.until("web", |seen| seen.has_object("web") && seen.has_object("old")).await;
        n3.held().await;
        // It does not read: its connection breaks while much is written, and the past dropped.
        let gap = n3.end();
        let old = service("old", "10.96.0.2");
        let id = n2.ask(vec![(service("new", "10.96.0.3"), Vec::new())], &[old]);
        n2.answer(id).await.unwrap();
        etcd.compact();
        let mut n3 = Node::start(gap);
        n3.until("one reset", |seen| seen.has_object("new")).await;
        assert!(!n3.seen.has_object("old"));
        assert_eq!((n3.seen.resets, n3.seen.same), (1, true));
        let id = n2.ask(vec![(service("later", "10.96.0.4"), Vec::new())], &[]);
        n2.answer(id).await.unwrap();
        n3.until("the watch goes on", |seen| seen.has_object("later")).await;
        assert_eq!(n3.seen.resets, 1);
    });
}

/// Rows: C-06, O-39
#[test]
fn a_watch_that_history_left_behind_is_one_reset() {
    of_two(async |etcd, mut n2, mut n3| {
        // n3 takes no report: more comes than the watch's buffers hold.
        let mut at = 0;
        for round in 0..25 {
            for number in 0..100 {
                n2.ask(vec![(bulky(&format!("s{number}"), 20_000), Vec::new())], &[]);
            }
            n2.until("answers", move |seen| seen.written.len() == 100 * (round + 1)).await;
            let newest = n2.seen.written.values().map(|result| *result.as_ref().unwrap());
            at = newest.max().unwrap_or(0);
            n2.until("all", |seen| seen.known.revision >= at).await;
        }
        etcd.compact();
        n3.until("all", |seen| seen.known.revision >= at).await;
        println!("{} resets", n3.seen.resets);
        assert_eq!((n3.seen.resets, n3.seen.same), (2, true));
        assert_eq!(n3.seen.view.objects.len(), 100);
        n2.apply(&[service("later", "10.96.0.4")]).await.unwrap();
        n3.until("the watch goes on", |seen| seen.has_object("later")).await;
        assert_eq!(n3.seen.resets, 2);
    });
}

/// Rows: C-10
#[test]
fn a_wiped_store_is_another_one_and_gets_all_that_nodes_are() {
    run(async {
        let mut etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n2.held().await;
        n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        n3.held().await;
        n3.until("all", |seen| seen.has_container("n2", "a") && seen.has_object("web")).await;
        let store = n3.seen.known.store.clone();
        etcd.wipe();
        n3.until("another store", |seen| seen.known.store != store).await;
        assert!(!n3.seen.same && !n3.seen.has_object("web"));
        n3.until("all nodes", |seen| {
            seen.has_node("n2")
                && seen.has_node("n3")
                && seen.has_container("n2", "a")
                && seen.subnet_of("n2").is_some_and(|record| record.subnet == net("10.0.2.0/24"))
                && seen.subnet_of("n3").is_some_and(|record| record.subnet == net("10.0.3.0/24"))
        })
        .await;
        n3.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        n2.until("another store", |seen| seen.known.store != store).await;
        assert!(!n2.seen.same);
        n2.until("served again", |seen| seen.has_object("web")).await;
    });
}

/// Rows: C-11
#[test]
fn a_restored_backup_is_noticed_by_its_revision() {
    of_one(async |mut etcd, mut n2| {
        n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        let backup = etcd.snapshot();
        for round in 0..10 {
            let one = service(&format!("s{round}"), &format!("10.96.2.{round}"));
            n2.apply(&[one]).await.unwrap();
        }
        let known = n2.seen.known.clone();
        etcd.restore(&backup);
        n2.until("less", |seen| !seen.has_object("s9")).await;
        assert!(!n2.seen.same && n2.seen.has_object("web"));
        assert_eq!(n2.seen.known.store, known.store);
        assert!(n2.seen.known.revision < known.revision);
        // What was decided before, when there was more, is decided again.
        let put = vec![(service("web", "10.96.0.9"), vec!["address/10.96.0.1".to_owned()])];
        n2.send(Command::Write(Write {
            id: 0,
            seen: known.revision,
            put,
            delete: Vec::new(),
            ..Write::default()
        }));
        let Err(WriteError::Conflict(at)) = n2.answer(0).await else { panic!("it was written") };
        assert!(at < known.revision);
        n2.apply(&[service("s9", "10.96.2.9")]).await.unwrap();
        etcd.until("the node is there", |etcd| etcd.keys("/causeway/v1/nodes/").len() == 1).await;
        n2.until("connected", |seen| seen.is_connected()).await;
    });
}

/// Rows: C-06
#[test]
fn a_slow_receiver_loses_nothing_and_stays_alive() {
    of_two(async |_etcd, mut n2, mut n3| {
        // n3 takes no report meanwhile; its channel holds four.
        for round in 0..150 {
            let one = service(&format!("s{round}"), &format!("10.96.3.{round}"));
            n2.apply(&[one]).await.unwrap();
        }
        let lives = |seen: &Seen| !seen.has_node("n3");
        n2.never(Duration::from_secs(8), "n3 died", lives).await;
        n3.until("all", |seen| seen.view.objects.len() == 150).await;
        assert_eq!(n3.seen.resets, 1);
    });
}

/// Rows: C-04
#[test]
fn a_full_store_is_said_and_what_is_wanted_comes_once_there_is_room() {
    run(async {
        let etcd = Etcd::with(false, &["--quota-backend-bytes", "600000"]);
        let mut n2 = Node::start(settings(&etcd, "n2"));
        n2.held().await;
        let bulk = "x".repeat(60_000);
        while etcd.ctl(&["alarm", "list"]).is_empty() {
            drop(etcd.try_ctl(&["put", "/bulk", &bulk]));
        }
        n2.send(Command::Containers(vec![container("a", "10.0.2.2")]));
        n2.until("refused", |seen| seen.excluded.is_some()).await;
        let why = n2.seen.excluded.clone().unwrap();
        assert!(why.contains("space exceeded") && why.contains("alarm disarm"), "{why}");
        let refused = n2.apply(&[service("web", "10.96.0.1")]).await.unwrap_err();
        assert!(matches!(refused, WriteError::Refused(_)), "{refused:?}");
        etcd.ctl(&["del", "/bulk"]);
        etcd.compact();
        etcd.ctl(&["defrag"]);
        etcd.ctl(&["alarm", "disarm"]);
        let path = "/causeway/v1/containers/n2/causeway/a/eth0";
        etcd.until("published", |etcd| !etcd.get(path).is_empty()).await;
        n2.until("in", |seen| seen.excluded.is_none()).await;
        n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        assert!(n2.seen.same && n2.seen.has_node("n2"));
    });
}

#[test]
fn all_endpoints_are_tried() {
    run(async {
        let etcd = Etcd::start();
        let mut settings = settings(&etcd, "n2");
        settings.endpoints.insert(0, "http://127.0.0.1:1".into());
        settings.endpoints.insert(0, "no address at all".into());
        let mut n2 = Node::start(settings);
        n2.held().await;
        assert_eq!(n2.seen.connection, Some(Ok(())));
    });
}

#[test]
fn a_planned_end_sends_what_is_waiting_and_gives_nothing_up() {
    of_one(async |etcd, n2| {
        let one = container("last", "10.0.2.9");
        n2.send(Command::Container(one.record.key.clone(), Some(one)));
        n2.send(Command::Stop);
        let path = "/causeway/v1/containers/n2/causeway/last/eth0";
        etcd.until("sent", |etcd| !etcd.get(path).is_empty()).await;
        assert!(!etcd.get("/causeway/v1/nodes/n2").is_empty());
    });
}
