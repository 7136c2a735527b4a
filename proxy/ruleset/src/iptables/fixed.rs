//! Chains that are the same whatever services there are, and the jumps to our chains.

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_model::IpFamily;
use ipnetwork::IpNetwork;

use super::{Chains, Table, names, rule};
use crate::LOCALHOST_REPLY;
use crate::plan::{self, Here, HostPlace, NodePortAddresses, PlanContext};

/// A jump from a chain of the kernel.
pub(super) struct Jump {
    pub(super) table: Table,
    pub(super) from: &'static str,
    /// The rule without `-A FROM `.
    pub(super) rule: String,
    pub(super) to: &'static str,
}

/// The jumps, in the order in which they stand at the head of a chain.
pub(super) fn jumps(family: IpFamily) -> Vec<Jump> {
    let services = "-m comment --comment \"causeway services\"";
    let new = "-m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT";
    let refused = format!("{new} {}", rule::comment("causeway refusals"));
    let guard = rule::comment("causeway localhost guard");
    let masquerade = rule::comment("causeway masquerade");
    let forward = rule::comment("causeway forwarding");
    let jump = |table, from, condition: &str, to| Jump {
        table,
        from,
        rule: format!("{condition} -j {to}"),
        to,
    };
    let mut jumps = vec![
        jump(Table::Nat, "PREROUTING", services, names::SERVICES),
        jump(Table::Nat, "OUTPUT", services, names::SERVICES),
        jump(Table::Nat, "POSTROUTING", &masquerade, names::POSTROUTING),
        jump(Table::Filter, "INPUT", &refused, names::FILTER),
        jump(Table::Filter, "FORWARD", &refused, names::FILTER),
        jump(Table::Filter, "FORWARD", &forward, names::FORWARD),
        jump(Table::Filter, "OUTPUT", &refused, names::FILTER),
    ];
    if family == IpFamily::V4 {
        jumps.push(jump(Table::Raw, "PREROUTING", &guard, names::FIREWALL));
        jumps.push(jump(Table::Filter, "INPUT", &guard, names::FIREWALL));
        let replies = "-m conntrack --ctorigsrc 127.0.0.0/8 --ctdir REPLY";
        let replies = format!("{replies} {}", rule::comment("causeway localhost replies"));
        jumps.push(jump(Table::Mangle, "PREROUTING", &replies, names::REPLIES));
    }
    jumps
}

/// The chains.
pub(super) fn chains(facts: &PlanContext, family: IpFamily) -> Chains {
    let mut chains = Chains::new();
    let mut put = |table, name: &str, lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        chains.insert((table, name.into()), lines);
    };
    put(Table::Nat, names::MARK, &["-j MARK --set-xmark 0x4000/0x4000"]);
    // Row 51: if the host forwards nothing by itself, services work all the same.
    let forward = [
        "-m mark --mark 0x4000/0x4000 -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT",
    ];
    put(Table::Filter, names::FORWARD, &forward);
    if family == IpFamily::V4 {
        // CVE-2020-8558: route_localnet lets neighbours send to 127.0.0.1. Answers pass: their
        // destination is still the node's address this early.
        put(Table::Raw, names::FIREWALL, &["-d 127.0.0.0/8 ! -i lo -j DROP"]);
        // Whatever rules make of the destination leads nobody there either; replies to 127.0.0.1 do
        // arrive so.
        let translated = "-d 127.0.0.0/8 ! -i lo -m conntrack --ctdir ORIGINAL -j DROP";
        put(Table::Filter, names::FIREWALL, &[translated]);
        let mark = format!("-j MARK --set-xmark {LOCALHOST_REPLY:#x}/{LOCALHOST_REPLY:#x}");
        put(Table::Mangle, names::REPLIES, &[&mark]);
    }
    chains.insert((Table::Nat, names::MARK_OUTSIDE.into()), mark_outside(facts, family));
    chains
}

