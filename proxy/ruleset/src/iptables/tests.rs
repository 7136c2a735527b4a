use std::collections::BTreeSet;

use causeway_model::{Balance, ObjectKey, Protocol};

use std::net::IpAddr;

use super::*;
use crate::plan::{Hides, HostPort, NodePortAddresses, SourceHash};
use crate::testing::{self, Random, packet, random_history, random_packet};
use crate::trace::{Outcome, Packet, Tracer};
use machine::{Machine, Verdict};

mod listing;
mod machine;

const HISTORIES: u64 = 10;
const PACKETS: usize = 40;

/// Both families of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node([Machine; 2]);

impl Node {
    fn new() -> Self {
        Self(FAMILIES.map(Machine::new))
    }

    fn restore(&mut self, scripts: &[Script]) {
        self.0.iter_mut().for_each(|machine| machine.restore(scripts));
    }

    fn save(&self) -> [(IpFamily, String); 2] {
        [(IpFamily::V4, self.0[0].save()), (IpFamily::V6, self.0[1].save())]
    }

    fn with_saved<T>(&self, read: impl Fn(&[(IpFamily, &str)]) -> T) -> T {
        let saved = self.save();
        read(&saved.each_ref().map(|(family, text)| (*family, &**text)))
    }

    fn verdicts(&self, packet: &Packet) -> BTreeSet<Verdict> {
        self.0[usize::from(packet.destination.is_ipv6())].verdicts(packet)
    }

    fn of(plan: &Plan) -> Self {
        let mut node = Self::new();
        node.restore(&ChainMirror::full(plan, &[]).1);
        node
    }
}

/// The same plan as trace has it with this backend. If affinity may have chosen an endpoint, it
/// may be any: trace does not say where a client was before.
fn told(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.facts.source_hash = SourceHash::Iptables;
    for service in plan.services.values_mut() {
        let mut ports = service.ports.clone();
        for port in ports.iter_mut().filter(|port| port.affinity.is_some()) {
            port.balance = Balance::Random;
        }
        *service = std::sync::Arc::new(crate::plan::ServicePlan { ports });
    }
    plan
}

/// What trace says, as the rules should.
fn wanted(tracer: &Tracer<'_>, packet: &Packet) -> BTreeSet<Verdict> {
    match tracer.trace(packet).outcome {
        Outcome::Pass => [Verdict::Pass].into(),
        Outcome::Reject => [Verdict::Reject].into(),
        Outcome::Drop => [Verdict::Drop].into(),
        Outcome::Endpoints(choices) => choices.into_iter().map(Verdict::To).collect(),
    }
}

fn agrees(node: &Node, plan: &Plan, packets: impl Iterator<Item = Packet>) {
    let plan = told(plan);
    let tracer = Tracer::new(&plan);
    for packet in packets {
        let wanted = wanted(&tracer, &packet);
        assert_eq!(node.verdicts(&packet), wanted, "{packet:?} {:#?}", tracer.trace(&packet).steps);
    }
}

