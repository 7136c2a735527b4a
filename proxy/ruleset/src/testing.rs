//! For tests of this package and of those that carry rules out: services in few words, flows of
//! packets, random histories.
//!
//! The world: this is node `n1` in zone `a` at 192.168.0.1 and fd00:192::1, its bridge is 10.0.1.1
//! and fd00:10:0:1::1. Containers are in 10.0.0.0/16 and fd00:10::/32 (here 10.0.1.x and
//! fd00:10:0:1::x, on `n2` 10.0.2.x and so on; beside them 10.99.0.x and fd00:99::x are networks of
//! this node's own), services in 172.30.0.0/16 and fd00:30::/112, outside
//! is 203.0.113.0/24 and 2001:db8::/32.

mod random;
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_model::{ObjectKey, Resolved};

use crate::plan::{NodePortAddresses, Plan, PlanContext, SourceHash};
use crate::trace::{Choice, Outcome, trace};

pub use random::{Random, Step, random_facts, random_history, random_packet, random_service};
pub use words::{packet, service};

/// Addresses of this node.
pub const LOCAL: [&str; 6] =
    ["192.168.0.1", "10.0.1.1", "127.0.0.1", "fd00:192::1", "fd00:10:0:1::1", "::1"];

/// Facts of the world, default settings.
pub fn facts() -> PlanContext {
    let nets = |nets: [&str; 2]| nets.map(|net| net.parse().expect("a network")).to_vec();
    PlanContext {
        node: "n1".to_owned(),
        zone: Some("a".to_owned()),
        cluster_cidrs: nets(["10.0.0.0/16", "fd00:10::/32"]),
        service_cidrs: nets(["172.30.0.0/16", "fd00:30::/112"]),
        node_port_addresses: NodePortAddresses::All,
        masquerade_all: false,
        node_ips: [LOCAL[0], LOCAL[3]].map(address).to_vec(),
        source_hash: SourceHash::Nftables,
    }
}

/// Services, one per line as [`service`] takes them; empty lines and `#` apart.
pub fn services(text: &str) -> BTreeMap<ObjectKey, Resolved> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(service).map(|one| (one.service.key.clone(), one)).collect()
}

/// A plan of [`services`] under [`facts`].
pub fn plan(text: &str) -> Plan {
    Plan::fresh(facts(), &services(text))
}

/// Whether an address is one of [`LOCAL`] or of localhost.
pub fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || LOCAL.map(self::address).contains(&address)
}

/// Asserts what becomes of a [`packet`], as [`outcome`] says it.
///
/// # Panics
/// Something else becomes of it.
#[track_caller]
pub fn flow(plan: &Plan, text: &str, expected: &str) {
    let trace = trace(plan, &packet(text));
    let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(outcome(&trace.outcome), expected, "{text}: {:#?}", trace.steps);
}

/// [`flow`] of each line `PACKET => OUTCOME`.
///
/// # Panics
/// Something else becomes of one of them.
#[track_caller]
pub fn flows(plan: &Plan, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (packet, expected) = line.split_once(" => ").expect("PACKET => OUTCOME");
        flow(plan, packet.trim(), expected);
    }
}

/// `pass`, `reject`, `drop`, or `ADDRESS:PORT` of each possible endpoint, with ` masq` behind it
/// if its source is hidden.
pub fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Reject => "reject".to_owned(),
        Outcome::Drop => "drop".to_owned(),
        Outcome::Endpoints(choices) => choices.iter().map(choice).collect::<Vec<_>>().join(" "),
    }
}

fn choice(choice: &Choice) -> String {
    let to = std::net::SocketAddr::new(choice.address, choice.port);
    format!("{to}{}", if choice.masquerade { " masq" } else { "" })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}
