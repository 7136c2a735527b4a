//! The nodes as this one sees them: by settings, the cluster store or the peers file, the overlay,
//! and `v1 Node` documents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{Labels, Node, Peer};

pub(crate) use crate::request::answer::{NodeView, Ready};
use crate::state::{ClusterState, State};

/// Label that every node has.
const HOSTNAME: &str = "kubernetes.io/hostname";

impl Ready {
    /// As a condition has it.
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Self::Yes => "True",
            Self::No => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// As users read it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Yes => "Ready",
            Self::No => "NotReady",
            Self::Unknown => "Unknown",
        }
    }
}

/// All nodes, by name.
pub(crate) fn all(state: &State) -> BTreeMap<String, NodeView> {
    let this = &state.node.name;
    let names: BTreeSet<&String> =
        state.index.nodes().keys().chain(state.peers.keys()).chain([this]).collect();
    let shared = shared_addresses(state);
    names.into_iter().filter_map(|name| Some((name.clone(), view(state, name, &shared)?))).collect()
}

/// A node.
pub(crate) fn one(state: &State, name: &str) -> Option<NodeView> {
    view(state, name, &shared_addresses(state))
}

fn view(state: &State, name: &str, shared: &Shared) -> Option<NodeView> {
    let document = state.index.nodes().get(name);
    let mut view = if name == state.node.name {
        this(state)
    } else if let Some(peer) = state.peers.get(name) {
        other(state, peer)
    } else {
        documented(document?)
    };
    view.labels.insert(HOSTNAME.to_owned(), name.to_owned());
    if let Some(document) = document {
        view.labels.extend(document.labels.to_map());
        view.created = Some(document.created);
    }
    if view.problem.is_none() {
        view.problem = shared.of(&view);
    }
    Some(view)
}

/// This one, by its own knowledge.
fn this(state: &State) -> NodeView {
    let node = &state.node;
    let record = state.peers.get(&node.name).and_then(|peer| peer.record.as_ref());
    let overlay = state.overlay.as_ref();
    let excluded = state.cluster.as_ref().and_then(|cluster| cluster.excluded.clone());
    let (ready, reason, message) = match excluded {
        Some(why) => (Ready::No, "Excluded", why),
        None => (Ready::Yes, "Runs", "causewayd is running".to_owned()),
    };
    NodeView {
        name: node.name.clone(),
        ips: node.ips.clone(),
        subnets: node.subnets.clone(),
        vtep: overlay.and_then(|overlay| overlay.vtep),
        mtu: overlay.map(|overlay| overlay.mtu).filter(|mtu| *mtu != 0),
        labels: node.labels.clone(),
        created: Some(state.progress.born),
        ready,
        reason,
        message,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        machine_id: record.map(|record| record.identity.machine_id.clone()),
        boot_id: record.map(|record| record.boot_id.clone()),
        problem: no_subnet(state).or_else(|| overlay?.problems.get(&node.name).cloned()),
    }
}

/// Why this node has no subnet, if it has none.
pub(crate) fn no_subnet(state: &State) -> Option<String> {
    state.cluster.as_ref()?.subnets.as_ref()?.refused()
}

/// Another one, by what it published.
fn other(state: &State, peer: &Peer) -> NodeView {
    let (ready, reason, message) = liveness(state.cluster.as_ref(), peer);
    let record = peer.record.as_ref();
    let planned = state.overlay.as_ref().and_then(|overlay| overlay.problems.get(&peer.name));
    let waiting = || {
        (record.is_some() && peer.subnets.is_empty()).then(|| {
            format!(
                "waiting for node {} to publish its subnet; run `causeway status` there to see why \
                 it has none",
                peer.name
            )
        })
    };
    NodeView {
        name: peer.name.clone(),
        ips: peer.ips.clone(),
        subnets: peer.subnets.clone(),
        vtep: peer.vtep,
        mtu: peer.mtu,
        labels: record.map(|record| record.labels.clone()).unwrap_or_default(),
        created: record.map(|record| record.started),
        ready,
        reason,
        message,
        version: record.map(|record| record.version.clone()),
        machine_id: record.map(|record| record.identity.machine_id.clone()),
        boot_id: record.map(|record| record.boot_id.clone()),
        problem: planned.cloned().or_else(waiting),
    }
}

fn liveness(cluster: Option<&ClusterState>, peer: &Peer) -> (Ready, &'static str, String) {
    let Some(cluster) = cluster else {
        let message = "it is listed in the peers file; whether it is alive is unknown";
        return (Ready::Unknown, "PeersFile", message.to_owned());
    };
    let is_held = cluster.held_nodes.contains(&peer.name);
    let (ready, reason, message) = match (&peer.record, &cluster.connection) {
        (Some(_), Ok(())) if is_held => (
            Ready::Unknown,
            "Held",
            "it disappeared together with other nodes; treated as alive until the endpoint TTL \
             ends",
        ),
        (Some(_), Ok(())) => (Ready::Yes, "Heard", "its causewayd renews its record in the store"),
        (Some(_), Err(_)) => (
            Ready::Unknown,
            "StoreAway",
            "the cluster store is unreachable; the node was ready when last seen",
        ),
        (None, _) => (
            Ready::No,
            "NotHeard",
            "no heartbeat from its causewayd: its containers were removed from services; routes to \
             it stay until its subnet lease ends, or until `causeway delete node`",
        ),
    };
    (ready, reason, message.to_owned())
}

/// One that a document names and nothing else.
fn documented(document: &Node) -> NodeView {
    NodeView {
        name: document.key.name.to_string(),
        ips: document.addresses.to_vec(),
        subnets: Vec::new(),
        vtep: None,
        mtu: None,
        labels: Labels::new(),
        created: Some(document.created),
        ready: Ready::Unknown,
        reason: "Document",
        message: "it is known from a manifest only; no node with this name has joined".to_owned(),
        version: None,
        machine_id: None,
        boot_id: None,
        problem: None,
    }
}

/// Addresses that several nodes publish (row O-48), with the nodes.
struct Shared(BTreeMap<IpAddr, BTreeSet<String>>);

fn shared_addresses(state: &State) -> Shared {
    let mut nodes: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    let this = state.node.ips.iter().map(|ip| (*ip, &state.node.name));
    // One that does not respond may have left its address to another.
    let live = state.peers.values().filter(|peer| {
        (peer.record.is_some() || state.cluster.is_none()) && peer.name != state.node.name
    });
    let others = live.flat_map(|peer| peer.ips.iter().map(move |ip| (*ip, &peer.name)));
    for (ip, name) in this.chain(others) {
        nodes.entry(ip).or_default().insert(name.clone());
    }
    nodes.retain(|_, nodes| nodes.len() > 1);
    Shared(nodes)
}

impl Shared {
    fn of(&self, node: &NodeView) -> Option<String> {
        let (ip, nodes) = node.ips.iter().find_map(|ip| Some((ip, self.0.get(ip)?)))?;
        if !nodes.contains(&node.name) {
            return None;
        }
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        Some(format!(
            "nodes {} publish the same address {ip}; give each its own with --node-ip",
            nodes.join(" and ")
        ))
    }
}

#[cfg(test)]
mod tests;
