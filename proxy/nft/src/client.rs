//! A netlink connection to nf_tables of the namespace it was opened in.

use causeway_ruleset::{Batch, Element, Key, Rule, SetSpec, TableId, TableState};

use crate::Result;

/// A connection. Opened in the calling thread's network namespace, it stays there.
#[derive(Debug)]
pub struct Client {
    _private: (),
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// No nf_tables in this kernel, or no permission.
    pub fn open() -> Result<Self> {
        todo!()
    }

    /// Commits a batch as one transaction: all or nothing. An empty batch sends nothing.
    ///
    /// # Errors
    /// The first operation that the kernel refused.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        let _ = batch;
        todo!()
    }

    /// The current ruleset generation.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn generation(&mut self) -> Result<u32> {
        todo!()
    }

    /// One element by key, or `None` when it, its set or its table is absent. No dump.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn element(
        &mut self,
        table: &TableId,
        set: &SetSpec,
        key: &Key,
    ) -> Result<Option<Element>> {
        let _ = (table, set, key);
        todo!()
    }

    /// All elements of a set; empty when it or its table is absent.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn elements(&mut self, table: &TableId, set: &SetSpec) -> Result<Vec<Element>> {
        let _ = (table, set);
        todo!()
    }

    /// Rules of one chain with their handles; empty when it or its table is absent.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn rules(&mut self, table: &TableId, chain: &str) -> Result<Vec<(u64, Rule)>> {
        let _ = (table, chain);
        todo!()
    }

    /// A whole table, or `None`.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn table(&mut self, table: &TableId) -> Result<Option<TableState>> {
        let _ = table;
        todo!()
    }
}
