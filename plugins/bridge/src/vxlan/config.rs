//! The key `vxlan`: as sent, and checked.

use std::net::IpAddr;

use cni_plugin::{Code, Error};

/// The IANA port. The kernel's own default, 8472, is older, and some underlays drop it (row O-02).
const PORT: u16 = 4789;

const MAX_ID: u32 = (1 << 24) - 1;

/// `vxlan` of the configuration as sent, keys lower-cased.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct RawVxlan {
    /// VNI, 1 to 16777215. Required.
    pub(crate) id: Option<u32>,
    /// Multicast group that carries what has to reach every node.
    pub(crate) group: Option<String>,
    /// Node addresses, for head-end replication instead of a group.
    pub(crate) peers: Option<Vec<String>>,
    /// Underlay device; default: that of the route to the group or the peers.
    pub(crate) dev: Option<String>,
    /// UDP port; default 4789.
    pub(crate) port: Option<u32>,
    /// Outer TTL; default: the kernel's.
    pub(crate) ttl: Option<u32>,
    /// Name of the device; default `cwvx<id>`.
    pub(crate) name: Option<String>,
    /// Source address of the tunnel; default: an address of `dev`.
    pub(crate) local: Option<String>,
}

/// Who gets what has no known destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// The members of a multicast group.
    Group(IpAddr),
    /// Each of these nodes, by a copy of its own; not empty, one family, ascending.
    Peers(Vec<IpAddr>),
}

/// A `vxlan` that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VxlanConfig {
    /// Network that the device belongs to.
    pub(crate) network: String,
    /// VNI
    pub(crate) id: u32,
    /// Device name.
    pub(crate) name: String,
    /// Flooding.
    pub(crate) flood: Flood,
    /// Underlay device, if the configuration names one.
    pub(crate) dev: Option<String>,
    /// Source address, if the configuration names one; of the family of `flood`.
    pub(crate) local: Option<IpAddr>,
    /// UDP port
    pub(crate) port: u16,
    /// Outer TTL; 0 is the kernel's default.
    pub(crate) ttl: u8,
}

impl VxlanConfig {
    /// Whether the outer header is IPv6's.
    pub(super) fn is_ipv6(&self) -> bool {
        match &self.flood {
            Flood::Group(group) => group.is_ipv6(),
            Flood::Peers(peers) => peers.iter().any(IpAddr::is_ipv6),
        }
    }

    /// The multicast group, if there is one.
    pub(super) fn group(&self) -> Option<IpAddr> {
        match self.flood {
            Flood::Group(group) => Some(group),
            Flood::Peers(_) => None,
        }
    }
}

/// Checks the key `vxlan` of `network`.
///
/// # Errors
/// Code 7 naming the field, its value and the remedy.
pub(crate) fn check(network: &str, raw: &RawVxlan) -> Result<VxlanConfig, Error> {
    let id = match raw.id {
        None => {
            return Err(invalid(format!("vxlan.id is required; use a number from 1 to {MAX_ID}")));
        }
        Some(id) if id == 0 || id > MAX_ID => {
            return Err(invalid(format!("vxlan.id: {id} is not a number from 1 to {MAX_ID}")));
        }
        Some(id) => id,
    };
    let flood = flood(set(raw.group.as_deref()), raw.peers.as_deref().unwrap_or_default())?;
    let local = set(raw.local.as_deref()).map(|text| address("vxlan.local", text)).transpose()?;
    let checked = VxlanConfig {
        network: network.to_owned(),
        id,
        name: interface("vxlan.name", set(raw.name.as_deref()))?.unwrap_or(format!("cwvx{id}")),
        flood,
        dev: interface("vxlan.dev", set(raw.dev.as_deref()))?,
        local,
        port: port(raw.port)?,
        ttl: ttl(raw.ttl)?,
    };
    check_local(&checked)?;
    Ok(checked)
}

/// An empty string is an absent one.
fn set(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn flood(group: Option<&str>, peers: &[String]) -> Result<Flood, Error> {
    match (group, peers) {
        (None, []) => Err(invalid(
            "vxlan has neither group nor peers: set vxlan.group to a multicast address that all \
             nodes can join, or vxlan.peers to the list of node addresses",
        )),
        (Some(group), []) => {
            let parsed = address("vxlan.group", group)?;
            if !parsed.is_multicast() {
                return Err(invalid(format!(
                    "vxlan.group: {group} is not a multicast address; list node addresses in \
                     vxlan.peers instead"
                )));
            }
            Ok(Flood::Group(parsed))
        }
        (None, peers) => self::peers(peers),
        (Some(group), _) => Err(invalid(format!(
            "vxlan: group ({group}) and peers are mutually exclusive; remove one of them"
        ))),
    }
}

fn peers(texts: &[String]) -> Result<Flood, Error> {
    let mut peers = Vec::with_capacity(texts.len());
    for text in texts {
        let peer = address("vxlan.peers", text)?;
        if peer.is_multicast() || peer.is_unspecified() || peer.is_loopback() {
            return Err(invalid(format!(
                "vxlan.peers: {text} is not the address of a node{}",
                if peer.is_multicast() { "; for multicast, set vxlan.group" } else { "" }
            )));
        }
        peers.push(peer);
    }
    peers.sort_unstable();
    peers.dedup();
    match (peers.first(), peers.last()) {
        (Some(first), Some(last)) if first.is_ipv4() != last.is_ipv4() => Err(invalid(format!(
            "vxlan.peers: {first} and {last} are of different IP families; use one of them only"
        ))),
        _ => Ok(Flood::Peers(peers)),
    }
}

fn check_local(checked: &VxlanConfig) -> Result<(), Error> {
    let Some(local) = checked.local else { return Ok(()) };
    if local.is_ipv6() != checked.is_ipv6() {
        let family = if checked.is_ipv6() { "IPv6" } else { "IPv4" };
        return Err(invalid(format!(
            "vxlan.local: {local} does not match the IP family of group or peers; use an {family} \
             address"
        )));
    }
    if local.is_multicast() || local.is_unspecified() {
        return Err(invalid(format!("vxlan.local: {local} is not the address of this node")));
    }
    Ok(())
}

fn port(value: Option<u32>) -> Result<u16, Error> {
    match value {
        None => Ok(PORT),
        Some(value) => u16::try_from(value).ok().filter(|port| *port != 0).ok_or_else(|| {
            invalid(format!(
                "vxlan.port: {value} is not a port from 1 to 65535; the default is {PORT} (the \
                 kernel's older default is 8472)"
            ))
        }),
    }
}

fn ttl(value: Option<u32>) -> Result<u8, Error> {
    let value = value.unwrap_or(0);
    u8::try_from(value).map_err(|_| {
        invalid(format!("vxlan.ttl: {value} is not from 0 to 255; 0 is the kernel's default"))
    })
}

fn address(field: &str, text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| invalid(format!("{field}: {text:?} is not an IP address")))
}

/// The kernel's rule for interface names (`dev_valid_name`).
fn interface(field: &str, name: Option<&str>) -> Result<Option<String>, Error> {
    let Some(name) = name else { return Ok(None) };
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(invalid(format!(
            "{field}: {name:?} is not an interface name: at most 15 bytes, no '/', ':' or space"
        )));
    }
    Ok(Some(name.to_owned()))
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, msg)
}
