//! `causeway status`

use std::collections::BTreeMap;

use causeway_api::{OverlayStatus, PeerStatus, PoolStatus, Status, SubnetStatus};
use serde_json::json;

use crate::age::age;
use crate::cli::{Document, Format};
use crate::daemon::Daemon;
use crate::screen::{Screen, Style};
use crate::table;
use crate::{Failure, Verdict};

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let form = Format::of_document(format)?;
    let status: Status = daemon.get("/v1/status")?;
    match form {
        Document::Text => show(screen, &status)?,
        Document::Json => screen.json(&json!(status))?,
        Document::Yaml => screen.yaml(&json!(status))?,
    }
    Ok(Verdict::finding_if(!status.degraded.is_empty()))
}

fn show(screen: &mut Screen, status: &Status) -> Result<(), Failure> {
    let synced =
        status.synced.map_or("never".to_owned(), |seconds| format!("{} ago", age(seconds)));
    screen.say(&format!("Node:      {}", status.node))?;
    screen.say(&format!("Daemon:    causewayd {}, up {}", status.version, age(status.uptime)))?;
    screen.say(&format!("Backend:   {}", status.backend))?;
    let (style, store) = store(status);
    screen.say_in(style, &format!("Store:     {store}"))?;
    many_nodes(screen, status)?;
    screen.say(&format!("Synced:    {synced}"))?;
    screen.say(&format!("Objects:   {}", counts(&status.counts)))?;
    screen.say(&format!("Events:    {}", counts(&status.events)))?;
    if !status.pools.is_empty() {
        screen.say(&format!("Pools:     {}", pools(&status.pools)))?;
    }
    if status.degraded.is_empty() {
        screen.say_in(Style::Good, "State:     OK")?;
    } else {
        screen.say_in(Style::Bad, "State:     DEGRADED")?;
    }
    for problem in &status.degraded {
        screen.say_in(Style::Bad, &format!("  - {problem}"))?;
    }
    if !status.warnings.is_empty() {
        screen.say_in(Style::Notice, "Warnings:")?;
    }
    for warning in &status.warnings {
        screen.say_in(Style::Notice, &format!("  - {warning}"))?;
    }
    if !status.peers.is_empty() {
        screen.say("")?;
        screen.say_all(&peers(&status.peers))?;
    }
    Ok(())
}

/// `etcd http://172.18.0.10:2379, revision 8841`
fn store(status: &Status) -> (Style, String) {
    let Some(cluster) = &status.cluster else { return (Style::Plain, status.store.clone()) };
    let at = format!("{} {}", status.store, cluster.endpoints.join(","));
    if cluster.connected {
        return (Style::Plain, format!("{at}, revision {}", cluster.revision));
    }
    let (away, why) = (age(cluster.away.unwrap_or(0)), cluster.reason.as_deref().unwrap_or("?"));
    let line =
        format!("{at}, unreachable for {away}: {why}; serving revision {}", cluster.revision);
    (Style::Bad, line)
}

/// Lines that a node which is alone does not have.
fn many_nodes(screen: &mut Screen, status: &Status) -> Result<(), Failure> {
    let refused = status.cluster.as_ref().and_then(|cluster| cluster.subnet_refused.as_ref());
    if !status.subnets.is_empty() {
        let all: Vec<String> = status.subnets.iter().map(subnet).collect();
        let lost = status.subnets.iter().any(|subnet| subnet.lease == "lost");
        let style = if lost { Style::Bad } else { Style::Plain };
        screen.say_in(style, &format!("Subnets:   {}", all.join(", ")))?;
    } else if let Some(why) = refused {
        screen.say_in(Style::Bad, &format!("Subnets:   none: {why}"))?;
    } else if status.cluster.is_some() {
        screen.say_in(Style::Notice, "Subnets:   none yet")?;
    }
    if let Some(overlay) = &status.overlay {
        let style = if overlay.failure.is_some() { Style::Bad } else { Style::Plain };
        screen.say_in(style, &format!("Overlay:   {}", overlay_line(overlay)))?;
    }
    if status.cluster.is_some() || !status.peers.is_empty() {
        screen.say(&format!("Peers:     {}", readiness(&status.peers)))?;
    }
    let held = status.cluster.iter().flat_map(|cluster| {
        let nodes = (!cluster.held_nodes.is_empty())
            .then(|| format!("nodes {} that disappeared together", cluster.held_nodes.join(", ")));
        let objects = (cluster.held_objects != 0)
            .then(|| format!("{} objects missing from the store", cluster.held_objects));
        nodes.into_iter().chain(objects)
    });
    for what in held {
        screen.say_in(Style::Notice, &format!("Held:      {what}"))?;
    }
    Ok(())
}

/// `10.0.1.0/24 (leased)`
fn subnet(subnet: &SubnetStatus) -> String {
    let owner = subnet.owner.as_ref().map(|owner| format!(" to node {owner}")).unwrap_or_default();
    let left = subnet.expires.map(|seconds| format!(", {} left", age(seconds)));
    format!("{} ({}{owner}{})", subnet.subnet, subnet.lease, left.unwrap_or_default())
}

/// `vxlan id 1 port 8472 on eth0, MTU 1450, VTEP 0e:1a:00:00:00:01`
fn overlay_line(overlay: &OverlayStatus) -> String {
    let mut line = overlay.kind.clone();
    let mut add = |part: String| line += &part;
    if !overlay.underlay.is_empty() {
        add(format!(" on {}", overlay.underlay));
    }
    overlay.mtu.into_iter().for_each(|mtu| add(format!(", MTU {mtu}")));
    overlay.vtep.iter().for_each(|vtep| add(format!(", VTEP {vtep}")));
    if overlay.repairs != 0 {
        add(format!(", {} repairs", overlay.repairs));
    }
    line
}

/// `default 3 used, 8 free`
fn pools(pools: &[PoolStatus]) -> String {
    let one = |pool: &PoolStatus| format!("{} {} used, {} free", pool.name, pool.used, pool.free);
    pools.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// `1/2 ready`
fn readiness(peers: &[PeerStatus]) -> String {
    let count = |state: &str| peers.iter().filter(|peer| peer.state == state).count();
    let mut line = format!("{}/{} ready", count("Ready"), peers.len());
    for (state, word) in [("NotReady", "not responding"), ("Unknown", "unknown")] {
        if count(state) != 0 {
            line += &format!(", {} {word}", count(state));
        }
    }
    line
}

/// One line per node.
fn peers(peers: &[PeerStatus]) -> Vec<String> {
    const NONE: &str = "<none>";
    let all = |parts: Vec<String>| {
        if parts.is_empty() { NONE.to_owned() } else { parts.join(",") }
    };
    let row = |peer: &PeerStatus| {
        vec![
            peer.name.clone(),
            all(peer.subnets.clone()),
            all(peer.ips.iter().map(ToString::to_string).collect()),
            all(peer.vtep.iter().cloned().collect()),
            all(peer.mtu.iter().map(ToString::to_string).collect()),
            peer.state.clone(),
            peer.age.map_or("<unknown>".to_owned(), age),
        ]
    };
    let rows: Vec<_> = peers.iter().map(row).collect();
    table::lines(&["NODE", "SUBNET", "IP", "VTEP", "MTU", "STATUS", "UP"], &rows)
}

/// `1 endpoint slice, 3 services`
fn counts(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "<none>".to_owned();
    }
    let shown = counts.iter().map(|(name, count)| match (words(name), count) {
        (name, 1) => format!("1 {}", name.trim_end_matches('s')),
        (name, _) => format!("{count} {name}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// `endpointSlices` as `endpoint slices`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}
