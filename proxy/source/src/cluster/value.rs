//! Values of the store: JSON. What does not decode is named and left alone (row C-14).

use causeway_model::{NodeRecord, SubnetRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::{Key, Keys};
use super::{Change, Container};
use crate::store::value::{decode_object, encode_object};
use crate::{Origin, Stored};

/// A value of ours as it is written.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON of strings and numbers")
}

/// An object as it is written by the node `me`: with whose manifest directory it is from.
pub(super) fn encode_stored(stored: &Stored, me: &str) -> Vec<u8> {
    let Origin::Manifest(file) = &stored.origin else { return encode_object(stored) };
    let origin = Origin::Elsewhere { node: me.to_owned(), file: file.clone() };
    encode_object(&Stored { object: stored.object.clone(), origin })
}

/// What a key and its value say to the node `me`; `None` where that is nothing for a view
/// (`config`, reservations, claims).
///
/// # Errors
/// It can not be read: key and why.
pub(super) fn decode(
    keys: &Keys,
    me: &str,
    key: &[u8],
    value: &[u8],
) -> Result<Option<Change>, String> {
    let named = |why: String| format!("{}: {why}", String::from_utf8_lossy(key));
    let Some(parsed) = keys.parse(key) else {
        return Err(named("no key that this version of causewayd knows".into()));
    };
    fact(parsed, me, value).map_err(named)
}

fn fact(key: Key, me: &str, value: &[u8]) -> Result<Option<Change>, String> {
    Ok(Some(match key {
        Key::Config | Key::Reservation(_) | Key::Claim(_) => return Ok(None),
        Key::Node(name) => {
            let record: NodeRecord = json(value)?;
            same(&name, &record.identity.node)?;
            Change::Node(record)
        }
        Key::Container(node, key) => {
            let container: Container = json(value)?;
            same(&key, &container.record.key)?;
            Change::Container(node, container)
        }
        Key::Subnet(subnet) => {
            let record: SubnetRecord = json(value)?;
            same(&subnet, &record.subnet)?;
            Change::Subnet(record)
        }
        Key::Object(kind, key) => {
            let mut stored = decode_object(value)?;
            same(&kind, &stored.object.kind())?;
            same(&key, stored.object.key())?;
            if let Origin::Elsewhere { node, file } = &stored.origin
                && node == me
            {
                stored.origin = Origin::Manifest(file.clone());
            }
            Change::Object(stored)
        }
    }))
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
    if key == value { Ok(()) } else { Err("the value is that of another key".into()) }
}

#[cfg(test)]
mod tests;
