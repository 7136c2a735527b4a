//! Whether a cluster network contains the nodes' own link: containers would get addresses of nodes, and
//! their bridge that of the router. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// A cluster network, and what it must not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverlappingNetwork {
    /// The network.
    pub network: IpNetwork,
    /// An address on the link of the nodes.
    pub address: IpAddr,
    /// It is that of the default route's router, else this node's.
    pub router: bool,
}

/// The first cluster network that contains an address of this node or of its router.
pub(crate) fn held(
    cluster: &[IpNetwork],
    ips: &[IpAddr],
    routers: &[IpAddr],
) -> Option<OverlappingNetwork> {
    let own = ips.iter().map(|ip| (*ip, false));
    let all: Vec<(IpAddr, bool)> = own.chain(routers.iter().map(|ip| (*ip, true))).collect();
    cluster.iter().find_map(|network| {
        let (address, router) = all.iter().find(|(ip, _)| network.contains(*ip))?;
        Some(OverlappingNetwork { network: *network, address: *address, router: *router })
    })
}

impl OverlappingNetwork {
    /// Whose address it is.
    pub(crate) fn whose(&self) -> &'static str {
        if self.router { "this node's router" } else { "this node" }
    }

    /// Why a node allocates no addresses though nobody chose the network.
    pub(crate) fn refused(&self) -> String {
        let Self { network, address, .. } = self;
        format!(
            "the default of --cluster-cidr, {network}, holds {address}, the address of {}: set \
             --cluster-cidr on all nodes to a network that does not overlap that of the nodes",
            self.whose()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Rows: RD2
    #[test]
    fn a_network_apart_from_the_nodes_holds_nothing() {
        let cluster = nets(&["10.0.0.0/16", "fd00:10::/48"]);
        let (own, router) = (ips(&["10.1.0.2", "fd00:11::2"]), ips(&["10.1.0.1", "fe80::1"]));
        assert_eq!(held(&cluster, &own, &router), None);
        assert_eq!(held(&cluster, &[], &[]), None);
    }

    /// Rows: RD2
    #[test]
    fn the_node_and_its_router_are_named_in_each_family() {
        let cluster = nets(&["10.0.0.0/16", "fd00:10::/48"]);
        let own = held(&cluster, &ips(&["10.0.2.15"]), &ips(&["10.0.2.2"])).unwrap();
        assert_eq!((own.address.to_string().as_str(), own.router), ("10.0.2.15", false));
        assert!(own.refused().contains("10.0.0.0/16, holds 10.0.2.15, the address of this node: "));
        // A wide link of the nodes, of which the cluster network is a part.
        let router = held(&cluster, &ips(&["10.9.0.2"]), &ips(&["10.0.0.1"])).unwrap();
        assert!(router.refused().contains("10.0.0.1, the address of this node's router"));
        let six = held(&cluster, &ips(&["192.0.2.2", "fd00:10::5"]), &[]).unwrap();
        assert_eq!(six.network.to_string(), "fd00:10::/48");
    }
}
