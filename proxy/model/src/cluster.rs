//! What the nodes of a cluster publish about themselves.
//!
//! Two lifetimes (multinode rows C-13, O-60): a [`NodeRecord`] says that the node lives and goes
//! within seconds of its death; a [`SubnetRecord`] says where a subnet of the cluster network is
//! and stays for a day, so that a node that restarts or is cut off keeps its containers reachable.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::Labels;

/// Who a node is. Its addresses are attributes: they may change (rows O-37, O-62).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeIdentity {
    /// Name of the node.
    pub node: String,
    /// `/etc/machine-id`; if that is absent, a random one kept in the state directory.
    pub machine_id: String,
}

/// An Ethernet address; as text, six pairs of lower case digits with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddress(pub [u8; 6]);

/// A node as it says it is, while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// Who it is.
    #[serde(flatten)]
    pub identity: NodeIdentity,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// Addresses that other nodes reach it by, at most one per IP family.
    pub ips: Vec<IpAddr>,
    /// Its labels by settings; a `v1 Node` document of its name comes over them.
    #[serde(default)]
    pub labels: Labels,
    /// Version of its causewayd.
    pub version: String,
    /// When its causewayd started, seconds since 1970.
    pub started: u64,
    /// [`ClusterConfig::digest`] of what it runs with.
    pub config: String,
    /// Revision at which the key was made that holds the record, by who reads it there; 0: it was not
    /// read from a store. No node says it of itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub created: i64,
}

/// Who has a subnet of the cluster network and how its containers are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetRecord {
    /// The part.
    pub subnet: IpNetwork,
    /// Whose it is. Nobody else writes or removes the record while its lease lasts (row O-38).
    #[serde(flatten)]
    pub owner: NodeIdentity,
    /// Addresses of the owner, at most one per IP family: tunnel end and next hop.
    pub ips: Vec<IpAddr>,
    /// Address of the owner's vxlan device, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<MacAddress>,
    /// MTU of the owner's overlay in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// As [`NodeRecord::created`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub created: i64,
}

/// What all nodes of a cluster must agree on. Written once (row O-41).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfig {
    /// Version of the keys and values in the store.
    pub schema: u32,
    /// Networks of all containers.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Networks of the services.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNetwork>,
    /// Length of a node's part of the IPv4 cluster network.
    pub node_subnet_len: u8,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// `none`, `vxlan` or `host-gw`
    pub overlay: String,
    /// VNI of the overlay.
    pub vxlan_id: u32,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
}

/// A node with the subnets it has: what the overlay, `get nodes` and `status` know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Name.
    pub name: String,
    /// Addresses, at most one per IP family.
    pub ips: Vec<IpAddr>,
    /// Its subnets of the cluster network; empty while it has none.
    pub subnets: Vec<IpNetwork>,
    /// Address of its vxlan device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<MacAddress>,
    /// MTU of its overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What it says of itself while it lives; `None`: it does not respond (O-60) or, with a peers
    /// file, never will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<NodeRecord>,
    /// [`SubnetRecord::created`] of what it is reached by: of peers that claim one thing, the older one
    /// has it.
    #[serde(skip)]
    pub since: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ClusterConfig {
    /// [`ClusterConfig::schema`] of this version.
    pub const SCHEMA: u32 = 1;

    /// Short text that is equal for equal settings.
    pub fn digest(&self) -> String {
        let mut hash = crate::hash::Fnv::default();
        hash.text(&serde_json::to_string(self).unwrap_or_default());
        format!("{:016x}", hash.value())
    }

    /// In words, each setting in which `self`, which this node runs with, differs from `stored`:
    /// `vxlan-port: 4789 here, 8472 in the store`.
    pub fn differences(&self, stored: &Self) -> Vec<String> {
        let networks = |all: &[IpNetwork]| {
            let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        let shown = |config: &Self| {
            [
                ("schema", config.schema.to_string()),
                ("cluster-cidr", networks(&config.cluster_cidrs)),
                ("service-cidr", networks(&config.service_cidrs)),
                ("node-subnet-len", config.node_subnet_len.to_string()),
                ("node-port-range", format!("{}-{}", config.node_ports.0, config.node_ports.1)),
                ("overlay", config.overlay.clone()),
                ("vxlan-id", config.vxlan_id.to_string()),
                ("vxlan-port", config.vxlan_port.to_string()),
            ]
        };
        let pairs = shown(self).into_iter().zip(shown(stored));
        pairs
            .filter(|((_, ours), (_, theirs))| ours != theirs)
            .map(|((name, ours), (_, theirs))| {
                format!("{name}: {ours} here, {theirs} in the store")
            })
            .collect()
    }
}

/// Length of a node's part of a cluster network that nodes share: `node_subnet_len` of an IPv4 one,
/// 64 of an IPv6 one, or 8 bits beyond its own if it is a /64 or longer.
pub fn part_len(cluster: IpNetwork, node_subnet_len: u8) -> u8 {
    let length = match cluster {
        IpNetwork::V4(_) => node_subnet_len,
        IpNetwork::V6(cluster) if cluster.prefix() < 64 => 64,
        IpNetwork::V6(cluster) => (cluster.prefix() + 8).min(126),
    };
    length.max(cluster.prefix())
}

impl MacAddress {
    /// The address of the vxlan device of a node: the same whenever and wherever it is asked for, so
    /// that a device recreated, and peers that nobody told, need no message. Locally administered,
    /// unicast.
    pub fn of_vtep(node: &str, vxlan_id: u32) -> Self {
        let mut hash = crate::hash::Fnv::default();
        hash.text(node);
        hash.text(&vxlan_id.to_string());
        let [.., a, b, c, d, e, f] = hash.value().to_be_bytes();
        Self([(a & 0xfc) | 0x02, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Not six pairs of hexadecimal digits with colons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address")]
pub struct NoMacAddress(String);

impl FromStr for MacAddress {
    type Err = NoMacAddress;

    fn from_str(text: &str) -> Result<Self, NoMacAddress> {
        let wrong = || NoMacAddress(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let pair = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if digits { u8::from_str_radix(part, 16).ok() } else { None }
        };
        let bytes: Option<Vec<u8>> = parts.into_iter().map(pair).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(wrong)
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for MacAddress {
    type Error = NoMacAddress;

    fn try_from(text: String) -> Result<Self, NoMacAddress> {
        text.parse()
    }
}

#[cfg(test)]
mod tests;
