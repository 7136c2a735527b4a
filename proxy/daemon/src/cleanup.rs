//! `causewayd cleanup`: what the daemon ever made on this node goes.

use std::io::{self, Write as _};

use crate::backend;
use crate::config::CleanupArgs;
use crate::node;
use crate::start;
use crate::sysctls::Sysctls;

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A daemon runs, or its lock can not be taken.
    #[error("clean up")]
    Lock(#[source] start::Error),
    /// Rules.
    #[error("remove the rules")]
    Rules(#[source] backend::Error),
    /// Sysctls.
    #[error("restore sysctls: {0}")]
    Sysctls(String),
    /// The answer can not be printed.
    #[error("print what was removed")]
    Print(#[source] io::Error),
}

/// Removes everything and says on stdout what it was.
///
/// # Errors
/// See [`Error`]; what was removed before stays removed.
pub(crate) fn run(args: &CleanupArgs) -> Result<(), Error> {
    let _lock = start::lock(&args.run_dir).map_err(Error::Lock)?;
    let mut removed = backend::remove(args.dry_run).map_err(Error::Rules)?;
    let boot = node::boot_id().map_err(|error| Error::Sysctls(error.to_string()))?;
    let mut sysctls =
        Sysctls::open(&args.state_dir, &boot).map_err(|error| Error::Sysctls(error.to_string()))?;
    removed.extend(sysctls.restore(args.dry_run).map_err(Error::Sysctls)?);
    say(&removed, args.dry_run).map_err(Error::Print)
}

fn say(removed: &[String], dry_run: bool) -> io::Result<()> {
    let word = if dry_run { "would remove" } else { "removed" };
    let mut out = io::stdout().lock();
    for what in removed {
        writeln!(out, "{word} {what}")?;
    }
    writeln!(out, "{word} {} things", removed.len())
}
