//! The table `inet causeway_hostport`: its content besides elements. Everything that an
//! attachment adds is an element of a map or set, so its cost does not grow with their number.
//!
//! ```text
//! prerouting, output (nat, -100)  fib daddr type local -> hostports
//! hostports                       dnat to map addr4, any4, addr6, any6; then jump if4-<id>
//! if4-<id>                        conditions of a network, then dnat to its own maps
//! postrouting (nat, 100)          masquerade by the sets hairpin, localhost, masqall
//! guard (filter, -300)            drops 127.0.0.0/8 that does not come from lo (CVE-2020-8558)
//! replies (filter, -90)           marks replies to 127.0.0.0/8 for the guard of links
//! ```
//!
//! Only packets to an address of this node are looked at (GHSA-jv3w-x3r3-g6rm). `::1` is left
//! alone: the kernel routes nothing from it to another link, so a connection would hang where now
//! it is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_kernel::LOCALHOST_REPLY;
use causeway_ruleset::owned::{Layout, fill};
use causeway_ruleset::{
    BaseChain, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key, MapTarget,
    Match, NatTarget, Op, RegValue, Rule, SetSpec, Statement, TableId, Verdict,
};
use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use crate::conditions::Conditions;

/// The chain that holds the port mappings and the jumps to conditional ones.
pub(crate) const HOSTPORTS: &str = "hostports";
/// Priorities of `dstnat`, `srcnat` and `raw`.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
const RAW: i32 = -300;
const AFTER_DSTNAT: i32 = -90;
const SCOPE_PREFIX: &str = "if";

/// Our table.
pub(crate) fn table() -> TableId {
    TableId { family: Family::Inet, name: "causeway_hostport".into() }
}

/// The maps that mappings of one family under the same conditions share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// IPv6
    pub ipv6: bool,
    /// [`Conditions::id`]; `None` without conditions.
    pub id: Option<String>,
}

impl Scope {
    fn name(&self, kind: &str) -> String {
        let digit = if self.ipv6 { 6 } else { 4 };
        match &self.id {
            None => format!("{kind}{digit}"),
            Some(id) => format!("{kind}{digit}-{id}"),
        }
    }

    fn map(&self, kind: &str, address: bool) -> SetSpec {
        let ip = address_type(self.ipv6);
        let port = [DataType::InetProto, DataType::InetService];
        let key = address.then_some(ip).into_iter().chain(port).collect();
        let target = Some(MapTarget::Data(vec![ip, DataType::InetService]));
        set(self.name(kind), key, target)
    }

    /// Mappings of every local address: protocol . port -> address . port.
    pub(crate) fn any(&self) -> SetSpec {
        self.map("any", false)
    }

    /// Mappings of one address: address . protocol . port -> address . port.
    pub(crate) fn address(&self) -> SetSpec {
        self.map("addr", true)
    }

    /// As many elements a protocol . port as [`Scope::address`] has, numbered from 0: a new mapping
    /// of every address is refused by one lookup. A number in one element would have to be replaced
    /// by every ADD, and whoever deletes waits for the kernel to free what was deleted (some 10 ms).
    pub(crate) fn taken(&self) -> SetSpec {
        let key = vec![DataType::InetProto, DataType::InetService, DataType::Mark];
        set(self.name("taken"), key, None)
    }

    /// Chain of conditional mappings, and what its sets' names start with.
    pub(crate) fn chain(&self) -> Option<String> {
        self.id.as_ref().map(|_| self.name(SCOPE_PREFIX))
    }

    /// The scope that a rule of chain [`HOSTPORTS`] jumps to.
    pub(crate) fn of_jump(rule: &Rule) -> Option<Self> {
        rule.statements.iter().find_map(|statement| {
            let Statement::Verdict(Verdict::Jump(chain)) = statement else { return None };
            let (digit, id) = chain.strip_prefix(SCOPE_PREFIX)?.split_once('-')?;
            Some(Self { ipv6: digit == "6", id: Some(id.to_owned()) })
        })
    }
}

/// Connections from a container to itself: address . address.
pub(crate) fn hairpin(ipv6: bool) -> SetSpec {
    let ip = address_type(ipv6);
    set(family_name("hairpin", ipv6), vec![ip, ip], None)
}

/// Containers that 127.0.0.0/8 reaches.
pub(crate) fn localhost() -> SetSpec {
    set("localhost4".into(), vec![DataType::Ipv4Addr], None)
}

/// Containers that see the node as every connection's source.
pub(crate) fn masq_all(ipv6: bool) -> SetSpec {
    set(family_name("masqall", ipv6), vec![address_type(ipv6)], None)
}

/// One element per attachment: whether any of its rules are there is one lookup.
pub(crate) fn attachments() -> SetSpec {
    set("attachments".into(), vec![DataType::Mark, DataType::Mark], None)
}

/// The key of an attachment: 64 bits of a hash over its owner comment.
pub(crate) fn attachment_key(owner: &str) -> Key {
    let digest = Sha256::digest(owner);
    let words = digest.chunks_exact(4).take(2).map(|word| {
        let number = word.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        RegValue::Mark(number)
    });
    Key::Exact(words.collect())
}

