//! Conntrack messages as bytes (linux/netfilter/nfnetlink_conntrack.h): dumps of 100,000 entries are
//! read in place, without a value for every attribute.

use std::net::{IpAddr, SocketAddr};

const CTNETLINK: u16 = 1 << 8;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// IP protocol number.
pub(super) const UDP: u8 = 17;

/// Flags in `CTA_FILTER`: what of a tuple counts (kernel 5.8, `ctnetlink_parse_filter`).
const BY_SOURCE: u32 = 1 << 0;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
const BY_DESTINATION_PORT: u32 = 1 << 5;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Header of a message: length, type, flags, sequence number, port.
const NLMSG_HEADER: usize = 16;
/// Header behind it: family, version, resource id.
const NFGENMSG: usize = 4;
const NESTED: u16 = 1 << 15;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }
}

/// What the kernel is asked to pick of the UDP entries of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Original destination.
    pub(super) destination: End,
    /// Reply source.
    pub(super) answered_by: End,
}

/// What counts of an address and port. The kernel is not asked for IPv6 addresses: 6.18 leaves out
/// just the entries of the address it is asked for. Callers compare addresses anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
}

impl End {
    /// What all have in common.
    pub(super) fn common(mut all: impl Iterator<Item = (Option<IpAddr>, u16)>) -> Self {
        let Some((address, port)) = all.next() else { return Self::default() };
        let mut common = Self { address, port: Some(port) };
        for (address, port) in all {
            common.address = common.address.filter(|one| Some(*one) == address);
            common.port = common.port.filter(|one| *one == port);
        }
        common
    }
}

/// An entry, and what names exactly it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Original destination.
    pub(super) destination: (IpAddr, u16),
    /// Reply source.
    pub(super) answered_by: (IpAddr, u16),
    original: &'a [u8],
    /// Keeps a new entry of the same tuple from being taken for this one.
    id: Option<&'a [u8]>,
    zone: Option<&'a [u8]>,
}

/// A message from the kernel.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// Payload of an entry.
    Entry(&'a [u8]),
    /// End of a dump, or the acknowledgement of a request, with its errno.
    End(i32),
    /// Not netlink.
    Broken,
}

/// Numbers every message of `requests`; the kernel's answers carry the number.
pub(super) fn number(requests: &mut [u8], sequence: u32) {
    let mut at = 0;
    while let Some(length) = word(requests, at).and_then(|length| usize::try_from(length).ok())
        && length >= NLMSG_HEADER
        && let Some(place) = requests.get_mut(at + 8..at + 12)
    {
        place.copy_from_slice(&sequence.to_ne_bytes());
        at += length.next_multiple_of(4);
    }
}

/// The messages in a datagram that answer requests of that number.
pub(super) fn answers(mut datagram: &[u8], sequence: u32) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        loop {
            if datagram.is_empty() {
                return None;
            }
            let length = word(datagram, 0).and_then(|length| usize::try_from(length).ok());
            let message = length.and_then(|length| datagram.get(..length));
            let Some(message) = message.filter(|message| message.len() >= NLMSG_HEADER) else {
                datagram = &[];
                return Some(Answer::Broken);
            };
            datagram = datagram.get(message.len().next_multiple_of(4)..).unwrap_or_default();
            if word(message, 8) != Some(sequence) {
                continue;
            }
            let payload = &message[NLMSG_HEADER..];
            let flags = half(message, 6).unwrap_or_default();
            // Both begin with a negative errno.
            let errno = || word(payload, 0).map_or(0, |code| code.cast_signed().saturating_neg());
            match half(message, 4).unwrap_or_default() {
                NLMSG_DONE if flags & NLM_F_DUMP_INTR != 0 => {
                    return Some(Answer::End(libc::EINTR));
                }
                NLMSG_DONE | NLMSG_ERROR => return Some(Answer::End(errno())),
                kind if kind & 0xff00 == CTNETLINK => {
                    return Some(Answer::Entry(payload.get(NFGENMSG..).unwrap_or_default()));
                }
                _ => {}
            }
        }
    })
}

/// The entry in a payload, if it is of that protocol.
pub(super) fn entry(payload: &[u8], protocol: u8) -> Option<Entry<'_>> {
    let (mut original, mut reply, mut id, mut zone) = (None, None, None, None);
    for (kind, value) in attributes(payload) {
        match kind {
            CTA_TUPLE_ORIG => original = Some(value),
            CTA_TUPLE_REPLY => reply = Some(value),
            CTA_ID => id = Some(value),
            CTA_ZONE => zone = Some(value),
            _ => {}
        }
    }
    let original = original?;
    let destination = end(original, protocol, &DESTINATION)?;
    let answered_by = end(reply?, protocol, &SOURCE)?;
    Some(Entry { destination, answered_by, original, id, zone })
}

