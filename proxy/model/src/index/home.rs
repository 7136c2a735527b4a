//! Which containers of other nodes this node can reach, and which it refuses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::{Guarded, IpFamily, special};

/// This node, and the networks that lead from node to node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// Name of this node.
    pub node: Arc<str>,
    /// Networks of containers of all nodes. If there is none of a family, every address of that
    /// family may be reached.
    pub networks: Vec<IpNetwork>,
    /// Parts of those networks that lead to nodes, by node, this one among them. Empty if nothing
    /// of ours leads there: then it is unknown which subnet is whose.
    pub subnets: BTreeMap<String, Vec<IpNetwork>>,
    /// Addresses that no container of another node has.
    pub guarded: Arc<Guarded>,
}

impl Home {
    /// Whether a container of `node` may be an endpoint here. Other networks are private to their
    /// node: another one has the same again, with other containers.
    pub fn reaches(&self, node: &str, address: IpAddr) -> bool {
        let of_family = |net: &&IpNetwork| IpFamily::of(net.ip()) == IpFamily::of(address);
        let holds = |nets: &[IpNetwork]| {
            let mut nets = nets.iter().filter(of_family).peekable();
            nets.peek().is_none() || nets.any(|net| net.contains(address))
        };
        *node == *self.node
            || self.refusal(node, address).is_none()
                && holds(&self.networks)
                && match self.subnets.get(node) {
                    Some(subnets) => holds(subnets),
                    None => !self.subnets.values().flatten().any(|net| net.contains(address)),
                }
    }

    /// What makes an address unfit for a container of `node`, in words. Of this node's own containers
    /// its plugins know.
    pub fn refusal(&self, node: &str, address: IpAddr) -> Option<String> {
        if *node == *self.node {
            return None;
        }
        if let Some(what) = special(address) {
            return Some(what.to_owned());
        }
        self.guarded.owner(address).map(|whose| format!("the address of {whose}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        let nets = |text: &str| vec![text.parse().unwrap()];
        let node = ("172.18.0.3".parse().unwrap(), "node n2".to_owned());
        Home {
            node: "n1".into(),
            networks: nets("10.0.0.0/16"),
            subnets: BTreeMap::from([
                ("n1".to_owned(), nets("10.0.1.0/24")),
                ("n2".to_owned(), nets("10.0.2.0/24")),
                ("n3".to_owned(), nets("10.0.3.0/24")),
            ]),
            guarded: Arc::new(Guarded::new([node], [])),
        }
    }

    /// Rows: RH1
    #[test]
    fn special_addresses_and_those_of_nodes_are_refused() {
        let cases = [
            ("127.0.0.1", "loopback"),
            ("127.8.8.8", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::ffff:127.0.0.1", "in IPv6 form"),
            ("::ffff:10.0.2.5", "in IPv6 form"),
            ("172.18.0.3", "node n2"),
        ];
        for (address, part) in cases {
            let ip = address.parse().unwrap();
            let why = home().refusal("n2", ip).unwrap_or_default();
            assert!(why.contains(part), "{address}: {why}");
            assert!(!home().reaches("n2", ip), "{address}");
            assert_eq!(home().refusal("n1", ip), None, "{address}: ours");
        }
    }

    /// Rows: RH1
    #[test]
    fn addresses_outside_of_a_node_s_parts_are_that_node_s_alone() {
        let reaches = |node: &str, ip: &str| home().reaches(node, ip.parse().unwrap());
        assert!(reaches("n2", "10.0.2.5"));
        assert!(!reaches("n2", "10.0.3.5"), "the part of another node");
        assert!(!reaches("n2", "10.0.9.5"), "nobody's part");
        assert!(!reaches("n2", "10.4.0.5"), "a private network");
        // Of a node without parts all that is known is whose it is not; of IPv6 nothing is.
        assert!(reaches("n4", "10.0.9.5") && !reaches("n4", "10.4.0.5"));
        assert!(!reaches("n4", "10.0.2.5") && !reaches("n4", "10.0.1.5"));
        assert!(reaches("n2", "fd00::5"));
        assert!(reaches("n1", "10.4.0.5") && reaches("n1", "10.0.2.5"));
        assert_eq!(home().refusal("n2", "10.4.0.5".parse().unwrap()), None);
    }
}
