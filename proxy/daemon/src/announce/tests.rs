//! The thread among real neighbours.

use std::net::{SocketAddr, UdpSocket};

use causeway_kernel::{
    AddressSpec, BridgeSpec, Frame, FrameSocket, LinkChange, Mac, Netns, Program, Protocol, Sysctl,
    VethSpec, run,
};
use tokio::sync::mpsc;

use super::*;
use crate::state::HeldAddress;
use crate::testing::ip;

const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const LONG: Duration = Duration::from_secs(20);
const UP: LinkChange = LinkChange {
    up: Some(true),
    mtu: None,
    mac: None,
    master: None,
    promisc: None,
    vlan_filtering: None,
};

/// A new network namespace.
fn namespace() -> Netns {
    let made = std::thread::spawn(|| {
        // SAFETY: `unshare` takes no pointers, and network namespaces are per thread.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
        Netns::current().unwrap()
    });
    made.join().unwrap()
}

/// A node (the test's thread) and a client, each on a port of a switch.
struct Segment {
    switch: Netlink,
    client: Netns,
    inside: Netlink,
    node: Netns,
    events: mpsc::Receiver<Event>,
    /// What came last.
    said: AnnounceState,
    announce: Announce,
}

/// The client's end of a wire to the switch, up.
fn plug(switch: &Netlink, bridge: u32, port: &str, station: &Netns, mac: Mac) -> u32 {
    let spec = VethSpec {
        name: port,
        master: Some(bridge),
        mtu: None,
        alias: "",
        peer_name: "eth0",
        peer_mac: Some(mac),
        peer_netns: station,
        up: true,
    };
    switch.add_veth(&spec).unwrap();
    let inside = Netlink::open_in(station).unwrap();
    let eth0 = inside.link("eth0").unwrap().unwrap().index;
    // Link-local addresses are there with the carrier.
    let at_once = [("net/ipv6/conf/eth0/accept_dad".to_owned(), "0")];
    Sysctl { netns: Some(station) }.ensure(&at_once).unwrap();
    inside.change_link(eth0, &UP).unwrap();
    eth0
}

/// Waits until IPv6 takes frames in.
fn wait_ready(inside: &Netlink, link: u32) {
    let mut monitor = Monitor::new(inside).unwrap();
    while !inside.addresses(link).unwrap().iter().any(|state| state.scope == 253) {
        wait_readable(&[monitor.as_fd()], LONG).unwrap();
        assert!(monitor.changed(&Interest::default()).unwrap(), "no carrier");
    }
}

impl Segment {
    fn new(refresh: Option<Duration>) -> Self {
        Self::with(AnnounceConfig { interfaces: Vec::new(), refresh })
    }

    fn with(config: AnnounceConfig) -> Self {
        let (switch_netns, client, node) = (namespace(), namespace(), namespace());
        let switch = Netlink::open_in(&switch_netns).unwrap();
        let spec = BridgeSpec { name: "lan", mtu: None, mac: None, vlan_filtering: false };
        let bridge = switch.add_bridge(&spec).unwrap().index;
        switch.change_link(bridge, &UP).unwrap();
        let eth0 = plug(&switch, bridge, "client", &client, Mac([2, 0, 0, 0, 0, 2]));
        let own = plug(&switch, bridge, "node", &node, NODE);
        let inside = Netlink::open_in(&client).unwrap();
        let of_node = Netlink::open_in(&node).unwrap();
        for (netlink, link, host) in [(&inside, eth0, 9), (&of_node, own, 3)] {
            for address in [format!("10.1.0.{host}/24"), format!("fd00::{host}/64")] {
                let address = address.parse().unwrap();
                netlink.add_address(link, &AddressSpec { address, nodad: true }).unwrap();
            }
            wait_ready(netlink, link);
        }
        let (events, told) = mpsc::channel(64);
        let announce = node.run(|| Announce::start(config, events)).unwrap().unwrap();
        Self {
            switch,
            client,
            inside,
            node,
            events: told,
            said: AnnounceState::default(),
            announce,
        }
    }

