//! A router that advertises itself by IPv6.

use std::ffi::CString;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use crate::{DEADLINE, Ns};

/// `ff02::1`, all nodes of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ADVERTISEMENT: u8 = 134;

impl Ns {
    /// Sends one router advertisement by `link`: a default router for `lifetime` seconds (0: none any
    /// more), without prefixes. Routers take packets with hop limit 255 only, and so do hosts.
    pub fn advertise(&self, link: &str, lifetime: u16) {
        let limit = Instant::now() + DEADLINE;
        // A link has this route from when IPv6 is ready on it.
        while self.sh(&format!("ip -6 route show table local type multicast dev {link}")).is_empty()
        {
            assert!(Instant::now() < limit, "{link} takes no IPv6");
        }
        let name = CString::new(link).expect("a name without NUL");
        self.run(|| {
            // SAFETY: the name lives for the call.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            assert_ne!(index, 0, "{link}: {}", io::Error::last_os_error());
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            // SAFETY: a new descriptor, checked below and owned from then on.
            let fd = unsafe { libc::socket(libc::AF_INET6, kind, libc::IPPROTO_ICMPV6) };
            assert!(fd >= 0, "raw socket: {}", io::Error::last_os_error());
            // SAFETY: the descriptor is ours alone.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            set(&socket, libc::IPV6_MULTICAST_HOPS, 255);
            set(&socket, libc::IPV6_MULTICAST_IF, index.cast_signed());
            let [high, low] = lifetime.to_be_bytes();
            // The kernel fills in the checksum.
            let packet = [ADVERTISEMENT, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
            send(&socket, index, &packet);
        });
    }
}

fn set(socket: &OwnedFd, option: i32, value: i32) {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("small");
    let value = (&raw const value).cast();
    // SAFETY: the option's value lives for the call and its length is right.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, option, value, length) };
    assert_eq!(done, 0, "option {option}: {}", io::Error::last_os_error());
}

fn send(socket: &OwnedFd, scope: u32, packet: &[u8]) {
    let to = libc::sockaddr_in6 {
        sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).expect("small"),
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: ALL_NODES.octets() },
        sin6_scope_id: scope,
    };
    let length = libc::socklen_t::try_from(size_of_val(&to)).expect("small");
    let to = (&raw const to).cast();
    // SAFETY: packet and address live for the call and their lengths are right.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, length)
    };
    let whole = usize::try_from(sent).is_ok_and(|sent| sent == packet.len());
    assert!(whole, "advertise: {}", io::Error::last_os_error());
}
