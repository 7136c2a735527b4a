//! A request: what the environment and stdin say, checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{CniResult, Error, Version};

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Verify (0.4.0).
    Check,
    /// Remove what no valid attachment owns (1.1.0).
    Gc,
    /// Whether ADD can work (1.1.0).
    Status,
    /// Print supported versions.
    Version,
}

/// Identity of an attachment within a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// `CNI_ARGS`, parsed (rows C23, C24). Keys are case-sensitive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// All pairs in key order, `IgnoreUnknown` not among them.
    pub pairs: BTreeMap<String, String>,
    /// Whether `IgnoreUnknown` was 1 or true.
    pub ignore_unknown: bool,
}

/// A checked request for any command but VERSION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The operation.
    pub command: Command,
    /// Network name (`name`).
    pub network: String,
    /// The configuration's version.
    pub version: Version,
    /// Who; empty strings for GC and STATUS.
    pub attachment: Attachment,
    /// `CNI_NETNS`, byte for byte; `None` when empty or absent.
    pub netns: Option<String>,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// `CNI_PATH`, split; empty elements dropped.
    pub path: Vec<PathBuf>,
    /// `prevResult`, converted to 1.1.0's shape.
    pub prev_result: Option<CniResult>,
    /// GC: `cni.dev/valid-attachments`; absent and empty are both an empty list (row C74).
    pub valid_attachments: Vec<Attachment>,
    /// The configuration as sent, keys as sent (labels and other maps whose keys are data).
    pub raw: Value,
    /// stdin, byte for byte, for delegation (row C80).
    pub stdin: Vec<u8>,
    /// The whole environment, for delegation.
    pub env: BTreeMap<String, String>,
}

impl Request {
    /// The configuration as `T`. Object keys are lower-cased at every level and `null` members
    /// dropped before `T` reads it, so `T` declares lower-case names
    /// (`#[serde(rename_all = "lowercase")]` after removing underscores) and every key matches
    /// without regard to case (rows C20 to C22). Of two keys that differ by case the later counts.
    ///
    /// # Errors
    /// Code 6 naming the field.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Error> {
        todo!()
    }
}
