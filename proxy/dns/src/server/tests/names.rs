//! Names of the cluster and names outside, over both protocols and families.

use ipnetwork::IpNetwork;

use crate::Limit;
use crate::server::desk::{Client, Handled};
use crate::testing::{addresses, code, good, run, silent};

use super::*;

#[test]
fn names_of_the_cluster_are_answered_once_they_are_known_and_others_before() {
    run(async {
        let live = StandIn::start(good).await;
        let running = Running::unsynced(&[&live]).await;
        for server in [running.v4, running.v6] {
            let early = udp(server, "web.default.svc.cluster.local.", RecordType::A).await;
            assert_eq!(code_of(&early), ResponseCode::ServFail);
            assert_eq!(udp(server, "www.", RecordType::A).await.answers.len(), 1);
        }
        let hits = running.server.counters().hits.get();
        let running = running.synced().await;
        for server in [running.v4, running.v6] {
            let over_udp = udp(server, "Web.default.svc.cluster.local.", RecordType::A).await;
            let over_tcp = tcp(server, "Web.default.svc.cluster.local.", RecordType::A).await;
            assert_eq!(over_udp, over_tcp);
            assert!(over_udp.metadata.authoritative && over_udp.metadata.recursion_available);
            assert_eq!(
                over_udp.answers[0].data,
                RData::A(hickory_proto::rr::rdata::A::new(10, 96, 0, 20))
            );
        }
        let outside = udp(running.v4, "wWw.eXample.", RecordType::A).await;
        assert!(outside.answers[0].name.eq_case(&name("wWw.eXample.")));
        let again = udp(running.v4, "WWW.example.", RecordType::A).await;
        assert!(again.answers[0].name.eq_case(&name("WWW.example.")), "from the cache too");
        assert!(!again.metadata.authoritative && again.metadata.recursion_available);
        assert_eq!(running.server.counters().hits.get(), hits + 1);
    });
}

#[test]
fn an_alias_leads_outside_and_what_does_not_fit_is_asked_for_by_tcp() {
    run(async {
        let many = StandIn::start(|asked| {
            let mut cut = addresses(asked, 0);
            cut.metadata.truncation = true;
            vec![(0, cut)]
        });
        let many = many.await.also_tcp(|asked| addresses(asked, 200)).await;
        let running = Running::start(&[&many]).await;
        let asked = "outside.default.svc.cluster.local.";
        let over_udp = udp(running.v4, asked, RecordType::A).await;
        assert!(over_udp.metadata.truncation && over_udp.metadata.authoritative);
        assert_eq!(over_udp.answers[0].record_type(), RecordType::CNAME);
        assert!(over_udp.answers.len() > 20, "{}", over_udp.answers.len());
        let over_tcp = tcp(running.v4, asked, RecordType::A).await;
        assert!(!over_tcp.metadata.truncation);
        assert_eq!(over_tcp.answers.len(), 201);
        assert_eq!(over_tcp.answers[0].record_type(), RecordType::CNAME);
        assert!(over_tcp.answers[1..].iter().all(|one| one.name == name("www.example.com.")));
    });
}

#[test]
fn an_alias_whose_target_is_dead_is_told_alone_and_without_error() {
    run(async {
        let dead = StandIn::start(silent).await;
        let running = Running::start(&[&dead]).await;
        let asked = "outside.default.svc.cluster.local.";
        let start = Instant::now();
        let answer = udp(running.v4, asked, RecordType::A).await;
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        assert_eq!((code_of(&answer), answer.answers.len()), (ResponseCode::NoError, 1));
        let gone = StandIn::start(|asked| vec![(0, code(asked, ResponseCode::NXDomain))]).await;
        let running = Running::start(&[&gone]).await;
        let answer = udp(running.v4, asked, RecordType::A).await;
        assert_eq!((code_of(&answer), answer.answers.len()), (ResponseCode::NXDomain, 1));
    });
}

#[test]
fn a_listener_for_clients_without_ipv6_does_not_ask_for_it() {
    run(async {
        let live = StandIn::start(good).await;
        let running = Running::start(&[&live]).await;
        let before = live.asked();
        let answer = udp(running.v6, "www.", RecordType::AAAA).await;
        assert_eq!((code_of(&answer), answer.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        let alias = udp(running.v6, "outside.default.svc.cluster.local.", RecordType::AAAA).await;
        assert_eq!((alias.answers.len(), alias.authorities.len()), (1, 1));
        assert_eq!(live.asked(), before);
        udp(running.v4, "www.", RecordType::AAAA).await;
        assert_eq!(live.asked(), before + 1);
        let outside = &running.server.counters().outside;
        assert_eq!([outside[0].get(), outside[1].get()], [0, 3]);
    });
}

#[test]
fn strangers_are_refused_with_no_more_than_they_sent() {
    run(async {
        let counters = Arc::new(Counters::default());
        let forwarder = Forwarder::new(Stale::Never, Arc::clone(&counters));
        let desk = Desk::new(Zone::new(settings()), forwarder, counters);
        *desk.clients.borrow_mut() = vec!["10.244.0.0/16".parse::<IpNetwork>().unwrap()];
        let question = bytes("www.example.com.", RecordType::A);
        let ask = |address: &str| {
            let address = address.parse().unwrap();
            let client = Client { address, limit: Limit::Udp, outside: Outside::Forward };
            let mut answer = Vec::new();
            let handled = desk.take(&question, client, &mut answer);
            assert!(!matches!(handled, Handled::Never));
            answer
        };
        let refused = ask("203.0.113.9");
        assert_eq!(code_of(&Message::from_vec(&refused).unwrap()), ResponseCode::Refused);
        assert_eq!(refused.len(), question.len());
        assert_eq!(desk.counters.strangers.get(), 1);
        for known in ["10.244.7.7", "::ffff:10.244.7.7", "127.0.0.1", "::1"] {
            ask(known);
            assert_eq!(desk.counters.strangers.get(), 1, "{known}");
        }
        assert!(!desk.knows("10.245.0.1".parse().unwrap()));
    });
}

#[test]
fn questions_go_on_while_a_large_batch_is_taken() {
    run(async {
        let running = Running::start(&[]).await;
        let one = services(SERVICES);
        let names = one.iter().find_map(|change| match change {
            Change::Service(_, names) => names.clone(),
            Change::Pod(..) => None,
        });
        let changes = (0..45_000).map(|number| {
            let key = ObjectKey::new("default", format!("service-{number}"));
            Change::Service(key, names.clone())
        });
        running.server.update(changes.collect());
        let mut longest = Duration::ZERO;
        loop {
            let start = Instant::now();
            let last =
                udp(running.v4, "service-44999.default.svc.cluster.local.", RecordType::A).await;
            longest = longest.max(start.elapsed());
            if !last.answers.is_empty() {
                break;
            }
        }
        assert!(longest < Duration::from_millis(500), "{longest:?}");
    });
}
