//! `node.json`: what the daemon says of this node to the plugins.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::file::{self, Outlives};

/// The content of `node.json`, of this version or another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFile {
    /// Name of the node.
    pub node: Field<String>,
    /// Its parts of the cluster network, from which `"subnet": "auto"` draws; `None` if the file
    /// does not say.
    #[serde(skip_serializing_if = "Field::is_none")]
    pub subnets: Field<Option<Vec<IpNetwork>>>,
    /// Why there is none.
    #[serde(rename = "subnetRefused", skip_serializing_if = "Field::is_none")]
    pub refused: Field<Option<String>>,
    /// MTU of the overlay in bytes.
    #[serde(rename = "overlayMTU", skip_serializing_if = "Field::is_none")]
    pub overlay_mtu: Field<Option<u32>>,
    /// What containers are to ask for names; `None`: nothing of ours.
    #[serde(skip_serializing_if = "Field::is_none")]
    pub dns: Field<Option<NodeDns>>,
    /// Networks of all containers of the cluster.
    #[serde(rename = "clusterCIDRs")]
    pub cluster: Field<Vec<IpNetwork>>,
    /// Networks of the services.
    #[serde(rename = "serviceCIDRs")]
    pub services: Field<Vec<IpNetwork>>,
}

/// The node's name servers, for resolv.conf of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDns {
    /// Domain of the cluster.
    pub domain: String,
    /// Whether the node answers at the gateway addresses of its networks.
    pub gateways: bool,
    /// Addresses that answer every container, at port 53.
    pub servers: Vec<IpAddr>,
}

impl NodeDns {
    /// A name with fewer dots is tried with the search list first, as kubelet has it:
    /// `web.other.svc` has two.
    pub const NDOTS: usize = 5;
    /// What glibc before 2.26 reads of a search list: so many characters.
    const SEARCH_LENGTH: usize = 255;

    /// Search list of a container in `namespace`: names of its own namespace first, then those of all
    /// namespaces. A namespace that cannot be part of a name is left out.
    pub fn search(&self, namespace: &str) -> Vec<String> {
        let domain = self.domain.trim_end_matches('.');
        if domain.is_empty() {
            return Vec::new();
        }
        let own = is_label(namespace).then(|| format!("{namespace}.svc.{domain}"));
        let mut list: Vec<String> = own.into_iter().collect();
        list.extend([format!("svc.{domain}"), domain.to_owned()]);
        let length = |list: &[String]| list.iter().map(|one| one.len() + 1).sum::<usize>();
        while length(&list) > Self::SEARCH_LENGTH + 1 {
            list.pop();
        }
        list
    }
}

/// Whether it can be a label of a host's name (RFC 1123).
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A field of the file, or why it does not decode. Plugins and daemon may be of different versions:
/// only whoever uses a field minds what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<T>(Result<T, String>);

impl<T> Field<T> {
    /// What it holds.
    ///
    /// # Errors
    /// `InvalidData` if it does not decode.
    pub fn get(self) -> io::Result<T> {
        self.0.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

impl<T> Field<Option<T>> {
    /// What it holds; `None` if it does not decode either.
    pub fn if_valid(self) -> Option<T> {
        self.0.ok().flatten()
    }

    fn is_none(&self) -> bool {
        matches!(self.0, Ok(None))
    }
}

impl<T> From<T> for Field<T> {
    fn from(value: T) -> Self {
        Self(Ok(value))
    }
}

impl<T: Default> Default for Field<T> {
    fn default() -> Self {
        Self(Ok(T::default()))
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Field<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(serde_json::from_value(value).map_err(|error| error.to_string())))
    }
}

impl NodeFile {
    /// Reads the file; `None` if there is none: no daemon has run.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData` if it is no JSON object.
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
    ///
    /// # Errors
    /// `InvalidData` if a field does not decode.
    pub fn never_masqueraded(self) -> io::Result<Vec<IpNetwork>> {
        Ok([self.cluster.get()?, self.services.get()?].concat())
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
            r#""dns":{"domain":"cluster.local","gateways":true,"servers":["172.30.0.10"]},"#,
            r#""clusterCIDRs":["10.0.0.0/16"],"serviceCIDRs":["172.30.0.0/16"]}"#,
            "\n"
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.json");
        assert_eq!(NodeFile::read(&path).expect("no error"), None);
        std::fs::write(&path, WRITTEN).expect("written");
        let read = NodeFile::read(&path).expect("readable").expect("a file");
        let network = |text: &str| text.parse::<IpNetwork>().expect("a network");
        let subnets = Some(vec![network("10.0.1.0/24"), network("fd00:1::/64")]);
        assert_eq!(read.subnets, subnets.into());
        assert_eq!((&read.overlay_mtu, &read.refused), (&Some(1450).into(), &None.into()));
        let dns = NodeDns {
            domain: "cluster.local".to_owned(),
            gateways: true,
            servers: vec!["172.30.0.10".parse().expect("an address")],
        };
        assert_eq!(read.dns, Some(dns).into());
        read.write(&path).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), WRITTEN);
        let refused = NodeFile {
            refused: Some("why".to_owned()).into(),
            overlay_mtu: None.into(),
            dns: None.into(),
            ..read
        };
        refused.write(&path).expect("written");
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.contains(r#"fd00:1::/64"],"subnetRefused":"why","clusterCIDRs""#), "{text}");
        assert_eq!(NodeFile::read(&path).expect("readable"), Some(refused));
    }

    #[test]
    fn what_does_not_decode_is_told_from_what_cannot_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.json");
        for text in ["", "[]"] {
            std::fs::write(&path, text).expect("written");
            let error = NodeFile::read(&path).expect_err("not valid");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            NodeFile::read(&path).expect("readable").expect("a file")
        };
        let error = read(r#"{"subnets":["x"]}"#).subnets.get().expect_err("not valid");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = read(r#"{"overlayMTU":-1}"#).overlay_mtu.get().expect_err("not valid");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("`-1`, expected u32"), "{error}");
        std::fs::write(&path, "{}").expect("written");
        assert_eq!(NodeFile::read(&path).expect("readable"), Some(NodeFile::default()));
    }

    /// What one field holds is no matter to those who ask for another.
    #[test]
    fn each_field_is_decoded_for_whoever_uses_it() {
        const FOREIGN: &str = r#"{"node":1,"subnets":{"v4":[]},"subnetRefused":[],
            "overlayMTU":1450,"clusterCIDRs":["10.0.0.0/16"],"serviceCIDRs":["172.30.0.0/16"]}"#;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.json");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            NodeFile::read(&path).expect("readable").expect("a file")
        };
        let file = read(FOREIGN);
        assert_eq!(file.overlay_mtu.clone().get().expect("a number"), Some(1450));
        assert_eq!(
            (file.clone().subnets.if_valid(), file.clone().refused.if_valid()),
            (None, None)
        );
        assert!(file.clone().subnets.get().is_err() && file.clone().node.get().is_err());
        assert_eq!(file.never_masqueraded().expect("networks").len(), 2);
        let error = read(r#"{"serviceCIDRs":7}"#).never_masqueraded().expect_err("not valid");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
