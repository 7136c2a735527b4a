//! Changes of services and endpoints under connections that stay.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Lab, Ns};
use serde_json::json;

use super::daemon_start::{address, service, slice};

const PATIENCE: Duration = Duration::from_secs(5);

/// A connection from the node to `to`, and its other end, which `listener` accepts.
fn connect(node: &Ns, to: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let to = to.parse().expect("an address");
    let near = node.run(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    for end in [&near, &far] {
        end.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    }
    (near, far)
}

/// Panics unless bytes pass both ways.
fn assert_alive(pair: &mut (TcpStream, TcpStream)) {
    let mut buffer = [0; 4];
    pair.0.write_all(b"ping").expect("send");
    pair.1.read_exact(&mut buffer).expect("receive");
    pair.1.write_all(b"pong").expect("send back");
    pair.0.read_exact(&mut buffer).expect("receive back");
}

/// Rows: P21, P23
#[test]
fn established_connections_outlive_changes_and_new_ones_follow_them() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::two_nodes();
        let (node, other) = (&lab.nodes[0], &lab.nodes[1]);
        let daemon = Daemon::start_with(node, &["--backend", backend]);
        let listener = other.run(|| TcpListener::bind("172.18.0.3:8001")).expect("listen");
        let _far = Server::tcp(&lab.client, "client", "172.18.0.100:8001");
        let _other_port = Server::tcp(other, "second", "172.18.0.3:8002");
        daemon.apply(&[service("web"), slice("web", &["172.18.0.3"])]);
        let vip = address(&daemon, "web").0;
        let mut kept = connect(node, &format!("{vip}:8080"), &listener);
        assert_alive(&mut kept);
        // Another endpoint comes, and gets its share.
        daemon.apply(&[slice("web", &["172.18.0.3", "172.18.0.100"])]);
        assert_alive(&mut kept);
        // The first one goes: new connections go to the other one alone.
        daemon.apply(&[slice("web", &["172.18.0.100"])]);
        for _ in 0..8 {
            let answer = node.tcp(&format!("{vip}:8080")).expect("an answer");
            assert_eq!(answer.hostname, "client", "{backend}");
        }
        assert_alive(&mut kept);
        // A port more, another target port, a port less.
        let mut more = service("web");
        more["spec"]["ports"] =
            json!([{ "name": "a", "port": 8080 }, { "name": "b", "port": 9090 }]);
        let mut ports = slice("web", &["172.18.0.3"]);
        ports["ports"] = json!([{ "name": "a", "port": 8002 }, { "name": "b", "port": 8002 }]);
        daemon.apply(&[more, ports]);
        for port in [8080, 9090] {
            let answer = node.tcp(&format!("{vip}:{port}")).expect("an answer");
            assert_eq!(answer.hostname, "second", "{backend}: {port}");
        }
        assert_alive(&mut kept);
        daemon.apply(&[service("web"), slice("web", &["172.18.0.100"])]);
        let gone = node.tcp(&format!("{vip}:9090")).expect_err("a port less");
        assert_eq!(gone.kind(), std::io::ErrorKind::ConnectionRefused, "{backend}");
        assert_alive(&mut kept);
    }
}

/// Rows: P22
#[test]
fn a_service_made_anew_answers_at_its_new_address_alone() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let daemon = Daemon::start_with(node, &["--backend", backend]);
        let _server = Server::tcp(&lab.client, "client", "172.18.0.100:8001");
        let at = |ip: &str| {
            let mut service = service("web");
            service["spec"]["clusterIP"] = json!(ip);
            service
        };
        daemon.apply(&[at("10.96.1.1"), slice("web", &["172.18.0.100"])]);
        assert!(node.tcp("10.96.1.1:8080").is_ok(), "{backend}");
        daemon.request("DELETE", "/v1/services/default/web", b"").expect("delete");
        assert!(node.tcp_within("10.96.1.1:8080", Duration::from_millis(300)).is_err());
        daemon.apply(&[at("10.96.1.2")]);
        assert!(node.tcp("10.96.1.2:8080").is_ok(), "{backend}");
        assert!(node.tcp_within("10.96.1.1:8080", Duration::from_millis(300)).is_err());
    }
}
