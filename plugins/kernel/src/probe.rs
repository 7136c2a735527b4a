//! Probing a link's neighbours for an address before it is used: ARP probes (RFC 5227) and
//! neighbour solicitations of duplicate address detection (RFC 4862).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use crate::clock::Deadline;
use crate::layer2::{Frame, bind_to_link};
use crate::{Error, Mac, Netns, Result, wait_readable};

/// Probes of each address, spread over the first half of the time.
const PROBES: u32 = 3;

impl Netns {
    /// Which of `addresses` a neighbour of link `index` has, and the neighbour's hardware address;
    /// the first one that answers within `wait`. `own` is the link's own address. The link has to be
    /// up and its port to forward. It takes all of `wait` if nobody answers, and closing the
    /// socket a grace period of the kernel more.
    ///
    /// # Errors
    /// The namespace cannot be entered; no packet socket.
    pub fn holder(
        &self,
        index: u32,
        own: Mac,
        addresses: &[IpAddr],
        wait: Duration,
    ) -> Result<Option<(IpAddr, Mac)>> {
        let failed = |source| Error { action: "ask the neighbours".to_owned(), source };
        let asked = self.run(|| ask(index, own, addresses, wait));
        let asked = asked.map_err(|error| failed(io::Error::other(error)))?;
        asked.map_err(failed)
    }
}

fn ask(
    index: u32,
    own: Mac,
    addresses: &[IpAddr],
    wait: Duration,
) -> io::Result<Option<(IpAddr, Mac)>> {
    let socket = open(index)?;
    let pause = wait / (2 * PROBES);
    let end = Deadline::after(wait);
    for round in 1..=PROBES {
        for address in addresses {
            send(&socket, &Frame::probe(*address, own).encode())?;
        }
        let until = if round == PROBES { end } else { Deadline::after(pause) };
        while !until.passed() {
            wait_readable(&[socket.as_fd()], until.remaining()).map_err(|error| error.source)?;
            while let Some(frame) = receive(&socket)? {
                if let Some((address, mac)) = Frame::decode(&frame).as_ref().and_then(claim)
                    && mac != own
                    && addresses.contains(&address)
                {
                    return Ok(Some((address, mac)));
                }
            }
        }
    }
    Ok(None)
}

fn open(index: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // No protocol yet, so that nothing of other links comes in.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    bind_to_link(&socket, index, libc::ETH_P_ALL)?;
    Ok(socket)
}

fn send(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, frame, SendFlags::empty())?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; 256];
    match rustix::net::recv(socket, &mut frame[..], RecvFlags::empty()) {
        Ok((length, _)) => {
            frame.truncate(length);
            Ok(Some(frame))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The address that the sender of a frame has or is about to take, and its hardware address.
fn claim(frame: &Frame) -> Option<(IpAddr, Mac)> {
    frame.probed().or_else(|| frame.claim())
}

#[cfg(test)]
mod tests;
