//! The chains that are there whatever services there are, and their rules.

use std::net::IpAddr;

use causeway_model::IpFamily;
use ipnetwork::IpNetwork;

use super::layout::{Class, RULES, Set, daddr, rule, saddr};
use crate::plan::{NodePortAddresses, PlanContext};
use crate::{
    BaseChain, ChainSpec, Field, Hook, LOCALHOST_REPLY, Match, RegValue, Rule, Statement, Verdict,
};

/// The mark bit of connections to be masqueraded, cleared again when they are.
const MASQUERADE: u32 = 0x4000;
/// Priorities of `raw`, `dstnat` and `srcnat`.
const RAW: i32 = -300;
const FILTER: i32 = 0;
const DSTNAT: i32 = -100;
const AFTER_DSTNAT: i32 = -90;
const SRCNAT: i32 = 100;

/// Chains with their rules.
pub(super) fn chains(facts: &PlanContext, family: IpFamily) -> Vec<(ChainSpec, Vec<Rule>)> {
    let start = || rule([jump("services")]);
    let plain = |name: &str, rules| (ChainSpec { name: name.to_owned(), base: None }, rules);
    let mut chains = vec![
        plain("services", services(facts, family)),
        plain("cluster", cluster(facts, family)),
        plain("external", external(family)),
        plain("external-local", by_origin(facts, family, Class::Address)),
        plain("nodeport", nodeport(family)),
        plain("nodeport-local", by_origin(facts, family, Class::NodePort)),
    ];
    chains.extend(Class::ALL.map(|class| plain(class.pool(), pool(family, class))));
    if family == IpFamily::V4 {
        chains.push((base_chain("guard", "filter", Hook::Prerouting, RAW), vec![guard()]));
        let input = base_chain("translated", "filter", Hook::Input, FILTER);
        chains.push((input, vec![translated()]));
        let after = base_chain("replies", "filter", Hook::Prerouting, AFTER_DSTNAT);
        chains.push((after, vec![replies()]));
    }
    let prerouting = base_chain("prerouting", "nat", Hook::Prerouting, DSTNAT);
    chains.push((prerouting, vec![start()]));
    let mut from_here = vec![start()];
    if detects(facts, family) && !facts.masquerade_all {
        // This node is outside the cluster networks whatever its address.
        let cluster = in_set(vec![daddr(family)], &Set::ClusterIps, false);
        from_here.insert(0, rule([cluster, mark()]));
    }
    chains.push((base_chain("output", "nat", Hook::Output, DSTNAT), from_here));
    let postrouting = base_chain("postrouting", "nat", Hook::Postrouting, SRCNAT);
    chains.push((postrouting, masquerading(facts, family)));
    chains
}

/// Whether sources can be told to be inside or outside the cluster networks (row 18).
fn detects(facts: &PlanContext, family: IpFamily) -> bool {
    facts.cluster_cidrs.iter().any(|net| IpFamily::of(net.ip()) == family)
}

fn guarded(facts: &PlanContext, family: IpFamily) -> bool {
    family == IpFamily::V4 && facts.node_port_addresses == NodePortAddresses::All
}

/// Nothing but this node may send to its localhost, which `route_localnet` opens (CVE-2020-8558).
/// Answers pass: their destination is still the node's address this early.
fn guard() -> Rule {
    let lo = RegValue::IfName("lo".to_owned());
    let elsewhere = Match::Cmp { field: Field::IifName, negate: true, value: lo };
    let mut rule = rule([
        Statement::Match(elsewhere),
        Statement::Match(localhost(IpFamily::V4, false)),
        Statement::Verdict(Verdict::Drop),
    ]);
    rule.comment = Some("127.0.0.0/8 comes from lo only".to_owned());
    rule
}

/// Whatever rules make of a destination leads nobody to localhost either. Replies to 127.0.0.1
/// arrive here so.
fn translated() -> Rule {
    let lo = RegValue::IfName("lo".to_owned());
    let mut rule = rule([
        Statement::Match(localhost(IpFamily::V4, false)),
        Statement::Match(Match::Cmp { field: Field::IifName, negate: true, value: lo }),
        Statement::Match(Match::CtDirection { reply: false }),
        Statement::Verdict(Verdict::Drop),
    ]);
    rule.comment = Some("nor by translation".to_owned());
    rule
}

