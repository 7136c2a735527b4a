//! The leases of upstream's `host-local`, for a node whose plugins were replaced while containers run
//! whose addresses nobody imported. An address that ADD is about to take is looked up there: one
//! file of its name, no listing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::allocator::Now;
use crate::config::{DATA_DIR, Place};
use crate::import;
use crate::store::Owner;

/// Where upstream's leases are unless its `dataDir` says otherwise.
const UPSTREAM: &str = "/var/lib/cni/networks";
/// Files and the moment of the boot are known to the second only, by a clock that is set now and
/// then. In doubt an address counts as taken.
const SLACK: u64 = 10;

/// Upstream's leases of one network.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    folders: Vec<PathBuf>,
    /// Of the wall clock, seconds since 1970: no container is older.
    boot: Duration,
}

impl Upstream {
    /// Those of the network of `place`: `dataDir` is a key of upstream's too.
    pub(crate) fn new(place: &Place, now: &Now) -> Self {
        let mut folders = vec![Path::new(UPSTREAM).join(&place.network)];
        if place.data_dir != Path::new(DATA_DIR) && place.data_dir != Path::new(UPSTREAM) {
            folders.push(place.data_dir.join(&place.network));
        }
        let boot = now.unix.saturating_sub(now.boot_ms / 1000 + SLACK);
        Self { folders, boot: Duration::from_secs(boot) }
    }

    /// Who has `address`. A file that names no owner is what a crash of upstream leaves.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<Owner> {
        self.folders.iter().find_map(|folder| {
            let path = folder.join(address.to_string());
            let text = std::fs::read(&path).ok()?;
            let written = path.metadata().and_then(|meta| meta.modified()).ok()?;
            let written = written.duration_since(UNIX_EPOCH).unwrap_or_default();
            if written < self.boot {
                return None;
            }
            import::owner(&String::from_utf8_lossy(&text))
        })
    }
}

#[cfg(test)]
mod tests;
