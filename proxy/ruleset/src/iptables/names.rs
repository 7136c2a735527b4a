//! Names of our chains: at most 28 bytes (`XT_EXTENSION_MAXNAMELEN` less its end), letters, digits
//! and dashes. What belongs to a service has the hash of the service and of what it is.

use std::net::IpAddr;

use causeway_model::{ObjectKey, Protocol};

use crate::name;
use crate::plan::{Pool, PortPlan, Target};

/// Entry of table nat: addresses, then node ports.
pub(super) const SERVICES: &str = "CW-SERVICES";
/// Node ports, in both tables.
pub(super) const NODE_PORTS: &str = "CW-NODEPORTS";
/// Marks for masquerading.
pub(super) const MARK: &str = "CW-MARK-MASQ";
/// Marks sources outside the cluster networks.
pub(super) const MARK_OUTSIDE: &str = "CW-MARK-OUTSIDE";
/// Marks containers of this node outside the cluster networks.
pub(super) const MARK_PRIVATE: &str = "CW-MARK-PRIVATE";
/// Takes the mark off if the endpoint is a container of this node.
pub(super) const HERE: &str = "CW-HERE";
/// Masquerades what is marked.
pub(super) const POSTROUTING: &str = "CW-POSTROUTING";
/// Entry of table filter: what no rule of table nat has sent anywhere.
pub(super) const FILTER: &str = "CW-FILTER";
/// Guards 127.0.0.0/8.
pub(super) const FIREWALL: &str = "CW-FIREWALL";
/// Marks replies to 127.0.0.0/8.
pub(super) const REPLIES: &str = "CW-REPLIES";
/// Lets traffic of services through a closed host.
pub(super) const FORWARD: &str = "CW-FORWARD";

const FIXED: [&str; 11] = [
    SERVICES,
    NODE_PORTS,
    MARK,
    MARK_OUTSIDE,
    MARK_PRIVATE,
    HERE,
    POSTROUTING,
    FILTER,
    FIREWALL,
    REPLIES,
    FORWARD,
];
const HASHED: [&str; 8] = ["SVC", "SVL", "SEP", "EXT", "FW", "HSH", "NET", "NP"];
const HASH_DIGITS: usize = 16;

/// A chain for the endpoints of a pool.
pub(super) fn pool(key: &ObjectKey, port: &PortPlan, pool: Pool) -> String {
    let kind = match pool {
        Pool::Cluster => "SVC",
        Pool::Local => "SVL",
    };
    of_port(kind, key, port, "")
}

/// A chain for an endpoint; also the name of its list of clients.
pub(super) fn endpoint(key: &ObjectKey, port: &PortPlan, target: &Target) -> String {
    of_port("SEP", key, port, &format!("{} {}", target.address, target.port))
}

/// A chain for traffic from outside; `what` tells those of one service port apart.
pub(super) fn external(key: &ObjectKey, port: &PortPlan, what: &str) -> String {
    of_port("EXT", key, port, what)
}

/// A chain for a limit of sources.
pub(super) fn firewall(key: &ObjectKey, port: &PortPlan, what: &str) -> String {
    of_port("FW", key, port, what)
}

/// A chain for a node of the tree of hashes; its number has three digits.
pub(super) fn hashed(key: &ObjectKey, port: &PortPlan, pool: Pool, number: usize) -> String {
    let what = match pool {
        Pool::Cluster => "cluster",
        Pool::Local => "local",
    };
    format!("{}-{number:03x}", of_port("HSH", key, port, what))
}

/// A chain for the addresses of a network.
pub(super) fn net(first: IpAddr) -> String {
    format!("CW-NET-{}", name::hash_hex(&["net", &first.to_string()], HASH_DIGITS))
}

/// A chain for a range of node ports.
pub(super) fn node_ports(protocol: Protocol, first: u16) -> String {
    let parts = ["node ports", protocol.name(), &first.to_string()];
    format!("CW-NP-{}", name::hash_hex(&parts, HASH_DIGITS))
}

/// Whether a chain is one of ours: chains of other programs may begin with `CW-`, too.
pub(super) fn is_ours(chain: &str) -> bool {
    if FIXED.contains(&chain) {
        return true;
    }
    let Some((kind, rest)) = chain.strip_prefix("CW-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    HASHED.contains(&kind)
        && match rest.split_once('-') {
            None => kind != "HSH" && hex(rest, HASH_DIGITS),
            Some((hash, first)) => kind == "HSH" && hex(hash, HASH_DIGITS) && hex(first, 3),
        }
}

fn of_port(kind: &str, key: &ObjectKey, port: &PortPlan, what: &str) -> String {
    let (address, number) = port.vip;
    let vip = format!("{address} {number}");
    let parts = [kind, &key.namespace, &key.name, port.protocol.name(), &vip, what];
    format!("CW-{kind}-{}", name::hash_hex(&parts, HASH_DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_that_we_name_are_ours() {
        for ours in
            FIXED.into_iter().chain(["CW-SVC-0123456789abcdef", "CW-HSH-0123456789abcdef-01f"])
        {
            assert!(is_ours(ours), "{ours}");
            assert!(ours.len() <= 28, "{ours}");
        }
        for other in [
            "CW-LOGS",
            "CW-SVC-WEB",
            "CW-SVC-0123456789ABCDEF",
            "CW-SVC-0123456789abcdef-01f",
            "KUBE-SERVICES",
            "CW-HSH-0123456789abcdef",
            "CW-",
            "CW-SERVICES2",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
