//! Single rows with real packets, for both backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use causeway_model::{ObjectKind, Protocol};
use serde_json::{Value, json};

use crate::stage::{Backend, From, Got, NODE, PODS, PORTS, REMOTE, Stage, slice};

const BOTH: [Backend; 2] = [Backend::Nftables, Backend::Iptables];
const VIP: &str = "10.96.1.100";

/// Service `web` at 10.96.1.100:8080 and node port 30080, TCP and UDP, with `more` in its spec.
fn web(annotations: &Value, more: &Value) -> Value {
    let mut spec = json!({ "type": "NodePort", "clusterIP": VIP, "ports": [
        { "name": "t", "protocol": "TCP", "port": 8080, "nodePort": 30080 },
        { "name": "u", "protocol": "UDP", "port": 8080, "nodePort": 30080 } ] });
    spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    json!({ "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": { "name": "web", "namespace": "default", "annotations": annotations } })
}

/// The endpoints of `web`: containers by number, and the second machine for 4.
fn endpoints(numbers: &[usize]) -> Value {
    let ports = json!([{ "name": "t", "protocol": "TCP", "port": PORTS[0] },
        { "name": "u", "protocol": "UDP", "port": PORTS[1] }]);
    let all: Vec<(&str, &str)> = numbers
        .iter()
        .map(|number| PODS.get(*number).map_or((REMOTE, "node2"), |pod| (*pod, "node1")))
        .collect();
    slice("web", &ports, &all)
}

fn vip() -> SocketAddr {
    at(VIP, 8080)
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Which endpoint answers, as a number.
fn who(stage: &Stage, from: From, protocol: Protocol, to: SocketAddr) -> usize {
    let got = stage.connect(from, protocol, to, true);
    let Got::Answer { endpoint, .. } = got else { panic!("{from:?} to {to}: {got:?}") };
    let text = endpoint.ip().to_string();
    PODS.iter().position(|pod| *pod == text).unwrap_or(PODS.len())
}

fn seen(stage: &Stage, from: From, to: SocketAddr) -> IpAddr {
    let got = stage.connect(from, Protocol::Tcp, to, true);
    let Got::Answer { seen, .. } = got else { panic!("{from:?} to {to}: {got:?}") };
    seen
}

/// Rows: S-22, S-23
#[test]
fn round_robin_goes_in_order_for_sequential_connections_and_after_changes() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        let round_robin = json!({ "causeway.io/balance": "round-robin" });
        stage.apply(&[web(&round_robin, &json!({})), endpoints(&[0, 1, 2, 4])]);
        let ask = |stage: &Stage, n| -> Vec<usize> {
            (0..n).map(|_| who(stage, From::Client, Protocol::Tcp, vip())).collect()
        };
        assert_eq!(ask(&stage, 8), [0, 1, 2, 4, 0, 1, 2, 4], "{backend:?}");
        stage.apply(&[endpoints(&[0, 1, 2])]);
        assert_eq!(ask(&stage, 6), [0, 1, 2, 0, 1, 2], "{backend:?}");
        // Another service's change does not disturb the order.
        assert_eq!(ask(&stage, 1), [0]);
        stage.apply(&[other("other")]);
        assert_eq!(ask(&stage, 3), [1, 2, 0], "{backend:?}");
    }
}

fn other(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": "10.96.1.200", "ports": [{ "port": 9 }] } })
}

/// Rows: P9, P71, S-24
#[test]
fn random_shares_are_equal() {
    const REQUESTS: usize = 1200;
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[0, 1, 2])]);
        let mut shares = BTreeMap::new();
        for _ in 0..REQUESTS {
            *shares.entry(who(&stage, From::Node, Protocol::Udp, vip())).or_insert(0) += 1;
        }
        let fair = REQUESTS / 3;
        // Five standard deviations of a fair three-sided coin.
        let off = shares.values().any(|count: &usize| count.abs_diff(fair) > 82);
        assert!(shares.len() == 3 && !off, "{backend:?}: {shares:?}");
    }
}

