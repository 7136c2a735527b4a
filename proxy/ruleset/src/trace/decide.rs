//! A frontend's decision for one packet, and its explanation.

use std::net::SocketAddr;

use causeway_model::Balance;

use super::{Choice, Found, Outcome, Packet};
use crate::iptables::{HASH_BUCKETS, hash_bucket};
use crate::plan::{
    Decision, Masquerade, Plan, PlanContext, Pool, PortPlan, SourceHash, Target, port_name,
};
use crate::spread;

/// Where the packet comes from.
pub(super) fn origin(plan: &Plan, packet: &Packet) -> String {
    let (facts, source) = (&plan.facts, packet.source);
    match facts.cluster_cidr(source) {
        _ if packet.from_node => format!("{source} is this node."),
        Some(net) => format!("{source} is in cluster network {net}."),
        None if plan.is_private(source) => {
            format!("{source} is a container of this node, outside the cluster networks.")
        }
        None if facts.is_outside(source, false) => {
            format!("{source} is outside the cluster networks.")
        }
        None => format!("No cluster network is known for {source}."),
    }
}

/// What becomes of a packet to a frontend.
pub(super) fn outcome(
    plan: &Plan,
    found: &Found<'_>,
    packet: &Packet,
    steps: &mut Vec<String>,
) -> Outcome {
    if let Some(allow) = &found.frontend.allow {
        let Some(net) = allow.iter().find(|net| net.contains(packet.source)) else {
            steps.push("The source is not in loadBalancerSourceRanges: dropped.".to_owned());
            return Outcome::Drop;
        };
        steps.push(format!("The source is in {net} of loadBalancerSourceRanges."));
    }
    match found.frontend.decision {
        Decision::Reject => {
            let name = port_name(found.key, &found.port.name);
            steps.push(format!("{name} has no ready endpoints: rejected, ICMP port unreachable."));
            Outcome::Reject
        }
        Decision::Drop => {
            let other = "internalTrafficPolicy is Local, and all endpoints are on other nodes";
            steps.push(format!("{other}: dropped."));
            Outcome::Drop
        }
        Decision::Balance { pool, masquerade } => {
            if pool == Pool::Local {
                let local = "internalTrafficPolicy is Local: endpoints of this node only.";
                steps.push(local.to_owned());
            }
            let hides = hides(plan, masquerade, packet, steps);
            let choice = (found.port, pool);
            balance(plan, choice, packet, hides, steps)
        }
        Decision::ByOrigin => by_origin(plan, found.port, packet, steps),
    }
}

/// Whether the source is hidden from endpoints other than itself.
fn hides(plan: &Plan, masquerade: Masquerade, packet: &Packet, steps: &mut Vec<String>) -> bool {
    let facts = &plan.facts;
    if !packet.from_node && !facts.masquerade_all && plan.is_private(packet.source) {
        // Said for each endpoint.
        return true;
    }
    let (hides, why) = match masquerade {
        Masquerade::Always => (true, "The source address becomes this node's (masquerade)."),
        Masquerade::Outside if facts.is_outside(packet.source, packet.from_node) => (
            true,
            "The source is not a container: the source address becomes this node's (masquerade).",
        ),
        Masquerade::Outside => (false, "The source address is kept (no masquerade)."),
    };
    steps.push(why.to_owned());
    hides
}

fn by_origin(plan: &Plan, port: &PortPlan, packet: &Packet, steps: &mut Vec<String>) -> Outcome {
    let facts = &plan.facts;
    let (pool, hides, why) = if packet.from_node {
        let why = "and the source is this node: any endpoint; the source address becomes this \
                   node's (masquerade).";
        (Pool::Cluster, true, why)
    } else if facts.cluster_cidr(packet.source).is_some() {
        let why = "but the source is a container: any endpoint; the source address is kept (no \
                   masquerade).";
        (Pool::Cluster, false, why)
    } else if plan.is_private(packet.source) {
        let why = "but the source is a container of this node: any endpoint.";
        (Pool::Cluster, true, why)
    } else if port.local.is_empty() {
        steps.push(by_policy("and all endpoints are on other nodes: dropped."));
        return Outcome::Drop;
    } else {
        let why = "endpoints of this node only; the source address is kept (no masquerade).";
        (Pool::Local, false, why)
    };
    steps.push(by_policy(why));
    balance(plan, (port, pool), packet, hides, steps)
}

