//! The daemon's HTTP API on its unix socket: paths, bodies, a blocking client for plugin and
//! command line, and the spool for events that find no daemon. `curl --unix-socket /run/causeway/causeway.sock http://causeway/v1/status` works.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /v1/events` | [`EndpointEvent`](causeway_model::EndpointEvent) | 204 when the rules are in the kernel; 200 with an [`EventAnswer`] if there is something to know |
//! | `POST /v1/apply` | [`Apply`] | [`Applied`], 200 also if some were refused |
//! | `POST /v1/delete` | [`Delete`] | [`Applied`], 200 also if some were refused or not found |
//! | `DELETE /v1/{services,endpointslices,endpoints,nodes}/NAMESPACE/NAME` (nodes: `/NAME`) | - | [`Applied`]; 404; 409 if a manifest of a node has it, or the node lives |
//! | `GET /v1/{services,endpoints,endpointslices,pods,nodes,leases}` with `?namespace=`, `/NAMESPACE/NAME`, `?watch=true` | - | a Kubernetes `List`; one object; a line of JSON an event `{type, object}` (`ADDED`, `MODIFIED`, `DELETED`; `RESET` first with the list) |
//! | `GET /v1/describe/NAMESPACE/NAME` | - | [`Description`] |
//! | `GET /v1/status` | - | [`Status`] |
//! | `POST /v1/trace` | [`TraceRequest`] | [`TraceAnswer`] |
//! | `POST /v1/svc-test` | [`SvcTest`] | a line of JSON a connection: [`SvcTestAnswer`] |
//! | `POST /v1/dns` | [`DnsRequest`] | [`DnsAnswer`]; 409 if this node answers no names |
//! | `GET /healthz /livez /readyz /metrics /proxyMode` | - | as on the TCP listeners |
//!
//! Every refusal is a [`Problem`] with a 4xx or 5xx status.

mod client;
mod spool;

pub use client::{Client, Error};
pub use spool::{DEFAULT_SPOOL, Spool};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use causeway_model::manifest::Validate;
use causeway_ruleset::trace::Trace;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/causeway/causeway.sock";

/// What the daemon answers to an event that it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventAnswer {
    /// What whoever attaches the container should know.
    pub warnings: Vec<String>,
}

/// Objects to store. Who reads or writes very many takes them as text, `O`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Apply<O = Value> {
    /// Kubernetes objects in JSON, in order.
    pub objects: Vec<O>,
    /// Answer when the rules are in this node's kernel, not when stored.
    pub wait: bool,
    /// What becomes of objects with fields that Kubernetes does not have.
    #[serde(default)]
    pub validate: Validate,
}

/// Objects to delete, all at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delete {
    /// Which, in order.
    pub objects: Vec<ObjectName>,
}

/// Which object, by the words of its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// `services`, `endpointslices`, `endpoints` or `nodes`
    pub kind: String,
    /// Namespace; none for a node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The outcome of each object, in order (an `Endpoints` document is one).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// One per document of [`Apply::objects`]; several for a `List`.
    pub results: Vec<AppliedObject>,
}

/// The outcome of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedObject {
    /// Position in [`Apply::objects`] or [`Delete::objects`].
    pub document: usize,
    /// `service`, `endpoints`, `endpointslice`, `node`: as in `service/NAME created`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What happened.
    pub outcome: AppliedOutcome,
    /// Field and reason of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<FieldProblem>,
    /// Warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppliedOutcome {
    /// New.
    Created,
    /// Changed.
    Configured,
    /// Equal to what was stored.
    Unchanged,
    /// Gone.
    Deleted,
    /// There was none to delete.
    NotFound,
    /// Of a kind that other controllers handle.
    Skipped,
    /// Not taken, or not deleted, see [`AppliedObject::refusal`].
    Refused,
}

/// A field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// Path of the field.
    pub field: String,
    /// Reason.
    pub reason: String,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence a user can act on.
    pub message: String,
    /// Causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

/// What `causeway status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// Seconds since the daemon started.
    pub uptime: u64,
    /// `nftables` or `iptables`.
    pub backend: String,
    /// `embedded`, `etcd` or `kubernetes`.
    pub store: String,
    /// How many there are: services, service ports, endpoints, containers.
    pub counts: BTreeMap<String, u64>,
    /// Seconds since the rules were last committed or found to be right; `None` before the first.
    pub synced: Option<u64>,
    /// How often each happened: syncs, full syncs, failures, repairs.
    pub events: BTreeMap<String, u64>,
    /// The cluster store; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// This node's subnets of the cluster network, if other nodes have theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<SubnetStatus>,
    /// How other nodes are reached; absent if something else routes between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayStatus>,
    /// The name server; absent if it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesStatus>,
    /// The other nodes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerStatus>,
    /// Pools of load balancer addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolStatus>,
    /// What does not work, why, and the remedy; empty: all is well.
    pub degraded: Vec<String>,
    /// Warnings that keep nothing from working.
    pub warnings: Vec<String>,
}

/// The name server of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamesStatus {
    /// Domain of the cluster.
    pub domain: String,
    /// Where it listens: addresses for all containers of the node first.
    pub servers: Vec<SocketAddr>,
    /// Who is asked for names outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<String>,
}

