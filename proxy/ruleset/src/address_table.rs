//! Small tables of our own that hold one set of addresses and the rules that ask it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::services::difference;
use crate::{Batch, DataType, Element, Key, Op, SetSpec, TableId, TableState};

/// A set of these addresses, all of one family.
pub(crate) fn set(name: &str, ipv6: bool, addresses: &BTreeSet<IpAddr>) -> (SetSpec, Vec<Element>) {
    let set = SetSpec {
        name: name.to_owned(),
        key: vec![if ipv6 { DataType::Ipv6Addr } else { DataType::Ipv4Addr }],
        target: None,
        interval: false,
        dynamic: false,
        timeout_ms: None,
    };
    let element =
        |ip: &IpAddr| Element { key: Key::Exact(vec![(*ip).into()]), value: None, comment: None };
    (set, addresses.iter().map(element).collect())
}

/// The transaction from what exists to what is wanted; `None` is no table. Empty if they
/// are equal.
pub fn diff(id: &TableId, actual: Option<&TableState>, wanted: Option<&TableState>) -> Batch {
    let ops = match (actual, wanted) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![Op::DeleteTable(id.clone())],
        (actual, Some(wanted)) => difference(id, actual.unwrap_or(&TableState::default()), wanted),
    };
    Batch { ops, generation: None }
}