/// The hashes that an owner comment begins with: as good a name, and a file may have it.
pub(crate) fn short(owner: &str) -> &str {
    owner.split(' ').next().unwrap_or_default()
}

/// A port of a protocol, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// Protocol.
    pub protocol: u8,
    /// Port.
    pub port: u16,
}

/// Key of a mapping: `host` only in an [`Scope::address`] map.
pub(crate) fn port_key(host: Option<IpAddr>, protocol: u8, port: u16) -> Key {
    let address = host.map(RegValue::from);
    let rest = [RegValue::Proto(protocol), RegValue::Port(port)];
    Key::Exact(address.into_iter().chain(rest).collect())
}

/// Key of the `slot`th element of a [`Scope::taken`] set.
pub(crate) fn slot_key(port: Port, slot: u32) -> Key {
    let Port { protocol, port } = port;
    Key::Exact(vec![RegValue::Proto(protocol), RegValue::Port(port), RegValue::Mark(slot)])
}

/// What an element of a [`Scope::taken`] set counts; `None` for those of other sets.
pub(crate) fn slot_at(set: &str, key: &Key) -> Option<(Scope, Port)> {
    let rest = set.strip_prefix("taken")?;
    let (digit, id) = match rest.split_once('-') {
        Some((digit, id)) => (digit, Some(id.to_owned())),
        None => (rest, None),
    };
    let Key::Exact(parts) = key else { return None };
    let [RegValue::Proto(protocol), RegValue::Port(port), _] = parts.as_slice() else {
        return None;
    };
    let scope = Scope { ipv6: digit == "6", id };
    Some((scope, Port { protocol: *protocol, port: *port }))
}

/// Value of a mapping.
pub(crate) fn target(address: IpAddr, port: u16) -> ElementValue {
    ElementValue::Data(vec![RegValue::from(address), RegValue::Port(port)])
}

/// Every set without those of conditional scopes.
fn base_sets() -> Vec<SetSpec> {
    let of_scope = |ipv6| {
        let scope = Scope { ipv6, id: None };
        [scope.any(), scope.address(), scope.taken(), hairpin(ipv6), masq_all(ipv6)]
    };
    let mut sets: Vec<SetSpec> = [false, true].into_iter().flat_map(of_scope).collect();
    sets.extend([localhost(), attachments()]);
    sets
}

/// The table without elements and conditional scopes.
pub(crate) fn layout() -> Layout {
    let chains = vec![
        (ChainSpec { name: HOSTPORTS.into(), base: None }, hostport_rules()),
        (nat_chain("prerouting", Hook::Prerouting, DSTNAT), vec![local_rule()]),
        (nat_chain("output", Hook::Output, DSTNAT), vec![loopback6_rule(), local_rule()]),
        (nat_chain("postrouting", Hook::Postrouting, SRCNAT), masquerade_rules()),
        (filter_chain("guard", RAW), vec![guard_rule()]),
        (filter_chain("replies", AFTER_DSTNAT), vec![replies_rule()]),
    ];
    Layout::new(table(), base_sets(), chains)
}

/// Rules that chain [`HOSTPORTS`] starts with.
fn hostport_rules() -> Vec<Rule> {
    let scopes = [false, true].map(|ipv6| Scope { ipv6, id: None });
    scopes.iter().flat_map(|scope| dnat_rules(scope, &[])).collect()
}

/// Makes the base again: existing elements stay, rules are written again in one transaction, and
/// `jumps` (read before) survive.
pub(crate) fn base(jumps: &[Rule]) -> Vec<Op> {
    let mut layout = layout();
    for (chain, rules) in &mut layout.chains {
        if chain.name == HOSTPORTS {
            rules.extend(jumps.iter().cloned());
        }
    }
    layout.rewrite()
}

/// Makes the maps and the chain of conditional mappings.
pub(crate) fn conditional(scope: &Scope, conditions: &Conditions) -> Vec<Op> {
    let Some(chain) = scope.chain() else { return Vec::new() };
    let mut ops = Vec::new();
    for set in [scope.any(), scope.address(), scope.taken()] {
        ops.push(Op::AddSet(table(), set));
    }
    for (set, elements) in conditions.sets(&chain) {
        ops.push(Op::AddSet(table(), set.clone()));
        ops.push(Op::FlushSet(table(), set.name.clone()));
        ops.push(Op::AddElements { table: table(), set, elements, exclusive: false });
    }
    let rules = dnat_rules(scope, &conditions.statements(&chain));
    ops.extend(fill(&table(), &ChainSpec { name: chain.clone(), base: None }, &rules));
    let jump = Rule { statements: vec![Statement::Verdict(Verdict::Jump(chain))], comment: None };
    ops.push(Op::AddRule { table: table(), chain: HOSTPORTS.into(), rule: jump });
    ops
}

