//! Changes of links, addresses, routes and neighbours by other processes, on a socket of its own.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::{Error, Netlink, Result};

/// `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`
/// (linux/rtnetlink.h).
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV6_IFADDR`.
const ADDRESS_GROUPS: [u32; 3] = [1, 5, 9];
/// Messages that come while nobody reads are lost beyond this; 200 peers are 600 messages.
const BUFFER: usize = 1 << 20;

/// Which changes matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Links whose own changes, addresses and neighbours matter, by index. Empty: all links.
    pub links: BTreeSet<u32>,
    /// Routes of this protocol matter, and those that take another's place.
    pub protocol: u8,
}

/// A subscription. Readable ([`AsFd`]) when [`Monitor::changed`] has something to look at.
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Subscribes in the namespace of `netlink`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn new(netlink: &Netlink) -> Result<Self> {
        Self::of_groups(netlink, &GROUPS)
    }

    /// Subscribes to changes of links alone.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn of_links(netlink: &Netlink) -> Result<Self> {
        Self::of_groups(netlink, &GROUPS[..1])
    }

    /// Subscribes to changes of links and of their addresses.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn of_addresses(netlink: &Netlink) -> Result<Self> {
        Self::of_groups(netlink, &ADDRESS_GROUPS)
    }

    fn of_groups(netlink: &Netlink, groups: &[u32]) -> Result<Self> {
        let failed = |source| Error {
            action: "subscribe to changes of links, addresses, routes and neighbours".to_owned(),
            source,
        };
        let netns = netlink.netns().map_err(failed)?;
        let mut socket = netns.run(|| Socket::new(NETLINK_ROUTE))?.map_err(failed)?;
        let prepare = |socket: &mut Socket| -> io::Result<()> {
            socket.set_non_blocking(true)?;
            socket.set_rx_buf_sz(BUFFER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))
        };
        prepare(&mut socket).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Takes in all that happened since the last call, without waiting: whether something of
    /// interest was among it. Lost messages count as such.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn changed(&mut self, interest: &Interest) -> Result<bool> {
        self.any(|message| interest.in_message(message))
    }

    /// Takes in all that happened since the last call, without waiting: whether a link was removed,
    /// or moved to another namespace. Lost messages count as such.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn removed(&mut self) -> Result<bool> {
        self.any(|message| message.kind == libc::RTM_DELLINK)
    }

    fn any(&mut self, matters: impl Fn(&Message<'_>) -> bool) -> Result<bool> {
        let mut changed = false;
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => changed |= messages(&buffer).any(|message| matters(&message)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(source) => {
                    let action =
                        "read changes of links, addresses, routes and neighbours".to_owned();
                    return Err(Error { action, source });
                }
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("socket", &self.socket.as_raw_fd()).finish()
    }
}

impl Interest {
    fn in_message(&self, message: &Message<'_>) -> bool {
        let link = |index: Option<u32>| {
            self.links.is_empty() || index.is_none_or(|index| self.links.contains(&index))
        };
        match message.kind {
            // `ifindex` is in the same place of `ifinfomsg`, `ifaddrmsg` and `ndmsg`.
            libc::RTM_NEWLINK
            | libc::RTM_DELLINK
            | libc::RTM_NEWADDR
            | libc::RTM_DELADDR
            | libc::RTM_NEWNEIGH
            | libc::RTM_DELNEIGH => link(message.word(4)),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                // `rtm_protocol`
                let ours = message.payload.get(5).is_none_or(|byte| *byte == self.protocol);
                ours || message.flags & netlink_packet_core::NLM_F_REPLACE != 0
            }
            _ => false,
        }
    }
}

/// A netlink message.
struct Message<'a> {
    kind: u16,
    flags: u16,
    payload: &'a [u8],
}

impl Message<'_> {
    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.payload.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// The messages of a datagram.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    /// `nlmsghdr`
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let message =
            Message { kind: half(4)?, flags: half(6)?, payload: bytes.get(HEADER..length)? };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests;
