//! The leases of a node, read under their locks.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::allocator::{self, Now};
use crate::config::{self, Place};
use crate::data_dirs::data_dirs;
use crate::session::{self, Patience};
use crate::store::{self, Lease, Owner};
use crate::{disk, facts};

/// A leased address, as `causeway-ipam show` and `causeway get leases` print it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedLease {
    /// The address.
    pub address: IpAddr,
    /// Name of the network.
    pub network: String,
    /// The container that has it.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface; empty for leases that upstream's host-local once gave.
    pub ifname: String,
    /// When it was given, as `2026-11-22T15:04:00Z`.
    pub since: String,
}

/// Leases cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ListError {
    /// What failed, with the network's store.
    pub message: String,
    /// Another process has held the lock all the time: the same call may go through later.
    pub busy: bool,
    /// Why.
    #[source]
    pub source: Option<io::Error>,
}

/// All leases of this node, ascending by network and address, as [`list`] does it, of all
/// directories that plugins with `run_dir` have put leases into.
///
/// # Errors
/// As [`list`].
pub fn list_all(run_dir: &Path, wait: Duration) -> Result<Vec<ListedLease>, ListError> {
    let mut all = Vec::new();
    for data_dir in data_dirs(run_dir) {
        all.extend(list((&data_dir, run_dir), None, wait)?);
    }
    all.sort_by(|a, b| (&a.network, a.address).cmp(&(&b.network, b.address)));
    Ok(all)
}

/// The leases of all networks below `data_dir`, or of one, ascending by network and address. Waits
/// at most `wait` for each network's lock, which every ADD and DEL takes for some milliseconds.
/// A network without a store has none.
///
/// # Errors
/// A store is damaged, locked or not readable.
pub fn list(
    (data_dir, run_dir): (&Path, &Path),
    network: Option<&str>,
    wait: Duration,
) -> Result<Vec<ListedLease>, ListError> {
    let networks = match network {
        Some(network) => vec![network.to_owned()],
        None => match disk::networks(data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found.map_err(|source| ListError {
                message: format!("read {}", data_dir.display()),
                busy: false,
                source: Some(source),
            })?,
        },
    };
    let now = facts::now();
    let patience = Patience { lock: wait, ..Patience::USUAL };
    let mut all = Vec::new();
    for network in networks {
        let place = Place {
            network: network.clone(),
            data_dir: data_dir.to_owned(),
            run_dir: run_dir.to_owned(),
            ..Place::default()
        };
        if !session::exists(&place) {
            continue;
        }
        let leases = leases(&place, patience, &now).map_err(ListError::of)?;
        all.extend(leases.into_iter().map(|lease| ListedLease::new(&network, lease)));
    }
    Ok(all)
}

/// The leases of a network. Those of another boot are nobody's.
pub(crate) fn leases(
    place: &Place,
    patience: Patience,
    now: &Now,
) -> Result<Vec<Lease>, store::Error> {
    let moment = now.clone();
    session::with_store(place, patience, now, move |store| {
        match allocator::other_boot(store, &moment) {
            true => Ok(Vec::new()),
            false => store.leases(),
        }
    })
}

/// Ends the leases of an attachment, as DEL does, and returns how many there were. `reuse_delay` is
/// the configuration's: how long the addresses rest, as `30s`. A network without a store has none.
///
/// # Errors
/// The store is damaged, locked or not writable.
pub fn release(
    data_dir: &Path,
    network: &str,
    (container_id, ifname): (&str, &str),
    reuse_delay: &str,
    wait: Duration,
) -> Result<usize, ListError> {
    let place =
        Place { network: network.to_owned(), data_dir: data_dir.to_owned(), ..Place::default() };
    if !session::exists(&place) {
        return Ok(0);
    }
    let owner = Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() };
    let rest = config::duration(reuse_delay).unwrap_or_default();
    let now = facts::now();
    let moment = now.clone();
    let patience = Patience { lock: wait, ..Patience::USUAL };
    session::with_store(&place, patience, &now, move |store| {
        allocator::release(store, &owner, rest, &moment)
    })
    .map_err(ListError::of)
}

impl ListedLease {
    pub(crate) fn new(network: &str, lease: Lease) -> Self {
        Self {
            address: lease.address,
            network: network.to_owned(),
            container_id: lease.owner.container_id,
            ifname: lease.owner.ifname,
            since: rfc3339(lease.since),
        }
    }
}

impl ListError {
    fn of(error: store::Error) -> Self {
        let message = error.to_string();
        let busy = matches!(error, store::Error::Locked { .. });
        let source = match error {
            store::Error::Io { source, .. } | store::Error::Thread(source) => Some(source),
            store::Error::Damaged { source, .. } => Some(io::Error::other(source)),
            store::Error::Locked { .. } => None,
        };
        Self { message, busy, source }
    }
}

/// `seconds` since 1970 as a UTC time, like `2026-11-22T15:04:00Z`.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is the last of a year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests;
