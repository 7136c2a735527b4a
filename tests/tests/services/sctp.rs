//! SCTP by raw packets: this kernel may have no SCTP sockets, but it follows and translates
//! associations.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use causeway_tests::Ns;
use serde_json::json;

use crate::stage::{Backend, From, NODE, PODS, Stage, slice};

const SCTP: i32 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// A raw SCTP socket.
struct Raw(OwnedFd);

/// An SCTP packet of one chunk as it came: addresses, ports, type of the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    source: Ipv4Addr,
    ports: (u16, u16),
    chunk: u8,
}

impl Raw {
    fn open(ns: &Ns) -> Self {
        ns.run(|| {
            // SAFETY: a new descriptor, checked below and owned from then on.
            let fd =
                unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, SCTP) };
            assert!(fd >= 0, "raw socket: {}", io::Error::last_os_error());
            let wait = libc::timeval { tv_sec: 5, tv_usec: 0 };
            let len = libc::socklen_t::try_from(size_of_val(&wait)).expect("small");
            // SAFETY: the option's value lives for the call and its length is right.
            let set = unsafe {
                libc::setsockopt(
                    fd,
                    libc::SOL_SOCKET,
                    libc::SO_RCVTIMEO,
                    (&raw const wait).cast(),
                    len,
                )
            };
            assert_eq!(set, 0, "SO_RCVTIMEO: {}", io::Error::last_os_error());
            // SAFETY: the descriptor is ours alone.
            Self(unsafe { OwnedFd::from_raw_fd(fd) })
        })
    }

    fn send(&self, to: Ipv4Addr, packet: &[u8]) {
        let address = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("small"),
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.octets()) },
            sin_zero: [0; 8],
        };
        let len = libc::socklen_t::try_from(size_of_val(&address)).expect("small");
        // SAFETY: buffer and address live for the call and their lengths are right.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                len,
            )
        };
        assert!(sent > 0, "send: {}", io::Error::last_os_error());
    }

    /// The next packet, or nothing within five seconds.
    fn receive(&self) -> Option<Packet> {
        let mut buffer = [0_u8; 512];
        // SAFETY: the buffer is writable for its length.
        let length =
            unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let length = usize::try_from(length).ok()?;
        let header = usize::from(buffer[0] & 15) * 4;
        let body = &buffer[header..length];
        let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let source = <[u8; 4]>::try_from(&buffer[12..16]).expect("four bytes");
        Some(Packet { source: source.into(), ports: (port(0), port(2)), chunk: body[12] })
    }
}

/// A packet with one INIT or INIT ACK chunk.
fn packet(ports: (u16, u16), tag: u32, chunk: u8, initiate: u32) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&ports.0.to_be_bytes());
    out.extend_from_slice(&ports.1.to_be_bytes());
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[chunk, 0, 0, 20]);
    out.extend_from_slice(&initiate.to_be_bytes());
    out.extend_from_slice(&65_535_u32.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 1]);
    out.extend_from_slice(&1_u32.to_be_bytes());
    let sum = crc32c(&out).to_le_bytes();
    out[8..12].copy_from_slice(&sum);
    out
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

/// Rows: P9, P42
#[test]
fn an_sctp_association_goes_through_a_service_and_back() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let mut stage = Stage::new(backend);
        stage.apply(&[
            json!({ "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": "web", "namespace": "default" },
                "spec": { "type": "NodePort", "clusterIP": "10.96.1.100", "ports": [
                    { "protocol": "SCTP", "port": 9000, "nodePort": 30090 } ] } }),
            slice("web", &json!([{ "protocol": "SCTP", "port": 5000 }]), &[(PODS[1], "node1")]),
        ]);
        let server = Raw::open(stage.ns(From::Pod(1)));
        let ways = [(From::Pod(0), "10.96.1.100", 9000), (From::Client, NODE, 30090)];
        for (number, (from, to, port)) in (1_u32..).zip(ways) {
            let client = Raw::open(stage.ns(from));
            let to: Ipv4Addr = to.parse().expect("an address");
            client.send(to, &packet((4000, port), 0, INIT, number));
            let came = server.receive().unwrap_or_else(|| panic!("{backend:?} {from:?}: no INIT"));
            assert_eq!((came.ports.1, came.chunk), (5000, INIT), "{backend:?} {from:?}");
            server.send(came.source, &packet((5000, came.ports.0), number, INIT_ACK, 7));
            let back =
                client.receive().unwrap_or_else(|| panic!("{backend:?} {from:?}: no answer"));
            let wanted = Packet { source: to, ports: (port, 4000), chunk: INIT_ACK };
            assert_eq!(back, wanted, "{backend:?} {from:?}");
        }
    }
}
