//! Services in a real kernel: what is committed reads back as it was planned.

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use causeway_nft::Client;
use causeway_ruleset::model::{Balance, IpFamily, ObjectKey, Protocol};
use causeway_ruleset::plan::{
    At, Decision, Delta, Frontend, Masquerade, NodePortAddresses, Plan, PlanContext, Pool,
    PortPlan, ServicePlan, SourceHash, Target,
};
use causeway_ruleset::services::{self, TableMirror, Tables};
use causeway_ruleset::testing::random_history;
use causeway_ruleset::{TableId, TableState};

use common::{client, load_again, nft, nfts};

fn facts(node_ports: NodePortAddresses) -> PlanContext {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().expect(net)).collect();
    PlanContext {
        node: "n1".into(),
        zone: None,
        cluster_cidrs: nets(&["10.0.0.0/16", "fd00:1::/64"]),
        service_cidrs: nets(&["10.96.0.0/16", "10.96.1.0/24", "fd00:96::/112"]),
        node_port_addresses: node_ports,
        masquerade_all: false,
        node_ips: nets_ip(&["192.168.1.10", "fd00:9::10"]),
        source_hash: SourceHash::Nftables,
    }
}

fn nets_ip(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|ip| ip.parse().expect(ip)).collect()
}

fn ip(family: IpFamily, v4: &str, last: u16) -> IpAddr {
    match family {
        IpFamily::V4 => format!("{v4}.{last}").parse().expect(v4),
        IpFamily::V6 => {
            format!("fd00:{}::{last:x}", v4.rsplit('.').next().expect("a part")).parse().expect(v4)
        }
    }
}

fn targets(family: IpFamily, count: u16) -> Box<[Target]> {
    let target = |n| Target { address: ip(family, "10.0.1", n + 2), port: 8080, here: n % 2 == 0 };
    (0..count).map(target).collect()
}

struct Shape {
    balance: Balance,
    affinity: Option<u32>,
    count: u16,
    local: u16,
    by_origin: bool,
    protocol: Protocol,
}

const PLAIN: Shape = Shape {
    balance: Balance::Random,
    affinity: None,
    count: 2,
    local: 0,
    by_origin: false,
    protocol: Protocol::Tcp,
};

/// A service of both families that answers everywhere.
fn service(number: u16, shape: &Shape) -> Arc<ServicePlan> {
    let ports = [IpFamily::V4, IpFamily::V6].map(|family| {
        let vip = ip(family, "10.96.96", number + 1);
        let outside = ip(family, "203.0.113", number + 1);
        let always = Masquerade::Always;
        let any = match (shape.by_origin, shape.count) {
            (_, 0) => Decision::Reject,
            (true, _) => Decision::ByOrigin,
            (false, _) => Decision::Balance { pool: Pool::Cluster, masquerade: always },
        };
        let inside = match shape.count {
            0 => Decision::Drop,
            _ => Decision::Balance { pool: Pool::Cluster, masquerade: Masquerade::Outside },
        };
        let nets = match family {
            IpFamily::V4 => ["198.51.100.0/24", "198.51.100.7/32", "192.0.2.1/32"],
            IpFamily::V6 => ["fd00:5::/64", "fd00:5::7/128", "fd00:6::1/128"],
        };
        let allow = nets.map(|net| net.parse().expect(net)).into();
        let at = |at, decision, allow| Frontend { at, decision, allow };
        PortPlan {
            name: "http".into(),
            family,
            protocol: shape.protocol,
            vip: (vip, 80),
            balance: shape.balance,
            affinity: shape.affinity,
            cluster: targets(family, shape.count),
            local: targets(family, shape.local),
            frontends: Box::new([
                at(At::Cluster(vip, 80), inside, None),
                at(At::External(outside, 80), any, Some(allow)),
                at(At::NodePort(30_000 + number), any, None),
            ]),
        }
    });
    Arc::new(ServicePlan { ports: Box::new(ports) })
}

fn key(number: u16) -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: format!("web-{number}").into() }
}

