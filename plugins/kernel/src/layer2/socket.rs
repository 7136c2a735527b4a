//! A packet socket for the frames of one protocol on one link.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use super::frame::Frame;
use crate::{Error, Result};

/// The longest frame that is read: a solicitation with more options than hosts send.
const LONGEST: usize = 512;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE` (linux/filter.h).
const PACKET_TYPE: u32 = 0xffff_f004;
/// `SKF_AD_OFF + SKF_AD_IFINDEX`: a socket of a link is given frames of VLANs and other links on top of
/// it as well, which are other segments.
const PACKET_LINK: u32 = 0xffff_f008;
/// `PACKET_HOST`, `_BROADCAST` and `_MULTICAST` are below, `_OTHERHOST` and `_OUTGOING` not
/// (linux/if_packet.h): frames to other stations that a bridge port or a capture lets in.
const OTHER_HOST: u32 = 3;

/// Which frames a [`FrameSocket`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// ARP.
    Arp,
    /// Neighbour solicitations and advertisements.
    Ndp,
}

/// An open socket. Readable ([`AsFd`]) when [`FrameSocket::receive`] has something. It is kept as
/// long as the link is used: closing it waits for a grace period of the kernel, some 16 ms.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    link: u32,
}

impl FrameSocket {
    /// Opens it on the link of index `link` of the calling thread's namespace. Frames of other links
    /// and protocols are dropped in the kernel.
    ///
    /// # Errors
    /// See [`crate::Error`]. `ENODEV` if there is no such link.
    pub fn open(link: u32, protocol: Protocol) -> Result<Self> {
        let failed =
            |source| Error { action: format!("open a packet socket on link {link}"), source };
        open(link, protocol).map(|socket| Self { socket, link }).map_err(failed)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// See [`crate::Error`]. `ENETDOWN` while the link is down, `ENXIO` when it is gone.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        match rustix::net::send(&self.socket, &frame.encode(), SendFlags::empty()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let action = format!("send {} on link {}", name(frame), self.link);
                Err(Error { action, source: error.into() })
            }
        }
    }

    /// The next frame, without waiting. What is no valid one is passed over.
    ///
    /// # Errors
    /// See [`crate::Error`]. `ENETDOWN` once after the link went down.
    pub fn receive(&self) -> Result<Option<Frame>> {
        let mut buffer = [0; LONGEST];
        loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    if let Some(frame) = Frame::decode(&buffer[..length]) {
                        return Ok(Some(frame));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => {
                    let action = format!("read frames of link {}", self.link);
                    return Err(Error { action, source: error.into() });
                }
            }
        }
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Arp(_) => "an ARP packet",
        Frame::Ndp(_) => "a message of neighbour discovery",
    }
}

fn open(link: u32, protocol: Protocol) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // No protocol until the filter is there, so that nothing else comes in.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let ether_type = match protocol {
        Protocol::Arp => libc::ETH_P_ARP,
        Protocol::Ndp => libc::ETH_P_IPV6,
    };
    attach(&socket, &filter(protocol, link))?;
    bind_to_link(&socket, link, ether_type)?;
    Ok(socket)
}

/// Has a packet socket receive what comes in on a link, of one protocol (`ETH_P_..`).
pub(crate) fn bind_to_link(socket: &OwnedFd, link: u32, ether_type: i32) -> io::Result<()> {
    let place = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: u16::try_from(ether_type).unwrap_or_default().to_be(),
        sll_ifindex: i32::try_from(link).unwrap_or_default(),
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
    Ok(())
}

/// Which frames come in, in the language of classic BPF.
fn filter(protocol: Protocol, link: u32) -> Vec<libc::sock_filter> {
    /// What one instruction tests.
    enum Test {
        Below(u32),
        Is(u32),
    }
    let mut tests = vec![
        (libc::BPF_B, PACKET_TYPE, Test::Below(OTHER_HOST)),
        (libc::BPF_W, PACKET_LINK, Test::Is(link)),
    ];
    if protocol == Protocol::Ndp {
        // Next header and hop limit, without extension headers (RFC 6980).
        tests.extend([(libc::BPF_B, 20, Test::Is(58)), (libc::BPF_B, 21, Test::Is(255))]);
    }
    let load = |size, at| instruction(libc::BPF_LD | size | libc::BPF_ABS, at, (0, 0));
    let jump = |kind, to, ways| instruction(libc::BPF_JMP | kind | libc::BPF_K, to, ways);
    let mut program = Vec::new();
    let verdict = |length| instruction(libc::BPF_RET | libc::BPF_K, length, (0, 0));
    for (size, at, test) in tests {
        program.push(load(size, at));
        // Past the verdict, or to it.
        program.push(match test {
            Test::Below(limit) => jump(libc::BPF_JGE, limit, (0, 1)),
            Test::Is(value) => jump(libc::BPF_JEQ, value, (1, 0)),
        });
        program.push(verdict(0));
    }
    if protocol == Protocol::Ndp {
        program.push(load(libc::BPF_B, 54));
        program.push(jump(libc::BPF_JEQ, 135, (2, 0)));
        program.push(jump(libc::BPF_JEQ, 136, (1, 0)));
        program.push(verdict(0));
    }
    program.push(verdict(u32::try_from(LONGEST).unwrap_or_default()));
    program
}

fn instruction(code: u32, k: u32, (jt, jf): (u8, u8)) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn attach(socket: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_ptr().cast_mut(),
    };
    let size = u32::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default();
    // SAFETY: the program lives through the call, which copies it and does not write to it, and has
    // the length that is said.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
