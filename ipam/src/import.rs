//! Takes over the leases of upstream's `host-local`: a directory with a file for each address, so
//! that a node changes its IPAM without a reboot (row F28).
//!
//! A file contains `<container id>\r\n<interface>`, an old one the container id alone. Beside them
//! lie
//! `last_reserved_ip.<pool>` and `lock`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use crate::lock;
use crate::range::canonical;
use crate::store::{Change, Error, Lease, Owner, Store};

/// How many leases are written as one.
const AT_ONCE: usize = 4096;

/// What a `host-local` directory contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The leases, ascending.
    pub(crate) leases: Vec<Lease>,
    /// Last address given out, by pool.
    pub(crate) cursors: BTreeMap<u16, IpAddr>,
    /// Files of addresses that name no container: what a crash of upstream leaves.
    pub(crate) ownerless: Vec<IpAddr>,
}

/// The outcome for the leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    /// Leases that are new in the store.
    pub(crate) taken: usize,
    /// Leases that the store has already.
    pub(crate) known: usize,
    /// Leases whose address belongs to another container in the store; they are left out.
    pub(crate) conflicts: usize,
}

/// Reads `folder` under upstream's lock. `since` is the time that the leases get.
///
/// # Errors
/// I/O errors; [`Error::Locked`].
pub(crate) fn read(folder: &Path, since: u64) -> Result<Found, Error> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |source| Error::Io { what, path, source }
    };
    let _lock = lock::foreign(&folder.join("lock"), crate::session::LOCK_WAIT)?;
    let mut found = Found::default();
    for entry in folder.read_dir().map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let pool = name.strip_prefix("last_reserved_ip.").and_then(|pool| pool.parse().ok());
        let address = name.parse::<IpAddr>().ok().map(canonical);
        if pool.is_none() && address.is_none() {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(failed("read", &path))?;
        let text = String::from_utf8_lossy(&bytes);
        if let (Some(pool), Ok(last)) = (pool, text.trim().parse::<IpAddr>()) {
            found.cursors.insert(pool, canonical(last));
        }
        if let Some(address) = address {
            match owner(&text) {
                Some(owner) => found.leases.push(Lease { address, owner, since, boot_ms: 0 }),
                None => found.ownerless.push(address),
            }
        }
    }
    found.leases.sort_unstable_by_key(|lease| lease.address);
    found.ownerless.sort_unstable();
    Ok(found)
}

/// The holder that a file names.
pub(crate) fn owner(text: &str) -> Option<Owner> {
    let mut lines = text.trim().lines().map(str::trim);
    let container_id = lines.next().filter(|id| !id.is_empty())?.to_owned();
    let ifname = lines.find(|line| !line.is_empty()).unwrap_or_default().to_owned();
    Some(Owner { container_id, ifname })
}

/// Brings `found` into `store`. Any number of times: existing leases stay.
///
/// # Errors
/// The store failed; what was written before stays.
pub(crate) fn merge(store: &mut dyn Store, found: Found, boot: &str) -> Result<Imported, Error> {
    let mut outcome = Imported::default();
    let mut new = Vec::new();
    for lease in found.leases {
        match store.lease(lease.address)? {
            None => new.push(lease),
            Some(held) if held.owner == lease.owner => outcome.known += 1,
            Some(_) => outcome.conflicts += 1,
        }
    }
    outcome.taken = new.len();
    let set = store.state().cursors.clone();
    let cursors = found.cursors.into_iter().filter(|(pool, _)| !set.contains_key(pool)).collect();
    // The containers live in this boot, so the leases are of this boot.
    store.commit(Change { boot: Some(boot.to_owned()), cursors, ..Change::default() })?;
    for part in new.chunks(AT_ONCE) {
        store.commit(Change { lease: part.to_vec(), ..Change::default() })?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests;
