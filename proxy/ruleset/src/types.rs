//! Sizes and types of values and fields.

use crate::{DataType, Field, RegValue};

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
            Self::Mark | Self::CtMark => DataType::Mark,
        }
    }
}