/// Rows: P24, P26, P28, P29
#[test]
fn affinity_holds_over_all_ways_in_and_ends_with_its_endpoint() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        let sticky = json!({ "sessionAffinity": "ClientIP" });
        stage.apply(&[web(&json!({}), &sticky), endpoints(&[0, 1, 2])]);
        let first = who(&stage, From::Client, Protocol::Tcp, vip());
        for to in [vip(), at(NODE, 30080), vip(), at(NODE, 30080), vip(), vip()] {
            assert_eq!(who(&stage, From::Client, Protocol::Tcp, to), first, "{backend:?} {to}");
        }
        let rest: Vec<usize> = (0..3).filter(|number| *number != first).collect();
        stage.apply(&[endpoints(&rest)]);
        let second = who(&stage, From::Client, Protocol::Tcp, vip());
        assert!(rest.contains(&second), "{backend:?}");
        for _ in 0..6 {
            assert_eq!(who(&stage, From::Client, Protocol::Tcp, vip()), second, "{backend:?}");
        }
        // Off: twenty connections do not all meet the same of two.
        stage.apply(&[web(&json!({}), &json!({}))]);
        let met: BTreeSet<usize> =
            (0..20).map(|_| who(&stage, From::Client, Protocol::Tcp, vip())).collect();
        assert_eq!(met.len(), 2, "{backend:?}");
    }
}

/// Rows: P25, P27
#[test]
#[expect(clippy::disallowed_methods, reason = "an expiry is a matter of time passing")]
fn affinity_is_kept_alive_by_connections_and_expires_without() {
    let sticky = json!({ "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 4 } } });
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &sticky), endpoints(&[0, 1, 2])]);
        let first = who(&stage, From::Client, Protocol::Tcp, vip());
        for _ in 0..5 {
            // Time passing is what is tested: more than the timeout in all, a part of it at once.
            sleep(Duration::from_secs(1));
            assert_eq!(who(&stage, From::Client, Protocol::Tcp, vip()), first, "{backend:?}");
        }
        let sources = [0, 1, 2, 3].map(From::Pod).into_iter().chain([From::Node, From::Client]);
        let draws = [0, 4300, 4300].map(|pause| -> Vec<usize> {
            sleep(Duration::from_millis(pause));
            sources.clone().map(|from| who(&stage, from, Protocol::Tcp, vip())).collect()
        });
        // Six sources draw one of three again, twice: all the same by chance once in 500,000 runs.
        assert!(draws.iter().any(|one| *one != draws[0]), "{backend:?}: always {draws:?}");
    }
}

/// Rows: S-28, P17
#[test]
fn only_a_container_that_reaches_itself_is_masqueraded() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        assert_eq!(seen(&stage, From::Pod(0), vip()).to_string(), PODS[0], "{backend:?}");
        assert_ne!(seen(&stage, From::Pod(1), vip()).to_string(), PODS[1], "{backend:?}");
    }
}

/// Rows: P14, P15, S-20
#[test]
fn a_service_address_never_leaves_the_node() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        for from in [From::Pod(0), From::Node, From::Client] {
            let got = stage.connect(from, Protocol::Tcp, at(VIP, 81), true);
            assert_eq!(got, Got::Refused, "{backend:?} {from:?}");
            let ping = stage.ns(from).try_sh(&format!("ping -n -c1 -W1 {VIP}"));
            let said = ping.describe();
            assert!(said.contains("Port Unreachable"), "{backend:?}: {said}");
            let got = stage.connect(from, Protocol::Tcp, at("10.96.200.1", 80), false);
            assert_eq!(got, Got::Silence, "{backend:?} {from:?}");
        }
    }
}

