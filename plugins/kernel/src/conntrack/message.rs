//! Conntrack messages (linux/netfilter/nfnetlink_conntrack.h).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open and grow with the kernel"
)]

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NlaBuffer, Parseable};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
};

use super::FlowFilter;

const IPCTNL_MSG_CT_GET: u8 = 1;

const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// `CTA_FILTER` and the flags inside, which say what of the tuples beside it counts (kernel 5.8,
/// `ctnetlink_parse_filter`).
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const BY_SOURCE: u32 = 1 << 0;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn wire(self) -> NetfilterProtoFamily {
        match self {
            Self::V4 => NetfilterProtoFamily::IPv4,
            Self::V6 => NetfilterProtoFamily::IPv6,
        }
    }
}

/// One direction of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    udp: bool,
}

/// A UDP entry, with the attributes that name exactly it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) family: Family,
    pub(super) original: Direction,
    pub(super) reply: Direction,
    identity: Vec<ConntrackAttribute>,
}

impl Flow {
    /// `None` for what is not a UDP entry.
    pub(super) fn decode(family: Family, message: &NetfilterMessage) -> Option<Self> {
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner
        else {
            return None;
        };
        let mut flow = Self {
            family,
            original: Direction::default(),
            reply: Direction::default(),
            identity: Vec::new(),
        };
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => {
                    flow.original = direction(tuple);
                    flow.identity.push(attribute.clone());
                }
                ConntrackAttribute::CtaTupleReply(tuple) => flow.reply = direction(tuple),
                // The id keeps a new entry of the same tuple from being taken for this one.
                ConntrackAttribute::Other(other) if is_identity(other) => {
                    flow.identity.push(attribute.clone());
                }
                _ => {}
            }
        }
        flow.original.udp.then_some(flow)
    }

    pub(super) fn delete_message(&self) -> NetfilterMessage {
        message(self.family, ConntrackMessage::Delete(self.identity.clone()))
    }
}

/// A request for the UDP entries of `family`, of `filter` only if there is one.
///
/// IPv6 addresses are left out of it: kernel 6.18 leaves out just the entries of the address it is
/// asked for. The caller compares addresses anyway.
pub(super) fn dump(family: Family, filter: Option<&FlowFilter>) -> NetfilterMessage {
    let mut original = Vec::new();
    let mut original_ports = vec![ProtoTuple::Protocol(Protocol::Udp)];
    let mut original_flags = BY_PROTOCOL;
    let mut attributes = Vec::new();
    let mut reply_flags = 0;
    match filter {
        None => {}
        Some(FlowFilter::HostPort { address, port, .. }) => {
            if let Some(address) = address.filter(IpAddr::is_ipv4) {
                original.push(Tuple::Ip(vec![IPTuple::DestinationAddress(address)]));
                original_flags |= BY_DESTINATION;
            }
            original_ports.push(ProtoTuple::DestinationPort(*port));
            original_flags |= BY_DESTINATION_PORT;
        }
        Some(FlowFilter::Container { address, port }) => {
            let mut reply = Vec::new();
            reply_flags = BY_PROTOCOL | BY_SOURCE_PORT;
            if address.is_ipv4() {
                reply.push(Tuple::Ip(vec![IPTuple::SourceAddress(*address)]));
                reply_flags |= BY_SOURCE;
            }
            let udp = ProtoTuple::Protocol(Protocol::Udp);
            reply.push(Tuple::Proto(vec![udp, ProtoTuple::SourcePort(*port)]));
            attributes.push(ConntrackAttribute::CtaTupleReply(reply));
        }
    }
    original.push(Tuple::Proto(original_ports));
    attributes.push(ConntrackAttribute::CtaTupleOrig(original));
    let mut raw: Vec<DefaultNla> = attributes.iter().filter_map(raw).collect();
    raw.push(filter_attribute(original_flags, reply_flags));
    // Not `ConntrackMessage::Get`: its `Other` attributes lose NLA_F_NESTED, and the kernel insists
    // on it in CTA_FILTER.
    NetfilterMessage::new(
        NetfilterHeader::new(family.wire(), 0, 0),
        NetfilterMessageInner::Other {
            subsys: NetfilterSubsystem::Conntrack,
            message_type: IPCTNL_MSG_CT_GET,
            attributes: raw,
        },
    )
}

/// A request for all entries of `family`, for kernels without `CTA_FILTER`.
pub(super) fn dump_all(family: Family) -> NetfilterMessage {
    message(family, ConntrackMessage::Get(Vec::new()))
}

fn message(family: Family, inner: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(
        NetfilterHeader::new(family.wire(), 0, 0),
        NetfilterMessageInner::Conntrack(inner),
    )
}

fn filter_attribute(original: u32, reply: u32) -> DefaultNla {
    let mut payload = Vec::new();
    for (kind, flags) in [(CTA_FILTER_ORIG_FLAGS, original), (CTA_FILTER_REPLY_FLAGS, reply)] {
        // Each four bytes of header and of value.
        payload.extend(8u16.to_ne_bytes());
        payload.extend(kind.to_ne_bytes());
        payload.extend(flags.to_ne_bytes());
    }
    DefaultNla::new(CTA_FILTER | NESTED, payload)
}

fn raw(attribute: &ConntrackAttribute) -> Option<DefaultNla> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    DefaultNla::parse(&NlaBuffer::new(bytes.as_slice())).ok()
}

fn is_identity(attribute: &DefaultNla) -> bool {
    matches!(netlink_packet_core::Nla::kind(attribute) & !NESTED, CTA_ID | CTA_ZONE)
}

fn direction(tuple: &[Tuple]) -> Direction {
    let mut direction = Direction::default();
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => direction.source = Some(*ip),
                        IPTuple::DestinationAddress(ip) => direction.destination = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => {
                            direction.udp = *protocol == Protocol::Udp;
                        }
                        ProtoTuple::SourcePort(port) => direction.source_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => {
                            direction.destination_port = Some(*port);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    direction
}
