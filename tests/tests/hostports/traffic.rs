//! Who reaches host ports, as whom they are seen, and what stays out.

use std::cell::Cell;
use std::net::UdpSocket;

use causeway_tests::Lab;
use causeway_tests::traffic::{IMPATIENCE, PATIENCE, Server};
use serde_json::json;

use crate::{NODE, NODE6, World, address, at, attachment, settle, state_files, tcp, udp};

#[test]
fn host_ports_are_reached_from_outside_the_node_and_the_container() {
    for backend in ["nftables", "iptables"] {
        reached_from_everywhere(backend);
    }
}

fn reached_from_everywhere(backend: &str) {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let runtime = world.runtime("net", 20, json!({ "backend": backend }));
    let pod = node.pod();
    let attached = attachment(&pod, json!([tcp(8080, 80), udp(5353, 53)]));
    let result = runtime.add_ok(&attached);
    settle(&pod);
    settle(node);
    let (v4, v6) = (address(&result, 0), address(&result, 1));
    let _web = Server::tcp(&pod, "web", "[::]:80");
    let _dns = Server::udp(&pod, "dns", &format!("{v4}:53"));
    let _dns6 = Server::udp(&pod, "dns6", &format!("[{v6}]:53"));

    for (from, to, seen) in [
        // No other source is changed.
        (&lab.client, format!("{NODE}:8080"), Some(Lab::CLIENT)),
        (&lab.client, format!("[{NODE6}]:8080"), Some(Lab::CLIENT6)),
        // Masqueraded: itself, and 127.0.0.1.
        (&pod, format!("{NODE}:8080"), None),
        (&pod, format!("[{NODE6}]:8080"), None),
        (node, "127.0.0.1:8080".to_owned(), None),
        (node, format!("{NODE}:8080"), None),
        (node, format!("[{NODE6}]:8080"), None),
    ] {
        let answer = from.tcp(&to);
        let answer = answer.unwrap_or_else(|e| panic!("{backend}: {to} from {}: {e}", from.name()));
        assert_eq!(answer.hostname, "web", "{to}");
        let peer = answer.peer.ip().to_canonical().to_string();
        match seen {
            Some(seen) => assert_eq!(peer, seen, "{to}"),
            None => assert!(![&v4, &v6].contains(&&peer), "{to}: seen as itself"),
        }
    }
    for (to, name) in [(format!("{NODE}:5353"), "dns"), (format!("[{NODE6}]:5353"), "dns6")] {
        let answer = lab.client.udp(&to).unwrap_or_else(|e| panic!("{backend}: {to}: {e}"));
        assert_eq!(answer.hostname, name);
    }
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "1");
    runtime.check(&attached).expect("CHECK after ADD");

    runtime.del_ok(&attached);
    assert!(lab.client.tcp_within(&format!("{NODE}:8080"), IMPATIENCE).is_err());
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "0");
    assert_eq!(state_files(node), "");
}

#[test]
fn a_host_address_limits_a_mapping() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    node.ip("addr add 172.18.0.12/24 dev eth0\n");
    let runtime = world.runtime("net", 20, json!({}));
    let pod = node.pod();
    let both = json!([at("172.18.0.12", tcp(8080, 80)), at("0.0.0.0", tcp(8081, 80))]);
    let attached = attachment(&pod, both);
    runtime.add_ok(&attached);
    settle(&pod);
    settle(node);
    let _web = Server::tcp(&pod, "web", "[::]:80");

    assert_eq!(lab.client.tcp("172.18.0.12:8080").expect("the address asked for").hostname, "web");
    assert_eq!(lab.client.tcp(&format!("{NODE}:8081")).expect("any IPv4 address").hostname, "web");
    for closed in [format!("{NODE}:8080"), format!("[{NODE6}]:8080"), format!("[{NODE6}]:8081")] {
        assert!(lab.client.tcp_within(&closed, IMPATIENCE).is_err(), "{closed}");
    }
    runtime.check(&attached).expect("CHECK");
    runtime.del_ok(&attached);
}

/// Traffic that only passes through the node keeps its destination (GHSA-jv3w-x3r3-g6rm).
#[test]
fn traffic_to_other_machines_is_left_alone() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let runtime = world.runtime("net", 20, json!({}));
    let (pod, other) = (node.pod(), node.pod());
    runtime.add_ok(&attachment(&pod, json!([tcp(8080, 80)])));
    runtime.add_ok(&attachment(&other, json!([])));
    settle(&pod);
    settle(&other);
    let _web = Server::tcp(&pod, "web", "[::]:80");
    let _elsewhere = Server::tcp(&lab.client, "elsewhere", "[::]:8080");
    lab.client.ip(&format!("route add 10.20.0.0/24 via {NODE}\n"));

    let answer = other.tcp(&format!("{}:8080", Lab::CLIENT)).expect("the other machine");
    assert_eq!(answer.hostname, "elsewhere");
    assert_eq!(
        node.tcp(&format!("{}:8080", Lab::CLIENT)).expect("from the node").hostname,
        "elsewhere"
    );
}

