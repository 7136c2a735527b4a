//! Sysctls of one namespace, through /proc/sys as seen by a thread inside it.

use crate::{Netns, Result};

/// A writer of sysctls: of a namespace, or of the calling thread's.
#[derive(Debug)]
pub struct Sysctl<'a> {
    /// `None`: the calling thread's namespace.
    pub netns: Option<&'a Netns>,
}

impl Sysctl<'_> {
    /// Reads `net/ipv4/ip_forward` and the like; `None` where the key does not exist.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn read(&self, key: &str) -> Result<Option<String>> {
        let _ = key;
        todo!()
    }

    /// Writes each pair that does not hold the wanted value already (row F43: a read-only /proc
    /// with the right values is fine). One entry into the namespace for all of them.
    ///
    /// # Errors
    /// Names the key and the value.
    pub fn ensure(&self, wanted: &[(String, &str)]) -> Result<()> {
        let _ = wanted;
        todo!()
    }
}
