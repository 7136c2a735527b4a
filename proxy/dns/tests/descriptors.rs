//! Without file descriptors nothing that listens ends. Alone in its program, which shares the limit.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use causeway_dns::{Config, Outside, Server, Sources, Stale, ZoneSettings};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `1.example. A`, id 7.
const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x011\x07example\0\0\x01\0\x01";

fn limit(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum })
        .expect("it may be lowered and raised");
}

fn over_udp(socket: &UdpSocket) {
    socket.send(QUESTION).expect("sent");
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).expect("an answer over UDP");
    assert_eq!(answer[..2], QUESTION[..2]);
    assert!(length > 12);
}

fn over_tcp(stream: &mut TcpStream) {
    let length = u16::try_from(QUESTION.len()).expect("it is short");
    stream.write_all(&[&length.to_be_bytes()[..], QUESTION].concat()).expect("sent");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer over TCP");
    assert_eq!(answer[2..], QUESTION[..2]);
}

/// Rows: D-50
#[test]
fn out_of_descriptors_both_listeners_go_on() {
    let address = SocketAddr::from(([127, 0, 0, 1], 53));
    let config = Config {
        zone: ZoneSettings::new("cluster.local.".parse().unwrap(), 5, Vec::new()),
        listen: BTreeMap::from([(address, Outside::Forward)]),
        sources: Sources::List(Vec::new()),
        clients: Vec::new(),
        stale: Stale::Never,
    };
    let server = Server::start(config).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    over_udp(&socket);

    // The first questions of the server to itself are over.
    let counters = server.counters();
    while counters.connections[0].get() < 1 || counters.connections[1].get() > 0 {
        over_udp(&socket);
    }
    let waiting = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let before = getrlimit(Resource::Nofile).current.expect("a limit");
    limit(64);
    let mut all = Vec::new();
    while let Ok(one) = socket.try_clone() {
        all.push(one);
    }
    rustix::net::connect(&waiting, &address).unwrap();
    let mut waiting = TcpStream::from(waiting);
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let errors = || counters.accept_errors.get();
    while errors() < 3 {
        over_udp(&socket);
    }
    drop(all);
    limit(before);
    over_tcp(&mut waiting);
    over_tcp(&mut TcpStream::connect(address).unwrap());
    over_udp(&socket);
    assert!(errors() < 1000, "there is a pause after each");
}
