//! The snapshot of the cluster: what the other nodes were when the cluster's store last spoke. A
//! node that starts while that store is away works by it (rows C-05, O-67).
//!
//! Beside objects and own containers, in the same tree. Keys: `n`, name of a node; `s`, subnet; `r`,
//! node, zero, network, zero, container id, zero, interface; `known`. Values are what the cluster's
//! store holds. Nothing here waits for the disk or counts for the seal: what a crash loses of it is
//! listed again. It is not sifted by boots: those of this node say nothing of the others.

use std::collections::BTreeMap;

use causeway_model::EndpointKey;
use ipnetwork::IpNetwork;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Store, disk, value};
use crate::cluster::{Change, Known, View};
use crate::stored;

const NODES: &[u8] = b"n";
const SUBNETS: &[u8] = b"s";
const REMOTE: &[u8] = b"r";
const KNOWN: &[u8] = b"known";

impl Store {
    /// Takes in what changed in the cluster, all or nothing; of changes of one key the last counts.
    /// With a node go its containers. Survives a kill from the next [`Store::flush`] on.
    ///
    /// # Errors
    /// See [`Error`]; then nothing is stored.
    pub fn write_cluster(&self, changes: &[Change]) -> Result<(), Error> {
        // Of keys, with new values.
        let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for change in changes {
            let (key, value) = match change {
                Change::Node(node) => {
                    (prefixed(NODES, node.identity.node.as_bytes()), Some(json(node)))
                }
                Change::NodeGone(node) => {
                    self.remove_containers(node, &mut writes)?;
                    (prefixed(NODES, node.as_bytes()), None)
                }
                Change::Subnet(record) => (subnet_key(record.subnet), Some(json(record))),
                Change::SubnetGone(subnet) => (subnet_key(*subnet), None),
                Change::Container(node, container) => {
                    (remote_key(node, &container.record.key), Some(json(container)))
                }
                Change::ContainerGone(node, key) => (remote_key(node, key), None),
                Change::Object(stored) => {
                    let key = value::object_key(stored.object.kind(), stored.object.key());
                    (key, Some(stored::encode(stored)))
                }
                Change::ObjectGone(kind, key) => (value::object_key(*kind, key), None),
            };
            writes.insert(key, value);
        }
        self.write_batch(writes)
    }

    /// The cluster as it was written, without objects (see [`Store::objects`]), and what the last
    /// run left. What does not decode is left where it is and named in [`View::unreadable`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn cluster(&self) -> Result<(View, Known), Error> {
        self.with("read", |db| {
            let mut view = View::default();
            let unreadable = &mut view.unreadable;
            for node in read(db, NODES, "node", unreadable)? {
                let (_, node): (_, causeway_model::NodeRecord) = node;
                view.nodes.insert(node.identity.node.clone(), node);
            }
            for subnet in read(db, SUBNETS, "subnet", unreadable)? {
                let (_, subnet): (_, causeway_model::SubnetRecord) = subnet;
                view.subnets.insert(subnet.subnet, subnet);
            }
            for (key, container) in read(db, REMOTE, "container", unreadable)? {
                let node = key.split(|byte| *byte == 0).next().unwrap_or_default();
                view.containers.push((String::from_utf8_lossy(node).into_owned(), container));
            }
            let known = match db.get(KNOWN)?.map(|bytes| serde_json::from_slice(&bytes)) {
                Some(Ok(known)) => known,
                Some(Err(error)) => {
                    unreadable.insert("known of the cluster".to_owned(), error.to_string());
                    Known::default()
                }
                None => Known::default(),
            };
            Ok((view, known))
        })
    }

    /// What the last run left, alone.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn known(&self) -> Result<Known, Error> {
        let bytes = self.with("read", |db| db.get(KNOWN))?;
        let known = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(known.unwrap_or_default())
    }

    /// Keeps what the next run is to know. Survives a kill from the next [`Store::flush`] on.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_known(&self, known: &Known) -> Result<(), Error> {
        self.write_batch(BTreeMap::from([(KNOWN.to_vec(), Some(json(known)))]))
    }

    /// Containers of a node: those on disk and those that `writes` would put there.
    fn remove_containers(
        &self,
        node: &str,
        writes: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Result<(), Error> {
        let prefix = [REMOTE, node.as_bytes(), b"\0"].concat();
        for (key, value) in writes.range_mut(prefix.clone()..) {
            if !key.starts_with(&prefix) {
                break;
            }
            *value = None;
        }
        self.with("read", |db| {
            for key in db.scan_prefix(&prefix).keys() {
                writes.insert(key?.to_vec(), None);
            }
            Ok(())
        })
    }

    fn write_batch(&self, writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), Error> {
        let size = writes.values().flatten().map(Vec::len).sum();
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        // What gives room needs none.
        if size > 0 {
            disk::require_space(&self.path, size)?;
        }
        self.with("write", |db| db.apply_batch(batch))
    }
}

/// All values of a prefix with the rest of their keys.
fn read<T: DeserializeOwned>(
    db: &sled::Db,
    prefix: &[u8],
    kind: &str,
    unreadable: &mut BTreeMap<String, String>,
) -> sled::Result<Vec<(Vec<u8>, T)>> {
    let mut all = Vec::new();
    for entry in db.scan_prefix(prefix) {
        let (key, bytes) = entry?;
        let rest = &key[prefix.len()..];
        match serde_json::from_slice(&bytes) {
            Ok(value) => all.push((rest.to_vec(), value)),
            Err(error) => {
                let name = String::from_utf8_lossy(rest).replace('\0', "/");
                unreadable.insert(format!("{kind} {name}"), error.to_string());
            }
        }
    }
    Ok(all)
}

fn prefixed(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    [prefix, rest].concat()
}

fn subnet_key(subnet: IpNetwork) -> Vec<u8> {
    prefixed(SUBNETS, subnet.to_string().as_bytes())
}

fn remote_key(node: &str, key: &EndpointKey) -> Vec<u8> {
    let EndpointKey { network, container_id, ifname } = key;
    let parts = [node, network, container_id, ifname].map(str::as_bytes);
    prefixed(REMOTE, &parts.join(&0))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of strings and numbers")
}

#[cfg(test)]
mod tests;
