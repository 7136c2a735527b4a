//! Sockets by interface and protocol, and the groups that held addresses belong to: opened and joined
//! when they are needed, closed when they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, BorrowedFd};

use causeway_kernel::{Frame, FrameSocket, Protocol, Result, SolicitedGroups};

use super::speaker::Sending;

/// So many frames of a socket are taken before something is said: one that is flooded does not keep
/// the others waiting.
const AT_ONCE: usize = 128;

/// All that is open.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// By index of the link, and whether it is that of IPv6.
    sockets: BTreeMap<(u32, bool), FrameSocket>,
    groups: SolicitedGroups,
    /// Addresses whose groups are joined.
    joined: BTreeSet<(u32, Ipv6Addr)>,
}

impl Ports {
    /// Opens, joins, leaves and closes until there is what is wanted. What failed, by link
    /// and family (`true`: IPv6).
    pub(super) fn open(
        &mut self,
        links: &BTreeSet<(u32, bool)>,
        groups: &BTreeSet<(u32, Ipv6Addr)>,
    ) -> BTreeMap<(u32, bool), String> {
        let mut failed = BTreeMap::new();
        self.sockets.retain(|port, _| links.contains(port));
        for (link, ipv6) in links {
            if self.sockets.contains_key(&(*link, *ipv6)) {
                continue;
            }
            let protocol = if *ipv6 { Protocol::Ndp } else { Protocol::Arp };
            match FrameSocket::open(*link, protocol) {
                Ok(socket) => drop(self.sockets.insert((*link, *ipv6), socket)),
                Err(error) => drop(failed.insert((*link, *ipv6), causeway_api::chain(&error))),
            }
        }
        let before = std::mem::take(&mut self.joined);
        for (link, address) in &before - groups {
            if let Err(error) = self.groups.leave(link, address) {
                tracing::warn!("{}", causeway_api::chain(&error));
            }
        }
        self.joined = &before & groups;
        for (link, address) in groups - &before {
            match self.groups.join(link, address) {
                Ok(()) => drop(self.joined.insert((link, address))),
                Err(error) => drop(failed.insert((link, true), causeway_api::chain(&error))),
            }
        }
        failed
    }

    /// What came in, in order of each socket; and whether a socket failed.
    pub(super) fn receive(&self) -> (Vec<(u32, Frame)>, bool) {
        let mut frames = Vec::new();
        let mut failed = false;
        for ((link, _), socket) in &self.sockets {
            for _ in 0..AT_ONCE {
                match socket.receive() {
                    Ok(Some(frame)) => frames.push((*link, frame)),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::info!("{}", causeway_api::chain(&error));
                        failed = true;
                        break;
                    }
                }
            }
        }
        (frames, failed)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The link is down or gone.
    pub(super) fn send(&self, sending: &Sending) -> Result<()> {
        let ipv6 = matches!(sending.frame, Frame::Ndp(_));
        match self.sockets.get(&(sending.link, ipv6)) {
            Some(socket) => socket.send(&sending.frame),
            None => Ok(()),
        }
    }

    /// What is readable when something comes in.
    pub(super) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.values().map(|socket| socket.as_fd())
    }
}
