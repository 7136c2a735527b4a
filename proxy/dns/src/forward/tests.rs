use std::net::Ipv4Addr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::task::JoinSet;

use crate::testing::{StandIn, addresses, code, good, question, refusing, run, silent};

use super::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));

fn forwarder(stale: Stale, upstreams: &[&StandIn]) -> Rc<Forwarder> {
    let forwarder = Forwarder::new(stale, Arc::default());
    forwarder.set_upstreams(upstreams.iter().map(|one| one.upstream()).collect());
    forwarder
}

fn wanted(text: &str) -> Wanted {
    Wanted { question: question(text), dnssec_ok: false, checking_disabled: false }
}

/// The answer, and how long it took.
async fn ask(forwarder: &Rc<Forwarder>, text: &str) -> (Reply, Duration) {
    let start = Instant::now();
    let reply = match forwarder.look(&wanted(text), CLIENT) {
        Looked::Reply(reply) => reply,
        Looked::Pending(pending) => pending.reply().await,
    };
    (reply, start.elapsed())
}

/// Until a probe has shown that a server lives.
async fn recovers(forwarder: &Rc<Forwarder>, server: usize) {
    let start = Instant::now();
    let mut seconds = tokio::time::interval(ms(1000));
    while forwarder.state.borrow().judge.suspect_since(server).is_some() {
        assert!(start.elapsed() < ms(10_000), "a server that recovered is not used");
        seconds.tick().await;
        forwarder.tend();
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How often a stand-in was asked, beside the one probe for loops.
fn asked(stand_in: &StandIn) -> usize {
    stand_in.asked() - 1
}

fn servfail(question: &Message) -> Vec<(u64, Message)> {
    vec![(0, code(question, ResponseCode::ServFail))]
}

/// Rows: D-48
#[test]
fn two_silent_servers_of_three_hold_up_the_first_question_alone() {
    run(async {
        let (one, two) = (StandIn::start(silent).await, StandIn::start(silent).await);
        let three = StandIn::start(good).await;
        let forwarder = forwarder(Stale::Never, &[&one, &two, &three]);
        let (reply, took) = ask(&forwarder, "first.").await;
        assert_eq!(reply.answers.len(), 1);
        assert!(took < ms(1000), "{took:?}");
        for number in 0..10 {
            let (reply, took) = ask(&forwarder, &format!("later{number}.")).await;
            assert_eq!(reply.answers.len(), 1);
            assert!(took < ms(100), "{took:?}");
        }
        assert_eq!(forwarder.state.borrow().judge.suspects(), [0, 1]);

        one.change(good);
        recovers(&forwarder, 0).await;
        let before = asked(&one);
        ask(&forwarder, "recovered.").await;
        assert_eq!(asked(&one), before + 1);
    });
}

/// Rows: D-48
#[test]
fn who_refuses_or_fails_is_followed_by_the_next_at_once() {
    run(async {
        let live = StandIn::start(good).await;
        for wrong in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
            let bad = StandIn::start(move |asked| vec![(0, code(asked, wrong))]).await;
            let (reply, took) = ask(&forwarder(Stale::Never, &[&bad, &live]), "www.").await;
            assert_eq!(reply.answers.len(), 1);
            assert!(took < ms(50), "{took:?}");
        }
        let forwarder = Forwarder::new(Stale::Never, Arc::default());
        let unreachable = "203.0.113.1".parse().unwrap();
        forwarder.set_upstreams(vec![refusing().await, unreachable, live.upstream()]);
        let (reply, took) = ask(&forwarder, "www.").await;
        assert_eq!(reply.answers.len(), 1);
        assert!(took < ms(50), "{took:?}");
    });
}

/// Rows: D-48
#[test]
fn when_all_fail_the_client_hears_it_and_for_five_seconds_nobody_is_asked_again() {
    run(async {
        let (one, two) = (StandIn::start(servfail).await, StandIn::start(servfail).await);
        let forwarder = forwarder(Stale::Never, &[&one, &two]);
        let (reply, took) = ask(&forwarder, "www.").await;
        assert_eq!(reply, failure());
        assert!(took < ms(100), "{took:?}");
        assert_eq!(ask(&forwarder, "www.").await.0, failure());
        assert_eq!((asked(&one), asked(&two)), (1, 1));
        assert_eq!(forwarder.upstreams()[0].1, None, "it lives");
    });
}

/// Rows: D-30
#[test]
fn fifteen_silent_servers_are_servfail_within_four_seconds() {
    run(async {
        let mut all = Vec::new();
        for _ in 0..15 {
            all.push(StandIn::start(silent).await);
        }
        let forwarder = forwarder(Stale::Never, &all.iter().collect::<Vec<_>>());
        let (start, mut ticks) = (Instant::now(), tokio::time::interval(ms(100)));
        let (reply, took) = ask(&forwarder, "www.").await;
        assert_eq!(reply, failure());
        assert!(took < ms(4000), "{took:?}");
        assert!(all.iter().all(|one| asked(one) >= 2), "each is asked again");
        assert_eq!(forwarder.state.borrow().judge.suspects().len(), 15);
        while forwarder.upstreams().iter().any(|(_, wrong)| wrong.is_none()) {
            assert!(start.elapsed() < ms(30_000), "told of after some seconds");
            ticks.tick().await;
            forwarder.tend();
        }

        all[3].change(good);
        recovers(&forwarder, 3).await;
        all[14].change(good);
        let (reply, took) = ask(&forwarder, "other.").await;
        assert_eq!(reply.answers.len(), 1);
        assert!(took < ms(1500), "{took:?}");
    });
}

/// Rows: D-55
#[test]
fn a_reply_that_does_not_fit_is_dropped_and_the_wait_goes_on() {
    run(async {
        let stand_in = StandIn::start(|asked| {
            let mut id = addresses(asked, 3);
            id.metadata.id ^= 1;
            let mut other = addresses(asked, 4);
            other.queries[0].query_type = RecordType::AAAA;
            vec![(0, id), (0, other), (0, asked.clone()), (100, addresses(asked, 1))]
        });
        let stand_in = stand_in.await;
        let forwarder = forwarder(Stale::Never, &[&stand_in]);
        let before = forwarder.counters.stray.get();
        let (reply, took) = ask(&forwarder, "www.").await;
        assert_eq!(reply.answers.len(), 1);
        assert!(took >= ms(100), "{took:?}");
        assert!(forwarder.counters.stray.get() >= before + 3);
        assert_eq!(asked(&stand_in), 1);
    });
}

/// No socket is kept, so none is too old or of an old route.
///
/// Rows: D-49, D-55
#[test]
fn ids_and_ports_are_fresh_for_each_question() {
    run(async {
        let seen = Rc::new(RefCell::new(BTreeSet::new()));
        let ids = Rc::clone(&seen);
        let stand_in = StandIn::start(move |asked| {
            ids.borrow_mut().insert(asked.metadata.id);
            good(asked)
        });
        let stand_in = stand_in.await;
        let forwarder = forwarder(Stale::Never, &[&stand_in]);
        for number in 0..50 {
            ask(&forwarder, &format!("{number}.")).await;
        }
        assert!(seen.borrow().len() >= 48, "{} ids", seen.borrow().len());
        assert!(stand_in.ports() >= 48, "{} ports", stand_in.ports());
    });
}

/// Rows: D-42
#[test]
fn a_cut_answer_is_asked_for_by_tcp_or_is_none() {
    run(async {
        let cut = |asked: &Message| {
            let mut message = addresses(asked, 2);
            message.metadata.truncation = true;
            vec![(0, message)]
        };
        let whole = StandIn::start(cut).await.also_tcp(|asked| addresses(asked, 200)).await;
        let (reply, _) = ask(&forwarder(Stale::Never, &[&whole]), "www.").await;
        assert_eq!(reply.answers.len(), 200);

        let dead = StandIn::start(cut).await;
        let alone = forwarder(Stale::Never, &[&dead]);
        assert_eq!(ask(&alone, "www.").await.0, failure());
        assert_eq!(ask(&alone, "www.").await.0, failure(), "nor is it kept");
        let (reply, _) = ask(&forwarder(Stale::Never, &[&dead, &whole]), "www.").await;
        assert_eq!(reply.answers.len(), 200, "another server has it");
    });
}

/// Rows: D-53
#[test]
fn a_thousand_clients_make_one_question_and_the_next_name_has_no_place() {
    run(async {
        let stand_in = StandIn::start(|asked| vec![(300, addresses(asked, 1))]).await;
        let forwarder = forwarder(Stale::Never, &[&stand_in]);
        ask(&forwarder, "kept.").await;
        let mut clients = JoinSet::new();
        for _ in 0..MAX_WAITING {
            let Looked::Pending(pending) = forwarder.look(&wanted("www."), CLIENT) else {
                panic!("nothing is known yet");
            };
            clients.spawn_local(pending.reply());
        }
        let beyond = forwarder.look(&wanted("other."), CLIENT);
        assert!(matches!(beyond, Looked::Reply(reply) if reply == failure()));
        assert_eq!(forwarder.counters.overflow.get(), 1);
        let other_client = Ipv4Addr::new(10, 1, 0, 3).into();
        for number in 0..=FEW {
            let looked = forwarder.look(&wanted(&format!("{number}.")), other_client);
            match looked {
                Looked::Pending(pending) => drop(clients.spawn_local(pending.reply())),
                Looked::Reply(_) => assert_eq!(number, FEW, "a reserve for those who ask little"),
            }
        }
        let kept = forwarder.look(&wanted("kept."), CLIENT);
        assert!(matches!(kept, Looked::Reply(reply) if reply.answers.len() == 1));
        for reply in clients.join_all().await {
            assert_eq!(reply.answers.len(), 1);
        }
        assert_eq!(asked(&stand_in), 2 + FEW);
        assert_eq!(forwarder.counters.waiting.get(), 0);
        let (reply, _) = ask(&forwarder, "other.").await;
        assert_eq!(reply.answers.len(), 1, "the SERVFAIL is kept by nobody");
        let (reply, _) = ask(&forwarder, "WWW.").await;
        assert_eq!(reply.answers.len(), 1);
        assert_eq!(asked(&stand_in), 3 + FEW, "the first name is in the cache");
    });
}

/// Rows: D-52
#[test]
fn an_old_answer_comes_after_a_try_and_then_at_once() {
    run(async {
        let live = StandIn::start(good).await;
        let away = StandIn::start(silent).await;
        let forwarder = forwarder(Stale::WhileAway, &[&live]);
        ask(&forwarder, "www.").await;
        // What the old servers said is old.
        forwarder.set_upstreams(vec![away.upstream()]);
        let (reply, took) = ask(&forwarder, "www.").await;
        assert_eq!((reply.answers.len(), reply.answers[0].ttl), (1, 30));
        assert!((ms(1700)..ms(2000)).contains(&took), "{took:?}");
        let mut ticks = tokio::time::interval(ms(10));
        while !forwarder.state.borrow().flights.is_empty() {
            ticks.tick().await;
        }
        let (reply, took) = ask(&forwarder, "www.").await;
        assert_eq!(reply.answers.len(), 1);
        assert!(took < ms(10), "{took:?}");
        assert_eq!(forwarder.counters.stale.get(), 2);

        // Back again: the new answer is given, once the thirty seconds are over.
        forwarder.set_upstreams(vec![live.upstream()]);
        let (reply, _) = ask(&forwarder, "fresh.").await;
        assert_eq!(reply.answers[0].ttl, 60);
    });
}

#[test]
fn an_upstream_that_leads_back_is_not_asked() {
    run(async {
        let counters = Arc::default();
        let forwarder = Forwarder::new(Stale::Never, counters);
        let back = Rc::clone(&forwarder);
        let looping = StandIn::start(move |asked| {
            let query = &asked.queries[0];
            let question = Question {
                name: query.name.clone(),
                record_type: query.query_type,
                class: query.query_class,
            };
            let ours = back.came_back(&question);
            vec![(
                0,
                code(asked, if ours { ResponseCode::NXDomain } else { ResponseCode::ServFail }),
            )]
        });
        let looping = looping.await;
        forwarder.set_upstreams(vec![looping.upstream()]);
        while forwarder.upstreams()[0].1.is_none() {
            tokio::task::yield_now().await;
        }
        let before = looping.asked();
        assert_eq!(ask(&forwarder, "www.").await.0, failure());
        assert_eq!(looping.asked(), before);
        let (_, why) = &forwarder.upstreams()[0];
        assert_eq!(why.as_deref(), Some("leads back to this server; it is not asked"));

        let live = StandIn::start(good).await;
        forwarder.set_upstreams(vec![looping.upstream(), live.upstream()]);
        while forwarder.upstreams()[0].1.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&forwarder, "www.").await.0.answers.len(), 1, "SERVFAIL was kept by nobody");
        looping.change(good);
        forwarder.probe_loops();
        while forwarder.upstreams()[0].1.is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&forwarder, "other.").await.0.answers.len(), 1);
    });
}
