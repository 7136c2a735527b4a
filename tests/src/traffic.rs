//! Servers and clients inside namespaces, all with deadlines.
//!
//! A server answers each request with one line `HOSTNAME:<name> IP:<own address> PEER:<peer
//! address:port> GOT:<request>`, so that a client sees who answered and as whom it was seen.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Ns;

/// How long a client waits for a connection and for each answer.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long a client waits if it expects nothing to come.
pub const IMPATIENCE: Duration = Duration::from_millis(400);

/// A server thread; it stops on drop.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name the server was started with.
    pub hostname: String,
    /// The address the server was reached at, as it sees it.
    pub ip: IpAddr,
    /// The address and port the request came from, as the server sees it.
    pub peer: SocketAddr,
    /// The request.
    pub got: String,
}

impl Server {
    /// Listens on TCP inside `ns`; `address` may have port 0.
    pub fn tcp(ns: &Ns, hostname: &str, address: &str) -> Self {
        let listener = ns.run(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|e| panic!("listen on tcp {address}: {e}"));
        let address = listener.local_addr().expect("address of a bound socket");
        let stop = Arc::new(AtomicBool::new(false));
        let (own, name) = (listener.try_clone().expect("clone a socket"), hostname.to_owned());
        let thread = std::thread::spawn(move || {
            while let Ok((stream, peer)) = own.accept() {
                let name = name.clone();
                std::thread::spawn(move || answer_stream(stream, peer, &name));
            }
        });
        Self { address, stop, listener: Some(listener), thread: Some(thread) }
    }

    /// Listens on UDP inside `ns`; `address` may have port 0.
    pub fn udp(ns: &Ns, hostname: &str, address: &str) -> Self {
        let socket = ns.run(|| UdpSocket::bind(address));
        let socket = socket.unwrap_or_else(|e| panic!("listen on udp {address}: {e}"));
        let address = socket.local_addr().expect("address of a bound socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout above zero");
        let (stop, name) = (Arc::new(AtomicBool::new(false)), hostname.to_owned());
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !flag.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]);
                let line = line(&name, address.ip(), peer, text.trim_end());
                // The client judges a missing answer by its own deadline.
                drop(socket.send_to(line.as_bytes(), peer));
            }
        });
        Self { address, stop, listener: None, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            // SAFETY: the descriptor is open; shutting a listener down wakes its accept.
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the server at {} panicked", self.address);
        }
    }
}

impl Ns {
    /// Routes 127.0.0.1 of this machine to a gateway, which is what an attacker on a link of that one
    /// does.
    pub fn aim_at_localhost_of(&self, gateway: &str) {
        self.ip(&format!("addr del 127.0.0.1/8 dev lo\nroute add 127.0.0.1/32 via {gateway}\n"));
        self.set_sysctl("ipv4/conf/all/route_localnet", "1");
        self.sh(
            "ip rule add pref 0 to 127.0.0.1 lookup main && ip rule del pref 0 lookup local && \
             ip rule add pref 100 lookup local",
        );
    }

    /// Asks a TCP server from inside this namespace.
    pub fn tcp(&self, to: &str) -> io::Result<Answer> {
        self.tcp_within(to, PATIENCE)
    }

    /// As [`Ns::tcp`] with another deadline for connection and answer.
    pub fn tcp_within(&self, to: &str, deadline: Duration) -> io::Result<Answer> {
        let to = parse(to);
        let text = self.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, deadline)?;
            stream.set_read_timeout(Some(deadline))?;
            stream.write_all(b"hello\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok::<_, io::Error>(text)
        })?;
        Answer::parse(&text)
    }

    /// Asks a UDP server from inside this namespace, once.
    pub fn udp(&self, to: &str) -> io::Result<Answer> {
        self.udp_within(to, PATIENCE)
    }

    /// As [`Ns::udp`] with another deadline for the answer.
    pub fn udp_within(&self, to: &str, deadline: Duration) -> io::Result<Answer> {
        let to = parse(to);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let text = self.run(|| {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(deadline))?;
            socket.send_to(b"hello\n", to)?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })?;
        Answer::parse(&text)
    }

    /// Whether one echo request to `address` is answered within [`PATIENCE`].
    pub fn ping(&self, address: &str) -> bool {
        self.try_sh(&format!("ping -n -c 1 -W {} {address}", PATIENCE.as_secs())).code() == 0
    }

    /// Panics with ping's words unless `address` answers.
    pub fn assert_ping(&self, address: &str) {
        let out = self.try_sh(&format!("ping -n -c 1 -W {} {address}", PATIENCE.as_secs()));
        assert!(out.status.success(), "from {}: {}", self.name(), out.describe());
    }
}

impl Answer {
    /// Reads a server's line.
    pub fn parse(text: &str) -> io::Result<Self> {
        let fields = || {
            let rest = text.trim_end().strip_prefix("HOSTNAME:")?;
            let (hostname, rest) = rest.split_once(" IP:")?;
            let (ip, rest) = rest.split_once(" PEER:")?;
            let (peer, got) = rest.split_once(" GOT:")?;
            let (ip, peer) = (ip.parse().ok()?, peer.parse().ok()?);
            Some(Self { hostname: hostname.to_owned(), ip, peer, got: got.to_owned() })
        };
        fields().ok_or_else(|| io::Error::other(format!("not an answer: {text:?}")))
    }
}

/// The line a server answers with; see [`Answer`].
pub fn line(name: &str, own: IpAddr, peer: SocketAddr, got: &str) -> String {
    format!("HOSTNAME:{name} IP:{own} PEER:{peer} GOT:{got}\n")
}

fn answer_stream(mut stream: TcpStream, peer: SocketAddr, name: &str) {
    let mut work = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 2048];
        let length = stream.read(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let line = line(name, stream.local_addr()?.ip(), peer, text.trim_end());
        stream.write_all(line.as_bytes())
    };
    // The client judges a missing answer by its own deadline.
    drop::<io::Result<()>>(work());
}

fn parse(address: &str) -> SocketAddr {
    address.parse().unwrap_or_else(|e| panic!("{address:?} is not ADDRESS:PORT: {e}"))
}
