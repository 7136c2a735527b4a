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
pub(crate) use iptables::Iptables;
pub(crate) use nftables::Nftables;

/// Why the kernel does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub(crate) struct Error {
    /// What failed, with the remedy if there is one.
    pub action: String,
    /// Why.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
    /// It is about what else happens now, not about the rules.
    pub passing: bool,
}

/// Result of a backend's operation.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(action: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { action: action.into(), source: source.into(), passing: false }
    }

    fn passing(self) -> Self {
        Self { passing: true, ..self }
    }
}

/// Who carries the rules.
#[derive(Debug)]
pub(crate) enum Backend {
    /// nf_tables by netlink.
    Nftables(Nftables),
    /// `iptables-restore`.
    Iptables(Iptables),
    /// nf_tables, and a kernel that refuses some services.
    #[cfg(test)]
    Refusing(Option<Nftables>, BTreeSet<causeway_model::ObjectKey>),
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
    pub(crate) fn full_sync(&mut self, plan: &Plan) -> Result<bool> {
        match self {
            Self::Nftables(backend) => backend.full_sync(plan),
            Self::Iptables(backend) => backend.full_sync(plan),
            #[cfg(test)]
            Self::Refusing(backend, bad) => {
                refuse(plan, bad)?;
                backend.as_mut().map_or(Ok(false), |backend| backend.full_sync(plan))
            }
        }
    }

    /// As [`Backend::full_sync`], cheaper, if `plan` is the one of the last call.
    ///
    /// # Errors
    /// See [`Error`]; what was there before still is.
    pub(crate) fn check_drift(&mut self, plan: &Plan) -> Result<bool> {
        match self {
            Self::Nftables(backend) => backend.full_sync(plan),
            Self::Iptables(backend) => backend.check_drift(plan),
            #[cfg(test)]
            Self::Refusing(backend, _) => {
                backend.as_mut().map_or(Ok(false), |backend| backend.full_sync(plan))
            }
        }
    }

    /// Makes a change of the plan. After an error only [`Backend::full_sync`] helps.
    ///
    /// # Errors
    /// See [`Error`]; what was there before still is.
    pub(crate) fn apply_delta(&mut self, plan: &Plan, delta: &Delta) -> Result<()> {
        match self {
            Self::Nftables(backend) => backend.apply_delta(plan, delta),
            Self::Iptables(backend) => backend.apply_delta(plan, delta),
            #[cfg(test)]
            Self::Refusing(backend, bad) => {
                refuse(plan, bad)?;
                backend.as_mut().map_or(Ok(()), |backend| backend.apply_delta(plan, delta))
            }
        }
    }

    /// Where the kernel reports changes made by other processes; `None` if it does not and one
    /// has to look. Open it before the first [`Backend::full_sync`].
    ///
    /// # Errors
    /// The subscription failed.
    pub(crate) fn monitor(&self) -> Result<Option<Monitor>> {
        match self {
            Self::Nftables(backend) => backend.monitor().map(Some),
            Self::Iptables(backend) => backend.monitor(),
            #[cfg(test)]
            Self::Refusing(..) => Ok(None),
        }
    }

    /// Where the kernel reports changes of `tables`, other than by our own connection to nf_tables.
    ///
    /// # Errors
    /// The subscription failed.
    pub(crate) fn watch(&self, tables: Vec<TableId>) -> Result<Monitor> {
        match self {
            Self::Nftables(backend) => backend.watch(tables),
            Self::Iptables(backend) => backend.watch(tables),
            #[cfg(test)]
            Self::Refusing(..) => Err(Error::new("a kernel of the test", "it tells nobody")),
        }
    }

    /// Removes what the other backend left here in an earlier run (row 96). Returns their
    /// descriptions.
    ///
    /// # Errors
    /// It could not be removed.
    pub(crate) fn remove_other(&self) -> Result<Vec<String>> {
        match self {
            Self::Nftables(_) => iptables::remove(false),
            Self::Iptables(_) => nftables::remove(false),
            #[cfg(test)]
            Self::Refusing(..) => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
impl Backend {
    /// The fake of nf_tables.
    pub(crate) fn of(fake: &causeway_nft::Fake) -> Self {
        Self::Refusing(Some(Nftables::of(fake)), BTreeSet::new())
    }

    /// A kernel that refuses some services, and takes all others without keeping their rules.
    pub(crate) fn refusing(bad: BTreeSet<causeway_model::ObjectKey>) -> Self {
        Self::Refusing(None, bad)
    }
}

#[cfg(test)]
fn refuse(plan: &Plan, bad: &BTreeSet<causeway_model::ObjectKey>) -> Result<()> {
    match bad.iter().find(|key| plan.services.contains_key(*key)) {
        Some(key) => Err(Error::new("a kernel of the test", format!("EINVAL for {key}"))),
        None => Ok(()),
    }
}

/// Removes the rules of both backends, or only lists them. Returns their descriptions.
///
/// # Errors
/// They could not be removed.
pub(crate) fn remove(dry_run: bool) -> Result<Vec<String>> {
    let mut removed = nftables::remove(dry_run)?;
    removed.extend(iptables::remove(dry_run)?);
    Ok(removed)
}

/// Removes chains of host ports whose rules carry one of `comments`, as `iptables-save` prints it,
/// or only lists them. Returns their names.
///
/// # Errors
/// They could not be removed.
pub(crate) fn remove_host_ports(comments: &BTreeSet<String>, dry_run: bool) -> Result<Vec<String>> {
    iptables::remove_host_ports(comments, dry_run)
}
