//! Changes: what one transaction does. A batch leaves nothing to decide (I3).

use crate::{ChainSpec, Element, Rule, SetSpec, TableId};

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates a table; its presence is fine.
    AddTable(TableId),
    /// Deletes a table with its content; `ENOENT` if absent.
    DeleteTable(TableId),
    /// Creates a chain; its presence is fine.
    AddChain(TableId, ChainSpec),
    /// Removes all rules of a chain.
    FlushChain(TableId, String),
    /// Deletes a chain.
    DeleteChain(TableId, String),
    /// Creates a set or map; its presence is fine.
    AddSet(TableId, SetSpec),
    /// Removes all elements.
    FlushSet(TableId, String),
    /// Deletes a set or map.
    DeleteSet(TableId, String),
    /// Adds elements to a set whose shape is `set`.
    AddElements {
        /// Table.
        table: TableId,
        /// Shape of the set (only `name`, `key`, `target` and `interval` count).
        set: SetSpec,
        /// Elements.
        elements: Vec<Element>,
        /// `NLM_F_EXCL`: presence is `EEXIST` instead of fine.
        exclusive: bool,
    },
    /// Deletes elements by key; `ENOENT` if absent.
    DeleteElements {
        /// Table.
        table: TableId,
        /// Shape of the set.
        set: SetSpec,
        /// Keys count; values and comments do not.
        elements: Vec<Element>,
    },
    /// Appends a rule.
    AddRule {
        /// Table.
        table: TableId,
        /// Chain.
        chain: String,
        /// Rule.
        rule: Rule,
    },
    /// Deletes a rule by handle.
    DeleteRule {
        /// Table.
        table: TableId,
        /// Chain.
        chain: String,
        /// Handle.
        handle: u64,
    },
}

impl Op {
    /// The table that it changes.
    pub fn table(&self) -> &TableId {
        match self {
            Self::AddTable(table)
            | Self::DeleteTable(table)
            | Self::AddChain(table, _)
            | Self::FlushChain(table, _)
            | Self::DeleteChain(table, _)
            | Self::AddSet(table, _)
            | Self::FlushSet(table, _)
            | Self::DeleteSet(table, _)
            | Self::AddElements { table, .. }
            | Self::DeleteElements { table, .. }
            | Self::AddRule { table, .. }
            | Self::DeleteRule { table, .. } => table,
        }
    }
}

/// Operations that the kernel applies together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order.
    pub ops: Vec<Op>,
    /// Commit only if the ruleset generation is still this one; else the commit fails with
    /// `ERESTART`.
    pub generation: Option<u32>,
}
