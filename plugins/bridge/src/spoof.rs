//! `macspoofchk`: a container can send only from its own Ethernet address.

use std::path::Path;

use causeway_kernel::{Mac, RecordKey};
use cni_plugin::Error;

/// Drops what comes in through `host_ifname` from another address than `mac`. Calling it again is
/// fine, also with another address.
///
/// # Errors
/// Code 11 where the same call may go through later, else 5.
pub fn add(run_dir: &Path, key: &RecordKey, host_ifname: &str, mac: Mac) -> Result<(), Error> {
    let _ = (run_dir, key, host_ifname, mac);
    todo!()
}

/// Takes the check of `host_ifname` back where it belongs to `key`. `last`: this node has no
/// other attachment, so the table goes too unless somebody else keeps something in it.
///
/// # Errors
/// Code 11 where the same call may go through later, else 5. Absence is none.
pub fn remove(run_dir: &Path, key: &RecordKey, host_ifname: &str, last: bool) -> Result<(), Error> {
    let _ = (run_dir, key, host_ifname, last);
    todo!()
}

/// Whether everything that [`add`] makes is there. Changes nothing.
///
/// # Errors
/// The first thing that is missing or differs.
pub fn check(key: &RecordKey, host_ifname: &str, mac: Mac) -> Result<(), Error> {
    let _ = (key, host_ifname, mac);
    todo!()
}

/// Removes the check of every attachment of `network` whose owner comment `keep` refuses.
///
/// # Errors
/// As [`remove`].
pub fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let _ = (run_dir, network, keep);
    todo!()
}
