//! What nodes depend on and no service or container may have: which addresses and ports that is by
//! settings and peers, and the messages for whoever claims them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{Guarded, Peer, Protocol, part_len};
use ipnetwork::IpNetwork;

use crate::config::{OverlayKind, Settings, StoreKind, store_url};
use crate::log;
use crate::state::State;

/// Ports that nodes live on whatever the settings are.
const PORTS: [(Protocol, u16, &str); 4] = [
    (Protocol::Tcp, 22, "ssh"),
    (Protocol::Tcp, 6443, "the Kubernetes API server"),
    (Protocol::Tcp, 10250, "the kubelet"),
    (Protocol::Udp, 4789, "vxlan"),
];
/// Where members of etcd talk to each other.
const ETCD_PEERS: u16 = 2380;
/// So many stand in `status`, and so many characters of a name.
const SHOWN: usize = 20;
const LONGEST_NAME: usize = 80;

/// This node among the other nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its addresses.
    pub ips: &'a [IpAddr],
    /// Its subnets of the cluster network.
    pub subnets: &'a [IpNetwork],
    /// The cluster network that nobody chose contains addresses of nodes: no subnet of it is
    /// allocated.
    pub amid_cluster: bool,
}

/// What no service and no container of another node has. `resolved` are addresses of the store's
/// names.
pub(crate) fn guarded(
    settings: &Settings,
    own: Own<'_>,
    peers: &BTreeMap<String, Peer>,
    resolved: &BTreeSet<IpAddr>,
) -> Guarded {
    let ours = own.ips.iter().map(|ip| (*ip, format!("this node, {}", own.name)));
    let store = store_url::literals(&settings.etcd_endpoints).chain(resolved.iter().copied());
    let store = store.map(|ip| (ip, "the cluster store".to_owned()));
    // Nodes are apart from services and containers, or do not start: a record that says otherwise
    // must not take addresses of these away.
    let inside = |nets: &[IpNetwork], ip: IpAddr| nets.iter().any(|net| net.contains(ip));
    let apart = |ip: &IpAddr| {
        !inside(&settings.service_cidrs, *ip)
            && (own.amid_cluster || !inside(&settings.cluster_cidrs, *ip))
    };
    let others = peers.values().flat_map(|peer| {
        let name = shown(&peer.name);
        one_a_family(&peer.ips).map(move |ip| (ip, format!("node {name}")))
    });
    let parts = peers.values().map(|peer| (peer.name.as_str(), peer.subnets.as_slice()));
    let parts = parts.chain([(own.name, own.subnets)]);
    let edges = parts.flat_map(|(name, subnets)| {
        let edges = subnets.iter().flat_map(|subnet| edges(settings, *subnet));
        edges.map(move |(ip, what)| (ip, format!("{what} of node {}", shown(name))))
    });
    let addresses = ours.chain(store).chain(others.filter(|(ip, _)| apart(ip))).chain(edges);
    let addresses = addresses.filter(|(ip, _)| causeway_model::special(*ip).is_none());
    Guarded::new(addresses, ports(settings))
}

/// The first and last address of a node's subnet of the cluster network, which no container has.
/// The first is that of the node's tunnel.
fn edges(settings: &Settings, subnet: IpNetwork) -> Vec<(IpAddr, &'static str)> {
    let agreed = |cluster: &IpNetwork| {
        cluster.contains(subnet.ip())
            && part_len(*cluster, settings.node_subnet_len) == subnet.prefix()
    };
    if settings.overlay == OverlayKind::None || !settings.cluster_cidrs.iter().any(agreed) {
        return Vec::new();
    }
    let last = subnet.is_ipv4().then(|| (subnet.broadcast(), "the broadcast"));
    [(subnet.network(), "the tunnel")].into_iter().chain(last).collect()
}

fn ports(settings: &Settings) -> Vec<((Protocol, u16), String)> {
    let mut ports: Vec<_> = PORTS
        .iter()
        .map(|(protocol, port, what)| ((*protocol, *port), (*what).to_owned()))
        .collect();
    if settings.store == StoreKind::Etcd {
        let store = settings
            .etcd_endpoints
            .iter()
            .filter_map(|endpoint| Some(store_url::host(endpoint)?.1));
        let store = store.chain([ETCD_PEERS]);
        ports.extend(store.map(|port| ((Protocol::Tcp, port), "the cluster store".to_owned())));
    }
    if settings.overlay == OverlayKind::Vxlan {
        ports.push(((Protocol::Udp, settings.vxlan_port), "the overlay".to_owned()));
    }
    let listen = settings.healthz_listen.iter().chain(&settings.metrics_listen);
    let outside = listen.filter(|at| !at.ip().is_loopback());
    ports.extend(outside.map(|at| ((Protocol::Tcp, at.port()), "causewayd itself".to_owned())));
    let given = settings.protected_ports.iter().copied();
    ports.extend(given.map(|port| (port, "a program named by --protected-ports".to_owned())));
    ports
}

/// The subnets of the cluster network that our overlay leads to, by node. Without one it is unknown
/// where addresses lead, and containers may have others than the part of their node.
pub(crate) fn subnets(
    settings: &Settings,
    own: Own<'_>,
    peers: &BTreeMap<String, Peer>,
) -> BTreeMap<String, Vec<IpNetwork>> {
    if settings.overlay == OverlayKind::None {
        return BTreeMap::new();
    }
    let parts = peers.values().map(|peer| (peer.name.as_str(), peer.subnets.as_slice()));
    let all = parts.chain([(own.name, own.subnets)]);
    let some = all.filter(|(_, subnets)| !subnets.is_empty());
    some.map(|(name, subnets)| (name.to_owned(), subnets.to_vec())).collect()
}

/// What is left out, one line each: for `status`.
pub(crate) fn left_out(state: &State) -> Vec<String> {
    let services = state.plan.denied();
    let services =
        services.map(|(key, place, why)| format!("service {key}: {place} is left out: {why}"));
    let containers = state.index.refused().map(|(one, ip, what)| {
        let (node, key) = (shown(&one.node), &one.record.key);
        let (network, id) = (shown(&key.network), shown(&key.container_id));
        format!(
            "container {id} of network {network}, as reported by node {node}: its address {ip} is \
             {what}, so it is not used as an endpoint; if that is unexpected, check what else \
             writes to the cluster store"
        )
    });
    log::lines(services.chain(containers), SHOWN, |more| {
        format!("{more} more services and containers left out")
    })
}

/// Of one service, for `describe`.
pub(crate) fn of_service(state: &State, key: &causeway_model::ObjectKey) -> Vec<String> {
    let denied = state.plan.denied().filter(|(other, ..)| *other == key);
    denied.map(|(_, place, why)| format!("{place} is left out: {why}")).collect()
}

/// A name from an untrusted source.
fn shown(name: &str) -> String {
    log::short(name, LONGEST_NAME)
}

/// As many as a node has.
fn one_a_family(ips: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let first = |v4: bool| ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
    first(true).into_iter().chain(first(false))
}

#[cfg(test)]
mod tests;