/// Rows: P21, P23, P100
#[test]
fn an_established_connection_survives_every_change_of_its_service() {
    use std::io::{Read, Write};
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        let mut stream = stage
            .ns(From::Client)
            .run(|| std::net::TcpStream::connect_timeout(&vip(), Duration::from_secs(5)))
            .expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout above zero");
        stage.apply(&[endpoints(&[2, 4])]);
        stage.apply(&[web(&json!({}), &json!({ "sessionAffinity": "ClientIP" }))]);
        stage.delete(&[(ObjectKind::Service, "web")]);
        stream.write_all(b"still there\n").expect("a write");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.contains(PODS[1]) && text.contains("still there"), "{backend:?}: {text}");
    }
}

/// Rows: S-26, S-34, P48
#[test]
fn only_the_address_and_port_of_a_service_are_taken() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        // A server elsewhere on the node port's number: transit traffic is left alone.
        let server = causeway_tests::traffic::Server::tcp(
            &stage.lab.nodes[1],
            "own-30080",
            &format!("{REMOTE}:30080"),
        );
        for from in [From::Pod(0), From::Node] {
            let got = stage.connect(from, Protocol::Tcp, at(REMOTE, 30080), true);
            let Got::Answer { endpoint, .. } = got else { panic!("{backend:?} {from:?}: {got:?}") };
            assert_eq!(endpoint.to_string(), format!("{REMOTE}:30080"), "{backend:?} {from:?}");
        }
        drop(server);
    }
}

/// Rows: P46, P47, S-36, S-37, S-38
#[test]
fn localhost_node_ports_answer_and_let_nobody_in() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[0, 1, 4])]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let met: BTreeSet<usize> = (0..24)
                .map(|_| who(&stage, From::Node, protocol, at("127.0.0.1", 30080)))
                .collect();
            assert_eq!(met.into_iter().collect::<Vec<_>>(), [0, 1, 4], "{backend:?}");
        }
        // A neighbour that sends to 127.0.0.1 by way of the node (CVE-2020-8558).
        let node = &stage.lab.nodes[0];
        let _admin = causeway_tests::traffic::Server::tcp(node, "admin-9999", "127.0.0.1:9999");
        let neighbour = stage.ns(From::Pod(2));
        neighbour.ip("addr del 127.0.0.1/8 dev lo\nroute add 127.0.0.1/32 via 10.0.1.1\n");
        neighbour.set_sysctl("ipv4/conf/all/route_localnet", "1");
        neighbour.sh("ip rule add pref 0 to 127.0.0.1 lookup main && ip rule del pref 0 lookup local && ip rule add pref 100 lookup local");
        let admin = at("127.0.0.1", 9999);
        assert_eq!(stage.connect(From::Pod(2), Protocol::Tcp, admin, false), Got::Silence);
        assert!(matches!(
            stage.connect(From::Node, Protocol::Tcp, admin, true),
            Got::Answer { .. }
        ));
    }
}

/// Rows: P63, P64, O-51, O-56
#[test]
fn the_mark_of_others_is_left_alone() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        let node = &stage.lab.nodes[0];
        node.sh(
            "nft add table inet watch
             nft 'add chain inet watch pre { type filter hook prerouting priority -150; }'
             nft 'add rule inet watch pre ct state new meta mark set 0x12008001'
             nft 'add chain inet watch post { type filter hook postrouting priority 200; }'
             nft 'add rule inet watch post ct state new tcp dport 8001 meta mark 0x12008001 counter comment right'
             nft 'add rule inet watch post ct state new tcp dport 8001 meta mark != 0x12008001 counter comment wrong'",
        );
        let source = seen(&stage, From::Client, at(NODE, 30080));
        assert_ne!(source.to_string(), causeway_tests::Lab::CLIENT, "masqueraded by the mark");
        let rules = node.sh("nft list chain inet watch post");
        let count = |word: &str| {
            let line = rules.lines().find(|line| line.contains(word)).expect("the rule").to_owned();
            line.contains("packets 0 ")
        };
        assert!(!count("right") && count("wrong"), "{backend:?}: {rules}");
    }
}

