//! The part of `GET /v1/status` about the cluster store, the subnets, the overlay and the other
//! nodes.

use std::collections::BTreeMap;

use causeway_api::{ClusterStatus, OverlayStatus, PeerStatus, SubnetStatus};
use causeway_model::Peer;
use causeway_source::cluster::Subnets;
use ipnetwork::IpNetwork;

use super::super::nodes::{self, NodeView, Ready};
use crate::clock;
use crate::state::{ClusterState, OverlayState, State};

/// All nodes, by name.
type Nodes = BTreeMap<String, NodeView>;

/// The connection to the store.
pub(super) fn cluster(state: &State, cluster: &ClusterState) -> ClusterStatus {
    let away = cluster.connection.as_ref().err();
    ClusterStatus {
        endpoints: state.settings.etcd_endpoints.clone(),
        connected: away.is_none(),
        away: away.map(|(since, _)| clock::now().saturating_duration_since(*since).as_secs()),
        reason: away.map(|(_, why)| why.clone()),
        revision: cluster.revision,
        subnet_refused: nodes::no_subnet(state),
        excluded: cluster.excluded.clone(),
        held_nodes: cluster.held_nodes.iter().cloned().collect(),
        held_objects: cluster.held_objects as u64,
    }
}

/// This node's subnets of the cluster network; nothing if it is alone.
pub(super) fn subnets(state: &State) -> Vec<SubnetStatus> {
    let Some(cluster) = &state.cluster else {
        let among_others = state.settings.peers_file.is_some();
        let own = state.node.subnets.iter().filter(|_| among_others);
        return own.map(|subnet| of(subnet, "static")).collect();
    };
    if let Some(Subnets::Lost { subnet, owner }) = &cluster.subnets {
        return vec![SubnetStatus { owner: Some(owner.node.clone()), ..of(subnet, "lost") }];
    }
    let word = if cluster.subnets.is_some() { "leased" } else { "unconfirmed" };
    let since = cluster.connection.as_ref().err().map(|(since, _)| *since);
    // Renewed until then.
    let expires = since.map(|since| {
        let away = clock::now().saturating_duration_since(since);
        state.settings.subnet_ttl.saturating_sub(away).as_secs()
    });
    let held = state.node.subnets.iter();
    held.map(|subnet| SubnetStatus { expires, ..of(subnet, word) }).collect()
}

fn of(subnet: &IpNetwork, lease: &str) -> SubnetStatus {
    let (subnet, lease) = (subnet.to_string(), lease.to_owned());
    SubnetStatus { subnet, lease, expires: None, owner: None }
}

/// How other nodes are reached.
pub(super) fn overlay(overlay: &OverlayState) -> OverlayStatus {
    OverlayStatus {
        kind: overlay.kind.clone(),
        underlay: overlay.underlay.clone(),
        vtep: overlay.vtep.map(|vtep| vtep.to_string()),
        mtu: Some(overlay.mtu).filter(|mtu| *mtu != 0),
        repairs: overlay.repairs,
        failure: overlay.failure.clone(),
    }
}

/// The other nodes: those that joined or stand in the peers file.
pub(super) fn peers(state: &State, nodes: &Nodes) -> Vec<PeerStatus> {
    let others = nodes.values().filter(|node| node.name != state.node.name);
    others.filter_map(|node| Some(peer(state.peers.get(&node.name)?, node))).collect()
}

fn peer(peer: &Peer, node: &NodeView) -> PeerStatus {
    let now = clock::unix().as_secs();
    let excuse = (node.ready != Ready::Yes).then_some(&node.message);
    PeerStatus {
        name: node.name.clone(),
        state: node.ready.word().to_owned(),
        subnets: node.subnets.iter().map(ToString::to_string).collect(),
        ips: node.ips.clone(),
        vtep: node.vtep.map(|vtep| vtep.to_string()),
        mtu: node.mtu,
        version: node.version.clone(),
        age: peer.record.as_ref().map(|record| now.saturating_sub(record.started)),
        problem: node.problem.as_ref().or(excuse).cloned(),
    }
}

/// Nodes whose containers cannot be reached, as far as no condition says so: a line
/// each.
pub(super) fn degraded(state: &State, nodes: &Nodes) -> Vec<String> {
    // This node's own problems are all there.
    let others = nodes.values().filter(|node| node.name != state.node.name);
    let others = others.filter(|node| !matches!(state.waiting.get(&node.name), Some(Some(_))));
    let problems = others.filter_map(|node| Some((&node.name, node.problem.as_deref()?)));
    let unsaid = problems.filter(|(_, problem)| !state.conditions.mentions(problem));
    unsaid.map(|(name, problem)| format!("node {name}: {problem}")).collect()
}

/// Warnings: who does not respond.
pub(super) fn warnings(state: &State, nodes: &Nodes) -> Vec<String> {
    let silent = nodes.values().filter(|node| node.ready == Ready::No);
    let silent = silent.filter(|node| node.name != state.node.name);
    silent.map(|node| format!("node {}: {}", node.name, node.message)).collect()
}
