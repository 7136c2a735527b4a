//! The record of an attachment: all that DEL, GC and repair need.

use causeway_kernel::RecordKey;
use cni_plugin::Request;
use serde::{Deserialize, Serialize};

pub use crate::config::Masquerade;
pub use crate::mapping::{Binding, Protocol};

/// Kind of our records below `runDir`.
pub const KIND: &str = "service";

/// What an attachment owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What carries the rules out.
    pub backend: RecordBackend,
    /// The mappings.
    pub bindings: Vec<Binding>,
    /// Masquerading.
    pub masquerade: Masquerade,
    /// Id of the IPv4 conditions (nftables).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions_v4: Option<String>,
    /// Id of the IPv6 conditions (nftables).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions_v6: Option<String>,
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
