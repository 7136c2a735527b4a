//! Connections that are many, slow, broken, or idle.

use crate::testing::{addresses, good, run};

use super::*;

const WEB: &str = "web.default.svc.cluster.local.";

#[test]
fn questions_of_one_connection_do_not_wait_for_each_other() {
    run(async {
        let slow = StandIn::start(|asked| vec![(500, addresses(asked, 1))]).await;
        let running = Running::start(&[&slow]).await;
        let mut stream = TcpStream::connect(running.v4).await.unwrap();
        send(
            &mut stream,
            &[("slow.", RecordType::A), (WEB, RecordType::A), (WEB, RecordType::AAAA)],
        )
        .await;
        assert_eq!(asked_name(&receive(&mut stream).await), WEB);
        assert_eq!(asked_name(&receive(&mut stream).await), WEB);
        assert_eq!(asked_name(&receive(&mut stream).await), "slow.");
        // A client that has closed its half still gets what it asked for.
        send(&mut stream, &[("other.", RecordType::A)]).await;
        stream.shutdown().await.unwrap();
        assert_eq!(asked_name(&receive(&mut stream).await), "other.");
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "then the end");
    });
}

#[test]
fn more_questions_than_may_wait_are_all_answered() {
    run(async {
        let slow = StandIn::start(|asked| vec![(50, addresses(asked, 1))]).await;
        let running = Running::start(&[&slow]).await;
        let mut stream = TcpStream::connect(running.v4).await.unwrap();
        let names: Vec<_> = (0..350).map(|number| format!("name{number}.")).collect();
        let questions: Vec<_> = names.iter().map(|name| (name.as_str(), RecordType::A)).collect();
        send(&mut stream, &questions).await;
        let mut answered = BTreeSet::new();
        for _ in &names {
            answered.insert(asked_name(&receive(&mut stream).await));
        }
        assert_eq!(answered, names.into_iter().collect());
    });
}

#[test]
fn an_idle_connection_ends_in_order() {
    run(async {
        let running = Running::start(&[]).await;
        let mut stream = TcpStream::connect(running.v4).await.unwrap();
        send(&mut stream, &[(WEB, RecordType::A)]).await;
        receive(&mut stream).await;
        let start = Instant::now();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        let took = start.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_secs(10)).contains(&took), "{took:?}");
        // A question that was on its way meets no reset: it is read, and the end is the answer.
        send(&mut stream, &[(WEB, RecordType::A)]).await;
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    });
}

/// From `127.0.0.last`, which the server does not ask itself from.
async fn connect(last: u8, server: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(server).await.unwrap()
}

#[test]
fn an_address_has_a_hundred_connections_at_most() {
    run(async {
        let running = Running::start(&[]).await;
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(connect(5, running.v4).await);
        }
        let mut beyond = connect(5, running.v4).await;
        assert_eq!(beyond.read(&mut [0; 16]).await.unwrap_or(0), 0);
        assert!(running.server.counters().too_many.get() >= 1);
        send(&mut streams[99], &[(WEB, RecordType::A)]).await;
        assert_eq!(receive(&mut streams[99]).await.answers.len(), 1);
        // Another address has its own hundred.
        assert_eq!(tcp(running.v4, WEB, RecordType::A).await.answers.len(), 1);
    });
}

/// Rows: D-35
#[test]
fn slow_and_malformed_clients_cost_nobody_else_anything() {
    run(async {
        let live = StandIn::start(good).await;
        let running = Running::start(&[&live]).await;
        let mut held = Vec::new();
        for number in 0..90 {
            let mut stream = connect(5, running.v4).await;
            match number % 3 {
                // Half a length, half a question.
                0 => stream.write_all(&[0]).await.unwrap(),
                1 => stream.write_all(&bytes(WEB, RecordType::A)[..9]).await.unwrap(),
                // Many questions, no answer read.
                _ => {
                    let many = [(WEB, RecordType::A); 2000];
                    drop(timeout(Duration::from_millis(20), send(&mut stream, &many)).await);
                }
            }
            held.push(stream);
        }
        let junk: [u8; 256] = std::array::from_fn(|at| {
            [0, 7, 200, 1, 0, 1, 90][at % 7] ^ u8::try_from(at % 11).unwrap()
        });
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for length in 0..junk.len() {
            socket.send_to(&junk[..length], running.v4).await.unwrap();
            // Beyond a hundred at once it is closed, which is as good.
            drop(connect(6, running.v4).await.write_all(&junk[..length]).await);
        }
        for number in 0..100 {
            let start = Instant::now();
            assert_eq!(udp(running.v4, WEB, RecordType::A).await.answers.len(), 1);
            assert_eq!(tcp(running.v6, WEB, RecordType::A).await.answers.len(), 1);
            let outside = format!("name{number}.");
            assert_eq!(udp(running.v6, &outside, RecordType::A).await.answers.len(), 1);
            let took = start.elapsed();
            assert!(took < Duration::from_millis(500), "{took:?}");
        }
    });
}
