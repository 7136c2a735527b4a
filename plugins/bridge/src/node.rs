//! `runDir/node.json`: what the daemon says of this node. Absent without a daemon.

use std::io::ErrorKind;
use std::path::Path;

use cni_plugin::{Code, Error};
use ipnetwork::IpNetwork;
use serde::Deserialize;

/// The parts of `node.json` that this plugin uses if its configuration is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    /// MTU of the overlay in bytes.
    #[serde(rename = "overlayMTU")]
    pub overlay_mtu: Option<u32>,
    /// Networks of all containers of the cluster.
    #[serde(rename = "clusterCIDRs")]
    pub cluster: Vec<IpNetwork>,
    /// Networks of the services.
    #[serde(rename = "serviceCIDRs")]
    pub services: Vec<IpNetwork>,
}

impl Node {
    /// Destinations that containers reach with their own address.
    pub(crate) fn never_masqueraded(self) -> Vec<IpNetwork> {
        self.cluster.into_iter().chain(self.services).collect()
    }
}

/// Reads `node.json` below `run_dir`; its absence says nothing.
///
/// # Errors
/// Code 5 if it cannot be read, 6 if it does not decode.
pub(crate) fn read(run_dir: &Path) -> Result<Node, Error> {
    let path = run_dir.join("node.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Node::default()),
        Err(error) => {
            return Err(Error::caused(Code::Io, format!("cannot read {}", path.display()), &error));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let msg = format!("{} cannot be decoded; restart causewayd", path.display());
        Error::caused(Code::Decode, msg, &error)
    })
}
