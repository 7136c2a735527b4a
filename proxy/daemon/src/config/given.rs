//! Values as they were given, before they are checked.

use std::collections::BTreeMap;

/// A value and where it is, for messages.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub value: String,
    pub field: String,
}

/// Values by name of the key; absent: the default.
pub(super) type Values = BTreeMap<&'static str, Given>;
