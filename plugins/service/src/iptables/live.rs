//! Attachments in the output of `iptables-save`: whose chains are in use, and for what. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use crate::iptables::names::{DNAT_CHAIN, DNAT_PREFIX, Names};
use crate::iptables::save::{Rule, Saved};
use crate::mapping::{Binding, Protocol};

/// Whether another attachment's chain is in use.
pub(crate) fn other_attachments(saved: &Saved, names: &Names) -> bool {
    saved
        .chain("nat", DNAT_CHAIN)
        .iter()
        .any(|rule| rule.target().is_some_and(|target| target != names.chain))
}

/// The attachments of a network, by the comments of the jumps to their chains.
pub(crate) fn attachments(saved: &Saved, network: &str) -> Vec<Names> {
    let prefix = Names::comment_prefix(network);
    let names = |rule: &&Rule| {
        let comment = rule.option("--comment").filter(|text| text.starts_with(&prefix))?;
        let chain = rule.target().filter(|chain| chain.starts_with(DNAT_PREFIX))?;
        Some(Names { chain: chain.to_owned(), comment: comment.to_owned() })
    };
    let mut all: Vec<Names> = saved.chain("nat", DNAT_CHAIN).iter().filter_map(names).collect();
    all.dedup();
    all
}

/// The chains of attachments that 127.0.0.1 reaches, and the containers' addresses.
pub(crate) fn localhost_targets(saved: &Saved) -> Vec<(&str, Ipv4Addr)> {
    let mut from_localhost: BTreeSet<&str> = BTreeSet::new();
    let mut targets = BTreeMap::new();
    for rule in saved.rules("nat").filter(|rule| rule.chain.starts_with(DNAT_PREFIX)) {
        if rule.option("-s") == Some("127.0.0.1/32") {
            from_localhost.insert(&rule.chain);
        }
        let target = rule.option("--to-destination").and_then(|to| to.parse().ok());
        if let Some(SocketAddr::V4(target)) = target {
            targets.insert(rule.chain.as_str(), *target.ip());
        }
    }
    targets.into_iter().filter(|(chain, _)| from_localhost.contains(chain)).collect()
}

/// The first of the wanted host ports `bindings` that a live chain maps, with its comment.
/// `conditional`: other packets than those of another attachment may be asked for.
pub(crate) fn owner_of_port<'a>(
    saved: &Saved,
    own: &Names,
    bindings: &'a [Binding],
    conditional: bool,
) -> Option<(&'a Binding, String)> {
    let jumps = saved.chain("nat", DNAT_CHAIN);
    let mut live: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
    for jump in &jumps {
        let Some(target) = jump.target().filter(|name| name.starts_with(DNAT_PREFIX)) else {
            continue;
        };
        let comment = jump.option("--comment").unwrap_or_default();
        let plain = is_plain(jump);
        let entry = live.entry(target).or_insert((comment, plain));
        entry.1 |= plain;
    }
    saved.rules("nat").find_map(|rule| {
        let (comment, plain) = live.get(rule.chain.as_str())?;
        // Two different conditions are the administrator's way to share a port.
        if !plain && conditional && rule.chain != own.chain {
            return None;
        }
        let there = dnat(rule, bindings)?;
        let mut overlapping = bindings.iter().filter(|one| one.overlaps(&there));
        overlapping.next().map(|binding| (binding, (*comment).to_owned()))
    })
}

/// The mapping of a DNAT rule, with the family of the wanted ones.
fn dnat(rule: &Rule, wanted: &[Binding]) -> Option<Binding> {
    if rule.target() != Some("DNAT") {
        return None;
    }
    let host = match rule.option("-d") {
        Some(net) => Some(net.split('/').next()?.parse().ok()?),
        None => None,
    };
    Some(Binding {
        protocol: Protocol::parse(rule.option("-p")?)?,
        host,
        host_port: rule.option("--dport")?.parse().ok()?,
        target: wanted.first()?.target,
    })
}

/// Whether a jump looks at nothing but protocol and ports.
fn is_plain(jump: &Rule) -> bool {
    let plain = ["-p", "-m", "--comment", "--dports", "-j"];
    jump.args.chunks(2).all(|pair| {
        let known = pair.first().is_some_and(|option| plain.contains(&option.as_str()));
        let module = pair.first().is_some_and(|option| option == "-m");
        let value = pair.get(1).map(String::as_str);
        known && (!module || matches!(value, Some("comment" | "multiport")))
    })
}
