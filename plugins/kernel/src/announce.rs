//! Announcing an attachment's addresses to its neighbours (DESIGN decision 13).

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Error, Mac, Netns, Result};

/// `ETH_P_ARP` and `ETH_P_IPV6` (linux/if_ether.h).
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;

/// `ff02::1`, all nodes of the link, and its Ethernet address (RFC 2464, section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

const BROADCAST_MAC: Mac = Mac([0xff; 6]);

/// Sends a gratuitous ARP (IPv4) or an unsolicited neighbour advertisement (IPv6) for each address
/// from `ifname` inside `netns`. Call it once the bridge port forwards.
///
/// # Errors
/// The packet socket could not be made or written.
pub fn announce(netns: &Netns, ifname: &str, mac: Mac, addresses: &[IpAddr]) -> Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let frames: Vec<(IpAddr, Vec<u8>)> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(v4) => (*address, gratuitous_arp(mac, *v4)),
            IpAddr::V6(v6) => (*address, unsolicited_advertisement(mac, *v6)),
        })
        .collect();
    netns.run(|| {
        let failed = |source| Error { action: format!("announce from {ifname}"), source };
        let socket = packet_socket().map_err(failed)?;
        let index = index_of(ifname).map_err(failed)?;
        for (address, frame) in &frames {
            let failed =
                |source| Error { action: format!("announce {address} from {ifname}"), source };
            send(&socket, index, frame).map_err(failed)?;
        }
        Ok(())
    })?
}

/// An ARP request for one's own address (RFC 5227, section 3): whoever has an entry updates it.
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST_MAC, mac, ETH_P_ARP);
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// A neighbour advertisement to all nodes with the override flag and the target's link-layer
/// address (RFC 4861, sections 4.4 and 7.2.6).
fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    const ICMPV6: u8 = 58;
    let mut icmp = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    icmp.extend(address.octets());
    // The option's length counts in units of 8 bytes.
    icmp.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    icmp.extend(mac.0);
    let length = u8::try_from(icmp.len()).unwrap_or(u8::MAX);
    let checksum = checksum([
        address.octets().as_slice(),
        ALL_NODES.octets().as_slice(),
        &[0, 0, 0, length, 0, 0, 0, ICMPV6],
        &icmp,
    ]);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, ETH_P_IPV6);
    // Version 6, payload length, next header, and the hop limit receivers insist on.
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

fn ethernet(to: Mac, from: Mac, protocol: u16) -> Vec<u8> {
    [to.0.as_slice(), from.0.as_slice(), &protocol.to_be_bytes()].concat()
}

/// The Internet checksum (RFC 1071) over parts of even length.
fn checksum<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded & 0xffff).unwrap_or(u16::MAX)
}

fn packet_socket() -> io::Result<OwnedFd> {
    // Protocol 0: it sends and receives nothing.
    // SAFETY: socket takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn index_of(ifname: &str) -> io::Result<i32> {
    let name = CString::new(ifname)?;
    // SAFETY: a terminated string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => i32::try_from(index).map_err(io::Error::other),
    }
}

fn send(socket: &OwnedFd, index: i32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data; all-zero is a valid value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    to.sll_ifindex = index;
    let length = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
    // SAFETY: frame and address are valid for their lengths during the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            length,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