    fn hold(&self, addresses: &[&str]) {
        self.announce.hold(addresses.iter().map(|text| (ip(text), ())).collect());
    }

    /// The last state if it fits, or the next one that does.
    fn wait(&mut self, fits: impl Fn(&AnnounceState) -> bool) -> AnnounceState {
        while !fits(&self.said) {
            match self.events.blocking_recv() {
                Some(Event::Announced(state)) => self.said = state,
                Some(_) => {}
                None => panic!("the thread has ended"),
            }
        }
        self.said.clone()
    }

    fn wait_armed(&mut self, address: &str) {
        let address = ip(address);
        self.wait(|state| {
            state.addresses.get(&address).is_some_and(|held| held.interface.is_some())
        });
    }

    /// A program in the client's namespace: whether it succeeded, and its output.
    fn client(&self, line: &str) -> (bool, String) {
        program(&self.client, line)
    }

    /// Has the client send to `address`.
    fn send_to(&self, address: &str) {
        let to = SocketAddr::new(ip(address), 9);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        self.client.run(|| UdpSocket::bind(any)?.send_to(b"hello", to)).unwrap().unwrap();
    }

    /// Waits until the client's entry of `address` has all these words.
    fn wait_entry(&self, address: &str, words: &[&str]) {
        let mut monitor = Monitor::new(&self.inside).unwrap();
        loop {
            let (_, entry) = self.client(&format!("ip -o neigh show dev eth0 to {address}"));
            if words.iter().all(|word| entry.split_whitespace().any(|found| found == *word)) {
                return;
            }
            let waited = clock::now();
            wait_readable(&[monitor.as_fd()], LONG).unwrap();
            assert!(waited.elapsed() < LONG, "{words:?} of {address}: {entry}");
            monitor.changed(&Interest::default()).unwrap();
        }
    }
}

/// Runs a program in a namespace: whether it succeeded, and its output.
fn program(netns: &Netns, line: &str) -> (bool, String) {
    let mut words = line.split(' ').map(str::to_owned);
    let path = format!("/usr/bin/{}", words.next().unwrap());
    let program = Program {
        path: path.into(),
        args: words.collect(),
        env: BTreeMap::new(),
        stdin: &[],
        timeout: LONG,
    };
    let output = netns.run(|| run(&program)).unwrap().unwrap();
    assert!(!output.timed_out, "{line}");
    (output.success, String::from_utf8_lossy(&output.stdout).into_owned())
}

const NODE_TEXT: &str = "02:00:00:00:00:01";
const ADDRESSES: [&str; 2] = ["10.1.0.5", "fd00::5"];

/// A client finds the address by ARP and neighbour discovery through a switch that snoops, and is
/// answered by nobody once it is not held any more. It is on no interface, and answers no ping.
#[test]
fn clients_find_a_held_address_and_nothing_else() {
    let mut segment = Segment::new(None);
    segment.hold(&ADDRESSES);
    for address in ADDRESSES {
        segment.wait_armed(address);
        segment.send_to(address);
        segment.wait_entry(address, &["lladdr", NODE_TEXT]);
        let (answered, said) = segment.client(&format!("ping -n -c 1 -W 1 {address}"));
        assert!(!answered, "{said}");
    }
    segment.hold(&[]);
    segment.wait(|state| state.addresses.is_empty());
    for address in ADDRESSES {
        segment.client(&format!("ip neigh del {address} dev eth0"));
        segment.send_to(address);
        segment.wait_entry(address, &["FAILED"]);
    }
}

/// A router that checks what it knows asks the address itself.
#[test]
fn entries_that_are_checked_are_confirmed() {
    let mut segment = Segment::new(None);
    segment.hold(&ADDRESSES);
    for address in ADDRESSES {
        segment.wait_armed(address);
        let check = format!("ip neigh replace {address} dev eth0 lladdr {NODE_TEXT} nud probe");
        for _ in 0..100 {
            assert!(segment.client(&check).0);
            segment.wait_entry(address, &[NODE_TEXT, "REACHABLE"]);
        }
    }
}

