//! Sizes and types of values and fields.

use ipnetwork::IpNetwork;

use crate::{DataType, Field, Match, RegValue};

impl DataType {
    /// Bytes of a value, before padding.
    pub fn len(self) -> usize {
        match self {
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark => 4,
            Self::EtherAddr => 6,
            Self::Ipv6Addr | Self::IfName => 16,
        }
    }

    /// Never: every type has a size.
    pub fn is_empty(self) -> bool {
        false
    }

    /// nft's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::Mark => "mark",
            Self::IfName => "ifname",
            Self::EtherAddr => "ether_addr",
        }
    }
}

impl RegValue {
    /// Type of the value.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::V4(_) => DataType::Ipv4Addr,
            Self::V6(_) => DataType::Ipv6Addr,
            Self::Proto(_) => DataType::InetProto,
            Self::Port(_) => DataType::InetService,
            Self::Mark(_) => DataType::Mark,
            Self::IfName(_) => DataType::IfName,
            Self::Mac(_) => DataType::EtherAddr,
        }
    }
}

impl Field {
    /// Type of the field's value.
    pub fn data_type(self) -> DataType {
        match self {
            Self::IpSaddr | Self::IpDaddr | Self::CtOriginalIpDaddr => DataType::Ipv4Addr,
            Self::Ip6Saddr | Self::Ip6Daddr | Self::CtOriginalIp6Daddr => DataType::Ipv6Addr,
            Self::EtherSaddr => DataType::EtherAddr,
            Self::L4Proto => DataType::InetProto,
            Self::ThSport | Self::ThDport | Self::CtOriginalProtoDst => DataType::InetService,
            Self::IifName | Self::OifName => DataType::IfName,
            Self::Mark
            | Self::CtMark
            | Self::Random { .. }
            | Self::Turn { .. }
            | Self::SourceHash { .. } => DataType::Mark,
            Self::Const(value) => RegValue::from(value).data_type(),
        }
    }
}

impl Match {
    /// Compares an address field with a network, in the form that reads back equal: host bits are
    /// cleared, and a network of one address is that address.
    pub fn net(field: Field, negate: bool, net: IpNetwork) -> Self {
        let address = net.network();
        let host = if net.is_ipv4() { 32 } else { 128 };
        match IpNetwork::new(address, net.prefix()) {
            Ok(net) if net.prefix() < host => Self::Net { field, negate, net },
            _ => Self::Cmp { field, negate, value: address.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_form() {
        let net = |text: &str| Match::net(Field::IpSaddr, true, text.parse().unwrap());
        assert_eq!(net("10.1.2.3/8"), net("10.0.0.0/8"));
        let value = RegValue::V4([10, 1, 2, 3].into());
        assert_eq!(net("10.1.2.3"), Match::Cmp { field: Field::IpSaddr, negate: true, value });
    }
}
