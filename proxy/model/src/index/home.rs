//! Which containers of other nodes this node can reach.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::IpFamily;

/// This node, and the networks that lead from node to node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// Name of this node.
    pub node: Arc<str>,
    /// Networks of containers of all nodes. Where there is none of a family, every address of that
    /// family may be reached.
    pub networks: Vec<IpNetwork>,
}

impl Home {
    /// Whether a container of `node` may be an endpoint here. Other networks are private to their
    /// node: another one has the same again, with other containers.
    pub fn reaches(&self, node: &str, address: IpAddr) -> bool {
        let family = IpFamily::of(address);
        let mut of_family = self.networks.iter().filter(|net| IpFamily::of(net.ip()) == family);
        *node == *self.node
            || of_family.clone().next().is_none()
            || of_family.any(|net| net.contains(address))
    }
}