/// Rows: P53
#[test]
fn a_host_listener_on_a_node_port_is_shadowed_while_the_service_is_there() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        let node = &stage.lab.nodes[0];
        let own = causeway_tests::traffic::Server::tcp(node, "own-30080", "0.0.0.0:30080");
        assert_eq!(who(&stage, From::Client, Protocol::Tcp, at(NODE, 30080)), 1, "{backend:?}");
        stage.apply(&[web(
            &json!({}),
            &json!({ "type": "ClusterIP", "ports": [
            { "name": "t", "protocol": "TCP", "port": 8080 } ] }),
        )]);
        let got = stage.connect(From::Client, Protocol::Tcp, at(NODE, 30080), true);
        let Got::Answer { endpoint, .. } = got else { panic!("{backend:?}: {got:?}") };
        assert_eq!(endpoint, at(NODE, 30080), "{backend:?}: row 52, the port is free again");
        drop(own);
    }
}

/// The packet that is too big is one to the service; the node's word about it names the container.
///
/// Rows: P99
#[test]
fn the_path_mtu_is_found_through_a_service() {
    use std::io::{Read, Write};
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[1])]);
        stage.ns(From::Node).ip(&format!("route add {}/32 dev cw0 mtu lock 1300\n", PODS[1]));
        let client = stage.ns(From::Client);
        let text = client.run(|| {
            let mut stream = std::net::TcpStream::connect(vip())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&[b'x'; 1400])?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        });
        let text = text.unwrap_or_else(|error| panic!("{backend:?}: {error}"));
        assert!(text.contains(PODS[1]), "{backend:?}: {text}");
        let route = client.sh(&format!("ip route get {VIP}"));
        assert!(route.contains("mtu 1300"), "{backend:?}: {route}");
    }
}

/// Rows: S-35, S-31
#[test]
fn a_node_port_with_its_endpoint_elsewhere_answers_by_way_of_the_node() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        stage.apply(&[web(&json!({}), &json!({})), endpoints(&[4])]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let got = stage.connect(From::Client, protocol, at(NODE, 30080), true);
            let Got::Answer { seen, .. } = got else { panic!("{backend:?}: {got:?}") };
            assert_eq!(seen.to_string(), NODE, "{backend:?}: masqueraded");
        }
        let flows = stage.ns(From::Node).sh("conntrack -L -p udp 2>/dev/null");
        let flow = flows.lines().find(|line| line.contains("dport=30080")).unwrap_or_default();
        assert!(flow.contains(&format!("src={REMOTE} dst={NODE}")), "{backend:?}: {flows}");
    }
}

/// Rows: P31
#[test]
fn clients_behind_one_address_share_their_affinity() {
    for backend in BOTH {
        let mut stage = Stage::new(backend);
        let sticky = json!({ "sessionAffinity": "ClientIP" });
        stage.apply(&[web(&json!({}), &sticky), endpoints(&[0, 1, 2])]);
        // Another machine masquerades for those behind it: all come with its address.
        let nat = &stage.lab.nodes[1];
        nat.set_sysctl("ipv4/ip_forward", "1");
        nat.ip(&format!("route add 10.96.0.0/16 via {NODE}\n"));
        nat.sh("nft add table ip nat; nft 'add chain ip nat post { type nat hook postrouting priority 100; }'; \
                nft add rule ip nat post ip saddr 10.77.0.0/16 masquerade");
        let behind = [1, 2, 3].map(|number| {
            let ns = causeway_tests::Ns::new("behind");
            nat.ip(&format!(
                "link add inner{number} type veth peer name eth0 netns {}\n\
                 addr add 10.77.{number}.1/24 dev inner{number}\nlink set inner{number} up\n",
                ns.name()
            ));
            ns.ip(&format!(
                "addr add 10.77.{number}.2/24 dev eth0\nlink set eth0 up\n\
                 route add default via 10.77.{number}.1\n"
            ));
            ns
        });
        let met: BTreeSet<IpAddr> = behind
            .iter()
            .cycle()
            .take(9)
            .map(|ns| ns.tcp(&vip().to_string()).expect("an answer").ip)
            .collect();
        assert_eq!(met.len(), 1, "{backend:?}: {met:?}");
    }
}
