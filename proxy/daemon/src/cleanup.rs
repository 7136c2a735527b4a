//! `causewayd cleanup`: removes what the daemon ever made on this node; with `--all` also what the
//! plugins made, and the objects that users have stored.

mod attachments;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::backend;
use crate::config::CleanupArgs;
use crate::files;
use crate::localhost;
use crate::names;
use crate::node;
use crate::overlay;
use crate::start;
use crate::sysctls::{FORWARDING, Sysctls};

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A daemon runs, or its lock cannot be taken.
    #[error("clean up")]
    Lock(#[source] start::Error),
    /// Rules.
    #[error("remove the rules")]
    Rules(#[source] backend::Error),
    /// Sysctls.
    #[error("restore sysctls: {0}")]
    Sysctls(String),
    /// Links and routes to other nodes.
    #[error("remove the overlay")]
    Overlay(#[source] causeway_kernel::Error),
    /// Service addresses of the name server.
    #[error("remove the local routes of the name server")]
    Names(#[source] causeway_kernel::Error),
    /// Attachments.
    #[error("remove attachments")]
    Attachments(#[source] attachments::Error),
    /// A file or directory.
    #[error("remove {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer cannot be printed.
    #[error("print what was removed")]
    Print(#[source] io::Error),
}

/// What was done, or would be, with what it was done to.
#[derive(Debug)]
enum Done {
    /// It is gone.
    Removed(String),
    /// It is as it was before.
    Restored(String),
}

/// Removes everything and prints what it was.
///
/// # Errors
/// See [`Error`]; what was removed before stays removed.
pub(crate) fn run(args: &CleanupArgs) -> Result<(), Error> {
    // Looking harms no daemon that runs.
    let lock = (!args.dry_run).then(|| start::lock(&args.run_dir)).transpose();
    let lock = lock.map_err(Error::Lock)?;
    // Before the rules, which hold the guard of `route_localnet`: that is taken back here.
    let boot = node::boot_id().map_err(|error| Error::Sysctls(error.to_string()))?;
    let mut sysctls =
        Sysctls::open(&args.state_dir, &boot).map_err(|error| Error::Sysctls(error.to_string()))?;
    // Containers that stay need it; the cleanup after the last of them puts it back.
    let attached = !args.all && attachments::exist(&args.run_dir);
    let keep: &[&str] = if attached { &FORWARDING } else { &[] };
    let changed = sysctls.changed(keep).map_err(Error::Sysctls)?;
    let mut kept: Vec<String> = changed.iter().map(|key| format!("sysctl {key}")).collect();
    let restored = sysctls.restore(keep, args.dry_run).map_err(Error::Sysctls)?;
    let mut done: Vec<Done> = restored.into_iter().map(Done::Restored).collect();
    let mut removed = backend::remove(args.dry_run).map_err(Error::Rules)?;
    removed.extend(overlay::leave(args.dry_run).map_err(Error::Overlay)?);
    removed.extend(names::leave(args.dry_run).map_err(Error::Names)?);
    done.extend(removed.into_iter().map(Done::Removed));
    if args.all {
        let made = attachments::remove(&args.run_dir, &args.data_dir, args.dry_run);
        done.extend(made.map_err(Error::Attachments)?);
    }
    if !args.dry_run {
        localhost::remove().map_err(|error| Error::Sysctls(error.to_string()))?;
    }
    let facts =
        [&args.run_dir, &args.state_dir].map(|folder| causeway_host::paths::node_file(folder));
    if attached {
        // The plugins draw addresses from the subnets it names, which these containers are in.
        let there = facts.iter().filter(|path| path.exists());
        kept.extend(there.map(|path| path.display().to_string()));
    } else {
        done.extend(remove(facts.to_vec(), args.dry_run)?);
    }
    done.extend(remove(files_of(args), args.dry_run)?);
    say(&done, &kept, args.dry_run).map_err(Error::Print)?;
    if !args.dry_run {
        // Last, while it is ours: whoever starts now makes its own.
        drop(std::fs::remove_file(args.run_dir.join(start::LOCK)));
        drop(lock);
        drop(std::fs::remove_dir(&args.run_dir));
        drop(std::fs::remove_dir(&args.state_dir));
    }
    Ok(())
}

/// Whether a container is attached, as far as can be told.
pub(crate) fn is_attached(run_dir: &Path) -> bool {
    attachments::exist(run_dir)
}

/// Files of the daemon. What users stored stays without `--all`.
fn files_of(args: &CleanupArgs) -> Vec<PathBuf> {
    let (run, state) = (&args.run_dir, &args.state_dir);
    let mut paths = vec![run.join("causeway.sock"), state.join("sysctls.json.damaged")];
    if args.all {
        paths.extend([state.join("spool"), state.join("store"), state.join("machine-id")]);
        paths.extend(causeway_source::lost_stores(state));
    }
    paths
}

/// Removes those of `paths` that are there, or only lists them.
fn remove(mut paths: Vec<PathBuf>, dry_run: bool) -> Result<Vec<Done>, Error> {
    paths.retain(|path| path.symlink_metadata().is_ok());
    if !dry_run {
        for path in &paths {
            files::remove(path).map_err(|source| Error::File { path: path.clone(), source })?;
        }
    }
    Ok(paths.iter().map(|path| Done::Removed(path.display().to_string())).collect())
}

fn say(done: &[Done], kept: &[String], dry_run: bool) -> io::Result<()> {
    let (remove, restore) =
        if dry_run { ("would remove", "would restore") } else { ("removed", "restored") };
    let mut out = io::stdout().lock();
    for done in done {
        let (word, what) = match done {
            Done::Removed(what) => (remove, what),
            Done::Restored(what) => (restore, what),
        };
        writeln!(out, "{word} {what}")?;
    }
    for what in kept {
        writeln!(out, "kept {what} (containers are attached)")?;
    }
    let count = done.len();
    writeln!(out, "{remove} {count} {}", if count == 1 { "item" } else { "items" })
}
