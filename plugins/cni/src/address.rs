//! Addresses as text: strict CIDR reading, and v4-mapped IPv6 as IPv4 (row C46).

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Reads `ADDRESS/PREFIX`, host bits kept. A bare address or a netmask is refused, as in Go.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNetwork, String> {
    let refused =
        || format!("\"{text}\" is not an address with prefix length, such as 10.0.0.2/24");
    let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    let prefix: u8 = prefix.parse().map_err(|_| refused())?;
    let network = IpNetwork::new(address, prefix).map_err(|_| refused())?;
    match (network, unmapped(network)) {
        (IpNetwork::V6(v6), IpNetwork::V6(_)) if v6.ip().to_ipv4_mapped().is_some() => {
            Err(refused())
        }
        (_, network) => Ok(network),
    }
}

/// A v4-mapped IPv6 network as the IPv4 network it stands for; others unchanged.
pub(crate) fn unmapped(network: IpNetwork) -> IpNetwork {
    let IpNetwork::V6(v6) = network else { return network };
    let Some(v4) = v6.ip().to_ipv4_mapped() else { return network };
    let Some(prefix) = v6.prefix().checked_sub(96) else { return network };
    Ipv4Network::new(v4, prefix).map_or(network, IpNetwork::V4)
}

/// The network that `network`'s address is in: host bits cleared.
pub(crate) fn network_of(network: IpNetwork) -> IpNetwork {
    let network = unmapped(network);
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

pub(crate) fn de_cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNetwork, D::Error> {
    parse_cidr(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(crate) fn de_network<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<IpNetwork, D::Error> {
    de_cidr(deserializer).map(network_of)
}

pub(crate) fn de_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpAddr>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr =
        text.parse().map_err(|_| D::Error::custom(format!("\"{text}\" is not an IP address")))?;
    Ok(Some(address.to_canonical()))
}

pub(crate) fn ser_network<S: Serializer>(
    network: &IpNetwork,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&network_of(*network))
}

pub(crate) fn ser_address<S: Serializer>(
    address: &Option<IpAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(&address.to_canonical()),
        None => serializer.serialize_none(),
    }
}
