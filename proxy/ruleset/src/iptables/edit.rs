//! Chains to write and to delete, while they are collected.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{ChainName, Chains, Table};

/// What is kept of a chain's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    hash: u64,
    /// How many rules it has.
    pub(super) rules: u32,
}

impl Stamp {
    pub(super) fn of(lines: &[String]) -> Self {
        let mut hasher = DefaultHasher::new();
        lines.hash(&mut hasher);
        Self { hash: hasher.finish(), rules: u32::try_from(lines.len()).unwrap_or(u32::MAX) }
    }
}

/// Chains to write and to delete, while they are collected.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    pub(super) known: &'a BTreeMap<ChainName, Stamp>,
    pub(super) write: Chains,
    pub(super) delete: BTreeSet<ChainName>,
}

impl Edit<'_> {
    pub(super) fn delete(&mut self, table: Table, name: String) {
        self.delete.insert((table, name.into()));
    }

    pub(super) fn put_unless_empty(&mut self, table: Table, name: String, lines: Vec<String>) {
        if lines.is_empty() {
            self.delete(table, name);
        } else {
            self.write.insert((table, name.into()), lines);
        }
    }

    /// Whether the chain is there afterwards.
    pub(super) fn will_have(&self, table: Table, name: &str) -> bool {
        let name = (table, name.into());
        self.write.contains_key(&name)
            || self.known.contains_key(&name) && !self.delete.contains(&name)
    }
}
