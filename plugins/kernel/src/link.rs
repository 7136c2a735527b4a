//! Links: bridge, veth, vxlan, bridge ports, vlans.

use std::net::IpAddr;

use crate::{Netlink, Netns, Result};

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
}

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address; `None` where it has none of six bytes.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// `IFF_UP`
    pub up: bool,
    /// `IFF_LOWER_UP`
    pub carrier: bool,
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
    /// Bridge port state, where it is one.
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

impl Netlink {
    /// The link of that name, or `None`. One request, no dump.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let _ = name;
        todo!()
    }

    /// The link of that index, or `None`.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        let _ = index;
        todo!()
    }

    /// All links (a dump: for STATUS, repair and conflict search only).
    ///
    /// # Errors
    /// The dump stayed interrupted.
    pub fn links(&self) -> Result<Vec<Link>> {
        todo!()
    }

    /// Creates a bridge and returns it. `EEXIST` where the name is taken, by whatever.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_bridge(&self, spec: &BridgeSpec<'_>) -> Result<Link> {
        let _ = spec;
        todo!()
    }

    /// Creates a veth pair; see [`VethSpec`]. Both ends are down.
    ///
    /// # Errors
    /// `EEXIST` where the host name or the name inside the namespace is taken.
    pub fn add_veth(&self, spec: &VethSpec<'_>) -> Result<()> {
        let _ = spec;
        todo!()
    }

    /// Creates a vxlan device, down, optionally already a port of `master`.
    ///
    /// # Errors
    /// `EEXIST`: name taken, or id and port in use by another vxlan of the namespace.
    pub fn add_vxlan(
        &self,
        name: &str,
        mtu: Option<u32>,
        master: Option<u32>,
        attributes: &VxlanAttributes,
    ) -> Result<Link> {
        let _ = (name, mtu, master, attributes);
        todo!()
    }

    /// Applies `change` to the link of `index`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn change_link(&self, index: u32, change: &LinkChange) -> Result<()> {
        let _ = (index, change);
        todo!()
    }

    /// Applies `change` to the bridge port of `index`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn change_port(&self, index: u32, change: &PortChange) -> Result<()> {
        let _ = (index, change);
        todo!()
    }

    /// Adds vlans to a bridge port (`on_bridge` false) or to the bridge itself.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the kernel has no vlan filtering.
    pub fn add_vlans(&self, index: u32, vlans: &[VlanRange], on_bridge: bool) -> Result<()> {
        let _ = (index, vlans, on_bridge);
        todo!()
    }

    /// Removes vlans from a bridge port. Absent ones are not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_vlans(&self, index: u32, vlans: &[VlanRange]) -> Result<()> {
        let _ = (index, vlans);
        todo!()
    }

    /// Vlans of a bridge port.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn vlans(&self, index: u32) -> Result<Vec<VlanRange>> {
        let _ = index;
        todo!()
    }

    /// Deletes the link of `index`. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_link(&self, index: u32) -> Result<()> {
        let _ = index;
        todo!()
    }

    /// Waits until the link has carrier and, where it is a bridge port, forwards; driven by
    /// `RTM_NEWLINK` notifications, not by polling.
    ///
    /// # Errors
    /// `ETIMEDOUT` after `timeout`, naming the state last seen.
    pub fn wait_forwarding(&self, index: u32, timeout: std::time::Duration) -> Result<Link> {
        let _ = (index, timeout);
        todo!()
    }
}