/// A request for the UDP entries of `family`; without a filter for entries of all protocols, as
/// kernels without `CTA_FILTER` take it.
pub(super) fn dump(family: Family, filter: Option<Filter>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(Filter { destination, answered_by }) = filter {
        let by_original = counted(&mut body, CTA_TUPLE_ORIG, destination, &DESTINATION);
        let by_reply = if answered_by == End::default() {
            0
        } else {
            counted(&mut body, CTA_TUPLE_REPLY, answered_by, &SOURCE)
        };
        let mut counts = Vec::new();
        attribute(&mut counts, CTA_FILTER_ORIG_FLAGS, &by_original.to_ne_bytes());
        attribute(&mut counts, CTA_FILTER_REPLY_FLAGS, &by_reply.to_ne_bytes());
        attribute(&mut body, CTA_FILTER | NESTED, &counts);
    }
    request(GET, NLM_F_REQUEST | NLM_F_DUMP, family, &body)
}

/// How one end of a direction is written, and which flags make it count.
struct EndAttributes {
    v4: u16,
    v6: u16,
    port: u16,
    by_address: u32,
    by_port: u32,
}

const SOURCE: EndAttributes = EndAttributes {
    v4: CTA_IP_V4_SRC,
    v6: CTA_IP_V6_SRC,
    port: CTA_PROTO_SRC_PORT,
    by_address: BY_SOURCE,
    by_port: BY_SOURCE_PORT,
};

const DESTINATION: EndAttributes = EndAttributes {
    v4: CTA_IP_V4_DST,
    v6: CTA_IP_V6_DST,
    port: CTA_PROTO_DST_PORT,
    by_address: BY_DESTINATION,
    by_port: BY_DESTINATION_PORT,
};

/// Adds a UDP tuple with that end; the flags of what counts in it.
fn counted(body: &mut Vec<u8>, kind: u16, end: End, types: &EndAttributes) -> u32 {
    let mut flags = BY_PROTOCOL;
    let mut tuple = Vec::new();
    if let Some(IpAddr::V4(address)) = end.address {
        let mut ip = Vec::new();
        attribute(&mut ip, types.v4, &address.octets());
        attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &ip);
        flags |= types.by_address;
    }
    let mut proto = Vec::new();
    attribute(&mut proto, CTA_PROTO_NUM, &[UDP]);
    if let Some(port) = end.port {
        attribute(&mut proto, types.port, &port.to_be_bytes());
        flags |= types.by_port;
    }
    attribute(&mut tuple, CTA_TUPLE_PROTO | NESTED, &proto);
    attribute(body, kind | NESTED, &tuple);
    flags
}

/// The request that deletes an entry, acknowledged.
pub(super) fn delete(family: Family, entry: &Entry<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    attribute(&mut body, CTA_TUPLE_ORIG | NESTED, entry.original);
    for (kind, value) in [(CTA_ID, entry.id), (CTA_ZONE, entry.zone)] {
        if let Some(value) = value {
            attribute(&mut body, kind, value);
        }
    }
    request(DELETE, NLM_F_REQUEST | NLM_F_ACK, family, &body)
}

/// A request for one entry, acknowledged.
pub(super) fn get(
    family: Family,
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
) -> Vec<u8> {
    let mut ip = Vec::new();
    let mut proto = Vec::new();
    attribute(&mut proto, CTA_PROTO_NUM, &[protocol]);
    for (end, types) in [(source, &SOURCE), (destination, &DESTINATION)] {
        match end.ip() {
            IpAddr::V4(address) => attribute(&mut ip, types.v4, &address.octets()),
            IpAddr::V6(address) => attribute(&mut ip, types.v6, &address.octets()),
        }
        attribute(&mut proto, types.port, &end.port().to_be_bytes());
    }
    let mut tuple = Vec::new();
    attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &ip);
    attribute(&mut tuple, CTA_TUPLE_PROTO | NESTED, &proto);
    let mut body = Vec::new();
    attribute(&mut body, CTA_TUPLE_ORIG | NESTED, &tuple);
    request(GET, NLM_F_REQUEST | NLM_F_ACK, family, &body)
}

fn request(kind: u16, flags: u16, family: Family, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(NLMSG_HEADER + NFGENMSG + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number, given when it is sent, and port.
    bytes.extend([0; 8]);
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    bytes.extend([u8::try_from(family).unwrap_or_default(), 0, 0, 0]);
    bytes.extend(body);
    bytes
}

/// One end of a direction of `protocol`.
fn end(tuple: &[u8], protocol: u8, types: &EndAttributes) -> Option<(IpAddr, u16)> {
    let (mut address, mut port, mut wanted) = (None, None, false);
    for (kind, value) in attributes(tuple) {
        for (inner, value) in attributes(value) {
            match (kind, inner) {
                (CTA_TUPLE_IP, inner) if inner == types.v4 => {
                    address = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
                }
                (CTA_TUPLE_IP, inner) if inner == types.v6 => {
                    address = <[u8; 16]>::try_from(value).ok().map(IpAddr::from);
                }
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => wanted = value == [protocol],
                (CTA_TUPLE_PROTO, inner) if inner == types.port => {
                    port = <[u8; 2]>::try_from(value).ok().map(u16::from_be_bytes);
                }
                _ => {}
            }
        }
    }
    if wanted { address.zip(port) } else { None }
}

/// Types (without flags) and values; ends if the rest is not an attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
