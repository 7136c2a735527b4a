//! Delegation as a value: what to run with which bytes, and what its output means.

use std::path::PathBuf;

use serde_json::Value;

use crate::{CniResult, Code, Command, Environment, Error, Request, json, result};

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

impl Invocation {
    /// Asks `plugin` for `command` with the bytes and environment of `request`.
    ///
    /// # Errors
    /// As [`find_plugin_candidates`].
    pub fn new(plugin: &str, command: Command, request: &Request) -> Result<Self, Error> {
        let mut env = request.env.clone();
        env.insert("CNI_COMMAND".to_owned(), command.as_str().to_owned());
        Ok(Self {
            plugin: plugin.to_owned(),
            candidates: find_plugin_candidates(plugin, &request.path)?,
            env,
            stdin: request.stdin.clone(),
            command,
        })
    }

    /// The error for a program that stands in none of the candidates' places.
    pub fn not_found(&self) -> Error {
        let dirs = self.candidates.iter().filter_map(|candidate| candidate.parent());
        let dirs: Vec<_> = dirs.map(|dir| dir.display().to_string()).collect();
        let plugin = &self.plugin;
        let msg = format!("failed to find plugin \"{plugin}\" in path [{}]", dirs.join(" "));
        Error::new(Code::Io, msg).details("install it in a directory of CNI_PATH")
    }

    /// What the delegate's stdout means. `Ok(Some)` only for ADD, whose result may be of any
    /// version, the request's if it states none.
    ///
    /// # Errors
    /// The delegate's own error object, code and message kept (row C34); code 6 for garbage,
    /// nothing or `null` if a result is due (row F49).
    pub fn parse(
        &self,
        request: &Request,
        success: bool,
        stdout: &[u8],
        stderr: &str,
    ) -> Result<Option<CniResult>, Error> {
        if !success {
            return Err(self.failure(stdout, stderr));
        }
        if self.command != Command::Add {
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(stdout)
            .map_err(|error| self.unusable(&error.to_string(), stdout, stderr))?;
        let folded = json::fold(&value);
        // No result has a code: this is an error object in spite of the exit status.
        if folded.get("code").is_some() {
            return Err(self.failure(stdout, stderr));
        }
        result::stated_version(&folded)
            .and_then(|version| CniResult::from_json(&value, version.unwrap_or(request.version)))
            .map(Some)
            .map_err(|error| self.unusable(&error.to_string(), stdout, stderr))
    }

    /// The error object on `stdout`. One without a code, such as a result left by a delegate that
    /// was killed, is not an error object.
    fn failure(&self, stdout: &[u8], stderr: &str) -> Error {
        let object = json::parse_folded(stdout).ok();
        let text = |key| {
            object.as_ref().and_then(|o| o.get(key)).and_then(Value::as_str).unwrap_or_default()
        };
        let code = object.as_ref().and_then(|o| o.get("code")).and_then(Value::as_u64);
        let code = code.and_then(|code| u32::try_from(code).ok()).filter(|&code| code != 0);
        let Some(code) = code else {
            return self.unusable("it failed without an error object", stdout, stderr);
        };
        let msg = match text("msg") {
            "" => format!("plugin \"{}\" failed at {}", self.plugin, self.command.as_str()),
            msg => msg.to_owned(),
        };
        Error::new(Code::from_number(code), msg).details(text("details"))
    }

    fn unusable(&self, why: &str, stdout: &[u8], stderr: &str) -> Error {
        let (plugin, command) = (&self.plugin, self.command.as_str());
        let msg = format!("plugin \"{plugin}\" returned no valid result for {command}");
        let mut details = why.to_owned();
        for (name, text) in [("stdout", &*String::from_utf8_lossy(stdout)), ("stderr", stderr)] {
            let text: String = text.trim().chars().take(QUOTED).collect();
            if !text.is_empty() {
                details.push_str(&format!("; {name}: {text:?}"));
            }
        }
        Error::new(Code::Decode, msg).details(details)
    }
}

/// How much of a delegate's output a message quotes, in characters.
const QUOTED: usize = 500;

/// The places to look for plugin `name` in `path` order.
///
/// # Errors
/// Code 7 when the name is empty or holds a `/`.
pub fn find_plugin_candidates(name: &str, path: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    if name.is_empty() {
        return Err(Error::new(Code::InvalidConfig, "no plugin name provided: set ipam.type"));
    }
    // A NUL cannot be part of a path.
    if name.contains(['/', '\0']) {
        let msg = format!("invalid plugin name: {name:?}: give the name of a program in CNI_PATH");
        return Err(Error::new(Code::InvalidConfig, msg));
    }
    let dirs = path.iter().filter(|dir| !dir.as_os_str().is_empty());
    Ok(dirs.map(|dir| dir.join(name)).collect())
}

#[cfg(test)]
mod tests;
