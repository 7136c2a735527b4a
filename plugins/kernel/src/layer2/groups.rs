//! The solicited-node groups of held addresses, joined for real: the hardware filter of the link
//! lets them in and switches that snoop MLD forward them (row L-32).

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::frame::solicited_node;
use crate::{Error, Result};

/// Memberships of this process. They end with the value.
#[derive(Debug, Default)]
pub struct SolicitedGroups {
    /// One has no room for more than some hundred groups (`net.core.optmem_max`).
    sockets: Vec<OwnedFd>,
    members: BTreeMap<(u32, Ipv6Addr), Member>,
}

/// What is known of one group on one link.
#[derive(Debug)]
struct Member {
    /// Addresses that end in the same 24 bits.
    addresses: usize,
    /// Which socket has joined.
    socket: usize,
}

impl SolicitedGroups {
    /// Joins the group of `address` on the link of index `link`, if no address before it did: the
    /// kernel sends a report of MLD.
    ///
    /// # Errors
    /// See [`crate::Error`]. `ENODEV` if the link is gone or has no IPv6.
    pub fn join(&mut self, link: u32, address: Ipv6Addr) -> Result<()> {
        let group = solicited_node(address);
        if let Some(member) = self.members.get_mut(&(link, group)) {
            member.addresses += 1;
            return Ok(());
        }
        let failed =
            |source| Error { action: format!("join group {group} on link {link}"), source };
        let socket = self.add(link, group).map_err(failed)?;
        self.members.insert((link, group), Member { addresses: 1, socket });
        Ok(())
    }

    /// Leaves the group of `address` if no other address that was joined needs it. That the link is
    /// gone is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn leave(&mut self, link: u32, address: Ipv6Addr) -> Result<()> {
        let group = solicited_node(address);
        let Some(member) = self.members.get_mut(&(link, group)) else { return Ok(()) };
        member.addresses -= 1;
        if member.addresses > 0 {
            return Ok(());
        }
        let socket = member.socket;
        self.members.remove(&(link, group));
        let left = membership(&self.sockets[socket], libc::IPV6_DROP_MEMBERSHIP, link, group);
        match left {
            Err(error) if is_gone(&error) => Ok(()),
            left => left.map_err(|source| Error {
                action: format!("leave group {group} on link {link}"),
                source,
            }),
        }
    }

    /// Groups that are joined, each with its link.
    pub fn joined(&self) -> impl Iterator<Item = (u32, Ipv6Addr)> {
        self.members.keys().copied()
    }

    /// Returns the socket that has joined it.
    fn add(&mut self, link: u32, group: Ipv6Addr) -> io::Result<usize> {
        for (place, socket) in self.sockets.iter().enumerate() {
            match membership(socket, libc::IPV6_ADD_MEMBERSHIP, link, group) {
                Err(error) if is_full(&error) => {}
                done => return done.map(|()| place),
            }
        }
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, flags, None)?;
        membership(&socket, libc::IPV6_ADD_MEMBERSHIP, link, group)?;
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EADDRNOTAVAIL))
}

fn membership(socket: &OwnedFd, option: libc::c_int, link: u32, group: Ipv6Addr) -> io::Result<()> {
    let request = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
        ipv6mr_interface: link,
    };
    let size = u32::try_from(size_of::<libc::ipv6_mreq>()).unwrap_or_default();
    // SAFETY: the request lives through the call and has the size that is said.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            option,
            (&raw const request).cast(),
            size,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