/// Who knows a former holder learns of the new one without asking.
#[test]
fn entries_of_a_former_holder_change() {
    let mut segment = Segment::new(None);
    for address in ADDRESSES {
        let former = "lladdr 02:00:00:00:00:03 nud stale";
        assert!(segment.client(&format!("ip neigh replace {address} dev eth0 {former}")).0);
    }
    segment.hold(&ADDRESSES);
    for address in ADDRESSES {
        segment.wait_armed(address);
        segment.wait_entry(address, &[NODE_TEXT]);
    }
}

/// What a neighbour has is left to it, and the neighbour named.
#[test]
fn an_address_of_a_neighbour_is_not_held() {
    let mut segment = Segment::new(None);
    segment.hold(&["10.1.0.9", "fd00::9"]);
    let state = segment.wait(|state| {
        let told = |held: &HeldAddress| {
            held.reason.as_ref().is_some_and(|reason| reason.contains("02:00:00:00:00:02 on eth0"))
        };
        state.addresses.len() == 2 && state.addresses.values().all(told)
    });
    assert!(state.addresses.values().all(|held| held.interface.is_none()));
}

/// The thread follows carrier, and ends when nobody gives it orders.
#[test]
fn an_address_is_armed_while_there_is_carrier() {
    let mut segment = Segment::new(None);
    segment.hold(&ADDRESSES);
    segment.wait_armed(ADDRESSES[0]);
    let port = segment.switch.link("node").unwrap().unwrap().index;
    for up in [false, true] {
        segment.switch.change_link(port, &LinkChange { up: Some(up), ..UP }).unwrap();
        let state = segment
            .wait(|state| state.addresses.values().all(|held| held.interface.is_some() == up));
        let reason = state.addresses[&ip(ADDRESSES[0])].reason.clone();
        assert_eq!(reason.as_deref(), (!up).then_some("eth0 has no carrier"));
    }
    let Segment { announce, mut events, .. } = segment;
    drop(announce);
    while events.blocking_recv().is_some() {}
}

/// A router that heeds nothing gratuitous learns the new holder from a question.
#[test]
fn a_router_that_ignores_announcements_is_taught() {
    let mut segment = Segment::new(None);
    let ignore = [
        ("net/ipv4/conf/eth0/drop_gratuitous_arp".to_owned(), "1"),
        ("net/ipv6/conf/eth0/drop_unsolicited_na".to_owned(), "1"),
    ];
    Sysctl { netns: Some(&segment.client) }.ensure(&ignore).unwrap();
    for (address, router) in ADDRESSES.iter().zip(["10.1.0.9", "fd00::9"]) {
        assert!(program(&segment.node, &format!("ip route add default via {router}")).0);
        let former = "lladdr 02:00:00:00:00:03 nud stale";
        assert!(segment.client(&format!("ip neigh replace {address} dev eth0 {former}")).0);
    }
    segment.hold(&ADDRESSES);
    for address in ADDRESSES {
        segment.wait_armed(address);
        segment.wait_entry(address, &[NODE_TEXT]);
    }
}

/// Another machine takes a held address: it is told of, and the holder announces again.
#[test]
fn a_foreign_claim_is_told_of_and_answered() {
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    let mut segment = Segment::new(None);
    segment.hold(&ADDRESSES);
    let link = segment.inside.link("eth0").unwrap().unwrap().index;
    for (address, protocol) in ADDRESSES.into_iter().zip([Protocol::Arp, Protocol::Ndp]) {
        segment.wait_armed(address);
        let socket = segment.client.run(|| FrameSocket::open(link, protocol)).unwrap().unwrap();
        let claim = Frame::gratuitous(ip(address), OTHER).remove(0);
        socket.send(&claim).unwrap();
        let state = segment.wait(|state| state.claims == [(ip(address), OTHER)]);
        let reason = state.addresses[&ip(address)].reason.clone().unwrap();
        assert!(reason.contains("02:00:00:00:00:02 on eth0 claims"), "{reason}");
        let announced = Frame::gratuitous(ip(address), NODE).remove(0);
        loop {
            match socket.receive().unwrap() {
                Some(frame) if frame == announced => break,
                Some(_) => {}
                None => {
                    let waited = clock::now();
                    wait_readable(&[socket.as_fd()], LONG).unwrap();
                    assert!(waited.elapsed() < LONG, "no announcement of {address}");
                }
            }
        }
    }
}

