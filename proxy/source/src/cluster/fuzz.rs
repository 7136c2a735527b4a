//! Entry point of the fuzz target for records of the store: whatever bytes stand there, reading
//! must not panic, and what was read is written and read back as it is.

use causeway_model::ClusterConfig;

use super::Change;
use super::keys::Keys;
use super::value::{self, Reader};
use crate::etcd::KeyValue;

/// Reads what stands at a key below `/causeway` as the node `me`; `None` if it says nothing.
///
/// # Panics
/// It is written otherwise than it was read.
pub fn read(me: &str, key: &[u8], bytes: &[u8], config: &ClusterConfig) -> Option<Change> {
    let keys = Keys::new("/causeway");
    std::hint::black_box(value::gone(&keys, key));
    let reader = Reader { keys: &keys, me, config };
    let pair = |value| KeyValue { key: key.to_vec(), value, ..KeyValue::default() };
    let change = reader.decode(&pair(bytes.to_vec())).ok()??;
    let written = match &change {
        Change::Node(record) => value::encode(record),
        Change::Subnet(record) => value::encode(record),
        Change::Container(_, container) => value::encode(container),
        Change::Object(stored) => value::encode_stored(stored, me),
        Change::NodeGone(_)
        | Change::SubnetGone(_)
        | Change::ContainerGone(..)
        | Change::ObjectGone(..) => return None,
    };
    let again = reader.decode(&pair(written));
    assert_eq!(again.as_ref(), Ok(&Some(change.clone())));
    Some(change)
}
