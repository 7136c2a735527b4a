//! Which network namespace: told apart from every other one, gone ones among them.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Netns, NetnsError};

/// `SO_NETNS_COOKIE` (asm-generic/socket.h), from Linux 5.14 on.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Identity of a network namespace, for records. The kernel gives the number of a file again as
/// soon as it is free, and a process id too; a cookie is never given twice in one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device of the namespace's file.
    pub dev: u64,
    /// Number of the file.
    pub inode: u64,
    /// `SO_NETNS_COOKIE`; `None`: the kernel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
}

/// What can be said of a namespace that was once at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetnsLife {
    /// It is there, or that cannot be ruled out at its place.
    Lives,
    /// Its place is empty, or another namespace's.
    Gone,
    /// Its place is no namespace's, and nothing tells whether it is elsewhere.
    Unknown,
}

impl NetnsId {
    /// Whether both are the same namespace. Without cookies, one of the same number counts as that.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.cookie, other.cookie) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => (self.dev, self.inode) == (other.dev, other.inode),
        }
    }

    /// Whether a process of this machine is in the namespace, as far as `/proc` shows processes.
    pub fn has_process(&self) -> bool {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let pids = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_pid));
        pids.map(|pid| pid.path().join("ns/net")).any(|path| self.is_at(&path))
    }

    fn is_at(&self, path: &Path) -> bool {
        let there = std::fs::metadata(path);
        let same = |there: std::fs::Metadata| (there.dev(), there.ino()) == (self.dev, self.inode);
        there.is_ok_and(same)
            && Netns::open(&path.to_string_lossy())
                .and_then(|netns| netns.id())
                .is_ok_and(|id| id.is_same(self))
    }
}

impl NetnsLife {
    /// What can be said of the namespace `id` that was at `path`.
    pub fn at(path: &str, id: Option<&NetnsId>) -> Self {
        match Netns::open(path) {
            Err(NetnsError::NotFound { .. }) => Self::Gone,
            Err(NetnsError::NotANetns { .. }) => Self::Unknown,
            Err(NetnsError::Io { .. }) => Self::Lives,
            Ok(netns) => match (id, netns.id()) {
                (Some(id), Ok(there)) if !id.is_same(&there) => Self::Gone,
                (Some(_) | None, Ok(_) | Err(_)) => Self::Lives,
            },
        }
    }
}

impl Netns {
    /// Which one it is.
    ///
    /// # Errors
    /// The file cannot be looked at, or the namespace not be entered.
    pub fn id(&self) -> Result<NetnsId, NetnsError> {
        let failed = |source| NetnsError::Io { path: self.path.clone(), source };
        let inside = self.run(UnixDatagram::unbound)?.map_err(failed)?;
        self.id_with(cookie_of(&inside))
    }

    /// The same without entering it, given a socket in it.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn id_by(&self, inside: &impl AsRawFd) -> Result<NetnsId, NetnsError> {
        self.id_with(cookie_of(inside))
    }

    fn id_with(&self, cookie: Option<u64>) -> Result<NetnsId, NetnsError> {
        let failed = |source| NetnsError::Io { path: self.path.clone(), source };
        let file = self.file.metadata().map_err(failed)?;
        Ok(NetnsId { dev: file.dev(), inode: file.ino(), cookie })
    }
}

/// Cookie of the namespace that a socket is in.
fn cookie_of(socket: &impl AsRawFd) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: both places live through the call, and `length` is the size of the first.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (failed == 0).then_some(cookie)
}

#[cfg(test)]
mod tests;
