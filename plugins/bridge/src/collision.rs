//! Conflicts between addresses of containers and of the host. Pure.
//!
//! Refused is what would take something from the host: an address of its own or of its router for a
//! container or as the gateway, and a gateway on the very subnet that another link of the host is on.
//! The bridge's own addresses are not collisions, neither is a subnet that several nodes share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cni_plugin::{CniResult, Code, Error};
use ipnetwork::IpNetwork;

use crate::config::{Gateway, Mode};
use crate::plan::first_host;

/// What is known of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// Addresses of links other than the network's own, with the link's index.
    pub addresses: Vec<(u32, IpNetwork)>,
    /// Next hops towards the outside, with the link's index.
    pub routers: Vec<(u32, IpAddr)>,
}

impl Host {
    /// The facts without those of links `own` and of loopback addresses.
    pub(crate) fn new(
        addresses: Vec<(u32, IpNetwork)>,
        routers: Vec<(u32, IpAddr)>,
        own: &[u32],
    ) -> Self {
        let mut host = Self { addresses, routers };
        host.addresses.retain(|(link, at)| !own.contains(link) && !at.ip().is_loopback());
        host.routers.retain(|(link, _)| !own.contains(link));
        host
    }

    /// Addresses that are no container's, with words for them.
    pub(crate) fn reserved(&self) -> BTreeMap<String, &'static str> {
        let own = self.addresses.iter().map(|(_, at)| (at.ip().to_string(), OWN));
        let routers = self.routers.iter().map(|(_, router)| (router.to_string(), ROUTER));
        own.chain(routers).collect()
    }

    /// Compares what the IPAM plugin gave with the host.
    ///
    /// # Errors
    /// Code 7 with the collision.
    pub(crate) fn check(
        &self,
        mode: Mode,
        gateway: Gateway,
        leased: &CniResult,
    ) -> Result<(), Error> {
        for ip in &leased.ips {
            let subnet = ip.address;
            if let Some(what) = self.what(subnet.ip(), mode) {
                return Err(collision(format!(
                    "assigned {} to the container: {what}",
                    subnet.ip()
                )));
            }
            if !gateway.enabled {
                continue;
            }
            let address = ip.gateway.unwrap_or_else(|| first_host(subnet));
            if let Some(what) = self.what(address, mode) {
                return Err(collision(format!("has {address} as the gateway: {what}")));
            }
            let same = |at: &&IpNetwork| {
                at.network() == subnet.network() && at.prefix() == subnet.prefix()
            };
            let mut others = self.addresses.iter().map(|(_, at)| at);
            if let Some(at) = others.find(same) {
                return Err(collision(format!(
                    "has subnet {}/{}, and this node has {at} on another link: one of the two \
                     would be unreachable",
                    subnet.network(),
                    subnet.prefix()
                )));
            }
        }
        Ok(())
    }

    /// What `address` is. Every link of a ptp network carries the gateway alone.
    fn what(&self, address: IpAddr, mode: Mode) -> Option<&'static str> {
        let alone = |at: &IpNetwork| at.prefix() == if at.is_ipv4() { 32 } else { 128 };
        let counts = |at: &IpNetwork| at.ip() == address && !(mode == Mode::Ptp && alone(at));
        if self.addresses.iter().any(|(_, at)| counts(at)) {
            return Some(OWN);
        }
        self.routers.iter().any(|(_, router)| *router == address).then_some(ROUTER)
    }
}

const OWN: &str = "an address of this node";
const ROUTER: &str = "the router of this node";

fn collision(what: String) -> Error {
    let remedy = "choose a subnet or range that does not overlap the node's own network";
    Error::new(Code::InvalidConfig, format!("ipam {what}; {remedy}"))
}

#[cfg(test)]
mod tests;
