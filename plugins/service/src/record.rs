//! The record of an attachment: all that DEL, GC and repair need.

use causeway_host::RecordKey;
use cni_plugin::Request;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use crate::config::{Mark, Masquerade};
pub use crate::endpoint::{Announcement, endpoint_key, record_key};
pub use crate::mapping::{Binding, Protocol};

/// What an attachment owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What carries the rules out.
    pub backend: RecordBackend,
    /// The mappings that ADD promised. Another attachment of the container may carry some of them
    /// out for as long as it is there.
    pub bindings: Vec<Binding>,
    /// Masquerading.
    pub masquerade: Masquerade,
    /// Id of the IPv4 conditions (nftables).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions_v4: Option<String>,
    /// Id of the IPv6 conditions (nftables).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions_v6: Option<String>,
    /// What else it takes to write the rules again; of its defaults in a record of an older version.
    #[serde(default)]
    pub again: Again,
}

/// What it takes to write an attachment's rules again, beside its mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Again {
    /// The attachments of one container that share host ports have their turn in this order.
    pub turn: u32,
    /// DEL has begun: what is missing is not written again.
    pub leaving: bool,
    /// The container's first address of each family, with its prefix length.
    pub addresses: Vec<IpNetwork>,
    /// `conditionsV4`
    pub conditions_v4: Vec<String>,
    /// `conditionsV6`
    pub conditions_v6: Vec<String>,
    /// Who marks packets for masquerading (iptables).
    pub mark: Option<Mark>,
}

/// What carries the rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordBackend {
    /// nf_tables by netlink.
    Nftables,
    /// `iptables-restore`.
    Iptables,
}

/// The key of `request`'s attachment.
pub(crate) fn key(request: &Request) -> RecordKey {
    RecordKey {
        network: request.network.clone(),
        container_id: request.attachment.container_id.clone(),
        ifname: request.attachment.ifname.clone(),
    }
}
