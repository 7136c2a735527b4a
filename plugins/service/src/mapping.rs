//! Port mappings: what the runtime asks for, and what that means for one container's addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use cni_plugin::{CniResult, Code, Error, Ip};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// A protocol whose ports can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// The protocol of that name, in any case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The name that rules carry.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// IP protocol number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of that number.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The side of the host: which of its addresses a mapping listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostSide {
    /// Every local address of both families.
    Any,
    /// Every local address of one family (`0.0.0.0`, `::`).
    AnyOf {
        /// IPv6
        ipv6: bool,
    },
    /// One address.
    Address(IpAddr),
}

impl HostSide {
    /// What `hostIP` says; empty is any address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Any);
        }
        // An IPv4 address written as IPv6 counts as IPv4 (row C46).
        let address = text.parse::<IpAddr>().ok()?.to_canonical();
        Some(if address.is_unspecified() {
            Self::AnyOf { ipv6: address.is_ipv6() }
        } else {
            Self::Address(address)
        })
    }

    fn covers(self, ipv6: bool) -> bool {
        match self {
            Self::Any => true,
            Self::AnyOf { ipv6: own } => own == ipv6,
            Self::Address(address) => address.is_ipv6() == ipv6,
        }
    }

    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Any | Self::AnyOf { .. } => None,
            Self::Address(address) => Some(address),
        }
    }
}

/// A mapping as asked for, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Addresses of the host.
    pub host: HostSide,
    /// Port of the host.
    pub host_port: u16,
    /// Port inside the container.
    pub container_port: u16,
}

/// A mapping to one address of one container: what rules are made of, and what records hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Protocol.
    pub protocol: Protocol,
    /// The host's address; `None`: every local address of the family of `target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
    /// Address and port of the container.
    pub target: SocketAddr,
}

impl Binding {
    /// Whether both want a packet of the same destination.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && self.target.is_ipv6() == other.target.is_ipv6()
            && (self.host.is_none() || other.host.is_none() || self.host == other.host)
    }

    /// Whether `other`, of the same container, is carried out by this one too: the port leads to
    /// the same program, by another network.
    pub(crate) fn serves(&self, other: &Self) -> bool {
        self.overlaps(other)
            && (self.host.is_none() || self.host == other.host)
            && self.target.port() == other.target.port()
    }

    /// `8080/tcp`, or `192.0.2.1:8080/tcp` with an address of the host.
    pub(crate) fn host_side(&self) -> String {
        match self.host {
            None => format!("{}/{}", self.host_port, self.protocol),
            Some(host) => format!("{}/{}", SocketAddr::new(host, self.host_port), self.protocol),
        }
    }
}

/// The container's addresses that ports are mapped to, with their prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// First IPv4 address.
    pub v4: Option<IpNetwork>,
    /// First IPv6 address.
    pub v6: Option<IpNetwork>,
}

impl Addresses {
    /// The first address of each family in `result` whose interface is `ifname` inside a sandbox,
    /// or is not known.
    pub(crate) fn choose(result: &CniResult, ifname: &str) -> Self {
        let first =
            |ipv6: bool| of_container(result, ifname).find(|address| address.is_ipv6() == ipv6);
        Self { v4: first(false), v6: first(true) }
    }

    fn of(&self, ipv6: bool) -> Option<IpNetwork> {
        if ipv6 { self.v6 } else { self.v4 }
    }
}

/// The addresses in `result` whose interface is `ifname` inside a sandbox, or is not known.
pub(crate) fn of_container(result: &CniResult, ifname: &str) -> impl Iterator<Item = IpNetwork> {
    let usable = move |ip: &&Ip| match ip.interface.and_then(|at| result.interfaces.get(at)) {
        None => true,
        Some(interface) => interface.name == ifname && !interface.sandbox.is_empty(),
    };
    result.ips.iter().filter(usable).map(|ip| ip.address)
}

/// The bindings of `mappings` to `addresses`, IPv4 first, in the order asked. A mapping without an
/// address of its family in the container is left out, as upstream does; mappings that another one
/// to the same container port already covers are dropped.
///
/// # Errors
/// Code 7: two mappings of one host port to different container ports.
pub(crate) fn bind(mappings: &[Mapping], addresses: &Addresses) -> Result<Vec<Binding>, Error> {
    let mut bindings: Vec<Binding> = Vec::new();
    for ipv6 in [false, true] {
        let Some(address) = addresses.of(ipv6) else { continue };
        for mapping in mappings.iter().filter(|mapping| mapping.host.covers(ipv6)) {
            let binding = Binding {
                protocol: mapping.protocol,
                host: mapping.host.address(),
                host_port: mapping.host_port,
                target: SocketAddr::new(address.ip(), mapping.container_port),
            };
            push(&mut bindings, binding)?;
        }
    }
    Ok(bindings)
}

fn push(bindings: &mut Vec<Binding>, binding: Binding) -> Result<(), Error> {
    let twice = bindings.iter().filter(|other| other.overlaps(&binding));
    if let Some(other) = twice.clone().find(|other| other.target != binding.target) {
        return Err(Error::new(
            Code::InvalidConfig,
            format!(
                "portMappings: host port {} is mapped twice, to container ports {} and {}; map it \
                 once",
                binding.host_side(),
                other.target.port(),
                binding.target.port()
            ),
        ));
    }
    if twice.clone().any(|other| other.host.is_none() || other.host == binding.host) {
        return Ok(());
    }
    // What is left of `twice` are single addresses that the new binding covers.
    bindings.retain(|other| !other.overlaps(&binding));
    bindings.push(binding);
    Ok(())
}

#[cfg(test)]
mod tests;
