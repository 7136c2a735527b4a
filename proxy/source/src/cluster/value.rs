//! Values of the store: JSON. What does not decode is named and left alone (row C-14).

use std::net::IpAddr;

use causeway_model::{ClusterConfig, NodeIdentity, NodeRecord, SubnetRecord, part_len};
use ipnetwork::IpNetwork;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::{Key, Keys};
use super::registry::is_part;
use super::{Change, ClusterSettings, Container};
use crate::etcd::KeyValue;
use crate::stored::{self, Origin, Stored};

/// Of a node's name and its machine id, in bytes: what DNS allows a name.
const LONGEST_NAME: usize = 253;

/// Of a container's record in bytes: twice what Kubernetes allows annotations.
const LARGEST_CONTAINER: usize = 512 << 10;

/// A value of ours as it is written.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of strings and numbers")
}

/// An object as it is written by the node `me`: with whose manifest directory it is from.
pub(super) fn encode_stored(stored: &Stored, me: &str) -> Vec<u8> {
    let Origin::Manifest(file) = &stored.origin else { return stored::encode(stored) };
    let origin = Origin::Elsewhere { node: me.to_owned(), file: file.clone() };
    stored::encode(&Stored { object: stored.object.clone(), origin })
}

/// Who reads, and by what agreement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) keys: &'a Keys,
    pub(super) me: &'a str,
    pub(super) config: &'a ClusterConfig,
}

impl<'a> Reader<'a> {
    pub(super) fn new(keys: &'a Keys, settings: &'a ClusterSettings) -> Self {
        Self { keys, me: &settings.identity.node, config: &settings.config }
    }

    /// What a key and its value say; `None` if that is nothing for a view (`config`,
    /// reservations, claims).
    ///
    /// # Errors
    /// The reason why it cannot be read or does not count.
    pub(super) fn decode(&self, pair: &KeyValue) -> Result<Option<Change>, String> {
        let Some(parsed) = self.keys.parse(&pair.key) else {
            return Err("not a key that this version of causewayd knows".into());
        };
        Ok(Some(match parsed {
            Key::Config | Key::Claim(_) => return Ok(None),
            Key::Reservation(subnet) => {
                self.part(subnet)?;
                return Ok(None);
            }
            Key::Node(name) => {
                let mut record: NodeRecord = json(&pair.value)?;
                same(&name, &record.identity.node)?;
                named(&record.identity)?;
                reachable(&record.ips)?;
                record.created = pair.create_revision;
                Change::Node(record)
            }
            Key::Container(node, key) => {
                if pair.value.len() > LARGEST_CONTAINER {
                    let most = LARGEST_CONTAINER >> 10;
                    return Err(format!("larger than {most} KiB: labels are not meant for data"));
                }
                let container: Container = json(&pair.value)?;
                same(&key, &container.record.key)?;
                Change::Container(node, container)
            }
            Key::Subnet(subnet) => {
                self.part(subnet)?;
                let mut record: SubnetRecord = json(&pair.value)?;
                same(&subnet, &record.subnet)?;
                named(&record.owner)?;
                reachable(&record.ips)?;
                record.created = pair.create_revision;
                Change::Subnet(record)
            }
            Key::Object(kind, key) => {
                let mut stored = stored::decode(&pair.value)?;
                same(&kind, &stored.object.kind())?;
                same(&key, stored.object.key())?;
                if let Origin::Elsewhere { node, file } = &stored.origin
                    && node == self.me
                {
                    stored.origin = Origin::Manifest(file.clone());
                }
                Change::Object(stored)
            }
        }))
    }

    /// Of another length, one key would be many nodes' parts.
    fn part(&self, subnet: IpNetwork) -> Result<(), String> {
        if is_part(self.config, subnet) {
            return Ok(());
        }
        let lengths = self.config.cluster_cidrs.iter().map(|cluster| {
            let length = part_len(*cluster, self.config.node_subnet_len);
            format!("length {length} in {cluster}")
        });
        let lengths: Vec<String> = lengths.collect();
        Err(format!(
            "not a node subnet of this cluster ({}): it is ignored, remove it",
            lengths.join(", ")
        ))
    }
}

/// Names get into lines of logs and status.
fn named(identity: &NodeIdentity) -> Result<(), String> {
    let NodeIdentity { node, machine_id } = identity;
    let good = |text: &str| text.len() <= LONGEST_NAME && !text.chars().any(char::is_control);
    if !node.is_empty() && good(node) && good(machine_id) {
        return Ok(());
    }
    Err(format!("name and machine id must be one line of at most {LONGEST_NAME} bytes"))
}

fn reachable(ips: &[IpAddr]) -> Result<(), String> {
    let most = |v4: bool| ips.iter().filter(|ip| ip.is_ipv4() == v4).count() <= 1;
    if most(true) && most(false) {
        Ok(())
    } else {
        Err("more than one address per IP family".into())
    }
}

/// What it means that a key is gone.
pub(super) fn gone(keys: &Keys, key: &[u8]) -> Option<Change> {
    match keys.parse(key)? {
        Key::Config | Key::Reservation(_) | Key::Claim(_) => None,
        Key::Node(name) => Some(Change::NodeGone(name)),
        Key::Container(node, key) => Some(Change::ContainerGone(node, key)),
        Key::Subnet(subnet) => Some(Change::SubnetGone(subnet)),
        Key::Object(kind, key) => Some(Change::ObjectGone(kind, key)),
    }
}

pub(super) fn json<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn same<T: PartialEq>(key: &T, value: &T) -> Result<(), String> {
    if key == value { Ok(()) } else { Err("the value belongs to another key".into()) }
}

#[cfg(test)]
mod tests;
