//! Programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::Result;

/// A program to run with exactly this environment and stdin.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Path.
    pub path: PathBuf,
    /// Arguments without the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Bytes for stdin.
    pub stdin: &'a [u8],
    /// Killed after this long; the output says so.
    pub timeout: Duration,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status 0.
    pub success: bool,
    /// Exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// stdout
    pub stdout: Vec<u8>,
    /// stderr, lossy
    pub stderr: String,
}

/// Runs a program to its end. The child dies with us (`PR_SET_PDEATHSIG`) only where asked by the
/// caller's protocol: a CNI delegate must be let finish (row F7), so it is not set. `ETXTBSY` is
/// retried (row C27).
///
/// # Errors
/// It could not be started.
pub fn run(program: &Program<'_>) -> Result<Output> {
    let _ = program;
    todo!()
}
