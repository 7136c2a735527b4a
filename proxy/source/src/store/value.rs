//! Keys of the tree, and events as its values.

use causeway_model::{EndpointEvent, EndpointKey, ObjectKey, ObjectKind};

/// What keys of objects begin with.
pub(super) const OBJECTS: &[u8] = b"o";
/// What keys of containers begin with.
pub(super) const CONTAINERS: &[u8] = b"c";

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

pub(super) fn encode_event(event: &EndpointEvent) -> Vec<u8> {
    serde_json::to_vec(event).expect("JSON of strings and numbers")
}

pub(super) fn decode_event(bytes: &[u8]) -> Option<EndpointEvent> {
    serde_json::from_slice(bytes).ok()
}
