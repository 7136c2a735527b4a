//! Random histories of services: what the plan says of a packet is what becomes of a real one.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use causeway_model::{Guarded, ObjectKind, Protocol};
use causeway_ruleset::trace::{Choice, Outcome, Packet, trace};
use causeway_tests::Random;
use serde_json::{Value, json};

use crate::stage::{
    Backend, From, Got, NODE, NODE6, PODS, PODS6, PORTS, REMOTE, REMOTE6, Stage, slice,
};

const HISTORIES: u64 = 3;
const STEPS: usize = 6;
const PACKETS: usize = 40;

/// Rows: P9, P11, P12, P17, P19, P20, P32, P33, P34, P35, P36, P37, P38, P39, P42, P57, RD13, RH3
#[test]
fn i9_nftables_and_trace_agree_on_real_packets() {
    agree(Backend::Nftables);
}

#[test]
fn i9_iptables_and_trace_agree_on_real_packets() {
    agree(Backend::Iptables);
}

/// Whatever a change concerns, the kernel takes it at once or not at all.
#[test]
fn i3_a_change_is_one_transaction() {
    let mut stage = Stage::new(Backend::Nftables);
    let mut random = Random(7);
    let mut changes = 0;
    for number in (0..5).cycle().take(15) {
        let node = &stage.lab.nodes[0];
        let mut client = node.run(|| causeway_nft::Client::open().expect("nf_tables"));
        let before = client.generation().expect("a generation");
        stage.apply(&service(&mut random, number));
        let steps = client.generation().expect("a generation") - before;
        assert!(steps <= 1, "{steps} transactions");
        changes += steps;
    }
    assert!(changes > 10, "only {changes} changes");
}

/// What nodes live on here: a cluster address, a port of external and load balancer addresses, and
/// a node port of the services.
fn guarded() -> Guarded {
    let addresses = ["fd00:96::5", "192.0.2.2", "2001:db8:2::102"];
    let address = |text: &str| (text.parse().expect("an address"), "node n9".to_owned());
    let ports = [(Protocol::Tcp, 80), (Protocol::Udp, 30011)];
    Guarded::new(addresses.map(address), ports.map(|port| (port, "a node".to_owned())))
}