/// A plan with every feature of the rendering.
fn everything() -> Plan {
    let mut plan = Plan::new(facts(NodePortAddresses::All));
    let shapes = [
        PLAIN,
        Shape { count: 0, ..PLAIN },
        Shape { count: 17, local: 1, by_origin: true, ..PLAIN },
        Shape { count: 3, local: 0, by_origin: true, protocol: Protocol::Udp, ..PLAIN },
        Shape { affinity: Some(10), local: 1, by_origin: true, ..PLAIN },
        Shape { balance: Balance::RoundRobin, count: 3, ..PLAIN },
        Shape { balance: Balance::RoundRobin, affinity: Some(10_800), ..PLAIN },
        Shape { balance: Balance::SourceHash, count: 3, protocol: Protocol::Sctp, ..PLAIN },
        Shape { balance: Balance::SourceHash, affinity: Some(30), ..PLAIN },
    ];
    for (number, shape) in (0..).zip(&shapes) {
        plan.services.insert(key(number), service(number, shape));
    }
    plan
}

fn without_handles(mut state: TableState) -> TableState {
    for (_, rules) in state.chains.values_mut() {
        rules.iter_mut().for_each(|(handle, _)| *handle = 0);
    }
    state
}

fn read(client: &mut Client) -> Tables {
    let mut one =
        |id: &TableId| without_handles(client.table(id).expect("a read").unwrap_or_default());
    Tables { v4: one(&services::table(IpFamily::V4)), v6: one(&services::table(IpFamily::V6)) }
}

fn assert_equal(read: &Tables, wanted: &Tables) {
    for (read, wanted) in [(&read.v4, &wanted.v4), (&read.v6, &wanted.v6)] {
        for (name, chain) in &wanted.chains {
            assert_eq!(read.chains.get(name), Some(chain), "chain {name}");
        }
        for (name, set) in &wanted.sets {
            assert_eq!(read.sets.get(name), Some(set), "set {name}");
        }
    }
    assert_eq!(read, wanted);
}

#[test]
fn a_plan_reads_back_as_it_was_compiled_and_nft_lists_it() {
    let plan = everything();
    let mut client = client();
    let (mirror, batch) = TableMirror::full(&plan);
    assert_eq!(mirror, TableMirror::new(&plan));
    client.commit(&batch).expect("a commit");
    let wanted = services::compile(&plan);
    let read = read(&mut client);
    assert_equal(&read, &wanted);
    assert_eq!(services::diff(Some(&read), &wanted).ops, []);
    let listed = nft(&["list", "ruleset"], "");
    assert!(listed.contains("shop/web-3"), "{listed}");
    let listed = nft(&["-j", "list", "ruleset"], "");
    assert!(listed.contains("shop/web-3"), "{listed}");
    // Whatever is there is replaced.
    client.commit(&TableMirror::full(&plan).1).expect("a commit");
    assert_equal(&self::read(&mut client), &wanted);
}

/// `nft list ruleset >file; nft -f file`, by this system's nft and the newest.
///
/// Rows: RD13
#[test]
fn what_nft_lists_of_services_loads_again_with_the_same_meaning() {
    let plan = everything();
    let wanted = services::compile(&plan);
    let mut client = client();
    client.commit(&TableMirror::full(&plan).1).expect("a commit");
    for program in nfts() {
        load_again(&program);
        assert_equal(&read(&mut client), &wanted);
    }
    // Of random states, those of no service among them.
    for seed in 200..204 {
        for step in random_history(seed).into_iter().step_by(4) {
            client.commit(&TableMirror::full(&step.plan).1).expect("a commit");
            for program in nfts() {
                load_again(&program);
                assert_equal(&read(&mut client), &services::compile(&step.plan));
            }
        }
    }
}

