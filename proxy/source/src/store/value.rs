//! Keys and values of the tree.

use causeway_model::{EndpointEvent, EndpointKey, Object, ObjectKey, ObjectKind, manifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Origin, Stored};

/// What keys of objects begin with.
pub(super) const OBJECTS: &[u8] = b"o";
/// What keys of containers begin with.
pub(super) const CONTAINERS: &[u8] = b"c";

/// An object as it lies on disk. Beside the document stands what a document does not say.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    /// Absent: `causeway apply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// Whose manifest directory, if it is not this node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    created: u64,
    object: Value,
}

/// Key of an object.
pub(super) fn object_key(kind: ObjectKind, key: &ObjectKey) -> Vec<u8> {
    let letter = match kind {
        ObjectKind::Service => b's',
        ObjectKind::EndpointSlice => b'e',
        ObjectKind::Node => b'n',
    };
    let mut bytes = [OBJECTS, &[letter]].concat();
    bytes.extend_from_slice(key.namespace.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.name.as_bytes());
    bytes
}

/// Key of a container.
pub(super) fn container_key(key: &EndpointKey) -> Vec<u8> {
    let EndpointKey { network, container_id, ifname } = key;
    let parts = [network.as_bytes(), container_id.as_bytes(), ifname.as_bytes()];
    [CONTAINERS, &parts.join(&0)].concat()
}

/// What users call the object of a key: `service default/web`.
pub(super) fn name(key: &[u8]) -> String {
    let kind = match key.get(OBJECTS.len()) {
        Some(b's') => "service",
        Some(b'e') => "endpointslice",
        Some(b'n') => "node",
        _ => "object",
    };
    let rest = String::from_utf8_lossy(key.get(OBJECTS.len() + 1..).unwrap_or_default());
    let path = rest.replace('\0', "/");
    format!("{kind} {}", path.trim_start_matches('/'))
}

/// An object in its envelope.
pub(crate) fn encode_object(stored: &Stored) -> Vec<u8> {
    let created = match &stored.object {
        Object::Service(service) => service.created,
        Object::EndpointSlice(slice) => slice.created,
        Object::Node(node) => node.created,
    };
    let manifest = match &stored.origin {
        Origin::Api => None,
        Origin::Manifest(file) | Origin::Elsewhere { file, .. } => Some(file.clone()),
    };
    let node = match &stored.origin {
        Origin::Elsewhere { node, .. } => Some(node.clone()),
        Origin::Api | Origin::Manifest(_) => None,
    };
    let object = manifest::to_json(&stored.object);
    let envelope = Envelope { manifest, node, created, object };
    serde_json::to_vec(&envelope).expect("JSON of values and strings")
}

/// The object of an envelope, or why there is none, in words.
pub(crate) fn decode_object(bytes: &[u8]) -> Result<Stored, String> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let objects = manifest::from_json(&envelope.object)
        .map_err(|refusal| format!("{}: {}", refusal.field, refusal.reason))?;
    let Ok([mut object]) = <[Object; 1]>::try_from(objects) else {
        return Err("not one object".into());
    };
    match &mut object {
        Object::Service(service) => service.created = envelope.created,
        Object::EndpointSlice(slice) => slice.created = envelope.created,
        Object::Node(node) => node.created = envelope.created,
    }
    let origin = match (envelope.manifest, envelope.node) {
        (None, _) => Origin::Api,
        (Some(file), None) => Origin::Manifest(file),
        (Some(file), Some(node)) => Origin::Elsewhere { node, file },
    };
    Ok(Stored { object, origin })
}

pub(super) fn encode_event(event: &EndpointEvent) -> Vec<u8> {
    serde_json::to_vec(event).expect("JSON of strings and numbers")
}

pub(super) fn decode_event(bytes: &[u8]) -> Option<EndpointEvent> {
    serde_json::from_slice(bytes).ok()
}