/// Invariant I9. Rows: P9, P12, P13, P14, P15, P17, P18, P19, P32, P33, P34, P35, P36, P37, P38, P39,
/// P42, P43, P44, P45, P46, P47, P48, P49, P50, P54, P57, P58, P59, P63, P64
#[test]
fn i9_iptables_and_trace_agree_on_random_histories() {
    let mut seen = BTreeSet::new();
    for seed in 0..HISTORIES {
        let mut random = Random::new(seed);
        for step in random_history(seed) {
            let node = Node::of(&step.plan);
            let packets = (0..PACKETS).map(|_| random_packet(&mut random, &step.plan));
            let packets = packets.collect::<Vec<_>>();
            let kinds = packets.iter().flat_map(|packet| node.verdicts(packet));
            seen.extend(kinds.map(|verdict| match verdict {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
                Verdict::Reject => "reject",
                Verdict::To(choice) if choice.masquerade => "masquerade",
                Verdict::To(_) => "endpoint",
            }));
            agrees(&node, &step.plan, packets.into_iter());
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

/// Invariant I4: what changes leave is what a fresh start makes, and a second one changes nothing.
/// Rows: P21, P22, P23, P90
#[test]
fn i4_changes_leave_what_a_fresh_start_makes() {
    /// Has more places than stand in one chain.
    const LARGE: u64 = 13;
    let mut flat = BTreeSet::new();
    for seed in (0..HISTORIES).chain([LARGE]) {
        let mut node = Node::new();
        let mut mirror = None;
        for step in random_history(seed) {
            let mirror = match &mut mirror {
                None => {
                    let (fresh, scripts) = ChainMirror::full(&step.plan, &[]);
                    node.restore(&scripts);
                    mirror.insert(fresh)
                }
                Some(mirror) => {
                    node.restore(&mirror.change(&step.plan, &step.delta));
                    mirror
                }
            };
            assert_eq!(node, Node::of(&step.plan), "seed {seed}");
            assert!(node.with_saved(|saved| mirror.is_whole(saved)), "seed {seed}");
            assert!(mirror.change(&step.plan, &Delta::default()).is_empty());
            let again = node.with_saved(|saved| ChainMirror::full(&step.plan, saved).1);
            let mut twice = node.clone();
            twice.restore(&again);
            assert_eq!(node, twice, "seed {seed}");
            flat.insert(mirror.families[0].is_flat());
        }
    }
    assert_eq!(flat.len(), 2, "both layouts are met");
}

/// Many services: addresses and node ports in chains of their own, and back.
#[test]
fn a_change_among_many_services_writes_its_chains_alone() {
    let line = |number: u32| {
        let (high, low) = (number / 200, number % 200 + 1);
        format!(
            "s{number} 172.30.{high}.{low} 80/tcp:{} -> 10.0.1.{}:80@n1",
            30000 + number,
            2 + number % 100
        )
    };
    let text = |numbers: std::ops::Range<u32>| numbers.map(line).collect::<Vec<_>>().join("\n");
    let services = testing::services(&text(0..1000));
    let mut plan = Plan::fresh(testing::facts(), &services);
    let (mut mirror, scripts) = ChainMirror::full(&plan, &[]);
    let mut node = Node::new();
    node.restore(&scripts);
    agrees(
        &node,
        &plan,
        ["172.30.3.7:80/tcp", "192.168.0.1:30700/tcp", "172.30.4.200:80/tcp"]
            .map(|to| packet(&format!("10.0.1.2 -> {to}")))
            .into_iter(),
    );
    let key = services.keys().next().unwrap().clone();
    let delta = plan.update(&[key.clone()].into(), &|_| {
        Some(testing::service(&line(0).replace("-> ", "-> 10.0.1.77:80@n2 ")))
    });
    let scripts = mirror.change(&plan, &delta);
    node.restore(&scripts);
    assert_eq!(node, Node::of(&plan));
    // The pool alone: its endpoints change, its frontends do not.
    assert_eq!(scripts[0].text.lines().filter(|line| line.starts_with(':')).count(), 1);
    let delta = plan.update(&[key].into(), &|_| None);
    let scripts = mirror.change(&plan, &delta);
    node.restore(&scripts);
    assert_eq!(node, Node::of(&plan));
    // One chain of 200 addresses in each table, three rules and one per address.
    assert!(scripts[0].text.lines().count() < 850, "{}", scripts[0].text);
    let rest = services.keys().skip(20).cloned().collect();
    let delta = plan.update(&rest, &|_| None);
    node.restore(&mirror.change(&plan, &delta));
    assert_eq!(node, Node::of(&plan));
}

/// Rows: P93, P95, S-39
#[test]
fn a_full_start_repairs_and_cleanup_removes_all_and_only_ours() {
    for seed in 0..HISTORIES {
        let steps = random_history(seed);
        let (plan, old) = (&steps[8].plan, &steps[3].plan);
        let mut node = Node::new();
        let foreign = foreign();
        node.restore(&foreign);
        let before = node.clone();
        let mirror = ChainMirror::full(plan, &[]).0;
        assert!(!node.with_saved(|saved| mirror.is_whole(saved)));
        // An older state, doubled jumps and a jump of another owner's chain.
        node.restore(&ChainMirror::full(old, &[]).1);
        node.restore(&[Script {
            family: IpFamily::V4,
            text: "*nat\n-I OUTPUT -j CW-SERVICES\n-A DOCKER -j CW-SERVICES\n\
                   -I OUTPUT -m comment --comment \"causeway services\" -j CW-SERVICES\nCOMMIT\n"
                .to_owned(),
        }]);
        let (mirror, scripts) = node.with_saved(|saved| ChainMirror::full(plan, saved));
        node.restore(&scripts);
        assert!(node.with_saved(|saved| mirror.is_whole(saved)), "{seed}");
        let mut wanted = Node::new();
        wanted.restore(&foreign);
        wanted.restore(&ChainMirror::full(plan, &[]).1);
        assert_eq!(node, wanted, "{seed}");
        // Another process flushes one of our chains.
        let mut flushed = node.clone();
        flushed.restore(&[Script {
            family: IpFamily::V4,
            text: "*nat\n:CW-POSTROUTING - [0:0]\nCOMMIT\n".to_owned(),
        }]);
        assert!(!flushed.with_saved(|saved| mirror.is_whole(saved)));
        let scripts = node.with_saved(cleanup);
        node.restore(&scripts);
        assert_eq!(node, before, "{seed}");
        assert!(node.with_saved(cleanup).is_empty());
    }
}

fn foreign() -> Vec<Script> {
    let text = "*nat\n:DOCKER - [0:0]\n:CW-LOGS - [0:0]\n-A PREROUTING -j DOCKER\n\
                -A OUTPUT -m comment --comment \"not -g CW-SERVICES\" -j DOCKER\n\
                -A DOCKER -p tcp -j RETURN\nCOMMIT\n*filter\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n";
    vec![Script { family: IpFamily::V4, text: text.to_owned() }]
}

/// Rows: P43, P44, P45, P46, P48
#[test]
fn node_ports_answer_where_the_setting_says() {
    let check = |addresses, flows: &[(&str, &str)]| {
        let mut facts = testing::facts();
        facts.node_port_addresses = addresses;
        let text =
            "web 172.30.0.10,fd00:30::a 80/tcp:30080 -> 10.0.2.2:80@n2 [fd00:10:0:2::2]:80@n2";
        let plan = Plan::fresh(facts, &testing::services(text));
        let node = Node::of(&plan);
        for (flow, answer) in flows {
            let got = node.verdicts(&packet(flow));
            let to = matches!(got.first(), Some(Verdict::To(_)));
            let word = if to {
                "answer"
            } else if got.contains(&Verdict::Pass) {
                "pass"
            } else {
                "drop"
            };
            assert_eq!(word, *answer, "{flow}: {got:?}");
        }
    };
    check(
        NodePortAddresses::All,
        &[
            ("203.0.113.1 -> 192.168.0.1:30080/tcp", "answer"),
            ("203.0.113.1 -> 10.0.1.1:30080/tcp", "answer"),
            ("node -> 127.0.0.1:30080/tcp", "answer"),
            ("10.0.1.2 -> 127.0.0.1:30080/tcp", "drop"),
            ("10.0.1.2 -> 127.0.0.1:9999/tcp", "drop"),
            ("node -> [::1]:30080/tcp", "pass"),
            ("2001:db8::1 -> [fd00:192::1]:30080/tcp", "answer"),
            ("203.0.113.1 -> 192.168.0.9:30080/tcp", "pass"),
        ],
    );
    let primary = ["192.168.0.1/32", "fd00:192::1/128"].map(|net| net.parse().unwrap()).to_vec();
    check(
        NodePortAddresses::In(primary),
        &[
            ("203.0.113.1 -> 192.168.0.1:30080/tcp", "answer"),
            ("203.0.113.1 -> 10.0.1.1:30080/tcp", "pass"),
            ("node -> 127.0.0.1:30080/tcp", "pass"),
            ("2001:db8::1 -> [fd00:10:0:1::1]:30080/tcp", "pass"),
        ],
    );
    check(
        NodePortAddresses::In(vec!["0.0.0.0/0".parse().unwrap()]),
        &[
            ("203.0.113.1 -> 10.0.1.1:30080/tcp", "answer"),
            ("node -> 127.0.0.1:30080/tcp", "pass"),
            ("2001:db8::1 -> [fd00:10:0:1::1]:30080/tcp", "answer"),
        ],
    );
}

/// Removing one of n endpoints moves its own clients alone.
#[test]
fn source_hash_is_consistent() {
    check_source_hash("172.30.0.10", "10.0.2.", |client| {
        format!("10.0.{}.{}", client / 250, client % 250 + 1)
    });
    check_source_hash("[fd00:30::a]", "[fd00:10:0:2::", |client| {
        format!("fd00:10:0:{:x}::{client:x}", client % 7)
    });
}

fn check_source_hash(vip: &str, pods: &str, client: fn(u32) -> String) {
    let close = if pods.starts_with('[') { "]" } else { "" };
    let plan = |count: u32| {
        let endpoint = |n| format!("{pods}{}{close}:80@n2", n + 2);
        let endpoints = (0..count).map(endpoint).collect::<Vec<_>>().join(" ");
        let vip = vip.trim_matches(['[', ']']);
        testing::plan(&format!("web {vip} balance=source-hash 80/tcp -> {endpoints}"))
    };
    let (all, less) = (Node::of(&plan(5)), Node::of(&plan(4)));
    let gone = format!("{pods}6").trim_matches('[').parse::<IpAddr>().unwrap();
    let (mut moved, mut shares) = (0, BTreeMap::new());
    for number in 0..1000 {
        let flow = format!("{} -> {vip}:80/tcp", client(number));
        let one = |node: &Node| {
            let verdicts = node.verdicts(&packet(&flow)).into_iter().collect::<Vec<_>>();
            match &verdicts[..] {
                [Verdict::To(choice)] => choice.address,
                other => panic!("{other:?}"),
            }
        };
        let (before, after) = (one(&all), one(&less));
        *shares.entry(before).or_insert(0) += 1;
        assert!(before == after || before == gone, "{flow}");
        moved += u32::from(before != after);
    }
    assert!((130..280).contains(&moved), "{moved} of 1000");
    let fair = |share: &u32| (120..290).contains(share);
    assert!(shares.len() == 5 && shares.values().all(fair), "{shares:?}");
}

/// Rows: RB5
#[test]
fn a_host_port_has_its_place_before_services_and_back() {
    let plan = || testing::plan("web 172.30.0.41 80/tcp:30001 -> 10.0.2.2:80@n2");
    let mut with = plan();
    let host = |host: Option<&str>, port| HostPort {
        protocol: Protocol::Tcp,
        host: host.map(|text| text.parse().expect("an address")),
        port,
        target: "10.0.1.2:8080".parse().expect("an address and port"),
        owner: ObjectKey::new("default", "c1"),
        hides: Hides::Needed,
        conditional: false,
    };
    let mut node = Node::new();
    let (mut mirror, scripts) = ChainMirror::full(&with, &[]);
    node.restore(&scripts);
    let delta = with.set_host_ports(vec![host(None, 30_001), host(None, 8080)]);
    let scripts = mirror.change(&with, &delta);
    let text: String = scripts.iter().map(|script| script.text.as_str()).collect();
    let line = "-A CW-SERVICES -p tcp -m tcp --dport 30001 -m addrtype --dst-type LOCAL -j RETURN";
    assert!(text.contains(&format!(":CW-SERVICES - [0:0]\n{line}\n")), "{text}");
    assert!(!text.contains("8080"), "{text}");
    node.restore(&scripts);
    assert_eq!(node, Node::of(&with));
    let delta = with.set_host_ports(vec![host(Some("192.168.0.1"), 30_001)]);
    let scripts = mirror.change(&with, &delta);
    assert!(scripts[0].text.contains("-A CW-SERVICES -d 192.168.0.1/32 -p tcp"), "{scripts:?}");
    let delta = with.set_host_ports(Vec::new());
    node.restore(&mirror.change(&with, &delta));
    assert_eq!(node, Node::of(&plan()));
}
