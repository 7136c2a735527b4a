//! Notifications about one link, on a socket of their own.
//!
//! A notification carries the sequence number of whoever caused it, so on the connection that
//! sends requests it could be taken for an answer.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags};

use crate::clock::Deadline;
use crate::wait::poll;
use crate::{Error, Netlink, Result};

/// A multicast group of rtnetlink whose messages hold a link's index in bytes 4 to 8 of the
/// payload (`ifinfomsg`, `ifaddrmsg`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Group {
    /// `RTNLGRP_LINK`
    Link = 1,
    /// `RTNLGRP_IPV6_IFADDR`
    Ipv6Address = 9,
}

/// A subscription with a time limit.
pub(crate) struct Notifications {
    socket: Socket,
    index: u32,
    deadline: Deadline,
}

impl Notifications {
    /// Notifications of `group` about link `index`, for `timeout` from now.
    pub(crate) fn subscribe(
        netlink: &Netlink,
        group: Group,
        index: u32,
        timeout: Duration,
    ) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let failed = |source| Error {
            action: format!("subscribe to notifications about link {index}"),
            source,
        };
        let netns = netlink.netns().map_err(failed)?;
        let socket = netns.run(|| Socket::new(NETLINK_ROUTE))?.map_err(failed)?;
        let prepare = |mut socket: Socket| -> io::Result<Socket> {
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(group as u32)?;
            Ok(socket)
        };
        Ok(Self { socket: prepare(socket).map_err(failed)?, index, deadline })
    }

    /// Waits for the next one. `false`: time is up. A loss of notifications counts as one.
    pub(crate) fn wait(&mut self) -> Result<bool> {
        loop {
            if self.readable()? && self.read()? {
                return Ok(true);
            }
            if self.deadline.passed() {
                return Ok(false);
            }
        }
    }

    fn readable(&self) -> Result<bool> {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = poll(&mut polled, self.deadline.remaining());
        ready.map(|ready| ready > 0).map_err(|error| self.failed(error))
    }

    /// Whether the datagram at hand is about our link.
    fn read(&self) -> Result<bool> {
        let mut buffer = Vec::with_capacity(32 * 1024);
        match self.socket.recv(&mut buffer, 0) {
            Ok(_) => Ok(mentions(&buffer, self.index)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error { action: format!("wait for notifications about link {}", self.index), source }
    }
}

/// Whether one of the messages of `datagram` is about link `index`.
fn mentions(datagram: &[u8], index: u32) -> bool {
    /// `nlmsghdr`
    const HEADER: usize = 16;
    let word = |at: usize| -> Option<u32> {
        let bytes = datagram.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let mut at = 0;
    while let Some(length) = word(at).and_then(|length| usize::try_from(length).ok()) {
        if word(at + HEADER + 4) == Some(index) {
            return true;
        }
        // A length below the header's would not advance.
        at += length.max(HEADER).next_multiple_of(4);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::mentions;

    fn message(length: u32, index: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[20..24].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    #[test]
    fn finds_the_link_in_any_message_of_a_datagram() {
        let datagram = [message(32, 5), message(32, 7)].concat();
        assert!(mentions(&datagram, 5));
        assert!(mentions(&datagram, 7));
        assert!(!mentions(&datagram, 6));
    }

    #[test]
    fn a_broken_length_ends_the_search() {
        assert!(!mentions(&[0; 15], 1));
        assert!(!mentions(&[0; 64], 1));
        assert!(!mentions(&[0xff; 40], 1));
    }
}
