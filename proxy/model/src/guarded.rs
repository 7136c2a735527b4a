//! What services and containers of other nodes cannot have: addresses of nodes and of the store, and
//! the ports there that nodes live on. Without them no node would notice the end of whatever took
//! them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{Protocol, special};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    addresses: BTreeMap<IpAddr, String>,
    ports: BTreeMap<(Protocol, u16), String>,
}

impl Guarded {
    /// Of these addresses, with whose each is (`node n2`), and of these ports, with what each is for
    /// (`ssh`). Of several owners of an address the first is named.
    pub fn new(
        addresses: impl IntoIterator<Item = (IpAddr, String)>,
        ports: impl IntoIterator<Item = ((Protocol, u16), String)>,
    ) -> Self {
        let mut guarded = Self::default();
        for (address, whose) in addresses {
            guarded.addresses.entry(address).or_insert(whose);
        }
        for (port, what) in ports {
            guarded.ports.entry(port).or_insert(what);
        }
        guarded
    }

    /// Whose address it is.
    pub fn owner(&self, address: IpAddr) -> Option<&str> {
        self.addresses.get(&address).map(String::as_str)
    }

    /// Why an address cannot be a cluster address.
    pub fn cluster(&self, address: IpAddr) -> Option<String> {
        let what = match (special(address), self.owner(address)) {
            (Some(what), _) => what.to_owned(),
            (None, Some(whose)) => {
                format!("the address of {whose}, which would become unreachable")
            }
            (None, None) => return None,
        };
        Some(format!("{address} is {what}; choose another one or omit the field"))
    }

    /// Why a port of an address cannot be an external or load balancer address of a service.
    pub fn external(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<String> {
        if let Some(what) = special(address) {
            return Some(format!("{address} is {what}; choose another address"));
        }
        let whose = self.owner(address)?;
        let what = self.ports.get(&(protocol, port))?;
        let protocol = protocol.name();
        Some(format!(
            "{address} is the address of {whose}, and its port {port}/{protocol} is used by \
             {what}, which would become unreachable; choose another port or address"
        ))
    }

    /// Why a port of the nodes cannot be a node port.
    pub fn node_port(&self, port: u16, protocol: Protocol) -> Option<String> {
        let what = self.ports.get(&(protocol, port))?;
        let protocol = protocol.name();
        Some(format!(
            "{port}/{protocol} is used by {what} on every node, which would become unreachable; \
             choose another port"
        ))
    }

    /// Ports of a protocol that nodes live on.
    pub fn ports(&self, protocol: Protocol) -> impl Iterator<Item = u16> {
        self.ports.keys().filter(move |(other, _)| *other == protocol).map(|(_, port)| *port)
    }

    /// Whether the ports are the same.
    pub fn same_ports(&self, other: &Self) -> bool {
        self.ports == other.ports
    }

    /// Addresses of one of two and not of the other.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = IpAddr> + 'a {
        let without = |one: &'a Self, other: &'a Self| {
            one.addresses.keys().filter(|ip| !other.addresses.contains_key(*ip)).copied()
        };
        without(self, other).chain(without(other, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded() -> Guarded {
        let ip = |text: &str| text.parse().unwrap();
        let addresses = [
            (ip("172.18.0.2"), "node n1".to_owned()),
            (ip("172.18.0.2"), "the store".to_owned()),
            (ip("fd00::2"), "node n1".to_owned()),
        ];
        Guarded::new(addresses, [((Protocol::Tcp, 22), "ssh".to_owned())])
    }

    /// Rows: RH3
    #[test]
    fn addresses_of_nodes_are_no_cluster_addresses() {
        let why = |text: &str| guarded().cluster(text.parse().unwrap());
        assert!(why("172.18.0.2").unwrap().contains("the address of node n1"));
        assert!(why("fd00::2").unwrap().contains("the address of node n1"));
        assert!(why("127.0.0.53").unwrap().contains("a loopback address"));
        assert!(why("::ffff:172.18.0.9").unwrap().contains("an IPv4 address in IPv6 form"));
        assert_eq!(why("172.18.0.3"), None);
        assert_eq!(why("10.96.0.1"), None);
    }

    /// Rows: RH3
    #[test]
    fn other_ports_of_nodes_are_legal() {
        let why = |text: &str, port| guarded().external(text.parse().unwrap(), port, Protocol::Tcp);
        assert!(why("172.18.0.2", 22).unwrap().contains("22/TCP is used by ssh"));
        assert_eq!(why("172.18.0.2", 80), None);
        assert_eq!(why("198.51.100.7", 22), None);
        assert!(why("224.0.0.1", 80).unwrap().contains("multicast"));
        assert_eq!(guarded().external("172.18.0.2".parse().unwrap(), 22, Protocol::Udp), None);
        assert!(guarded().node_port(22, Protocol::Tcp).is_some());
        assert_eq!(guarded().node_port(30022, Protocol::Tcp), None);
    }
}
