//! Delegation as a value: what to run with which bytes, and what its output means.

use std::path::PathBuf;

use serde_json::Value;

use crate::{CniResult, Command, Environment, Error, Request};

/// A delegate to run: the edge finds the program, runs it with `env` and `stdin`, sends its stderr
/// to ours and hands stdout and success back to [`Invocation::parse`] (rows C79, C80).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Plugin type, for messages.
    pub plugin: String,
    /// Where the program may be, in order; the first regular file counts.
    pub candidates: Vec<PathBuf>,
    /// Environment, `CNI_COMMAND` replaced.
    pub env: Environment,
    /// The same bytes that we got.
    pub stdin: Vec<u8>,
    /// The operation asked of the delegate.
    pub command: Command,
}

/// The places to look for plugin `name` in `path` order.
///
/// # Errors
/// Code 7 when the name is empty or holds a `/`.
pub fn find_plugin_candidates(name: &str, path: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let _ = (name, path);
    todo!()
}

impl Invocation {
    /// Asks `plugin` for `command` with the bytes and environment of `request`.
    ///
    /// # Errors
    /// As [`find_plugin_candidates`].
    pub fn new(plugin: &str, command: Command, request: &Request) -> Result<Self, Error> {
        let _ = (plugin, command, request);
        todo!()
    }

    /// The error for a program that stands in none of the candidates' places.
    pub fn not_found(&self) -> Error {
        todo!()
    }

    /// What the delegate's stdout means. `Ok(Some)` only for ADD.
    ///
    /// # Errors
    /// The delegate's own error object, code and message kept (row C34); code 6 for garbage,
    /// nothing or `null` where a result is due (row F49).
    pub fn parse(
        &self,
        request: &Request,
        success: bool,
        stdout: &[u8],
        stderr: &str,
    ) -> Result<Option<CniResult>, Error> {
        let _ = (request, success, stdout, stderr, Value::Null);
        todo!()
    }
}
