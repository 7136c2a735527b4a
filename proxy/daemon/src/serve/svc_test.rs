//! `POST /v1/svc-test`: real connections to a service, from this node or from inside a pod, and
//! which endpoint took each, as conntrack has it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use causeway_api::{SvcTest, SvcTestAnswer};
use causeway_kernel::{Netns, answered_by};
use causeway_model::Protocol;
use tokio::sync::mpsc;

use super::trace;
use crate::request::Refused;
pub(crate) use crate::request::answer::Prepared;
use crate::state::State;

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections of one request at most.
const MOST: u32 = 1_000;

/// Resolves the names of a request.
pub(crate) fn prepare(state: &State, request: &SvcTest) -> Result<Prepared, Refused> {
    if !(1..=MOST).contains(&request.count) {
        let message = format!("field count: {} is not from 1 to {MOST}", request.count);
        return Err(Refused::new(400, message));
    }
    let key = causeway_model::ObjectKey::new(request.namespace.as_str(), request.name.as_str());
    let service = state.index.services().get(&key).ok_or_else(|| {
        Refused::new(404, format!("service {key} not found; see: causeway get services -A"))
    })?;
    let (netns, ipv6) = match request.from.as_str() {
        "node" => (None, None),
        from => {
            let pod = trace::pod(state, from)?;
            // What its namespace is called there may be the name of another one here.
            if *pod.node != *state.node.name {
                let message =
                    format!("field from: {from} runs on node {}; run the test there", pod.node);
                return Err(Refused::new(409, message));
            }
            let path = pod.records.iter().find_map(|record| record.netns.clone());
            let path = path.ok_or_else(|| {
                Refused::new(409, format!("field from: the network namespace of {from} is unknown"))
            })?;
            (Some(path), pod.ips().next().map(|ip| ip.is_ipv6()))
        }
    };
    let address = trace::cluster_address(service, ipv6)?;
    let wanted = |port: &&causeway_model::ServicePort| match &request.port {
        None => true,
        Some(text) => *port.name == **text || text.parse() == Ok(port.port),
    };
    let port = service.ports.iter().find(wanted).ok_or_else(|| {
        let text = request.port.as_deref().unwrap_or_default();
        Refused::new(404, format!("field port: service {key} has no port {text:?}"))
    })?;
    if port.protocol == Protocol::Sctp {
        return Err(Refused::new(
            409,
            "only tcp and udp ports can be tested, and this one is sctp",
        ));
    }
    let to = SocketAddr::new(address, port.port);
    Ok(Prepared { to, protocol: port.protocol, count: request.count, netns })
}

/// Connects, one after the other, on a thread of its own: one line per answer. Ends early when
/// nobody reads.
pub(crate) fn run(prepared: Prepared) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        let netns = prepared.netns.as_deref().map(Netns::open).transpose();
        for number in 1..=prepared.count {
            let (address, error) = match &netns {
                Ok(netns) => attempt(&prepared, netns.as_ref()),
                Err(error) => (None, Some(error.to_string())),
            };
            let answer = {
                let answered = prepared.protocol == Protocol::Udp && error.is_none();
                SvcTestAnswer { number, address, error, answered }
            };
            let line = serde_json::to_string(&answer).unwrap_or_default() + "\n";
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// One connection: who took it, and what went wrong.
fn attempt(prepared: &Prepared, netns: Option<&Netns>) -> (Option<IpAddr>, Option<String>) {
    let to = prepared.to;
    let connect = || match prepared.protocol {
        Protocol::Tcp => tcp(to),
        Protocol::Udp | Protocol::Sctp => udp(to),
    };
    let connected = match netns {
        None => connect(),
        Some(netns) => netns.run(connect).unwrap_or_else(|error| Err(io::Error::other(error))),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => return (None, Some(explained(&error))),
    };
    // Translated here, wherever the connection began; it is still open.
    let found = answered_by(prepared.protocol.number(), connection.local, to);
    match found {
        Ok(Some(endpoint)) => (Some(endpoint.ip()), connection.trouble),
        Ok(None) => {
            let unknown = "conntrack has no entry for the connection".to_owned();
            (None, Some(connection.trouble.unwrap_or(unknown)))
        }
        Err(error) => (None, Some(error.to_string())),
    }
}

/// An open connection.
struct Connection {
    local: SocketAddr,
    /// It went out, but no answer came.
    trouble: Option<String>,
    _socket: Socket,
}

/// Kept open until conntrack was asked.
enum Socket {
    Tcp { _stream: TcpStream },
    Udp { _socket: UdpSocket },
}

fn tcp(to: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let local = stream.local_addr()?;
    Ok(Connection { local, trouble: None, _socket: Socket::Tcp { _stream: stream } })
}

fn udp(to: SocketAddr) -> io::Result<Connection> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"causeway svc test\n")?;
    let trouble = match socket.recv(&mut [0; 64]) {
        Ok(_) => None,
        Err(error) if timed_out(&error) => {
            Some(format!("no reply within {} seconds", PATIENCE.as_secs()))
        }
        Err(error) => return Err(error),
    };
    let local = socket.local_addr()?;
    Ok(Connection { local, trouble, _socket: Socket::Udp { _socket: socket } })
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn explained(error: &io::Error) -> String {
    if timed_out(error) {
        return format!("no answer within {} seconds", PATIENCE.as_secs());
    }
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "refused".to_owned();
    }
    error.to_string()
}
