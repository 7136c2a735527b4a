//! Hosts on one wire, an outside client, and an internet behind a router.

use std::fmt::Write as _;

use crate::{Node, Ns};

/// The underlay of the tutorials: nodes at 172.18.0.2, .3, .. and fd00:172:18::2, ::3, .. by
/// `eth0`; the router at .1 is everybody's default gateway; the client is at .100.
///
/// The internet host (203.0.113.10, 2001:db8:1::10) routes back to the underlay only, so that an
/// answer from it proves masquerade.
#[derive(Debug)]
pub struct Lab {
    /// Switch and router: a bridge `sw0` with one port a host, and `wan0` to the internet.
    pub switch: Ns,
    /// The hosts.
    pub nodes: Vec<Node>,
    /// A machine of the same network that runs no containers.
    pub client: Ns,
    /// A machine beyond the router.
    pub internet: Ns,
}

impl Lab {
    /// IPv4 address of the internet host.
    pub const INTERNET: &str = "203.0.113.10";
    /// IPv6 address of the internet host.
    pub const INTERNET6: &str = "2001:db8:1::10";
    /// IPv4 address of the outside client.
    pub const CLIENT: &str = "172.18.0.100";
    /// IPv6 address of the outside client.
    pub const CLIENT6: &str = "fd00:172:18::100";

    /// A lab with one host.
    pub fn one_node() -> Self {
        Self::with_nodes(1)
    }

    /// A lab with two hosts.
    pub fn two_nodes() -> Self {
        Self::with_nodes(2)
    }

    /// A lab with `count` hosts.
    pub fn with_nodes(count: usize) -> Self {
        assert!(count < 90, "node addresses end before the client's");
        let nodes: Vec<Node> = (1..=count).map(|n| Node::new(&format!("node{n}"))).collect();
        let (switch, client, internet) = (Ns::new("switch"), Ns::new("client"), Ns::new("inet"));
        for ns in [&switch, &client, &internet] {
            // A link-local address that is still checked for duplicates would delay the answer to
            // the first packet by seconds.
            ns.set_sysctl("ipv6/conf/default/accept_dad", "0");
        }
        let lab = Self { switch, nodes, client, internet };
        lab.wire();
        for (index, node) in lab.nodes.iter().enumerate() {
            address(node, &(index + 2).to_string());
        }
        address(&lab.client, "100");
        lab.internet.ip("addr add 203.0.113.10/24 dev eth0\n\
             addr add 2001:db8:1::10/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add 172.18.0.0/24 via 203.0.113.1\n\
             route add fd00:172:18::/64 via 2001:db8:1::1\n");
        lab
    }

    /// Connects one more host by a switch port of this name, at 172.18.0.`last` and
    /// fd00:172:18::`last`.
    pub fn plug(&self, host: &Ns, port: &str, last: &str) {
        host.set_sysctl("ipv6/conf/default/accept_dad", "0");
        self.switch.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master sw0 up\n",
            host.name()
        ));
        address(host, last);
    }

    /// Takes the cable of a switch port out (`port0` is the first host's), or puts it in.
    pub fn cable(&self, port: &str, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.switch.ip(&format!("link set {port} {state}\n"));
    }

    /// The switch forwards nothing between the ports of one side and those of the other, both ways,
    /// until [`Lab::heal`]. All keep their carrier.
    pub fn split(&self, side: &[&str], other: &[&str]) {
        let (side, other) = (side.join(", "), other.join(", "));
        self.switch.sh(&format!(
            "nft 'table bridge split {{
               chain forward {{
                 type filter hook forward priority 0;
                 iifname {{ {side} }} oifname {{ {other} }} drop
                 iifname {{ {other} }} oifname {{ {side} }} drop
               }}
             }}'"
        ));
    }

    /// Ends every [`Lab::split`].
    pub fn heal(&self) {
        self.switch.sh("nft delete table bridge split");
    }

    /// The switch port of a host, counted from 0.
    pub fn port(index: usize) -> String {
        format!("port{index}")
    }

    /// The IPv4 underlay address of a host, counted from 0.
    pub fn node_address(index: usize) -> String {
        format!("172.18.0.{}", index + 2)
    }

    /// The IPv6 underlay address of a host, counted from 0.
    pub fn node_address6(index: usize) -> String {
        format!("fd00:172:18::{}", index + 2)
    }

    fn wire(&self) {
        let mut lines = String::from("link add sw0 type bridge mcast_snooping 0\n");
        let hosts = self.nodes.iter().map(|node| node.name()).chain([self.client.name()]);
        for (port, host) in hosts.enumerate() {
            let made = write!(
                lines,
                "link add port{port} type veth peer name eth0 netns {host}\n\
                 link set port{port} master sw0 up\n"
            );
            made.expect("writing to a String");
        }
        let made = write!(
            lines,
            "link add wan0 type veth peer name eth0 netns {}\n\
             addr add 172.18.0.1/24 dev sw0\n\
             addr add fd00:172:18::1/64 dev sw0 nodad\n\
             addr add 203.0.113.1/24 dev wan0\n\
             addr add 2001:db8:1::1/64 dev wan0 nodad\n\
             link set sw0 up\nlink set wan0 up\n",
            self.internet.name()
        );
        made.expect("writing to a String");
        self.switch.ip(&lines);
        self.switch.set_sysctl("ipv4/ip_forward", "1");
        self.switch.set_sysctl("ipv6/conf/all/forwarding", "1");
    }
}

fn address(host: &Ns, last: &str) {
    host.set_sysctl("ipv6/conf/eth0/accept_dad", "0");
    host.ip(&format!(
        "addr add 172.18.0.{last}/24 dev eth0\n\
         addr add fd00:172:18::{last}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 172.18.0.1\n\
         route add ::/0 via fd00:172:18::1\n"
    ));
}
