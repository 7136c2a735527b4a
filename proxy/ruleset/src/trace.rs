//! What happens to a packet, and why: an interpreter over a [`Plan`].

use std::net::IpAddr;

use causeway_model::{ObjectKey, Protocol};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source.
    pub source: IpAddr,
    /// The source is this node itself: the packet comes from a process on it.
    pub from_node: bool,
    /// Destination.
    pub destination: IpAddr,
    /// The destination is an address of this node.
    pub to_node: bool,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The outcome.
    pub outcome: Outcome,
    /// The service port that decides, `namespace/name:port`.
    pub service: Option<String>,
    /// Why, one sentence a step, in order.
    pub steps: Vec<String>,
}

/// Where a packet ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// No service: it goes where it was going.
    Pass,
    /// Answered with ICMP port unreachable.
    Reject,
    /// Dropped silently.
    Drop,
    /// To one of these endpoints, ascending, with whether the source is masqueraded there.
    Endpoints(Vec<Choice>),
}

/// A possible endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// The endpoint sees an address of the node instead of the source.
    pub masquerade: bool,
}

/// Follows a packet through the plan. Source-hash services give the one endpoint of the source.
pub fn trace(_plan: &Plan, _packet: &Packet) -> Trace {
    todo!()
}

/// A service by key in a trace.
pub fn port_name(key: &ObjectKey, port: &str) -> String {
    if port.is_empty() { key.to_string() } else { format!("{key}:{port}") }
}
