//! A lock that all processes of a network namespace see, whatever directories they use.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::{Error, Result};

/// An abstract unix socket of the network namespace, bound as long as this lives. The kernel
/// removes it with its process.
///
/// Any process of the namespace may bind the name, a container that shares the host's network
/// among them, so whoever is refused is told which process to look at: [`Holder`].
#[derive(Debug)]
pub struct NetnsLock {
    _socket: UnixDatagram,
}

/// The process that holds a [`NetnsLock`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// The user that it runs as.
    pub uid: u32,
}

impl NetnsLock {
    /// Takes the lock `name` of the calling thread's network namespace. `Ok(Err(_))`: another
    /// process has it, `None` if it cannot be seen from here (another process namespace).
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn acquire(name: &str) -> Result<std::result::Result<Self, Option<Holder>>> {
        let failed = |source| Error { action: format!("bind the abstract socket @{name}"), source };
        let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
        loop {
            match UnixDatagram::bind_addr(&address) {
                Ok(socket) => return Ok(Ok(Self { _socket: socket })),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(error)),
            }
            // It may have ended meanwhile: then the name is free.
            if let Some(inode) = inode(name).map_err(failed)? {
                return Ok(Err(holder(&inode)));
            }
        }
    }
}

/// Number of the socket that has a name in this thread's network namespace.
fn inode(name: &str) -> io::Result<Option<String>> {
    let wanted = format!("@{name}");
    let table = fs::read("/proc/thread-self/net/unix")?;
    let table = String::from_utf8_lossy(&table);
    let mut columns = table.lines().map(|line| line.split_whitespace().skip(6));
    Ok(columns.find_map(|mut line| {
        let inode = line.next()?;
        (line.next() == Some(&wanted)).then(|| inode.to_owned())
    }))
}

/// Who has a socket open.
fn holder(inode: &str) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    let opened = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| target.as_os_str() == wanted.as_str())
    };
    let all = fs::read_dir("/proc").ok()?.flatten();
    let pid =
        all.filter_map(|one| one.file_name().to_str()?.parse().ok()).find(|&pid| opened(pid))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let uid = field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    Some(Holder { pid, name: field("Name:")?, uid })
}

#[cfg(test)]
mod tests;
