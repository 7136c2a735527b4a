//! Links: bridge, veth, vxlan, bridge ports, vlans.

mod decode;
pub(crate) mod localhost;
mod offload;
mod ops;
#[cfg(test)]
pub(crate) mod tests;
mod vlan;
mod wait;

use std::net::IpAddr;

use crate::Netns;

/// An Ethernet address. Text is lower case with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// `bridge`
    Bridge {
        /// `vlan_filtering`
        vlan_filtering: bool,
        /// `vlan_default_pvid`
        default_pvid: u16,
    },
    /// `veth`
    Veth,
    /// `vxlan`
    Vxlan(VxlanAttributes),
    /// Another kind, by its name; empty for devices without one.
    Other(String),
}

/// Attributes of a vxlan device, for creation and for comparison (row O-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanAttributes {
    /// VNI
    pub id: u32,
    /// Multicast group; `None` for head-end replication.
    pub group: Option<IpAddr>,
    /// Underlay device (index).
    pub dev: Option<u32>,
    /// Source address of the tunnel.
    pub local: Option<IpAddr>,
    /// UDP destination port.
    pub port: u16,
    /// Outer TTL; 0 is the kernel's default.
    pub ttl: u8,
    /// Whether source addresses are learned into the FDB.
    pub learning: bool,
    /// Whether it has what no device of ours is made with: `proxy`, `rsc`, `l2miss`, `l3miss`,
    /// `external`, `gbp` or `gpe`. Never asked for.
    pub strange: bool,
}

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address; `None` if it has none of six bytes.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// `IFF_UP`
    pub up: bool,
    /// `IFF_LOWER_UP`
    pub carrier: bool,
    /// Neighbours resolve addresses on it: neither `IFF_NOARP` nor `IFF_LOOPBACK`.
    pub resolves: bool,
    /// `IFF_PROMISC` or `IFLA_PROMISCUITY` above 0.
    pub promisc: bool,
    /// Kind with attributes.
    pub kind: LinkKind,
    /// Bridge or other master, by index.
    pub master: Option<u32>,
    /// `IFLA_LINK`: the veth peer's index in the peer's namespace.
    pub peer_index: Option<u32>,
    /// `IFLA_IFALIAS`
    pub alias: Option<String>,
    /// Bridge port state, if it is one.
    pub port: Option<PortState>,
}

/// What a bridge port is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortState {
    /// `IFLA_BRPORT_STATE`: 3 is forwarding.
    pub state: u8,
    /// Hairpin mode.
    pub hairpin: bool,
    /// Port isolation.
    pub isolated: bool,
}

/// A bridge to create.
#[derive(Clone, Debug)]
pub struct BridgeSpec<'a> {
    /// Name.
    pub name: &'a str,
    /// MTU; `None`: the kernel's default.
    pub mtu: Option<u32>,
    /// Address to pin; `None`: the kernel's choice.
    pub mac: Option<Mac>,
    /// `vlan_filtering`
    pub vlan_filtering: bool,
}

/// A veth pair to create in one message: the peer appears inside `peer_netns` under its final
/// name, the host end is already a port of `master`.
#[derive(Debug)]
pub struct VethSpec<'a> {
    /// Name of the host end.
    pub name: &'a str,
    /// Bridge the host end belongs to, by index.
    pub master: Option<u32>,
    /// MTU of both ends; `None`: the kernel's default.
    pub mtu: Option<u32>,
    /// Alias of the host end: the attachment that owns it.
    pub alias: &'a str,
    /// Name of the container's end.
    pub peer_name: &'a str,
    /// Address of the container's end; `None`: random.
    pub peer_mac: Option<Mac>,
    /// Where the container's end lives.
    pub peer_netns: &'a Netns,
    /// Whether the host end is brought up in the same message. The kernel cannot do so with the
    /// container's end, which it opens before it knows its peer.
    pub up: bool,
}

/// Changes to a link; `None` leaves a property alone. One message.
#[derive(Clone, Debug, Default)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// `Some(0)` releases it from its master.
    pub master: Option<u32>,
    /// Promiscuous mode.
    pub promisc: Option<bool>,
    /// `vlan_filtering` of a bridge.
    pub vlan_filtering: Option<bool>,
}

/// Changes to a bridge port; `None` leaves a property alone.
#[derive(Clone, Debug, Default)]
pub struct PortChange {
    /// Hairpin mode.
    pub hairpin: Option<bool>,
    /// Port isolation.
    pub isolated: Option<bool>,
}

/// Vlans of a port, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanRange {
    /// First id, 1 to 4094.
    pub first: u16,
    /// Last id.
    pub last: u16,
    /// The port's PVID (one id only).
    pub pvid: bool,
    /// Leaves the port untagged.
    pub untagged: bool,
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is not six bytes in hexadecimal, separated by colons (or hyphens).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hardware address: write six bytes such as 02:00:00:00:00:01")]
pub struct MacError(String);

impl std::str::FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refused = || MacError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(refused)?;
            if !matches!(part.len(), 1 | 2) || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refused());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        if parts.next().is_some() { Err(refused()) } else { Ok(Self(bytes)) }
    }
}
