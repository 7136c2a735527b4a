//! Results in the shape of 1.1.0; conversion to and from older versions at the edge.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{Error, Version};

/// The result of ADD, and `prevResult`, in the shape of specification 1.1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Interfaces in the order the plugins made them.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name servers and search list.
    pub dns: Dns,
}

/// One interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name inside its namespace.
    pub name: String,
    /// Lower case with colons; empty when unknown.
    pub mac: String,
    /// MTU in bytes (1.1.0).
    pub mtu: Option<u32>,
    /// Path of the namespace, byte for byte as in `CNI_NETNS`; empty for the host's.
    pub sandbox: String,
    /// `socketPath` (1.1.0), passed through.
    pub socket_path: String,
    /// `pciID` (1.1.0), passed through.
    pub pci_id: String,
}

/// One address of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Index into `interfaces`; `None` when unknown (also read from -1).
    pub interface: Option<usize>,
    /// Host address with prefix length.
    pub address: IpNetwork,
    /// Gateway of the address' subnet.
    pub gateway: Option<IpAddr>,
}

/// One route of a result or of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination network.
    pub dst: IpNetwork,
    /// Next hop; absent: the first gateway of that family.
    pub gw: Option<IpAddr>,
    /// `RTAX_MTU`, bytes.
    pub mtu: Option<u32>,
    /// `RTAX_ADVMSS`, bytes.
    pub advmss: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// Routing table; `Some(0)` is distinct from absent.
    pub table: Option<u32>,
    /// Route scope (0 global, 253 link, 254 host); `Some(0)` is distinct from absent.
    pub scope: Option<u8>,
}

/// Name service settings of a result or of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: String,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl Dns {
    /// Whether no member is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// Reads a result of any version. `assumed` counts where the value has no `cniVersion`.
    ///
    /// # Errors
    /// Code 6 with the field that does not decode, or when the family of formats is not that of
    /// `assumed` (rows C53, C57).
    pub fn from_json(value: &serde_json::Value, assumed: Version) -> Result<Self, Error> {
        let _ = (value, assumed);
        todo!()
    }

    /// The JSON of this result in `version` (rows C39 to C46).
    ///
    /// # Errors
    /// 0.1.0 and 0.2.0 need at least one address (row C40).
    pub fn to_json(&self, version: Version) -> Result<serde_json::Value, Error> {
        let _ = version;
        todo!()
    }
}
