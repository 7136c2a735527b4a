//! `node.json`: what the daemon says of this node to the plugins.

use std::io;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::file::{self, Outlives};

/// The content of `node.json`, of this version or an older one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFile {
    /// Name of the node.
    pub node: String,
    /// Its parts of the cluster network, from which `"subnet": "auto"` draws; `None` if the file
    /// does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnets: Option<Vec<IpNetwork>>,
    /// Why there is none.
    #[serde(rename = "subnetRefused", skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// MTU of the overlay in bytes.
    #[serde(rename = "overlayMTU", skip_serializing_if = "Option::is_none")]
    pub overlay_mtu: Option<u32>,
    /// Networks of all containers of the cluster.
    #[serde(rename = "clusterCIDRs")]
    pub cluster: Vec<IpNetwork>,
    /// Networks of the services.
    #[serde(rename = "serviceCIDRs")]
    pub services: Vec<IpNetwork>,
}

impl NodeFile {
    /// Reads the file; `None` if there is none: no daemon has run.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData` if it does not decode.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        // A list would decode as a struct whose fields are all absent.
        let object: serde_json::Result<serde_json::Map<_, _>> = serde_json::from_slice(&bytes);
        let file = object.and_then(|object| serde_json::from_value(object.into()));
        file.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Destinations that containers reach with their own address.
    pub fn never_masqueraded(self) -> Vec<IpNetwork> {
        self.cluster.into_iter().chain(self.services).collect()
    }

    /// Replaces the file, on disk when this returns.
    ///
    /// # Errors
    /// Disk full, permissions.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        // Plugins run as root, but what it says is not secret.
        file::replace(path, &path.with_extension("json.new"), &text, 0o644, Outlives::Power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte for byte: a plugin and a daemon of different versions meet on a node.
    #[test]
    fn the_form_on_disk_is_the_published_one() {
        const WRITTEN: &str = concat!(
            r#"{"node":"a","subnets":["10.0.1.0/24","fd00:1::/64"],"overlayMTU":1450,"#,
            r#""clusterCIDRs":["10.0.0.0/16"],"serviceCIDRs":["172.30.0.0/16"]}"#,
            "\n"
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.json");
        assert_eq!(NodeFile::read(&path).expect("no error"), None);
        std::fs::write(&path, WRITTEN).expect("written");
        let read = NodeFile::read(&path).expect("readable").expect("a file");
        let network = |text: &str| text.parse::<IpNetwork>().expect("a network");
        assert_eq!(read.subnets, Some(vec![network("10.0.1.0/24"), network("fd00:1::/64")]));
        assert_eq!((read.overlay_mtu, read.refused.as_deref()), (Some(1450), None));
        read.write(&path).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), WRITTEN);
        let refused = NodeFile { refused: Some("why".into()), overlay_mtu: None, ..read };
        refused.write(&path).expect("written");
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.contains(r#"fd00:1::/64"],"subnetRefused":"why","clusterCIDRs""#), "{text}");
        assert_eq!(NodeFile::read(&path).expect("readable"), Some(refused));
    }

    #[test]
    fn what_does_not_decode_is_told_from_what_cannot_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.json");
        for text in ["", "[]", r#"{"subnets":["x"]}"#, r#"{"overlayMTU":-1}"#] {
            std::fs::write(&path, text).expect("written");
            let error = NodeFile::read(&path).expect_err("not valid");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        std::fs::write(&path, "{}").expect("written");
        assert_eq!(NodeFile::read(&path).expect("readable"), Some(NodeFile::default()));
    }
}
