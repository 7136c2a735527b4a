//! `iptables-save` and `iptables-restore` of one family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Program, run};

/// Where system programs are, for callers whose own `PATH` is short.
pub const SYSTEM_PATH: &str = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin";

/// How long `iptables-restore` waits for the xtables lock, in seconds.
const LOCK_SECONDS: u32 = 5;

/// Exit status for a resource problem: the lock was not to be had (`RESOURCE_PROBLEM` of
/// xtables.h).
const RESOURCE_PROBLEM: i32 = 4;

/// The programs of one family. A call reads everything or writes all or nothing.
#[derive(Clone, Debug)]
pub struct Iptables {
    ipv6: bool,
    save: PathBuf,
    restore: PathBuf,
    path: String,
    timeout: Duration,
}

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// It is not installed.
    #[error("{program} is not in {path}")]
    Missing {
        /// Its name.
        program: String,
        /// Folders looked at, with colons between.
        path: String,
    },
    /// It could not be run.
    #[error("run {}", program.display())]
    Run {
        /// Its file.
        program: PathBuf,
        /// Why.
        source: Error,
    },
    /// It did not finish in time, and was ended.
    #[error("{} did not finish in time: {stderr}", program.display())]
    TimedOut {
        /// Its file.
        program: PathBuf,
        /// What it printed.
        stderr: String,
    },
    /// Another program held the xtables lock for 5 seconds.
    #[error("{}: another program holds the xtables lock: {stderr}", program.display())]
    Locked {
        /// Its file.
        program: PathBuf,
        /// What it printed.
        stderr: String,
    },
    /// It failed otherwise.
    #[error("{} failed: {stderr}", program.display())]
    Failed {
        /// Its file.
        program: PathBuf,
        /// What it printed.
        stderr: String,
    },
}

impl Iptables {
    /// The programs of a family, each call ended after `timeout`. They are looked for in `path`,
    /// then in [`SYSTEM_PATH`]; so are the programs that they start.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn find(path: &str, ipv6: bool, timeout: Duration) -> Result<Self, IptablesError> {
        let path =
            if path.is_empty() { SYSTEM_PATH.to_owned() } else { format!("{path}:{SYSTEM_PATH}") };
        let find = |program: String| {
            let folders = path.split(':').filter(|folder| !folder.is_empty());
            let mut files = folders.map(|folder| Path::new(folder).join(&program));
            files
                .find(|file| file.is_file())
                .ok_or_else(|| IptablesError::Missing { program, path: path.clone() })
        };
        let name = name(ipv6);
        let save = find(format!("{name}-save"))?;
        let restore = find(format!("{name}-restore"))?;
        Ok(Self { ipv6, save, restore, path, timeout })
    }

    /// Which family: true is IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// `iptables` or `ip6tables`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name(self.ipv6)
    }

    /// What `iptables-save` prints of one table, or of all.
    ///
    /// # Errors
    /// See [`IptablesError`].
    pub fn save(&self, table: Option<&str>) -> Result<String, IptablesError> {
        let args: Vec<&str> = table.iter().flat_map(|table| ["-t", table]).collect();
        self.run(&self.save, &args, b"")
    }

    /// Has `iptables-restore --noflush` carry out `script`.
    ///
    /// # Errors
    /// See [`IptablesError`]. Nothing of the table concerned has changed then.
    pub fn restore(&self, script: &str) -> Result<(), IptablesError> {
        let wait = format!("--wait={LOCK_SECONDS}");
        self.run(&self.restore, &["--noflush", &wait], script.as_bytes()).map(drop)
    }

    /// Whether they are the programs that stand on nf_tables.
    ///
    /// # Errors
    /// See [`IptablesError`].
    pub fn uses_nf_tables(&self) -> Result<bool, IptablesError> {
        Ok(self.run(&self.save, &["--version"], b"")?.contains("nf_tables"))
    }

    fn run(&self, program: &Path, args: &[&str], stdin: &[u8]) -> Result<String, IptablesError> {
        let output = run(&Program {
            path: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), self.path.clone())]),
            stdin,
            timeout: self.timeout,
        });
        let program = program.to_owned();
        let output = match output {
            Err(source) => return Err(IptablesError::Run { program, source }),
            Ok(output) => output,
        };
        if output.success {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = output.stderr.trim().to_owned();
        Err(match output.code {
            _ if output.timed_out => IptablesError::TimedOut { program, stderr },
            Some(RESOURCE_PROBLEM) => IptablesError::Locked { program, stderr },
            _ => IptablesError::Failed { program, stderr },
        })
    }
}

fn name(ipv6: bool) -> &'static str {
    if ipv6 { "ip6tables" } else { "iptables" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_folders_looked_at() {
        let found = Iptables::find("/nowhere", false, Duration::ZERO);
        // Where one is installed it is found behind the caller's own folders.
        let path = match found {
            Err(IptablesError::Missing { program, path }) => {
                assert_eq!(program, "iptables-save");
                path
            }
            found => found.expect("the programs").path,
        };
        assert_eq!(path, format!("/nowhere:{SYSTEM_PATH}"));
    }
}