/// Chains that follow from the containers of this node as well.
pub(super) fn of_containers(
    facts: &PlanContext,
    containers: &BTreeSet<IpAddr>,
    family: IpFamily,
) -> Chains {
    const UNMARKED: &str = "-m mark ! --mark 0x4000/0x4000 -j RETURN";
    let private: Vec<_> = plan::private(facts, containers, family).map(rule::host).collect();
    let marks = private.iter().map(|source| format!("-s {source} -j {}", names::MARK));
    let mut postrouting = vec![UNMARKED.to_owned()];
    let mut here = Vec::new();
    if !private.is_empty() && !facts.masquerade_all {
        // One container of this node answers another whatever its network.
        let to = |source: &String| format!("-s {source} ! -d {source} -j {}", names::HERE);
        postrouting.extend(private.iter().map(to));
        postrouting.push(UNMARKED.to_owned());
        let of_family = containers.iter().filter(|ip| IpFamily::of(**ip) == family);
        let clear = |ip: &IpAddr| format!("-d {} -j MARK --set-xmark 0x0/0x4000", rule::host(*ip));
        here.extend(of_family.map(clear));
    }
    // The bit is gone before the packet is masqueraded: a tunnel keeps the mark on what it wraps
    // around the packet, which would be masqueraded as well (row 63).
    postrouting.push("-j MARK --set-xmark 0x4000/0x0".to_owned());
    postrouting.push("-j MASQUERADE --random-fully".to_owned());
    Chains::from([
        ((Table::Nat, names::MARK_PRIVATE.into()), marks.collect()),
        ((Table::Nat, names::HERE.into()), here),
        ((Table::Nat, names::POSTROUTING.into()), postrouting),
    ])
}

/// [`PlanContext::is_outside`]
fn mark_outside(facts: &PlanContext, family: IpFamily) -> Vec<String> {
    let nets = of_family(&facts.cluster_cidrs, family);
    if nets.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("-m addrtype --src-type LOCAL -j {}", names::MARK)];
    if let [net] = nets[..] {
        lines.push(format!("! -s {} -j {}", rule::net(net), names::MARK));
        return lines;
    }
    lines.extend(nets.iter().map(|net| format!("-s {} -j RETURN", rule::net(*net))));
    lines.push(format!("-j {}", names::MARK));
    lines
}

/// Rules that lead to the node ports.
pub(super) fn to_node_ports(facts: &PlanContext, family: IpFamily) -> Vec<String> {
    let local = format!("-m addrtype --dst-type LOCAL -j {}", names::NODE_PORTS);
    match facts.node_port_addresses.nets(family) {
        None => vec![local],
        Some(nets) => nets.iter().map(|net| format!("-d {} {local}", rule::net(*net))).collect(),
    }
}

/// Places that host ports of containers have: the rules of these come later.
pub(super) fn to_containers(here: &Here, family: IpFamily) -> Vec<String> {
    let of_family = here.yields.iter().filter(|place| place.family == family);
    let line = |HostPlace { protocol, port, host, .. }: &HostPlace| {
        let to = host.map(|host| format!("-d {} ", rule::host(host))).unwrap_or_default();
        let protocol = rule::protocol(*protocol);
        let local = "-m addrtype --dst-type LOCAL -j RETURN";
        format!("{to}-p {protocol} -m {protocol} --dport {port} {local}")
    };
    of_family.map(line).collect()
}

/// Local addresses without node ports: the head of the chain of node ports.
pub(super) fn not_node_ports(facts: &PlanContext, family: IpFamily) -> Vec<String> {
    let without = match (family, &facts.node_port_addresses) {
        (IpFamily::V4, NodePortAddresses::All) => None,
        (IpFamily::V4, NodePortAddresses::In(_)) => Some("-d 127.0.0.0/8 -j RETURN"),
        (IpFamily::V6, _) => Some("-d ::1/128 -j RETURN"),
    };
    without.into_iter().map(str::to_owned).collect()
}

/// Unallocated addresses of the services' networks are dropped (row 15).
pub(super) fn unallocated(facts: &PlanContext, family: IpFamily) -> Vec<String> {
    let nets = of_family(&facts.service_cidrs, family);
    nets.iter().map(|net| format!("-d {} -j DROP", rule::net(*net))).collect()
}

fn of_family(nets: &[IpNetwork], family: IpFamily) -> Vec<IpNetwork> {
    nets.iter().filter(|net| IpFamily::of(net.ip()) == family).copied().collect()
}
