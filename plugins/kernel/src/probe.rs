//! Probing a link's neighbours for an address before it is used: ARP probes (RFC 5227) and
//! neighbour solicitations of duplicate address detection (RFC 4862).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use crate::clock::Deadline;
use crate::{Error, Mac, Netns, Result, wait_readable};

/// Probes of each address, spread over the first half of the time.
const PROBES: u32 = 3;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

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
            send(&socket, &probe(own, *address))?;
        }
        let until = if round == PROBES { end } else { Deadline::after(pause) };
        while !until.passed() {
            wait_readable(&[socket.as_fd()], until.remaining()).map_err(|error| error.source)?;
            while let Some(frame) = receive(&socket)? {
                if let Some((address, mac)) = claim(&frame)
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
    let place = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be(),
        sll_ifindex: i32::try_from(index).unwrap_or_default(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: the address lives through the call and has the size that is said.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const place).cast(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
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

fn probe(own: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_probe(own, address),
        IpAddr::V6(address) => solicitation(own, address),
    }
}

fn arp_probe(own: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &own.0, &ARP].concat();
    // Ethernet, IPv4, lengths, request; a sender without an address yet.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own.0);
    frame.extend([0; 10]);
    frame.extend(address.octets());
    frame
}

fn solicitation(own: Mac, address: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = address.octets();
    let group = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    let sum = checksum(&[0; 16], &group, &message);
    message[2..4].copy_from_slice(&sum);
    let mut frame = [&[0x33, 0x33, 0xff, a, b, c][..], &own.0, &IPV6].concat();
    // Version, 24 bytes, ICMPv6, hop limit; the unspecified source.
    frame.extend([0x60, 0, 0, 0, 0, 24, ICMPV6, 255]);
    frame.extend([0; 16]);
    frame.extend(group);
    frame.extend(message);
    frame
}

/// Of ICMPv6, over the pseudo header and `message`, which has an even length.
fn checksum(source: &[u8; 16], destination: &[u8; 16], message: &[u8]) -> [u8; 2] {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let words = source.iter().chain(destination).chain(message).copied().collect::<Vec<u8>>();
    let mut sum: u32 = u32::from(ICMPV6) + length;
    for word in words.chunks_exact(2) {
        sum += u32::from(word[0]) << 8 | u32::from(word[1]);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or_default()).to_be_bytes()
}

/// The address that the sender of `frame` has or is about to take, and its hardware address.
fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let part = |from: usize, length: usize| frame.get(from..from + length);
    let mac = |from: usize| part(from, 6)?.try_into().ok().map(Mac);
    let kind: [u8; 2] = part(12, 2)?.try_into().ok()?;
    if kind == ARP {
        let octets = |from: usize| part(from, 4)?.try_into().ok().map(|o: [u8; 4]| o.into());
        let sender: Ipv4Addr = octets(28)?;
        // Another host's probe names the address as its target.
        let claimed = if sender.is_unspecified() { octets(38)? } else { sender };
        return Some((claimed.into(), mac(22)?));
    }
    if kind != IPV6 || part(20, 1)? != [ICMPV6] {
        return None;
    }
    let unspecified = part(22, 16)? == [0; 16];
    match part(54, 1)? {
        [ADVERTISEMENT] => {}
        [SOLICITATION] if unspecified => {}
        _ => return None,
    }
    let target: [u8; 16] = part(62, 16)?.try_into().ok()?;
    Some((Ipv6Addr::from(target).into(), mac(6)?))
}

#[cfg(test)]
mod tests;
