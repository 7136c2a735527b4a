//! Frees what an attachment owns whose container is gone without DEL.

use std::collections::BTreeMap;
use std::path::Path;

use causeway_host::RecordKey;
use cni_plugin::Error;

use crate::attachment::Attached;
pub use crate::config::Daemon;

/// The outcome for an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that it owned is free.
    Freed,
    /// It is not proven to be dead, or an operation on it runs right now. Nothing was touched.
    Kept,
}

/// Removes host ports and endpoint of an attachment that the caller has proven to be dead, as DEL
/// does. `env` is for the programs of the iptables backend: `PATH`.
///
/// # Errors
/// What is left; the record stays then.
pub fn remove(
    run_dir: &Path,
    daemon: &Daemon,
    key: &RecordKey,
    env: &BTreeMap<String, String>,
) -> Result<(), Error> {
    Attached::new(run_dir, daemon, key.clone(), env).remove(false)
}

/// The same for an attachment that another main plugin made: if its namespace is proven to be gone.
///
/// # Errors
/// As [`remove`].
pub fn free(
    run_dir: &Path,
    daemon: &Daemon,
    key: &RecordKey,
    env: &BTreeMap<String, String>,
) -> Result<Outcome, Error> {
    let removed = Attached::new(run_dir, daemon, key.clone(), env).remove_dead()?;
    Ok(removed.map_or(Outcome::Kept, |()| Outcome::Freed))
}
