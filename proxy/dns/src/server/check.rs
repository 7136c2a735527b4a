//! The server's question to itself, at one of its addresses (row D-50).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use crate::upstream::{Came, Outgoing};
use crate::{Question, random};

/// Who does not answer within this is deaf.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No link has the address, or it is still tentative: it will answer once it is there.
    NotThere,
    /// The listener is of no use.
    Deaf(String),
}

/// Asks by datagram for the SOA of the zone.
pub(super) async fn udp(address: SocketAddr, domain: Name) -> Result<(), Wrong> {
    let asked = udp_from(source(address), address, domain.clone()).await;
    match routed(address) {
        Some(loopback) if asked == Err(Wrong::NotThere) => {
            udp_from(loopback, address, domain).await.map_err(|_| Wrong::NotThere)
        }
        _ => asked,
    }
}

/// Asks by connection.
pub(super) async fn tcp(address: SocketAddr, domain: Name) -> Result<(), Wrong> {
    let asked = tcp_from(source(address), address, domain.clone()).await;
    match routed(address) {
        Some(loopback) if asked == Err(Wrong::NotThere) => {
            tcp_from(loopback, address, domain).await.map_err(|_| Wrong::NotThere)
        }
        _ => asked,
    }
}

/// From where an IPv6 address is asked that is local by a route alone: a socket cannot have it without
/// more ado, and nothing of `::1` leaves the machine.
fn routed(address: SocketAddr) -> Option<SocketAddr> {
    address.is_ipv6().then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
}

async fn udp_from(from: SocketAddr, address: SocketAddr, domain: Name) -> Result<(), Wrong> {
    bounded(async {
        let socket = UdpSocket::bind(from).await?;
        socket.connect(target(address)).await?;
        let (id, outgoing) = (random::id(), question(domain));
        socket.send(&outgoing.bytes(id)).await?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).await?;
        Ok(outgoing.came(id, &answer[..length]))
    })
    .await
}

async fn tcp_from(from: SocketAddr, address: SocketAddr, domain: Name) -> Result<(), Wrong> {
    bounded(async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(from)?;
        let mut stream = socket.connect(target(address)).await?;
        let (id, outgoing) = (random::id(), question(domain));
        let bytes = outgoing.bytes(id);
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), &bytes[..]].concat()).await?;
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        Ok(outgoing.came(id, &answer))
    })
    .await
}

async fn bounded(asked: impl Future<Output = io::Result<Came>>) -> Result<(), Wrong> {
    match timeout(PATIENCE, asked).await {
        Ok(Ok(Came::Reply(_) | Came::Cut)) => Ok(()),
        Ok(Ok(Came::Stray | Came::Broken)) => Err(Wrong::Deaf("answers nonsense".to_owned())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => Err(Wrong::NotThere),
        Ok(Err(error)) => Err(Wrong::Deaf(error.to_string())),
        Err(_) => Err(Wrong::Deaf(format!("does not answer within {} s", PATIENCE.as_secs()))),
    }
}

fn question(domain: Name) -> Outgoing {
    let question = Question { name: domain, record_type: RecordType::SOA, class: DNSClass::IN };
    Outgoing { question, dnssec_ok: false, checking_disabled: false, edns: false }
}

/// The address itself: the question cannot leave the machine, and is known to be ours.
fn source(address: SocketAddr) -> SocketAddr {
    let mut source = target(address);
    source.set_port(0);
    source
}

fn target(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
