//! Masquerade: what containers send out of their network leaves with the node's address.

use std::path::Path;

use causeway_kernel::RecordKey;
use cni_plugin::Error;
use ipnetwork::IpNetwork;

/// The masquerade of one attachment.
#[derive(Clone, Copy, Debug)]
pub struct Masquerade<'a> {
    /// Whose.
    pub key: &'a RecordKey,
    /// The container's addresses; the prefix lengths tell its own subnets.
    pub addresses: &'a [IpNetwork],
    /// Destinations that see the container's own address, beside its subnets and multicast.
    pub exclude: &'a [IpNetwork],
    /// `runDir`, where `rules.lock` lies.
    pub run_dir: &'a Path,
}

/// Checks `ipMasqBackend`: unset, empty or `nftables`.
///
/// # Errors
/// Code 2 naming the value and what to write instead.
pub fn check_backend(value: Option<&str>) -> Result<(), Error> {
    let _ = value;
    todo!()
}

/// Has the addresses masqueraded. Calling it again is fine; an address that another attachment
/// left behind is taken over (row F40); rules that somebody flushed are written again (row F38).
///
/// # Errors
/// Code 11 where the same call may go through later, else 5.
pub fn add(wanted: &Masquerade<'_>) -> Result<(), Error> {
    let _ = wanted;
    todo!()
}

/// Takes the masquerade of `addresses` back where it belongs to `key`. `last`: this node has no
/// other attachment, so the table goes too unless somebody else keeps something in it.
///
/// # Errors
/// Code 11 where the same call may go through later, else 5. Absence is none.
pub fn remove(
    run_dir: &Path,
    key: &RecordKey,
    addresses: &[IpNetwork],
    last: bool,
) -> Result<(), Error> {
    let _ = (run_dir, key, addresses, last);
    todo!()
}

/// Whether everything that [`add`] makes is there. Changes nothing.
///
/// # Errors
/// The first thing that is missing or differs.
pub fn check(wanted: &Masquerade<'_>) -> Result<(), Error> {
    let _ = wanted;
    todo!()
}

/// Removes the masquerade of every attachment of `network` whose owner comment `keep` refuses.
///
/// # Errors
/// As [`remove`].
pub fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let _ = (run_dir, network, keep);
    todo!()
}