/// Sockets of netlink in the node's namespace that are not the kernel's.
fn subscriptions(node: &Netns) -> usize {
    let read = || std::fs::read_to_string("/proc/thread-self/net/netlink");
    let text = node.run(read).unwrap().unwrap();
    text.lines().skip(1).filter(|line| line.split_whitespace().nth(2) != Some("0")).count()
}

/// A node without load balancers is not woken by links that come and go.
#[test]
fn links_do_not_matter_while_nothing_is_held() {
    let mut segment = Segment::new(None);
    for _ in 0..2 {
        segment.hold(&ADDRESSES);
        segment.wait_armed(ADDRESSES[0]);
        assert_eq!(subscriptions(&segment.node), 2);
        segment.hold(&[]);
        let state = segment.wait(|state| state.addresses.is_empty());
        assert_eq!(state, AnnounceState::default());
        assert_eq!(subscriptions(&segment.node), 0);
    }
}

/// Links with an MTU below 1280 have no IPv6, and no groups of it.
#[test]
fn a_link_without_ipv6_announces_ipv4() {
    let config = AnnounceConfig { interfaces: vec!["eth0".to_owned()], refresh: None };
    let mut segment = Segment::with(config);
    assert!(program(&segment.node, "ip link set eth0 mtu 1000").0);
    segment.hold(&ADDRESSES);
    segment.wait_armed(ADDRESSES[0]);
    let ipv6 = ip(ADDRESSES[1]);
    let state = segment.wait(|state| state.addresses[&ipv6].broken);
    let reason = state.addresses[&ipv6].reason.clone().unwrap();
    assert!(reason.contains("join group"), "{reason}");
    assert_eq!(state.addresses[&ip(ADDRESSES[0])].interface.as_deref(), Some("eth0"));
}

/// What the node has itself is not announced, on whichever link it has it.
#[test]
fn an_address_of_the_node_itself_is_not_held() {
    let mut segment = Segment::new(None);
    assert!(program(&segment.node, "ip addr add 10.1.0.5/32 dev lo").0);
    segment.hold(&[ADDRESSES[0], "10.1.0.3"]);
    let state = segment.wait(|state| {
        state.addresses.len() == 2 && state.addresses.values().all(|held| held.broken)
    });
    for (address, on) in [(ADDRESSES[0], "on lo"), ("10.1.0.3", "on eth0")] {
        let reason = state.addresses[&ip(address)].reason.clone().unwrap();
        assert!(reason.contains(on), "{reason}");
    }
}

/// A thread that ends before its time says so, whether it fails or panics.
#[test]
fn the_end_of_the_thread_is_told_of() {
    let end = |work: fn() -> causeway_kernel::Result<()>| {
        let (events, mut told) = mpsc::channel(1);
        let thread = std::thread::spawn(move || LastWord::new(events).after(work));
        let said = told.blocking_recv();
        drop(thread.join());
        match said {
            Some(Event::Announced(state)) => state.failure,
            _ => None,
        }
    };
    let failed = || {
        let source = io::ErrorKind::InvalidInput.into();
        Err(causeway_kernel::Error { action: "wait for changes".to_owned(), source })
    };
    let failure = end(failed).unwrap();
    assert!(failure.starts_with("wait for changes: ") && failure.contains("again"), "{failure}");
    assert!(end(|| panic!("in this test")).unwrap().contains("crashed"));
    assert_eq!(end(|| Ok(())), None);
}
