//! SCTP host ports with real associations.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use causeway_kernel::{Netlink, Netns, VethSpec};
use causeway_tests::traffic::{PATIENCE, Server};
use causeway_tests::{Node, Ns, Runtime};
use serde_json::json;

/// A host port answers a client outside, by the host's address, until DEL; the same port of
/// another protocol is another port.
pub(crate) fn host_port() {
    let node = Node::new("node");
    let client = outside(&node);
    let runtime = Runtime::new(&node, node.conflist("net", "10.9.0.0/24"));
    let pod = node.pod();
    let attachment = pod.attachment("eth0").runtime_config(json!({ "portMappings": [
        { "hostPort": 9999, "containerPort": 5000, "protocol": "sctp" },
        { "hostPort": 9999, "containerPort": 5001, "protocol": "tcp" } ] }));
    runtime.add_ok(&attachment);
    runtime.check(&attachment).unwrap_or_else(|outcome| panic!("CHECK: {}", outcome.describe()));
    let listener = pod.run(|| listen("0.0.0.0:5000")).expect("listen on SCTP");
    let server = std::thread::spawn(move || echo(&listener));
    let tcp = Server::tcp(&pod, "tcp", "0.0.0.0:5001");

    let answer = client.run(|| ask("172.18.0.2:9999"));
    assert_eq!(answer.expect("an answer by SCTP"), "SCTP hello");
    server.join().expect("no panic in the server").expect("the server answered");
    assert_eq!(client.tcp("172.18.0.2:9999").expect("an answer by TCP").hostname, "tcp");

    drop(tcp);
    runtime.del_ok(&attachment);
    let refused = client.run(|| ask("172.18.0.2:9999")).expect_err("the port is gone");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
}

/// A namespace with the address 172.18.0.100, wired to the node's 172.18.0.2.
fn outside(node: &Node) -> Ns {
    let client = Ns::new("client");
    let path = client.path().display().to_string();
    node.run(|| {
        let spec = VethSpec {
            name: "up0",
            master: None,
            mtu: None,
            alias: "",
            peer_name: "eth0",
            peer_mac: None,
            peer_netns: &Netns::open(&path).expect("the client's namespace"),
            up: true,
        };
        Netlink::open().expect("netlink").add_veth(&spec).expect("a veth pair");
    });
    node.sh("ip addr add 172.18.0.2/24 dev up0");
    client.sh("ip addr add 172.18.0.100/24 dev eth0; ip link set eth0 up");
    client
}

/// One message there and back.
fn ask(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::from(socket()?);
    // The time limit of connect, too.
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (address, length) = address(to);
    // SAFETY: the address is valid for its length, which is that of its type.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) })?;
    stream.write_all(b"hello")?;
    let mut buffer = [0; 100];
    let length = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn echo(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = [0; 100];
    let length = stream.read(&mut buffer)?;
    stream.write_all(&[b"SCTP ", &buffer[..length]].concat())
}

/// A one-to-one socket; its calls are those of a TCP socket.
fn listen(at: &str) -> io::Result<TcpListener> {
    let socket = socket()?;
    let (address, length) = address(at);
    // SAFETY: the address is valid for its length, which is that of its type.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: listen takes two integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 1) })?;
    Ok(TcpListener::from(socket))
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes three integers.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_SCTP) };
    check(fd)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(text: &str) -> (libc::sockaddr_in, libc::socklen_t) {
    let address: SocketAddrV4 = text.parse().expect("ADDRESS:PORT");
    let family = libc::sa_family_t::try_from(libc::AF_INET).expect("a small number");
    let raw = libc::sockaddr_in {
        sin_family: family,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    (raw, libc::socklen_t::try_from(size_of_val(&raw)).expect("a small number"))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
