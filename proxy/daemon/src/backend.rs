//! A plan in the kernel, by nftables or by iptables.
//!
//! Only our own tables and chains are read and written (invariant I2). The rules stay when the
//! daemon ends.

mod iptables;
mod nftables;

use std::collections::BTreeSet;
use std::error::Error as StdError;

use causeway_nft::Monitor;
use causeway_ruleset::TableId;
use causeway_ruleset::plan::{Delta, Plan};

use crate::config::BackendKind;
pub(crate) use iptables::{FOLDERS, Iptables};
pub(crate) use nftables::Nftables;

/// Why the kernel does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub(crate) struct Error {
    /// What failed, with the remedy where there is one.
    pub action: String,
    /// Why.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

/// Result of a backend's operation.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(action: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { action: action.into(), source: source.into() }
    }
}

/// Who carries the rules.
#[derive(Debug)]
pub(crate) enum Backend {
    /// nf_tables by netlink.
    Nftables(Nftables),
    /// `iptables-restore`.
    Iptables(Iptables),
}

impl Backend {
    /// A backend that this node can use.
    ///
    /// # Errors
    /// What is missing, and what to do about it (row 97).
    pub(crate) fn open(kind: BackendKind) -> Result<Self> {
        Ok(match kind {
            BackendKind::Nftables => Self::Nftables(Nftables::open()?),
            BackendKind::Iptables => Self::Iptables(Iptables::open()?),
        })
    }

    /// Reads what is there and makes it what `plan` wants, changing only what differs: adoption,
    /// repair and full sync. Says whether something differed.
    ///
    /// # Errors
    /// See [`Error`]; what was there before still is.
    pub(crate) fn whole(&mut self, plan: &Plan) -> Result<bool> {
        match self {
            Self::Nftables(backend) => backend.whole(plan),
            Self::Iptables(backend) => backend.whole(plan),
        }
    }

    /// As [`Backend::whole`], cheaper, where `plan` is the one of the last call.
    ///
    /// # Errors
    /// See [`Error`]; what was there before still is.
    pub(crate) fn look(&mut self, plan: &Plan) -> Result<bool> {
        match self {
            Self::Nftables(backend) => backend.whole(plan),
            Self::Iptables(backend) => backend.look(plan),
        }
    }

    /// Makes a change of the plan. After an error only [`Backend::whole`] helps.
    ///
    /// # Errors
    /// See [`Error`]; what was there before still is.
    pub(crate) fn change(&mut self, plan: &Plan, delta: &Delta) -> Result<()> {
        match self {
            Self::Nftables(backend) => backend.change(plan, delta),
            Self::Iptables(backend) => backend.change(plan, delta),
        }
    }

    /// Where the kernel tells of changes that others make; `None` where it does not and one has to
    /// look. Open it before the first [`Backend::whole`].
    ///
    /// # Errors
    /// The subscription failed.
    pub(crate) fn monitor(&self) -> Result<Option<Monitor>> {
        match self {
            Self::Nftables(backend) => backend.monitor().map(Some),
            Self::Iptables(backend) => backend.monitor(),
        }
    }

    /// Where the kernel tells of changes of `tables`, other than by our own connection to nf_tables.
    ///
    /// # Errors
    /// The subscription failed.
    pub(crate) fn watch(&self, tables: Vec<TableId>) -> Result<Monitor> {
        match self {
            Self::Nftables(backend) => backend.watch(tables),
            Self::Iptables(backend) => backend.watch(tables),
        }
    }

    /// Removes what the other backend left here in an earlier run (row 96). Says what.
    ///
    /// # Errors
    /// It could not be removed.
    pub(crate) fn remove_other(&self) -> Result<Vec<String>> {
        match self {
            Self::Nftables(_) => iptables::remove(false),
            Self::Iptables(_) => nftables::remove(false),
        }
    }
}

/// Removes the rules of both backends, or only says which there are. Says what.
///
/// # Errors
/// They could not be removed.
pub(crate) fn remove(dry_run: bool) -> Result<Vec<String>> {
    let mut removed = nftables::remove(dry_run)?;
    removed.extend(iptables::remove(dry_run)?);
    Ok(removed)
}

/// Removes chains of host ports whose rules carry one of `comments`, as `iptables-save` prints it,
/// or only says which there are. Says which.
///
/// # Errors
/// They could not be removed.
pub(crate) fn remove_host_ports(comments: &BTreeSet<String>, dry_run: bool) -> Result<Vec<String>> {
    iptables::remove_host_ports(comments, dry_run)
}
