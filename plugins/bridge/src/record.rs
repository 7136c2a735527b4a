//! The attachment record (DESIGN decision 8): all that DEL and GC need to know of an ADD.

use std::path::Path;
use std::time::Duration;

use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records};
use causeway_kernel::NetnsId;
use cni_plugin::Request;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long an operation on the same attachment may hold us up (row F12).
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(20);

/// The IPAM plugin of this project.
pub const OWN_IPAM: &str = "causeway-ipam";

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
    /// Addresses that this node has for it: the container's gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpNetwork>,
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
    /// Which namespace `netns` was at the time of ADD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_id: Option<NetnsId>,
    /// `dataDir` of the IPAM plugin; empty: its default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_dir: String,
    /// `reuseDelay` of the IPAM plugin, as the configuration writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reuse_delay: String,
    /// How another IPAM plugin than causeway-ipam is asked to free the addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<Delegate>,
}

/// What an IPAM plugin is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// `CNI_PATH`
    pub path: String,
    /// The network's configuration.
    pub config: Value,
}

/// Note that the chain of an attachment has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The plugin that refused.
    pub plugin: String,
    /// What it said.
    pub msg: String,
}

/// The notes of failed chains below `run_dir`, one per key.
pub fn failed(run_dir: &Path) -> Records {
    Records::new(run_dir, kind::FAILED)
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
            gateways: Vec::new(),
            masq: false,
            masq_exclude: None,
            spoof: false,
            ipam: String::new(),
            netns_id: None,
            data_dir: String::new(),
            reuse_delay: String::new(),
            delegate: None,
        }
    }
}

/// Puts into `record` what frees its addresses, from the configuration of its IPAM plugin.
pub(crate) fn ipam_facts(record: &mut Record, request: &Request) {
    let text = |name| request.raw_get(&["ipam", name]).and_then(Value::as_str).unwrap_or_default();
    match record.ipam.as_str() {
        "" => {}
        OWN_IPAM => {
            record.data_dir = text("dataDir").to_owned();
            record.reuse_delay = text("reuseDelay").to_owned();
        }
        _ => {
            let path = request.env.get("CNI_PATH").cloned().unwrap_or_default();
            let mut config = request.raw.clone();
            if let Value::Object(config) = &mut config {
                config.retain(|key, _| {
                    let once = ["prevresult", "runtimeconfig", "args"];
                    !once.contains(&key.to_ascii_lowercase().as_str())
                });
            }
            record.delegate = Some(Delegate { path, config });
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
    !Records::new(run_dir, kind::BRIDGE).exceed(own)
}
