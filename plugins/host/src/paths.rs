//! Where plugins and daemon find each other's traces: names below the run directory, and marks on
//! links.

use std::path::{Path, PathBuf};

/// Kinds of records, the directories of [`attachments`] that more than one program reads.
pub mod kind {
    /// What `causeway-bridge` made.
    pub const BRIDGE: &str = "bridge";
    /// Its notes that the chain of an attachment has failed: no runtime need send DEL for it. Written
    /// by whoever refuses, removed with the record.
    pub const FAILED: &str = "failed";
    /// The host ports of `causeway-service`.
    pub const SERVICE: &str = "service";
    /// What it told the daemon.
    pub const ENDPOINT: &str = "endpoint";
}

/// Alias of bridges that a plugin made.
pub const BRIDGE_ALIAS: &str = "causeway bridge";
/// Alias of vxlan devices that a plugin made, before the name of their network.
pub const VXLAN_ALIAS: &str = "causeway vxlan ";

/// The records of attachments: see [`crate::Records`].
pub fn attachments(run_dir: &Path) -> PathBuf {
    run_dir.join("attachments")
}

/// The lock around every read, compare and write of the plugins' rules.
pub fn rules_lock(run_dir: &Path) -> PathBuf {
    run_dir.join("rules.lock")
}

/// The lock of those who compare a bridge's addresses with records.
pub fn gateways_lock(run_dir: &Path) -> PathBuf {
    run_dir.join("gateways.lock")
}

/// What the daemon says of this node: see [`crate::NodeFile`].
pub fn node_file(folder: &Path) -> PathBuf {
    folder.join("node.json")
}

/// A file for each interface whose `route_localnet` a plugin switched on.
pub fn route_localnet(run_dir: &Path) -> PathBuf {
    run_dir.join("route_localnet")
}

/// The addresses that no neighbour had, for each bridge.
pub fn probed(run_dir: &Path) -> PathBuf {
    run_dir.join("probed")
}

/// The directories of leases other than the default one.
pub fn data_dirs(run_dir: &Path) -> PathBuf {
    run_dir.join("data-dirs")
}

/// A directory for each network that was used since this run directory began.
pub fn networks(run_dir: &Path) -> PathBuf {
    run_dir.join("networks")
}

/// The lock of the first user of a network.
pub fn networks_lock(run_dir: &Path) -> PathBuf {
    run_dir.join("networks.lock")
}
