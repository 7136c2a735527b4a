//! Pieces of rules, written as `iptables-save` prints them.

use std::net::IpAddr;

use causeway_model::{IpFamily, Protocol};
use ipnetwork::IpNetwork;

/// What a comment may hold, in bytes, short of the kernel's 255.
const COMMENT_MAX: usize = 200;

/// A single address as a network.
pub(super) fn host(address: IpAddr) -> String {
    net(address.into())
}

/// A network without host bits.
pub(super) fn net(net: IpNetwork) -> String {
    format!("{}/{}", net.network(), net.prefix())
}

/// Name of a protocol, also of its match.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The mask of one address.
pub(super) fn mask(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "255.255.255.255",
        IpFamily::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    }
}

/// Refuses with ICMP port unreachable.
pub(super) fn reject(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "-j REJECT --reject-with icmp-port-unreachable",
        IpFamily::V6 => "-j REJECT --reject-with icmp6-port-unreachable",
    }
}

/// A comment, in quotes: names come from manifests. All but printable ASCII, quotes and
/// backslashes become `_`, and the rest has no meaning within quotes.
pub(super) fn comment(text: &str) -> String {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\'' | '\\');
    let text = text.chars().map(|c| if plain(c) { c } else { '_' });
    let text = text.take(COMMENT_MAX).collect::<String>();
    format!("-m comment --comment \"{text}\"")
}

/// To one endpoint.
pub(super) fn dnat(address: IpAddr, port: u16) -> String {
    let to = std::net::SocketAddr::new(address, port);
    format!("-j DNAT --to-destination {to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_end_where_they_should() {
        let nasty = "a\" -j ACCEPT\n-A INPUT\t'x'\\\u{e9}";
        assert_eq!(comment(nasty), "-m comment --comment \"a_ -j ACCEPT_-A INPUT__x___\"");
        assert!(comment(&"x".repeat(4000)).len() < 255);
    }
}
