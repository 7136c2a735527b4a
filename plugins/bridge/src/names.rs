//! What a container asks for names: nameserver, search list and options of its resolv.conf. Pure.

use causeway_host::NodeDns;
use cni_plugin::Dns;
use ipnetwork::IpNetwork;

/// Name servers of a container in `namespace` on a node that says `node`: its `gateways`, which the
/// node has, or the addresses that answer everybody. Empty if there is none, or if the container does
/// not leave through the node.
pub(crate) fn dns(node: &NodeDns, gateways: &[IpNetwork], namespace: &str) -> Dns {
    let nameservers: Vec<String> = match node.gateways {
        true => gateways.iter().map(|gateway| gateway.ip().to_string()).collect(),
        false => node.servers.iter().map(ToString::to_string).collect(),
    };
    if nameservers.is_empty() || gateways.is_empty() {
        return Dns::default();
    }
    Dns {
        nameservers,
        domain: String::new(),
        search: node.search(namespace),
        options: vec![format!("ndots:{}", NodeDns::NDOTS)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(gateways: bool, servers: &[&str]) -> NodeDns {
        let servers = servers.iter().map(|one| one.parse().expect("an address")).collect();
        NodeDns { domain: "cluster.local".to_owned(), gateways, servers }
    }

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|one| one.parse().expect("a network")).collect()
    }

    #[test]
    fn the_own_gateway_is_asked_before_the_address_for_all() {
        let gateways = networks(&["10.0.1.1/24", "fd00:1::1/64"]);
        let both = dns(&node(true, &["10.96.0.10"]), &gateways, "shop");
        assert_eq!(both.nameservers, ["10.0.1.1", "fd00:1::1"]);
        assert_eq!(both.search, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(both.options, ["ndots:5"]);
        let elsewhere = dns(&node(true, &["10.96.0.10"]), &[], "shop");
        assert_eq!(elsewhere, Dns::default(), "its gateway is another machine");
        let fixed = dns(&node(false, &["192.0.2.53"]), &gateways, "shop");
        assert_eq!(fixed.nameservers, ["192.0.2.53"]);
        assert_eq!(dns(&node(false, &[]), &gateways, "shop"), Dns::default(), "nobody answers");
    }

    #[test]
    fn a_search_list_holds_names_that_resolvers_take() {
        let gateways = networks(&["10.0.1.1/24"]);
        let plain = ["svc.cluster.local", "cluster.local"];
        for namespace in ["", "Shop", "a_b", "-a", "a-", ".", "a.b", &"n".repeat(64)] {
            let list = dns(&node(false, &["192.0.2.53"]), &gateways, namespace).search;
            assert_eq!(list, plain, "{namespace:?}");
        }
        for domain in ["", "."] {
            let node = NodeDns { domain: domain.to_owned(), ..node(false, &["192.0.2.53"]) };
            assert_eq!(dns(&node, &gateways, "shop").search, [""; 0], "{domain:?}");
        }
        let label = "d".repeat(60);
        let long = NodeDns { domain: format!("{label}.{label}."), ..node(false, &["192.0.2.53"]) };
        let list = dns(&long, &gateways, &"n".repeat(63)).search;
        assert_eq!(list.len(), 1, "glibc reads 256 characters");
        assert!(list[0].starts_with("nnn"), "{list:?}");
    }
}