/// `snat` false leaves every source, `masqAll` none.
#[test]
fn masquerading_follows_the_configuration() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let (lab, node) = (&world.lab, world.node());
        let all = world.runtime("all", 20, json!({ "backend": backend, "masqAll": true }));
        let none = world.runtime("none", 21, json!({ "backend": backend, "snat": false }));
        let (first, second) = (node.pod(), node.pod());
        let with_all = attachment(&first, json!([tcp(8080, 80)]));
        all.add_ok(&with_all);
        let with_none = attachment(&second, json!([tcp(8081, 80)]));
        none.add_ok(&with_none);
        let _one = Server::tcp(&first, "one", "0.0.0.0:80");
        let _two = Server::tcp(&second, "two", "0.0.0.0:80");

        let answer = lab.client.tcp(&format!("{NODE}:8080")).expect("masqAll");
        assert_eq!(answer.peer.ip().to_string(), "10.20.0.1", "{backend}");
        let answer = lab.client.tcp(&format!("{NODE}:8081")).expect("no snat");
        assert_eq!(answer.peer.ip().to_string(), Lab::CLIENT, "{backend}");
        assert!(second.tcp_within(&format!("{NODE}:8081"), IMPATIENCE).is_err(), "no hairpin");
        assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "1");
        assert_eq!(node.sysctl("ipv4/conf/hp21/route_localnet"), "0");
        all.check(&with_all).expect("CHECK of masqAll");
        none.check(&with_none).expect("CHECK without snat");
    }
}

/// A client that never pauses keeps its conntrack entry alive: it must not keep its container.
///
/// Rows: F45
#[test]
fn a_udp_client_reaches_the_new_container_and_forgets_the_old() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let (lab, node) = (&world.lab, world.node());
        let runtime = world.runtime("net", 20, json!({ "backend": backend }));
        let (old, new) = (node.pod(), node.pod());
        let ports = || json!([udp(5353, 53)]);
        let socket = lab.client.run(|| UdpSocket::bind("0.0.0.0:4444")).expect("a client socket");
        // A neighbour that is not resolved yet would hold a question back for a second.
        lab.client.assert_ping(NODE);
        let count = Cell::new(0);
        let ask = |patience| {
            socket.set_read_timeout(Some(patience)).expect("a timeout above zero");
            count.set(count.get() + 1);
            let question = format!("question {}", count.get());
            socket.send_to(question.as_bytes(), format!("{NODE}:5353")).expect("send");
            let mut buffer = [0; 512];
            // An answer to an earlier question says nothing about now.
            while let Ok(length) = socket.recv(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if answer.trim_end().ends_with(&question) {
                    return answer;
                }
            }
            String::new()
        };
        // An entry from before there was any host port.
        assert_eq!(ask(IMPATIENCE), "");

        let first = runtime.add_ok(&attachment(&old, ports()));
        let _old = Server::udp(&old, "old", &format!("{}:53", address(&first, 0)));
        assert!(ask(PATIENCE).contains("HOSTNAME:old"), "{backend}: after the first ADD");

        runtime.del_ok(&attachment(&old, ports()));
        assert_eq!(ask(IMPATIENCE), "", "{backend}: after DEL");
        let entries = node.sh("conntrack -L -p udp 2>/dev/null || true");
        assert!(!entries.contains(&format!("src={} ", address(&first, 0))), "{entries}");

        let second = runtime.add_ok(&attachment(&new, ports()));
        let _new = Server::udp(&new, "new", &format!("{}:53", address(&second, 0)));
        assert!(ask(PATIENCE).contains("HOSTNAME:new"), "{backend}: after the second ADD");
    }
}

/// Flows of the same port number to other machines are nobody's business.
#[test]
fn udp_flows_to_other_machines_stay() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let runtime = world.runtime("net", 20, json!({}));
    let _far = Server::udp(&lab.client, "far", "0.0.0.0:5353");
    // Something that has the node track connections.
    runtime.add_ok(&attachment(&node.pod(), json!([tcp(8080, 80)])));
    node.udp(&format!("{}:5353", Lab::CLIENT)).expect("an answer");
    let flows = || node.sh("conntrack -L -p udp --dport 5353 2>/dev/null || true");
    assert!(flows().contains(Lab::CLIENT), "{}", flows());
    runtime.add_ok(&attachment(&node.pod(), json!([udp(5353, 53)])));
    assert!(flows().contains(Lab::CLIENT), "{}", flows());
}
