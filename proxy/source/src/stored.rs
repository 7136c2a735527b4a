//! An object as every store keeps it: the document, and beside it what a document does not say.

use causeway_model::{Object, manifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who an object came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `causeway apply`.
    Api,
    /// A file of the manifest directory, by name: the object goes when the file has it no longer.
    Manifest(String),
    /// A file of another node's manifest directory, which alone changes it.
    Elsewhere {
        /// The node.
        node: String,
        /// The file.
        file: String,
    },
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The object, with all that was allocated.
    pub object: Object,
    /// Who it came from.
    pub origin: Origin,
}

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

/// An object in its envelope.
pub(crate) fn encode(stored: &Stored) -> Vec<u8> {
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
pub(crate) fn decode(bytes: &[u8]) -> Result<Stored, String> {
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
