//! Sysctls of one namespace, through /proc/sys as seen by a thread inside it.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Netns, Result};

/// A writer of sysctls: of a namespace, or of the calling thread's.
#[derive(Debug)]
pub struct Sysctl<'a> {
    /// `None`: the calling thread's namespace.
    pub netns: Option<&'a Netns>,
}

impl Sysctl<'_> {
    /// Reads `net/ipv4/ip_forward` and the like; `None` if the key does not exist.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn read(&self, key: &str) -> Result<Option<String>> {
        self.inside(|| match read_key(key) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error { action: format!("read sysctl {key}"), source }),
        })
    }

    /// Writes each pair that does not hold the wanted value already (row F43: a read-only /proc
    /// with the right values is fine). One entry into the namespace for all of them.
    ///
    /// # Errors
    /// Names the key and the value. `ENOENT` if the key does not exist, as without IPv6.
    pub fn ensure(&self, wanted: &[(String, &str)]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.inside(|| wanted.iter().try_for_each(|(key, value)| ensure_key(key, value)))
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self.netns {
            None => work(),
            // /proc/sys/net is that of the thread which opens a file below it.
            Some(netns) => netns.run(work)?,
        }
    }
}

fn path_of(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

fn read_key(key: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path_of(key))?.trim_end().to_owned())
}

fn ensure_key(key: &str, value: &str) -> Result<()> {
    let failed = |source: io::Error| Error { action: refusal(key, value, &source), source };
    match read_key(key) {
        Ok(current) if current == value => return Ok(()),
        // Some keys can only be written.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(failed(error)),
    }
    // Not `fs::write`: it asks for creation, which a read-only /proc refuses differently.
    let mut file = std::fs::OpenOptions::new().write(true).open(path_of(key)).map_err(failed)?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(failed)
}

/// What was tried, and what the user can do about it.
fn refusal(key: &str, value: &str, error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EROFS) => {
            format!(": /proc/sys is read-only here; set {key} = {value} on the host beforehand")
        }
        Some(libc::EACCES | libc::EPERM) => {
            format!(": CAP_NET_ADMIN is missing; set {key} = {value} on the host beforehand")
        }
        Some(libc::ENOENT) => ": this kernel or namespace has no such key".to_owned(),
        _ => String::new(),
    };
    format!("set sysctl {key} to {value}{remedy}")
}

#[cfg(test)]
mod tests;