fn dnat_rules(scope: &Scope, conditions: &[Statement]) -> Vec<Rule> {
    let daddr = if scope.ipv6 { Field::Ip6Daddr } else { Field::IpDaddr };
    let port = [Field::L4Proto, Field::ThDport];
    let with_address = std::iter::once(daddr).chain(port).collect();
    [(with_address, scope.address()), (port.to_vec(), scope.any())]
        .into_iter()
        .map(|(fields, map)| {
            let mut statements = vec![Statement::Match(Match::NfProto { ipv6: scope.ipv6 })];
            statements.extend(conditions.iter().cloned());
            let to = NatTarget::Map { fields, map: map.name, ipv6: scope.ipv6 };
            statements.push(Statement::Dnat(to));
            Statement::without_implied(&mut statements);
            Rule { statements, comment: None }
        })
        .collect()
}

fn local_rule() -> Rule {
    matching([Match::FibDaddrLocal { negate: false }], Verdict::Jump(HOSTPORTS.into()))
}

fn loopback6_rule() -> Rule {
    let value = RegValue::V6(Ipv6Addr::LOCALHOST);
    let loopback = Match::Cmp { field: Field::Ip6Daddr, negate: false, value };
    matching([loopback], Verdict::Return)
}

fn guard_rule() -> Rule {
    let lo = RegValue::IfName("lo".into());
    let elsewhere = Match::Cmp { field: Field::IifName, negate: true, value: lo };
    let mut rule = matching([elsewhere, loopback(Field::IpDaddr)], Verdict::Drop);
    rule.comment = Some("127.0.0.0/8 comes from lo only".into());
    rule
}

/// Both ends of the edge name the same bit.
const _: () = assert!(LOCALHOST_REPLY == causeway_ruleset::LOCALHOST_REPLY);

/// With `bridge-nf-call-iptables` replies are translated before they leave the bridge; the filter of
/// [`LOCALHOST_REPLY`] sees them afterwards.
fn replies_rule() -> Rule {
    let reply = Match::CtDirection { reply: true };
    let mark = Statement::SetMark { mask: LOCALHOST_REPLY, value: LOCALHOST_REPLY };
    let statements =
        vec![Statement::Match(loopback(Field::IpDaddr)), Statement::Match(reply), mark];
    Rule { statements, comment: Some("replies to 127.0.0.0/8".into()) }
}

fn masquerade_rules() -> Vec<Rule> {
    let in_set =
        |fields: Vec<Field>, set: SetSpec| Match::InSet { fields, set: set.name, negate: false };
    let rule = |matches: Vec<Match>| {
        let first = [Match::CtStatusDnat { negate: false }];
        let all = first.into_iter().chain(matches).map(Statement::Match);
        let masquerade = Statement::Masquerade { random: false };
        Rule { statements: all.chain([masquerade]).collect(), comment: None }
    };
    let mut rules = Vec::new();
    for (ipv6, saddr, daddr) in
        [(false, Field::IpSaddr, Field::IpDaddr), (true, Field::Ip6Saddr, Field::Ip6Daddr)]
    {
        rules.push(rule(vec![in_set(vec![saddr, daddr], hairpin(ipv6))]));
        rules.push(rule(vec![in_set(vec![daddr], masq_all(ipv6))]));
    }
    let from = loopback(Field::IpSaddr);
    rules.push(rule(vec![from, in_set(vec![Field::IpDaddr], localhost())]));
    rules
}

fn loopback(field: Field) -> Match {
    let net = IpNetwork::V4(
        ipnetwork::Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8)
            .expect("8 is a prefix length"),
    );
    Match::Net { field, negate: false, net }
}

fn matching<const N: usize>(matches: [Match; N], verdict: Verdict) -> Rule {
    let matches = matches.into_iter().map(Statement::Match);
    Rule { statements: matches.chain([Statement::Verdict(verdict)]).collect(), comment: None }
}

fn nat_chain(name: &str, hook: Hook, priority: i32) -> ChainSpec {
    base_chain(name, "nat", hook, priority)
}

fn filter_chain(name: &str, priority: i32) -> ChainSpec {
    base_chain(name, "filter", Hook::Prerouting, priority)
}

fn base_chain(name: &str, kind: &str, hook: Hook, priority: i32) -> ChainSpec {
    let base = BaseChain { kind: kind.into(), hook, priority, policy_drop: false };
    ChainSpec { name: name.into(), base: Some(base) }
}

fn set(name: String, key: Vec<DataType>, target: Option<MapTarget>) -> SetSpec {
    SetSpec { name, key, target, interval: false, dynamic: false, timeout_ms: None }
}

fn address_type(ipv6: bool) -> DataType {
    if ipv6 { DataType::Ipv6Addr } else { DataType::Ipv4Addr }
}

fn family_name(kind: &str, ipv6: bool) -> String {
    format!("{kind}{}", if ipv6 { 6 } else { 4 })
}

/// An element of a set.
pub(crate) fn member(key: Vec<RegValue>, comment: &str) -> Element {
    Element { key: Key::Exact(key), value: None, comment: Some(comment.to_owned()) }
}
