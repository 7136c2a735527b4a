//! Rebuilds a damaged store from its readable records and from the attachment records. The
//! damaged files are kept aside; a store in order is left alone (row F25).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::allocator::Now;
use crate::disk::{self, Disk};
use crate::facts;
use crate::lock::NetworkLock;
use crate::session::{self, LOCK_WAIT, Patience};
use crate::store::{Change, Error, Lease, Store};

/// How many leases are written as one.
const AT_ONCE: usize = 4096;

/// What was done for a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// Every record was read and fits the others; so many leases.
    InOrder(u64),
    /// A new store stands in place of the damaged one.
    Rebuilt {
        /// What was wrong.
        damage: String,
        /// Leases in the new store.
        leases: usize,
        /// Where the damaged files are now.
        aside: PathBuf,
    },
}

/// Looks at every record of `network` and rebuilds the store if one is wrong.
///
/// # Errors
/// I/O errors; [`Error::Locked`].
pub(crate) fn repair(
    data_dir: &Path,
    run_dir: &Path,
    network: &str,
    now: &Now,
) -> Result<Repaired, Error> {
    let lock = NetworkLock::acquire(data_dir, network, LOCK_WAIT)?;
    match verify(data_dir, network, &lock) {
        Ok(leases) => Ok(Repaired::InOrder(leases)),
        Err(Error::Damaged { source, .. }) => {
            let (leases, aside) = rebuild(&lock, run_dir, now)?;
            Ok(Repaired::Rebuilt { damage: source.to_string(), leases, aside })
        }
        Err(error) => Err(error),
    }
}

/// Reads the whole store, in a copy: a damaged one can leave threads of sled behind that hold its
/// files.
fn verify(data_dir: &Path, network: &str, lock: &NetworkLock) -> Result<u64, Error> {
    let scratch = Scratch::copy(&lock.store_path(), data_dir, network)?;
    let (path, network) = (scratch.0.clone(), network.to_owned());
    let (seal, anew) = (lock.seal(), lock.base().is_some());
    session::bounded(lock.store_path(), Patience::USUAL.work, move || {
        disk::verify(&path, &network, seal, anew)
    })
}

/// Builds a new store and puts it in place of the damaged one.
fn rebuild(lock: &NetworkLock, run_dir: &Path, now: &Now) -> Result<(usize, PathBuf), Error> {
    let (data_dir, network) = (lock.data_dir().to_owned(), lock.network().to_owned());
    let mut leases: BTreeMap<IpAddr, Lease> = BTreeMap::new();
    for forget_snapshot in [false, true] {
        for lease in salvage(lock, &data_dir, &network, forget_snapshot)? {
            leases.entry(lease.address).or_insert(lease);
        }
    }
    // A record names an attachment that lives; it knows best.
    for lease in facts::attached(run_dir, &network) {
        leases.insert(lease.address, lease);
    }
    let fresh = Scratch::empty(&data_dir, &network)?;
    let leases: Vec<Lease> = leases.into_values().collect();
    let mut disk = Disk::open_at(fresh.0.clone(), lock)?;
    disk.commit(Change { boot: Some(now.boot.clone()), ..Change::default() })?;
    for part in leases.chunks(AT_ONCE) {
        disk.commit(Change { lease: part.to_vec(), ..Change::default() })?;
    }
    let aside = (0_u32..)
        .map(|number| data_dir.join(format!(".{network}.damaged-{}-{number}", now.unix)))
        .find(|path| !path.exists())
        .unwrap_or_default();
    disk.close_into(&aside)?;
    Ok((leases.len(), aside))
}

/// What can be read of a copy of the store. Without its snapshot sled reads its log from the start.
fn salvage(
    lock: &NetworkLock,
    data_dir: &Path,
    network: &str,
    forget_snapshot: bool,
) -> Result<Vec<Lease>, Error> {
    let scratch = Scratch::copy(&lock.store_path(), data_dir, network)?;
    let path = scratch.0.clone();
    let salvaged = session::bounded(lock.store_path(), Patience::USUAL.work, move || {
        if forget_snapshot {
            disk::remove_snapshots(&path);
        }
        disk::salvage(&path)
    });
    match salvaged {
        Ok(leases) => Ok(leases),
        // Nothing to be had this way.
        Err(Error::Damaged { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A directory beside the stores that goes when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn empty(data_dir: &Path, network: &str) -> Result<Self, Error> {
        for number in 0.. {
            let path = data_dir.join(format!(".{network}.repair-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    let path = path.display().to_string();
                    return Err(Error::Io { what: "create", path, source });
                }
            }
        }
        unreachable!("some number is free")
    }

    fn copy(from: &Path, data_dir: &Path, network: &str) -> Result<Self, Error> {
        let scratch = Self::empty(data_dir, network)?;
        copy_files(from, &scratch.0).map_err(|source| Error::Io {
            what: "copy",
            path: from.display().to_string(),
            source,
        })?;
        Ok(scratch)
    }
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in from.read_dir()? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a success the directory has another name by now; after a failure it is of no use.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests;