/// See [`LOCALHOST_REPLY`].
fn replies() -> Rule {
    let mut rule = rule([
        Statement::Match(localhost(IpFamily::V4, false)),
        Statement::Match(Match::CtDirection { reply: true }),
        Statement::SetMark { mask: LOCALHOST_REPLY, value: LOCALHOST_REPLY },
    ]);
    rule.comment = Some("replies to 127.0.0.0/8".to_owned());
    rule
}

fn localhost(family: IpFamily, negate: bool) -> Match {
    let (address, prefix) = match family {
        IpFamily::V4 => (IpAddr::from([127, 0, 0, 0]), 8),
        IpFamily::V6 => (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
    };
    let net = IpNetwork::new(address, prefix).expect("8 and 128 are prefix lengths");
    Match::net(daddr(family), negate, net)
}

fn services(facts: &PlanContext, family: IpFamily) -> Vec<Rule> {
    let to = |set, fields, chain: &str| rule([in_set(fields, &set, false), goto(chain)]);
    let mut nodeports = vec![in_set(Class::NodePort.fields(family), &Set::NodePorts, false)];
    if !guarded(facts, family) {
        nodeports.push(Statement::Match(localhost(family, true)));
    }
    if facts.node_port_addresses.nets(family).is_some() {
        nodeports.push(in_set(vec![daddr(family)], &Set::NodePortIps, false));
    }
    nodeports.push(Statement::Match(Match::FibDaddrLocal { negate: false }));
    nodeports.push(goto("nodeport"));
    let unallocated = [
        in_networks(daddr(family), &facts.service_cidrs, &Set::ServiceCidrs, false),
        Statement::Verdict(Verdict::Drop),
    ];
    let mut rules = vec![
        to(Set::ClusterIps, vec![daddr(family)], "cluster"),
        to(Set::Externals, Class::Address.fields(family), "external"),
        rule(nodeports),
    ];
    if facts.service_cidrs.iter().any(|net| IpFamily::of(net.ip()) == family) {
        rules.push(rule(unallocated));
    }
    rules
}

fn cluster(facts: &PlanContext, family: IpFamily) -> Vec<Rule> {
    let mut rules = Vec::new();
    if facts.masquerade_all {
        rules.push(rule([mark()]));
    } else if detects(facts, family) {
        rules.push(rule([inside(facts, family, true), mark()]));
    }
    rules.push(rule([goto(Class::Address.pool())]));
    rules
}

/// Whether the source is in a cluster network.
fn inside(facts: &PlanContext, family: IpFamily, negate: bool) -> Statement {
    in_networks(saddr(family), &facts.cluster_cidrs, &Set::ClusterCidrs, negate)
}

/// One network is compared, which is faster than to look it up.
fn in_networks(field: Field, nets: &[IpNetwork], set: &Set, negate: bool) -> Statement {
    let mut of_family =
        nets.iter().filter(|net| RegValue::from(net.ip()).data_type() == field.data_type());
    match (of_family.next(), of_family.next()) {
        (Some(net), None) => Statement::Match(Match::net(field, negate, *net)),
        _ => in_set(vec![field], set, negate),
    }
}

/// Host ports of containers have the places that services ask for as well.
fn to_containers(family: IpFamily) -> [Rule; 2] {
    let back = || Statement::Verdict(Verdict::Return);
    let local = Statement::Match(Match::FibDaddrLocal { negate: false });
    [
        rule([in_set(Class::Address.fields(family), &Set::HostPortAddresses, false), back()]),
        rule([in_set(Class::NodePort.fields(family), &Set::HostPorts, false), local, back()]),
    ]
}

fn external(family: IpFamily) -> Vec<Rule> {
    let fields = || Class::Address.fields(family);
    let with_source = [saddr(family)].into_iter().chain(fields()).collect();
    let mut rules = to_containers(family).to_vec();
    rules.extend([
        rule([
            in_set(fields(), &Set::Restricted, false),
            in_set(with_source, &Set::Allowed, true),
            Statement::Verdict(Verdict::Drop),
        ]),
        rule([in_set(fields(), &Set::LocalPolicy, false), goto("external-local")]),
        rule([mark()]),
        rule([goto(Class::Address.pool())]),
    ]);
    rules
}

fn nodeport(family: IpFamily) -> Vec<Rule> {
    let local = in_set(Class::NodePort.fields(family), &Set::NodePortLocalPolicy, false);
    let mut rules = to_containers(family).to_vec();
    rules.extend([
        rule([local, goto("nodeport-local")]),
        rule([mark()]),
        rule([goto(Class::NodePort.pool())]),
    ]);
    rules
}

/// External policy `Local`: this node itself and containers get any endpoint, all others one of
/// this node.
fn by_origin(facts: &PlanContext, family: IpFamily, any: Class) -> Vec<Rule> {
    let local = match any {
        Class::Address | Class::AddressLocal => Class::AddressLocal,
        Class::NodePort | Class::NodePortLocal => Class::NodePortLocal,
    };
    let here = Statement::Match(Match::FibSaddrLocal { negate: false });
    let mut rules = vec![rule([here, mark(), goto(any.pool())])];
    if detects(facts, family) {
        let private = in_set(vec![saddr(family)], &Set::Containers, false);
        rules.push(rule([inside(facts, family, true), private, mark(), goto(any.pool())]));
        rules.push(rule([inside(facts, family, false), goto(any.pool())]));
    }
    rules.push(rule([goto(local.pool())]));
    rules
}

fn pool(family: IpFamily, class: Class) -> Vec<Rule> {
    let own = Set::Own(class).spec(family).name;
    let fields = || class.fields(family);
    let mut rules = vec![rule([Statement::VerdictMap { fields: fields(), map: own }])];
    rules.extend((1..=RULES).map(|targets| class.sized_rule(family, targets)));
    let drop = || Statement::Verdict(Verdict::Drop);
    let drops = match class {
        Class::Address => Set::Drops,
        Class::NodePort => Set::NodePortDrops,
        // Row 34: endpoints, but none here.
        Class::AddressLocal | Class::NodePortLocal => {
            rules.push(rule([drop()]));
            return rules;
        }
    };
    rules.push(rule([in_set(fields(), &drops, false), drop()]));
    rules.push(rule([Statement::Reject]));
    rules
}

/// The bit is cleared, as a tunnelled packet keeps its mark and would be masqueraded twice.
fn masquerading(facts: &PlanContext, family: IpFamily) -> Vec<Rule> {
    let masquerade = || Statement::Masquerade { random: true };
    let marked = Match::Bits { field: Field::Mark, mask: MASQUERADE, negate: true, value: 0 };
    let marked = || Statement::Match(marked.clone());
    let clear = || Statement::SetMark { mask: MASQUERADE, value: 0 };
    let translated = Statement::Match(Match::CtStatusDnat { negate: false });
    let itself = |negate| in_set(vec![saddr(family), daddr(family)], &Set::Hairpin, negate);
    let mut rules = Vec::new();
    if detects(facts, family) && !facts.masquerade_all {
        // One container of this node answers another whatever its network.
        rules.push(rule([
            marked(),
            inside(facts, family, true),
            in_set(vec![saddr(family)], &Set::Containers, false),
            in_set(vec![daddr(family)], &Set::Containers, false),
            itself(true),
            clear(),
            Statement::Verdict(Verdict::Return),
        ]));
    }
    rules.push(rule([marked(), clear(), masquerade()]));
    rules.push(rule([translated, itself(false), masquerade()]));
    rules
}

fn mark() -> Statement {
    Statement::SetMark { mask: MASQUERADE, value: MASQUERADE }
}

fn in_set(fields: Vec<Field>, set: &Set, negate: bool) -> Statement {
    Statement::Match(Match::InSet { fields, set: set.name().to_owned(), negate })
}

fn goto(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain.to_owned()))
}

fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.to_owned()))
}

fn base_chain(name: &str, kind: &str, hook: Hook, priority: i32) -> ChainSpec {
    let base = BaseChain { kind: kind.to_owned(), hook, priority, policy_drop: false };
    ChainSpec { name: name.to_owned(), base: Some(base) }
}
