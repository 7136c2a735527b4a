//! Sockets that listen.
//!
//! They may be bound before their address is there (row D-58: an IPv6 address is tentative for a second
//! or two) and beside those of the daemon that this one takes over from (row D-60).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{
    set_ip_freebind, set_ipv6_freebind, set_ipv6_v6only, set_socket_recv_buffer_size_force,
    set_socket_reuseaddr, set_socket_reuseport,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{TcpListener, UdpSocket};

/// Connections that wait to be taken; the kernel takes the smaller of this and `somaxconn`.
const BACKLOG: i32 = 1024;

/// A burst of 4,000 questions waits in so much; the usual 208 KiB hold some 270.
const BUFFER: usize = 4 << 20;

/// Datagrams to this address; answers leave from it (row D-59).
pub(super) fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(address, SocketType::DGRAM)?;
    if let Err(error) = set_socket_recv_buffer_size_force(&socket, BUFFER) {
        tracing::debug!(%address, %error, "a burst of questions has the usual room");
    }
    UdpSocket::from_std(socket.into())
}

/// Connections to this address.
pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bound(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let v4 = address.is_ipv4();
    let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if kind == SocketType::STREAM {
        // For datagrams it would let any other server have the address, too.
        set_socket_reuseaddr(&socket, true)?;
    }
    set_socket_reuseport(&socket, true)?;
    if v4 {
        set_ip_freebind(&socket, true)?;
    } else {
        set_ipv6_v6only(&socket, true)?;
        set_ipv6_freebind(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}
