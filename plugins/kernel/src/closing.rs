//! Processes whose end waits for the kernel: closing a netfilter socket after deletions takes some
//! 10 to 25 ms, because the kernel first frees what was deleted (`nft_rcv_nl_event`). The last
//! process that has the socket open pays.

use std::os::fd::{AsRawFd, RawFd};

use crate::process::pidfd;

/// How long the child waits for this process to end: a process that calls [`close_in_child`] ends at
/// once, so only a stopped one takes longer. Milliseconds.
const LONGEST: libc::c_int = 10_000;
/// How long the child waits beyond that, in milliseconds: a close that waits for the kernel keeps
/// all other processes from changing rules meanwhile (`commit_mutex`), the next plugin of the chain
/// first. Left alone, the kernel is done in some 20 ms, and the close has nothing to wait for.
const AFTER: libc::c_int = 100;

/// Leaves the last close of this process' netfilter sockets to a child that does nothing else; call
/// it last. Whoever waits for this process does not wait for the kernel then.
///
/// The child keeps copies of the sockets until this process has ended, and nothing else of it: no
/// stdin, stdout or stderr, no pipe or lock, so whoever reads those sees their end with this process.
/// It is in a session of its own, so a runtime that waits for a process group does not wait for it;
/// `init` or a subreaper gets to reap it.
pub fn close_in_child() {
    // Without one (before kernel 5.3) this process waits for the kernel itself.
    let Ok(pidfd) = pidfd(std::process::id()) else { return };
    let ending = pidfd.as_raw_fd();
    let (sockets, mut others): (Vec<RawFd>, Vec<RawFd>) =
        open_descriptors().into_iter().partition(|fd| is_netfilter(*fd));
    if sockets.is_empty() {
        return;
    }
    others.retain(|fd| *fd != ending);
    // SAFETY: between fork and _exit the child calls nothing but system calls that are
    // async-signal-safe, so it does not matter what other threads held at the fork.
    unsafe {
        if libc::fork() == 0 {
            libc::setsid();
            for fd in &others {
                libc::close(*fd);
            }
            let mut wait = libc::pollfd { fd: ending, events: libc::POLLIN, revents: 0 };
            // Readable once the parent's descriptors are closed: a process gives up its files before
            // it tells of its end. If a signal ends the wait early, the parent pays.
            libc::poll(&raw mut wait, 1, LONGEST);
            libc::poll(std::ptr::null_mut(), 0, AFTER);
            libc::_exit(0);
        }
    }
}

/// Descriptors of this process, stdin to stderr among them.
fn open_descriptors() -> Vec<RawFd> {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    open.flatten().filter_map(number).collect()
}

/// Whether it is a connection to nf_tables or to another part of netfilter.
fn is_netfilter(fd: RawFd) -> bool {
    option(fd, libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
        && option(fd, libc::SO_PROTOCOL) == Some(libc::NETLINK_NETFILTER)
}

/// An option of a socket; `None` for what is none.
fn option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = libc::socklen_t::try_from(size_of_val(&value)).ok()?;
    // SAFETY: the kernel writes at most `size` bytes, which `value` has; any descriptor will do.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut size)
    };
    (done == 0).then_some(value)
}
