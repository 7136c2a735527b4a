//! The attachment record (DESIGN decision 8): all that DEL and GC need to know of an ADD.

use std::path::Path;

use causeway_kernel::RecordKey;
use cni_plugin::Request;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Kind of the records of this plugin below `runDir`.
pub const KIND: &str = "bridge";

/// Folder below `runDir` with the addresses that no neighbour had, for each bridge.
pub(crate) const PROBED: &str = "probed";

/// Format of [`Record`]. Fields may be added without a new number; readers take defaults.
const VERSION: u32 = 1;

/// What one attachment owns on this node. Written before the veth pair is made, and again with
/// the addresses before the first rule is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Format number.
    pub version: u32,
    /// Whose.
    pub key: RecordKey,
    /// `CNI_NETNS` of the ADD.
    #[serde(default)]
    pub netns: String,
    /// Name of the bridge.
    #[serde(default)]
    pub bridge: String,
    /// Name of the veth's host end.
    #[serde(default)]
    pub host_ifname: String,
    /// Address of the container's end; empty until it is made.
    #[serde(default)]
    pub mac: String,
    /// Addresses with their prefix lengths; empty until the IPAM plugin answered.
    #[serde(default)]
    pub addresses: Vec<IpNetwork>,
    /// Whether masquerade rules were asked for.
    #[serde(default)]
    pub masq: bool,
    /// Destinations that are not masqueraded; absent in a record of an older version.
    #[serde(default)]
    pub masq_exclude: Option<Vec<IpNetwork>>,
    /// Whether `macspoofchk` rules were asked for.
    #[serde(default)]
    pub spoof: bool,
    /// IPAM plugin; empty for a layer-2 attachment.
    #[serde(default)]
    pub ipam: String,
}

impl Record {
    /// A record of `key` that says nothing else.
    pub(crate) fn new(key: RecordKey) -> Self {
        Self {
            version: VERSION,
            key,
            netns: String::new(),
            bridge: String::new(),
            host_ifname: String::new(),
            mac: String::new(),
            addresses: Vec::new(),
            masq: false,
            masq_exclude: None,
            spoof: false,
            ipam: String::new(),
        }
    }
}

/// The key of the attachment that `request` is about.
pub(crate) fn key(request: &Request) -> RecordKey {
    RecordKey {
        network: request.network.clone(),
        container_id: request.attachment.container_id.clone(),
        ifname: request.attachment.ifname.clone(),
    }
}

/// Whether no more than `own` attachments (0 or 1) of any network have a record below `run_dir`.
/// Stops at the first one too many.
pub(crate) fn is_last(run_dir: &Path, own: usize) -> bool {
    let networks = std::fs::read_dir(run_dir.join("attachments").join(KIND));
    let records = networks.into_iter().flatten().flatten().flat_map(|network| {
        std::fs::read_dir(network.path()).into_iter().flatten().flatten().filter(|entry| {
            Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "json")
        })
    });
    records.take(own + 1).count() <= own
}