fn agree(backend: Backend) {
    let mut stage = Stage::new(backend);
    stage.plan.guard(Arc::new(guarded()));
    let (mut checked, mut left_out, mut wrong) = (0, 0, String::new());
    for history in 1..=HISTORIES {
        let mut random = Random(history.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for step in 0..STEPS {
            for _ in 0..3 {
                let number = random.below(5);
                if random.chance(15) {
                    stage.delete(&names(number));
                } else {
                    stage.apply(&service(&mut random, number));
                }
            }
            // Rules that were saved and loaded again do the same. (nft knows nothing of xtables' rules,
            // and 1.0.6 does not survive listing what 1.1.7 loaded, so one nft alone does it here.)
            if backend == Backend::Nftables && step % 3 == 2 {
                stage.lab.nodes[0].reload_rules(&causeway_tests::bins::nfts()[0]);
            }
            for _ in 0..PACKETS {
                let Some((from, packet)) = packet(&mut random, &stage) else { continue };
                checked += 1;
                let steps = trace(&stage.plan, &packet).steps;
                left_out += usize::from(steps.iter().any(|step| step.contains("is left out")));
                if let Err(difference) = check(&stage, from, &packet) {
                    let place = format!("history {history}, step {step}");
                    writeln!(wrong, "{place}: {from:?} {packet:?}: {difference}")
                        .expect("a String");
                }
            }
        }
        for number in 0..5 {
            stage.delete(&names(number));
        }
    }
    causeway_tests::say(&format!("{checked} packets compared with {backend:?}"));
    assert!(left_out > 10, "only {left_out} packets to what is left out");
    assert!(wrong.is_empty(), "{wrong}");
    assert!(checked > 400, "only {checked} packets");
}

fn names(number: usize) -> [(ObjectKind, &'static str); 3] {
    const NAMES: [[&str; 3]; 5] = [
        ["s0", "s0-ipv4", "s0-ipv6"],
        ["s1", "s1-ipv4", "s1-ipv6"],
        ["s2", "s2-ipv4", "s2-ipv6"],
        ["s3", "s3-ipv4", "s3-ipv6"],
        ["s4", "s4-ipv4", "s4-ipv6"],
    ];
    let [service, v4, v6] = NAMES[number];
    [
        (ObjectKind::Service, service),
        (ObjectKind::EndpointSlice, v4),
        (ObjectKind::EndpointSlice, v6),
    ]
}

/// Service `sN` with addresses of its number, and its endpoints of both families.
fn service(random: &mut Random, number: usize) -> Vec<Value> {
    let name = format!("s{number}");
    let balance = *random.pick(&["random", "random", "round-robin", "source-hash"]);
    let policy = |random: &mut Random, percent| match random.chance(percent) {
        true => "Local",
        false => "Cluster",
    };
    let node_port = 30000 + 10 * number;
    let mut spec = json!({
        "type": "LoadBalancer", "clusterIP": format!("10.96.0.{}", number + 1),
        "clusterIPs": [format!("10.96.0.{}", number + 1), format!("fd00:96::{}", number + 1)],
        "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
        "internalTrafficPolicy": policy(random, 25), "externalTrafficPolicy": policy(random, 35),
        "externalIPs": [format!("192.0.2.{}", number + 1), format!("2001:db8:2::{}", number + 1)],
        "ports": [
            { "name": "web", "protocol": "TCP", "port": 80, "targetPort": 8001, "nodePort": node_port },
            { "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 8002, "nodePort": node_port + 1 } ] });
    if random.chance(25) {
        spec["sessionAffinity"] = json!("ClientIP");
    }
    if random.chance(40) {
        let choices = [
            vec!["172.18.0.100/32", "fd00:172:18::100/128"],
            vec!["10.0.1.0/30", "fd00:10::/126"],
            vec!["172.18.0.0/24"],
        ];
        let ranges = random.pick(&choices);
        spec["loadBalancerSourceRanges"] = json!(ranges);
    }
    let ingress = json!([{ "ip": format!("192.0.2.{}", number + 101) },
        { "ip": format!("2001:db8:2::{}", number + 101) }]);
    let service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default",
                      "annotations": { "causeway.io/balance": balance } },
        "spec": spec, "status": { "loadBalancer": { "ingress": ingress } } });
    let kind = random.below(6);
    let mut list = |pods: &[&'static str], remote: &'static str| {
        let mut all = Vec::new();
        for pod in pods {
            if kind != 0 && kind != 1 && random.chance(60) {
                all.push((*pod, "node1"));
            }
        }
        if kind != 0 && (kind == 1 || random.chance(50)) {
            all.push((remote, "node2"));
        }
        all
    };
    let ports = json!([{ "name": "web", "protocol": "TCP", "port": PORTS[0] },
        { "name": "dns", "protocol": "UDP", "port": PORTS[1] }]);
    let (v4, v6) = (list(&PODS, REMOTE), list(&PODS6, REMOTE6));
    let mut slices = vec![service, slice(&name, &ports, &v4), slice(&name, &ports, &v6)];
    for (slice, family) in slices[1..].iter_mut().zip(["IPv4", "IPv6"]) {
        slice["addressType"] = json!(family);
        slice["metadata"]["name"] = json!(format!("{name}-{}", family.to_lowercase()));
    }
    slices
}

/// A packet to somewhere near a service.
fn packet(random: &mut Random, stage: &Stage) -> Option<(From, Packet)> {
    let from = match random.below(6) {
        4 => From::Node,
        5 => From::Client,
        number => From::Pod(number),
    };
    let number = random.below(5);
    let ipv6 = random.chance(40);
    let (protocol, service_port, node_port) = match random.chance(60) {
        true => (Protocol::Tcp, 80, 30000 + 10 * number),
        false => (Protocol::Udp, 53, 30001 + 10 * number),
    };
    let node_port = u16::try_from(node_port).expect("a port");
    let of = |v4: String, v6: String| if ipv6 { v6 } else { v4 };
    let (to, port) = match random.below(8) {
        0..=2 => (
            of(format!("10.96.0.{}", number + 1), format!("fd00:96::{}", number + 1)),
            service_port,
        ),
        3 => (
            of(format!("192.0.2.{}", number + 1), format!("2001:db8:2::{}", number + 1)),
            service_port,
        ),
        4 => (
            of(format!("192.0.2.{}", number + 101), format!("2001:db8:2::{}", number + 101)),
            service_port,
        ),
        5 => (of(NODE.to_owned(), NODE6.to_owned()), node_port),
        6 if from == From::Node && !ipv6 => ("127.0.0.1".to_owned(), node_port),
        6 if from != From::Client => {
            (of("10.0.1.1".to_owned(), "fd00:10::1".to_owned()), node_port)
        }
        _ => (of(format!("10.96.0.{}", number + 1), format!("fd00:96::{}", number + 1)), 81),
    };
    let destination: IpAddr = to.parse().expect("an address");
    let local = [NODE, NODE6, "127.0.0.1", "10.0.1.1", "fd00:10::1"];
    let packet = Packet {
        source: match (from, to.as_str()) {
            (From::Node, "10.0.1.1" | "fd00:10::1") => destination,
            _ => Stage::source(from, destination),
        },
        from_node: from == From::Node,
        destination,
        to_node: local.contains(&to.as_str()),
        protocol,
        port,
    };
    // If no service is, an answer says nothing about rules.
    (trace(&stage.plan, &packet).outcome != Outcome::Pass).then_some((from, packet))
}

fn check(stage: &Stage, from: From, packet: &Packet) -> Result<(), String> {
    let wanted = trace(&stage.plan, packet);
    let to = SocketAddr::new(packet.destination, packet.port);
    let silent = wanted.outcome == Outcome::Drop;
    let got = stage.connect(from, packet.protocol, to, !silent);
    let fits = match (&wanted.outcome, &got) {
        (Outcome::Reject, Got::Refused) | (Outcome::Drop, Got::Silence) => true,
        (Outcome::Reject | Outcome::Drop, Got::Denied) => from == From::Node,
        (Outcome::Endpoints(choices), Got::Answer { endpoint, seen }) => {
            choices.iter().any(|choice| fits(choice, from, packet, (*endpoint, *seen)))
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{got:?}, but {wanted:#?}")) }
}

fn fits(choice: &Choice, from: From, packet: &Packet, got: (SocketAddr, IpAddr)) -> bool {
    let (endpoint, seen) = got;
    // What the node sends has an address of the node either way.
    let source = from == From::Node || (seen != packet.source) == choice.masquerade;
    endpoint == SocketAddr::new(choice.address, choice.port) && source
}