fn by_policy(what: &str) -> String {
    format!("externalTrafficPolicy is Local, {what}")
}

fn balance(
    plan: &Plan,
    (port, pool): (&PortPlan, Pool),
    packet: &Packet,
    hides: bool,
    steps: &mut Vec<String>,
) -> Outcome {
    let pool = match pool {
        Pool::Cluster => &*port.cluster,
        Pool::Local => &*port.local,
    };
    let targets = match port.balance {
        Balance::Random | Balance::RoundRobin => pool,
        Balance::SourceHash => hashed(&plan.facts, pool, packet),
    };
    steps.push(how(port, pool, targets));
    let choice = |target: &Target| {
        let itself = target.here && target.address == packet.source;
        let kept = !packet.from_node && plan.keeps(packet.source, target.address);
        let masquerade = itself || hides && !kept;
        Choice { address: target.address, port: target.port, masquerade }
    };
    let choices = targets.iter().map(choice).collect::<Vec<_>>();
    if hides && !packet.from_node && plan.is_private(packet.source) {
        steps.extend(ways_back(plan, packet, &choices));
    }
    if !hides && choices.iter().any(|choice| choice.masquerade) {
        let own = packet.source;
        steps.push(format!(
            "Hairpin: if {own} is picked as its own endpoint, the source address becomes this \
             node's; otherwise replies would be lost."
        ));
    }
    Outcome::Endpoints(choices)
}

/// Who sees a container outside the cluster networks, and who could not answer it.
fn ways_back(plan: &Plan, packet: &Packet, choices: &[Choice]) -> Vec<String> {
    if plan.facts.masquerade_all {
        return vec!["The source address becomes this node's (--masquerade-all).".to_owned()];
    }
    let all = |pick: &dyn Fn(&Choice) -> bool| {
        let picked =
            choices.iter().filter(|choice| pick(choice)).map(|one| one.address.to_string());
        let picked: Vec<_> = picked.collect();
        (!picked.is_empty()).then(|| picked.join(", "))
    };
    let own = packet.source;
    let here = |choice: &Choice| !choice.masquerade;
    let itself = |choice: &Choice| choice.masquerade && choice.address == own;
    let elsewhere = |choice: &Choice| choice.masquerade && choice.address != own;
    [
        all(&here).map(|to| format!("{to}: on this node, so the source address {own} is kept.")),
        all(&itself).map(|to| {
            format!(
                "Hairpin: if {to} is picked as its own endpoint, the source address becomes this \
                 node's; otherwise replies would be lost."
            )
        }),
        all(&elsewhere).map(|to| {
            format!(
                "{to}: not on this node and without a route back to {own}: the source address \
                 becomes this node's (masquerade)."
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The one target of the source.
fn hashed<'a>(facts: &PlanContext, pool: &'a [Target], packet: &Packet) -> &'a [Target] {
    let (buckets, bucket) = match facts.source_hash {
        SourceHash::Nftables => {
            let buckets = spread::buckets(pool.len());
            (buckets, spread::bucket(packet.source, buckets))
        }
        SourceHash::Iptables => (HASH_BUCKETS, hash_bucket(packet.source)),
    };
    let table = spread::table(pool, buckets);
    let owner = usize::try_from(bucket).ok().and_then(|bucket| table.get(bucket));
    let at = owner.map_or(0, |owner| usize::from(*owner));
    &pool[at..pool.len().min(at + 1)]
}

fn how(port: &PortPlan, pool: &[Target], targets: &[Target]) -> String {
    let shown = |target: &Target| SocketAddr::new(target.address, target.port).to_string();
    let how = match (port.balance, pool) {
        (_, [only]) => format!("The only endpoint is {}.", shown(only)),
        (Balance::Random, _) => format!("One of {} endpoints, at random.", pool.len()),
        (Balance::RoundRobin, _) => format!("One of {} endpoints, round-robin.", pool.len()),
        (Balance::SourceHash, _) => {
            let target = targets.first().map(shown).unwrap_or_default();
            format!("Of {} endpoints, the hash of the source selects {target}.", pool.len())
        }
    };
    match port.affinity {
        Some(seconds) if pool.len() > 1 => format!(
            "{how} Session affinity: the endpoint of the source's last connection, if that is less \
             than {seconds} s ago."
        ),
        _ => how,
    }
}