/// The connection to the cluster store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Where it answers. User and password are never among that.
    pub endpoints: Vec<String>,
    /// Whether it answers.
    pub connected: bool,
    /// Seconds since it does not answer any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<u64>,
    /// Why it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Newest revision that this node has seen.
    pub revision: i64,
    /// Why this node has no subnet, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_refused: Option<String>,
    /// What keeps this node out of the cluster, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<String>,
    /// Nodes that disappeared together and are treated as alive for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_nodes: Vec<String>,
    /// Objects that the store lost and that this node holds, by number.
    #[serde(default)]
    pub held_objects: u64,
}

/// A subnet of the cluster network that this node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetStatus {
    /// The part, as `10.0.1.0/24`.
    pub subnet: String,
    /// `static` (by settings or the peers file), `leased`, `unconfirmed` (the store has not said
    /// yet that it is still ours), or `lost` (another node took it).
    pub lease: String,
    /// Seconds until other nodes may take it, if nothing renews the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Who has a lost one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// How other nodes are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayStatus {
    /// `vxlan id 1 port 8472` or `host-gw`
    pub kind: String,
    /// Name of the device that connects the nodes.
    pub underlay: String,
    /// Address of the vxlan device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<String>,
    /// MTU for containers in bytes; absent while nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Repairs of what other processes had changed.
    pub repairs: u64,
    /// What failed for the whole of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Another node as this one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Name.
    pub name: String,
    /// `Ready`, `NotReady` (it does not respond), or `Unknown` (the store is unreachable, or
    /// the node is of a peers file).
    pub state: String,
    /// Its subnets of the cluster network.
    pub subnets: Vec<String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Address of its vxlan device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<String>,
    /// MTU of its overlay in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Version of its daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Seconds since its daemon started, by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Why it cannot be reached, or why its state is what it is, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A pool of load balancer addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Name.
    pub name: String,
    /// How many of its addresses services have.
    pub used: u64,
    /// How many are left.
    pub free: u64,
}

/// `causeway describe service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The service as Kubernetes writes it.
    pub service: Value,
    /// Per port name what its endpoints are and which get traffic on this node.
    pub ports: Vec<DescribedPort>,
    /// What keeps it from working, in words: no endpoint matches, an address is taken, ...
    pub remarks: Vec<String>,
}

/// A port in a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribedPort {
    /// Name of the port; may be empty.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`; empty for the addresses of a headless service without ports.
    pub protocol: String,
    /// Endpoints with state.
    pub endpoints: Vec<DescribedEndpoint>,
}

/// An endpoint in a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribedEndpoint {
    /// Address.
    pub address: IpAddr,
    /// Port; 0 for an address alone.
    pub port: u16,
    /// `ready`, `serving`, `terminating`, `not ready`
    pub state: String,
    /// Whether new connections from this node's containers may go there.
    pub in_rotation: bool,
    /// `namespace/name` of the pod.
    pub pod: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Host ports of this node that lead there: `8080/TCP`, `192.0.2.1:8080/TCP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<String>,
}

/// `causeway trace FROM TO[:PORT][/PROTO]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceRequest {
    /// `[NS/]POD`, an address, or `node`.
    pub from: String,
    /// `[NS/]SERVICE`, a pod, or an address.
    pub to: String,
    /// Port; the only one of the service if it is not given.
    pub port: Option<u16>,
    /// `tcp`, `udp` or `sctp`; the port's own if it is not given.
    pub protocol: Option<String>,
}

/// What the daemon answers to a [`TraceRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceAnswer {
    /// The packet as it was understood: `10.0.1.2 -> 10.96.0.1:80/tcp`.
    pub packet: String,
    /// What happens to it.
    pub trace: Trace,
}

/// `causeway svc test NAME [--count 8] [--from node|POD]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SvcTest {
    /// Namespace of the service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Port name or number; the first if it is not given.
    pub port: Option<String>,
    /// Number of connections.
    pub count: u32,
    /// `node` or `[NS/]POD`.
    pub from: String,
}

/// One connection of an [`SvcTest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SvcTestAnswer {
    /// Number from 1.
    pub number: u32,
    /// The endpoint that took the connection, as conntrack has it.
    pub address: Option<IpAddr>,
    /// Why there was no answer.
    pub error: Option<String>,
    /// It sent something back. A connection over TCP is only opened, which the kernel does for a
    /// program that listens.
    #[serde(default)]
    pub answered: bool,
}

/// `causeway dns NAME [TYPE] [--from POD]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRequest {
    /// What is asked; with a dot at its end it is taken as it is.
    pub name: String,
    /// `A`, `AAAA`, `SRV`, ..
    pub record_type: String,
    /// `node`, or the `[NS/]POD` whose search list is gone through.
    pub from: String,
}

/// What a resolver would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsAnswer {
    /// The questions in order; the last one is the answer.
    pub lookups: Vec<DnsLookup>,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsLookup {
    /// The whole name, with the dot at its end.
    pub name: String,
    /// `A`, ..
    pub record_type: String,
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`
    pub code: String,
    /// Records as a zone file has them: `NAME TTL CLASS TYPE DATA`.
    pub records: Vec<String>,
    /// Why the answer is this one.
    pub why: String,
}

/// An error with its causes, outermost first, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