#[test]
fn a_change_leads_to_what_a_fresh_start_would_load() {
    let mut plan = everything();
    let mut client = client();
    let (mut mirror, batch) = TableMirror::full(&plan);
    client.commit(&batch).expect("a commit");
    let steps = [
        (0, Some(Shape { count: 3, ..PLAIN })),
        (2, Some(Shape { count: 16, local: 2, by_origin: true, ..PLAIN })),
        (0, Some(Shape { count: 18, ..PLAIN })),
        (4, Some(Shape { affinity: Some(20), count: 3, ..PLAIN })),
        (5, Some(Shape { balance: Balance::RoundRobin, count: 0, ..PLAIN })),
        (3, None),
        (4, None),
        (1, Some(PLAIN)),
        (9, Some(PLAIN)),
    ];
    for (number, shape) in steps {
        let new = shape.map(|shape| service(number, &shape));
        let old = match &new {
            Some(new) => plan.services.insert(key(number), new.clone()),
            None => plan.services.remove(&key(number)),
        };
        let delta = Delta { services: vec![(key(number), old, new)], here: None };
        let batch = mirror.change(&delta);
        client.commit(&batch).expect("a commit");
        assert_equal(&read(&mut client), &services::compile(&plan));
        assert_eq!(mirror, TableMirror::new(&plan));
    }
}

/// The kernel after every step of random histories holds what a fresh start would load, `nft` lists
/// it, and what changes nothing sends nothing.
#[test]
fn i4_random_histories_lead_to_what_a_fresh_start_would_load() {
    for seed in 100..106 {
        let mut client = client();
        let mut mirror = None;
        for step in random_history(seed) {
            let mirror = mirror.get_or_insert_with(|| {
                let (mirror, batch) = TableMirror::full(&Plan::new(step.plan.facts.clone()));
                client.commit(&batch).expect("a commit");
                mirror
            });
            let batch = mirror.change(&step.delta);
            client.commit(&batch).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            let (wanted, read) = (services::compile(&step.plan), read(&mut client));
            assert_equal(&read, &wanted);
            assert_eq!(services::diff(Some(&read), &wanted).ops, []);
            assert_eq!(mirror.change(&Delta::default()).ops, []);
        }
        nft(&["list", "ruleset"], "");
        nft(&["-j", "list", "ruleset"], "");
    }
}

/// Whatever another process did to the tables, the difference repairs it in one transaction.
#[test]
fn i4_a_damaged_table_is_repaired_by_the_difference() {
    let plan = everything();
    let mut client = client();
    client.commit(&TableMirror::full(&plan).1).expect("a commit");
    let wanted = services::compile(&plan);
    for damage in [
        "delete element ip causeway_services cluster-ips { 10.96.96.1 }",
        "flush map ip6 causeway_services endpoints",
        "flush chain ip causeway_services prerouting",
        "add rule ip causeway_services services accept",
        "flush map ip causeway_services own; flush chain ip causeway_services n-17; \
         delete chain ip causeway_services n-17",
        "add chain ip6 causeway_services theirs; add rule ip6 causeway_services theirs drop",
        "delete table ip causeway_services",
        "flush ruleset",
    ] {
        nft(&["-f", "-"], damage);
        let damaged = read(&mut client);
        let repair = services::diff(Some(&damaged), &wanted);
        assert_ne!(repair.ops, [], "{damage}");
        client.commit(&repair).unwrap_or_else(|error| panic!("{damage}: {error:?}"));
        assert_equal(&read(&mut client), &wanted);
    }
}

#[test]
fn i2_tables_of_others_stay_byte_identical() {
    let mut client = client();
    let theirs = "table inet filter {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 10.96.96.1 }\n\t}\n\n\t\
                  chain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\t\
                  ip saddr @s counter packets 7 bytes 8 drop\n\t}\n}\n";
    nft(&["-f", "-"], theirs);
    let listed = || nft(&["-a", "list", "table", "inet", "filter"], "");
    let before = listed();
    for step in random_history(5) {
        client.commit(&TableMirror::full(&step.plan).1).expect("a commit");
        let actual = read(&mut client);
        let next = services::compile(&everything());
        client.commit(&services::diff(Some(&actual), &next)).expect("a commit");
    }
    let nothing = services::diff(Some(&read(&mut client)), &Tables::default());
    client.commit(&nothing).expect("a commit");
    assert_eq!(read(&mut client), Tables::default());
    assert_eq!(listed(), before);
}
