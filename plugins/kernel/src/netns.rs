//! Network namespaces. A namespace belongs to a thread: nothing here outlives the call that
//! entered it.

mod id;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

pub use id::{NetnsId, NetnsLife};

use rustix::fs::fstatfs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// The namespace of the calling thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// `NSFS_MAGIC` (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// `NS_GET_NSTYPE`, `_IO(0xb7, 0x3)` (linux/nsfs.h).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: String,
}

/// Why a path is not a usable network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path does not exist (any more).
    #[error("network namespace {path} does not exist")]
    NotFound {
        /// The path as given.
        path: String,
    },
    /// The path exists, and is not a network namespace (plain file, tmpfs, other namespace type).
    #[error("{path} is not a network namespace")]
    NotANetns {
        /// The path as given.
        path: String,
    },
    /// It could not be opened or entered.
    #[error("open network namespace {path}")]
    Io {
        /// The path as given.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(CURRENT)
    }

    /// Opens `path`, and checks by filesystem magic and `NS_GET_NSTYPE` that it is a network
    /// namespace.
    ///
    /// # Errors
    /// See [`NetnsError`].
    pub fn open(path: &str) -> Result<Self, NetnsError> {
        // O_NONBLOCK: the path may be a FIFO that nobody writes to.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|source| match source.raw_os_error() {
            // ESRCH: /proc/PID/ns/net of a process that has just ended.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ESRCH) => {
                NetnsError::NotFound { path: path.to_owned() }
            }
            // ENXIO: a unix socket.
            Some(libc::ENXIO) => NetnsError::NotANetns { path: path.to_owned() },
            _ => NetnsError::Io { path: path.to_owned(), source },
        })?;
        match is_netns(&file) {
            Ok(true) => Ok(Self { file, path: path.to_owned() }),
            Ok(false) => Err(NetnsError::NotANetns { path: path.to_owned() }),
            Err(source) => Err(NetnsError::Io { path: path.to_owned(), source }),
        }
    }

    /// Whether both are the same namespace (device and inode).
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.file.metadata(), other.file.metadata()) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Runs `work` on a thread inside the namespace; the caller's thread stays where it is. A
    /// panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// `setns` failed.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let inside = || {
            self.enter()?;
            Ok(work())
        };
        let result = std::thread::scope(|scope| {
            std::thread::Builder::new().spawn_scoped(scope, inside).map(|thread| thread.join())
        });
        match result {
            Ok(Ok(done)) => done.map_err(|source| self.io_error(source)),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(source) => Err(self.io_error(source)),
        }
    }

    /// The namespace a socket lives in, by `SIOCGSKNS`.
    pub(crate) fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Self> {
        /// linux/sockios.h; the libc crate does not have it for every target.
        const SIOCGSKNS: libc::Ioctl = 0x894c;
        // SAFETY: the request takes no argument and returns a new descriptor or -1.
        let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        let fd: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
        Ok(Self { file: fd.into(), path: "of a socket".to_owned() })
    }

    /// Moves the calling thread into the namespace.
    fn enter(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(self.file.as_fd(), kind)?)
    }

    fn io_error(&self, source: io::Error) -> NetnsError {
        NetnsError::Io { path: self.path.clone(), source }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether `path` names the calling thread's own network namespace. `false` if it is none.
pub fn own_netns(path: &str) -> bool {
    match (Netns::open(path), Netns::current()) {
        (Ok(given), Ok(own)) => given.is_same(&own),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

impl From<NetnsError> for Error {
    fn from(error: NetnsError) -> Self {
        let action = error.to_string();
        let source = match error {
            NetnsError::NotFound { .. } => io::Error::from_raw_os_error(libc::ENOENT),
            NetnsError::NotANetns { .. } => io::Error::from_raw_os_error(libc::EINVAL),
            NetnsError::Io { source, .. } => source,
        };
        Self { action, source }
    }
}

fn is_netns(file: &File) -> io::Result<bool> {
    #[expect(clippy::cast_sign_loss, reason = "magic numbers are 32 bits in a field of any sign")]
    if fstatfs(file)?.f_type as u64 != NSFS_MAGIC {
        return Ok(false);
    }
    // SAFETY: the request takes no argument; the descriptor is open.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    match kind {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind == libc::CLONE_NEWNET),
    }
}

#[cfg(test)]
mod tests;
