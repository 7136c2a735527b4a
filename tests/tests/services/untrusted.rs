//! What a container can do with raw sockets and many connections: to services, health, loopback,
//! store and the traffic of others, nothing.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Lab, Node, Ns, Pod, Runtime};
use serde_json::{Value, json};

const NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const VIP: &str = "10.96.0.10";
/// Connections to each port.
const MANY: usize = 100;

fn attach(runtime: &Runtime<'_>, pod: &Pod, app: &str) -> Ipv4Addr {
    let labels = format!("IgnoreUnknown=1;CAUSEWAY_LABELS=app:{app}");
    let result = runtime.add_ok(&pod.attachment("eth0").args(&labels));
    let address = result["ips"][0]["address"].as_str().expect("an address");
    address.split('/').next().expect("a part").parse().expect("an address")
}

fn mac(text: &str) -> [u8; 6] {
    let parts: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).expect("hex")).collect();
    parts.try_into().expect("six bytes")
}

/// A UDP datagram in IPv4 in Ethernet.
fn frame(macs: ([u8; 6], [u8; 6]), from: Ipv4Addr, (to, port): (Ipv4Addr, u16)) -> Vec<u8> {
    const BODY: &[u8] = b"forged\n";
    let length = |more: usize| u16::try_from(more + BODY.len()).expect("short").to_be_bytes();
    let mut ip = [&[0x45, 0][..], &length(28), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum: u32 = ip.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded");
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [&4000_u16.to_be_bytes()[..], &port.to_be_bytes(), &length(8), &[0, 0]].concat();
    [&macs.1[..], &macs.0, &[8, 0], &ip, &udp, BODY].concat()
}

/// Sends frames out of a container's `eth0`.
fn send(pod: &Ns, frames: &[Vec<u8>]) {
    pod.run(|| {
        // SAFETY: the call takes numbers and makes a descriptor, which is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: it was made just now and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the name ends with a zero.
        let index = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
        // SAFETY: all zero is a valid address of this kind.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).expect("small");
        to.sll_ifindex = i32::try_from(index).expect("small");
        let size = u32::try_from(size_of_val(&to)).expect("small");
        for frame in frames {
            // SAFETY: frame and address live through the call, and their sizes are given.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size,
                )
            };
            assert_eq!(usize::try_from(sent).ok(), Some(frame.len()));
        }
    });
}

/// TCP ports that a process listens on at the node, whatever the address.
fn listening(node: &Node) -> Vec<u16> {
    let text = node.sh("ss -Htln");
    let port = |line: &str| line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok();
    let mut ports: Vec<u16> = text.lines().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Opens connections that send a little and then nothing.
fn hold(pod: &Ns, port: u16) -> Vec<TcpStream> {
    let to = (NODE, port).into();
    let open = |_| {
        let connected = pod.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(100)));
        let mut stream = connected.ok()?;
        drop(stream.write_all(b"GET / HTTP/1.1\r\nX-"));
        Some(stream)
    };
    // A port that does not answer will not later.
    (0..MANY).map_while(open).collect()
}

/// What the daemon holds, without what changes by itself.
fn held(daemon: &Daemon<'_>) -> [Value; 4] {
    ["services", "endpoints", "pods", "nodes"].map(|kind| {
        let mut list = daemon.get(&format!("/v1/{kind}"));
        for item in list["items"].as_array_mut().into_iter().flatten() {
            item["status"]["conditions"].take();
        }
        list
    })
}

/// Forged sources, and destinations that only the node itself has.
fn forged(macs: ([u8; 6], [u8; 6]), [evil, friend, web]: [Ipv4Addr; 3]) -> Vec<Vec<u8>> {
    let local = Ipv4Addr::LOCALHOST;
    let mut frames = Vec::new();
    for from in [evil, friend, web, NODE, local, Ipv4Addr::new(10, 0, 1, 1)] {
        for to in [(local, 9998), (local, 53), (NODE, 9998), (Ipv4Addr::new(127, 1, 2, 3), 9998)] {
            frames.push(frame(macs, from, to));
        }
    }
    frames
}

/// Rows: RH2, RH8
#[test]
fn a_container_changes_nothing_but_its_own_traffic() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&[json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web" },
            "spec": { "clusterIP": VIP, "selector": { "app": "web" }, "type": "LoadBalancer",
                      "externalTrafficPolicy": "Local", "healthCheckNodePort": 31234,
                      "ports": [{ "port": 80, "targetPort": 8001, "nodePort": 30080 }] } })]);
        let runtime = Runtime::new(node, node.conflist("red", "10.0.1.0/24"));
        let pods = [node.pod(), node.pod(), node.pod()];
        let [web, friend, evil] = [(0, "web"), (1, "friend"), (2, "evil")]
            .map(|(number, app)| attach(&runtime, &pods[number], app));
        let _server = Server::tcp(&pods[0], "web", &format!("{web}:8001"));
        let _private = Server::tcp(node, "private", "127.0.0.1:9999");
        let loopback = node.run(|| UdpSocket::bind("127.0.0.1:9998")).expect("a socket");
        loopback.set_nonblocking(true).expect("a flag");
        let before = held(&daemon);

        let link = |ns: &Ns, name: &str| {
            let link = ns.link(name).unwrap_or_else(|| panic!("no {name}"));
            mac(link["address"].as_str().expect("an address"))
        };
        let bridge = node.link_names().into_iter().find(|name| {
            node.addresses(name).iter().any(|address| address.starts_with("10.0.1.1/"))
        });
        let gateway = link(node, &bridge.expect("a bridge"));
        let own = link(&pods[2], "eth0");
        let frames = forged((own, gateway), [evil, friend, web]);
        send(&pods[2], &frames);
        // What was sent before it has arrived, or never will: the frames take one way.
        let marker = node.run(|| UdpSocket::bind((NODE, 9997))).expect("a socket");
        marker.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        send(&pods[2], &[frame((own, gateway), evil, (NODE, 9997))]);
        let mut buffer = [0; 64];
        marker.recv(&mut buffer).expect("the node is reached by honest frames");
        let got = loopback.recv(&mut buffer).expect_err("nothing came to loopback");
        assert_eq!(got.kind(), std::io::ErrorKind::WouldBlock, "{backend}");
        let refused = pods[2].tcp(&format!("{NODE}:9999"));
        assert!(refused.is_err(), "{refused:?}");

        // Every port of the node at once, slowly.
        let ports = listening(node);
        assert!(ports.contains(&10256) && ports.contains(&31234), "{ports:?}");
        let connections: Vec<TcpStream> =
            ports.iter().flat_map(|port| hold(&pods[2], *port)).collect();
        assert!(connections.len() >= 2 * MANY, "{} to {ports:?}", connections.len());
        for url in ["10256/healthz", "31234/"] {
            let text = lab.client.sh(&format!("curl -s -i --max-time 2 {NODE}:{url} || echo $?"));
            assert!(text.starts_with("HTTP/1.1 200"), "{backend} {url}: {text}");
        }
        for (from, to) in [
            (&*pods[1], format!("{VIP}:80")),
            (&lab.client, format!("{NODE}:30080")),
            (node, format!("{VIP}:80")),
        ] {
            let answer = from.tcp(&to).unwrap_or_else(|e| panic!("{backend} {to}: {e}"));
            assert_eq!(answer.hostname, "web");
        }
        assert_eq!(node.tcp("127.0.0.1:9999").expect("an answer").hostname, "private");
        assert_eq!(held(&daemon), before, "{backend}");
        assert_eq!(daemon.status().degraded, [""; 0]);
        drop(connections);
    }
}
