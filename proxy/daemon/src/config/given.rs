//! Values as they were given, before they are checked.

use std::collections::BTreeMap;

/// A value and where it is, for messages.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub value: String,
    pub field: String,
}

/// Key of the tables that stand in the file in the place of `lb-pool`, as JSON.
pub(super) const POOL_TABLES: &str = "lb-pool tables";

/// Values by name of the key; absent: the default.
pub(super) type Values = BTreeMap<&'static str, Given>;
