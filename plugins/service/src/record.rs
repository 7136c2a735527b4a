//! The records of an attachment: all that DEL, GC and repair need; and the lock of the rules.

use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_host::{FileLock, RecordKey, paths};
use causeway_kernel::{NetnsId, NetnsLife};
use causeway_model::{EndpointEvent, EndpointKey};
use cni_plugin::{Error, Request};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::failure;
pub use crate::mapping::{Binding, Protocol};

/// How long an operation waits for another one on the same attachment, or on the rules.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);

const DEFAULT_MARK_BIT: u8 = 13;

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

/// Which sources a container sees as the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Masquerade {
    /// `snat` false: none.
    Nothing,
    /// Itself and 127.0.0.0/8: without it they get no answer.
    Needed,
    /// `masqAll`: every source.
    All,
}

/// Who marks packets for masquerading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Our own chains with this mark bit.
    Bit(u8),
    /// `externalSetMarkChain`: a chain of another program, which masquerades.
    External(String),
}

impl Mark {
    /// The mark if the configuration names none.
    pub(crate) fn usual() -> Self {
        Self::Bit(DEFAULT_MARK_BIT)
    }
}

/// What DEL needs: the configuration may say something else by then, or nothing. And what tells
/// whether the container still lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Where events wait that it did not take.
    pub spool: PathBuf,
    /// The daemon may know the container.
    pub announced: bool,
    /// What was told at ADD: a daemon whose store was lost goes on with it. Records of earlier
    /// versions have none.
    #[serde(default)]
    pub event: Option<EndpointEvent>,
    /// Which namespace that of the event was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_id: Option<NetnsId>,
}

impl Announcement {
    /// `seq` of the event of ADD; 0: not known.
    pub fn seq(&self) -> u64 {
        self.event.as_ref().map_or(0, |event| event.seq)
    }

    /// Whether the container's namespace is proven to be gone: another one is at its place, or
    /// none, and no process is in it.
    pub fn is_dead(&self) -> bool {
        let (Some(id), Some(path)) = (&self.netns_id, self.event.as_ref().and_then(netns)) else {
            return false;
        };
        NetnsLife::at(path, Some(id)) == NetnsLife::Gone && !id.has_process()
    }
}

/// `CNI_NETNS` of the ADD that an event tells of.
pub(crate) fn netns(event: &EndpointEvent) -> Option<&str> {
    event.record.as_ref()?.netns.as_deref()
}

/// The key of `request`'s attachment.
pub(crate) fn key(request: &Request) -> RecordKey {
    RecordKey {
        network: request.network.clone(),
        container_id: request.attachment.container_id.clone(),
        ifname: request.attachment.ifname.clone(),
    }
}

/// An attachment as the daemon's API calls it. The two differ in their form as JSON: records say
/// `container_id`, events `containerID`.
pub fn endpoint_key(key: RecordKey) -> EndpointKey {
    let RecordKey { network, container_id, ifname } = key;
    EndpointKey { network, container_id, ifname }
}

/// An attachment as records on this node call it.
pub fn record_key(key: EndpointKey) -> RecordKey {
    let EndpointKey { network, container_id, ifname } = key;
    RecordKey { network, container_id, ifname }
}

/// Excludes other changes of the host ports of this node.
///
/// # Errors
/// Another process holds the lock for too long, or there is no place for it.
pub(crate) fn lock_rules(run_dir: &Path) -> Result<FileLock, Error> {
    let msg = "wait for another change of the host ports";
    FileLock::acquire(&paths::rules_lock(run_dir), LOCK_WAIT).map_err(|e| failure::kernel(msg, &e))
}
