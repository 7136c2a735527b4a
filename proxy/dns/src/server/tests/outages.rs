//! Listeners that are deaf or have no address, and upstreams that lead back.

use crate::testing::{good, run};

use super::*;

const WEB: &str = "web.default.svc.cluster.local.";

#[test]
fn a_listener_whose_address_is_missing_is_told_and_stops_no_other() {
    run(async {
        let (mut config, v4, v6) = config(&[]);
        let missing: SocketAddr = "[2001:db8::77]:53".parse().unwrap();
        config.listen.insert(missing, Outside::Forward);
        let running = Running { server: Server::start(config).unwrap(), v4, v6 };
        let problems = running.wait(|problems| !problems.listeners.is_empty()).await;
        let told = "UDP: the address is not there yet; TCP: the address is not there yet";
        let both =
            running.wait(|problems| problems.listeners.get(&missing).is_some_and(|it| it == told));
        both.await;
        assert!(!problems.listeners.contains_key(&v4));
        for server in [v4, v6] {
            assert_eq!(code_of(&udp(server, WEB, RecordType::A).await), ResponseCode::ServFail);
        }
        running.server.listen(BTreeMap::from([(v6, Outside::NoAaaa)]));
        running.wait(|problems| problems.listeners.is_empty()).await;
        // Its sockets are closed, so that one that shares with nobody has room.
        let start = Instant::now();
        while std::net::UdpSocket::bind(v4).is_err() || std::net::TcpListener::bind(v4).is_err() {
            assert!(start.elapsed() < DEADLINE);
            yield_now().await;
        }
    });
}

/// Restart and update: the new process listens before the old one ends.
#[test]
fn a_second_server_takes_over_without_a_lost_question() {
    run(async {
        let (config, v4, v6) = config(&[]);
        let old = Server::start(config.clone()).unwrap();
        let new = Running { server: Server::start(config).unwrap(), v4, v6 };
        new.wait(|problems| problems.listeners.is_empty()).await;
        let mut old = Some(old);
        let answered =
            |counters: &Counters| counters.responses.iter().map(|one| one.get()).sum::<u64>();
        for number in 0..400 {
            if number == 200 {
                assert!(answered(old.as_ref().unwrap().counters()) > 0, "both answer");
                drop(old.take());
            }
            for server in [v4, v6] {
                assert_eq!(code_of(&udp(server, WEB, RecordType::A).await), ResponseCode::ServFail);
                assert_eq!(code_of(&tcp(server, WEB, RecordType::A).await), ResponseCode::ServFail);
            }
        }
        assert!(answered(new.server.counters()) > 0);
    });
}

/// Sockets that share the port and answer nothing take nearly all questions.
#[test]
fn a_deaf_listener_is_told_and_answers_once_it_can() {
    run(async {
        let (config, v4, v6) = config(&[]);
        let thieves: Vec<_> =
            (0..60).map(|_| (bind::udp(v4).unwrap(), bind::tcp(v4).unwrap())).collect();
        let running = Running { server: Server::start(config).unwrap(), v4, v6 };
        let problems = running.wait(|problems| {
            let told = problems.listeners.get(&v4);
            told.is_some_and(|told| {
                told.contains("UDP: does not answer") && told.contains("TCP: does not answer")
            })
        });
        assert!(!problems.await.listeners.contains_key(&v6));
        assert!(running.server.counters().deaf.get() >= 2);
        drop(thieves);
        running.wait(|problems| problems.listeners.is_empty()).await;
        udp(v4, WEB, RecordType::A).await;
        tcp(v4, WEB, RecordType::A).await;
    });
}

/// An upstream that asks us what it is asked, as systemd-resolved does on a host that uses us.
async fn relay() -> (SocketAddr, watch::Sender<Option<SocketAddr>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (sender, target) = watch::channel(None);
    tokio::task::spawn_local(async move {
        let mut question = [0; 512];
        loop {
            let length = socket.recv(&mut question).await.unwrap();
            let target: Option<SocketAddr> = *target.borrow();
            let on = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            on.send_to(&question[..length], target.expect("is known")).await.unwrap();
        }
    });
    (address, sender)
}

/// Rows: D-32
#[test]
fn an_upstream_that_leads_back_ends_outside_names_alone() {
    run(async {
        let (address, target) = relay().await;
        let running = Running::start(&[]).await;
        target.send(Some(running.v4)).unwrap();
        running.server.sources(Sources::List(vec![address.to_string().parse().unwrap()]));
        let problems = running.wait(|problems| {
            let first = problems.upstreams.first();
            first.is_some_and(|(_, wrong)| {
                wrong.as_ref().is_some_and(|why| why.contains("leads back"))
            })
        });
        problems.await;
        let start = Instant::now();
        assert_eq!(code_of(&udp(running.v4, "www.", RecordType::A).await), ResponseCode::ServFail);
        assert!(start.elapsed() < Duration::from_millis(500), "at once");
        assert_eq!(udp(running.v4, WEB, RecordType::A).await.answers.len(), 1);

        let live = StandIn::start(good).await;
        running.server.sources(Sources::List(vec![live.upstream()]));
        running.wait(|problems| problems.upstreams == [(live.upstream(), None)]).await;
        assert_eq!(udp(running.v4, "www.", RecordType::A).await.answers.len(), 1);
    });
}

/// Rows: D-47
#[test]
fn without_a_usable_upstream_names_of_the_cluster_go_on() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver fe80::1\nnameserver one\n").unwrap();
        let running = Running::start(&[]).await;
        let behind_stub = folder.path().join("none");
        running.server.sources(Sources::File { path: path.clone(), behind_stub });
        let problems = running.wait(|problems| problems.warnings.len() == 3).await;
        assert!(
            problems.warnings[1]
                .ends_with("resolv.conf:2: nameserver \"one\" is no address and is skipped")
        );
        assert!(problems.warnings[2].contains("--dns-upstream"), "{problems:?}");
        assert_eq!(code_of(&udp(running.v4, "www.", RecordType::A).await), ResponseCode::ServFail);
        assert_eq!(udp(running.v4, WEB, RecordType::A).await.answers.len(), 1);

        std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
        running
            .wait(|problems| problems.upstreams.len() == 1 && problems.warnings.is_empty())
            .await;
    });
}
