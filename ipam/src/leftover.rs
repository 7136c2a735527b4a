//! Files of networks that have no lease: a network is removed without a word to its plugins, so a
//! database for each would stay for ever.
//!
//! The state of an empty store fits into the file of its lock ([`NetworkLock::emptied`]): position of
//! the round robin, number of commits. A network that becomes empty for the first time leaves that
//! alone. One that had been empty before goes on, it seems, and keeps its database for now: making
//! another one costs an ADD two syncs of the disk. Whoever empties a network later takes away those
//! that nobody used for [`QUIET`].

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::disk;
use crate::lock::NetworkLock;
use crate::store::State;

/// After so many seconds without an operation the database of an empty network goes.
const QUIET: u64 = 600;

/// Notes that the closed store of `lock` is empty, and removes what is not needed of this and of
/// other networks. What cannot be removed stays: no operation hangs on it.
pub(crate) fn note(lock: &NetworkLock, state: &State, unix: u64) {
    let first = !lock.was_emptied();
    if lock.write_emptied(state).is_err() {
        return;
    }
    if first {
        remove_files(lock);
    }
    for network in disk::networks(lock.data_dir()).unwrap_or_default() {
        if network != lock.network() && is_quiet(lock.data_dir(), &network, unix) {
            sweep(lock.data_dir(), &network);
        }
    }
}

/// Whether nobody took the network's lock for a while.
fn is_quiet(data_dir: &Path, network: &str, unix: u64) -> bool {
    let used = NetworkLock::path(data_dir, network).metadata().and_then(|meta| meta.modified());
    let Ok(used) = used.map(|used| used.duration_since(UNIX_EPOCH).unwrap_or_default()) else {
        return false;
    };
    used.as_secs().saturating_add(QUIET) <= unix
}

fn sweep(data_dir: &Path, network: &str) {
    let Ok(lock) = NetworkLock::acquire(data_dir, network, Duration::ZERO) else { return };
    if lock.emptied().is_some() {
        remove_files(&lock);
    }
}

/// Under a name of its own first: a part of the files would be taken for a damaged store.
fn remove_files(lock: &NetworkLock) {
    let gone = lock.data_dir().join(format!(".{}.emptied", lock.network()));
    // What a killed process left.
    drop(std::fs::remove_dir_all(&gone));
    if std::fs::rename(lock.store_path(), &gone).is_ok() {
        drop(std::fs::remove_dir_all(&gone));
    }
}

#[cfg(test)]
mod tests;
