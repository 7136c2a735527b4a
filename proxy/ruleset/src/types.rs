//! Sizes and types of values and fields.

use ipnetwork::IpNetwork;

use crate::{DataType, Field, Match, NatPort, NatTarget, RegValue, Statement, Verdict};

impl DataType {
    /// Bytes of a value, before padding.
    pub fn len(self) -> usize {
        match self {
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark | Self::Number => 4,
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
            Self::Number => "integer",
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
            Self::Number(_) => DataType::Number,
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
            // Of their lengths; they are compared, never looked up.
            Self::VniHigh => DataType::InetService,
            Self::VniLow => DataType::InetProto,
            Self::IifName | Self::OifName => DataType::IfName,
            Self::Mark | Self::CtMark | Self::Const(_) => DataType::Mark,
            Self::Random { .. } | Self::Turn { .. } | Self::SourceHash { .. } => DataType::Number,
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

impl Verdict {
    /// The chain that it leads to.
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Return => None,
        }
    }
}

impl Statement {
    /// Sets that it reads or writes, and whether it wants a map.
    pub fn sets(&self) -> impl Iterator<Item = (&str, bool)> {
        let (first, second) = match self {
            Self::Match(Match::InSet { set, .. }) | Self::Update { set, .. } => {
                (Some((set.as_str(), false)), None)
            }
            Self::VerdictMap { map, .. }
            | Self::Dnat(NatTarget::Map { map, .. })
            | Self::Snat(NatTarget::Map { map, .. }) => (Some((map.as_str(), true)), None),
            Self::Dnat(NatTarget::Apart { map, port, .. })
            | Self::Snat(NatTarget::Apart { map, port, .. }) => {
                let of_port = match port {
                    NatPort::Fixed(_) => None,
                    NatPort::Map { map, .. } => Some((map.as_str(), true)),
                };
                (Some((map.as_str(), true)), of_port)
            }
            Self::Match(_)
            | Self::Counter
            | Self::SetMark { .. }
            | Self::SetCtMark { .. }
            | Self::Masquerade { .. }
            | Self::Dnat(NatTarget::Fixed(..))
            | Self::Snat(NatTarget::Fixed(..))
            | Self::Reject
            | Self::Verdict(_)
            | Self::Other(..) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Fields that it reads, those of a port apart from its address left out.
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Match(
                Match::Cmp { field, .. } | Match::Net { field, .. } | Match::Bits { field, .. },
            ) => std::slice::from_ref(field),
            Self::Match(Match::InSet { fields, .. })
            | Self::VerdictMap { fields, .. }
            | Self::Update { fields, .. }
            | Self::Dnat(NatTarget::Map { fields, .. } | NatTarget::Apart { fields, .. })
            | Self::Snat(NatTarget::Map { fields, .. } | NatTarget::Apart { fields, .. }) => fields,
            Self::Match(
                Match::NfProto { .. }
                | Match::FibDaddrLocal { .. }
                | Match::FibSaddrLocal { .. }
                | Match::CtStatusDnat { .. }
                | Match::CtEstablished { .. }
                | Match::CtInvalid
                | Match::CtDirection { .. },
            )
            | Self::Counter
            | Self::SetMark { .. }
            | Self::SetCtMark { .. }
            | Self::Masquerade { .. }
            | Self::Dnat(NatTarget::Fixed(..))
            | Self::Snat(NatTarget::Fixed(..))
            | Self::Reject
            | Self::Verdict(_)
            | Self::Other(..) => &[],
        }
    }

    /// Removes each [`Match::NfProto`] that a match after it brings along anyway: nft does not list
    /// such a one, so a rule that says it is another one when it is loaded again.
    pub fn without_implied(statements: &mut Vec<Self>) {
        let mut at = 0;
        while at < statements.len() {
            let implied = if let Self::Match(Match::NfProto { ipv6 }) = &statements[at] {
                let header = match ipv6 {
                    false => [Field::IpSaddr, Field::IpDaddr],
                    true => [Field::Ip6Saddr, Field::Ip6Daddr],
                };
                let reads = |one: &Self| one.fields().iter().any(|field| header.contains(field));
                // What happens before the field is read must not happen to other packets.
                let mut after = statements[at + 1..].iter();
                let acts = |one: &Self| !matches!(one, Self::Match(_));
                after.find(|one| reads(one) || acts(one)).is_some_and(reads)
            } else {
                false
            };
            if implied {
                statements.remove(at);
            } else {
                at += 1;
            }
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
