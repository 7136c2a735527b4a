//! Frames of ARP (RFC 826, RFC 5227) and of neighbour discovery (RFC 4861), read and written. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Mac;

const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ICMPV6: u8 = 58;
/// What no router has passed on (RFC 4861, section 7.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A frame of either protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// IPv4.
    Arp(ArpFrame),
    /// IPv6.
    Ndp(NdpFrame),
}

/// An ARP packet in its Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArpFrame {
    /// Ethernet destination.
    pub to: Mac,
    /// Ethernet source.
    pub from: Mac,
    /// Operation 2; otherwise 1, a request.
    pub reply: bool,
    /// `ar$sha`
    pub sender_mac: Mac,
    /// `ar$spa`; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// `ar$tha`
    pub target_mac: Mac,
    /// `ar$tpa`
    pub target: Ipv4Addr,
}

/// A neighbour solicitation or advertisement in its Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NdpFrame {
    /// Ethernet destination.
    pub to: Mac,
    /// Ethernet source.
    pub from: Mac,
    /// IPv6 source; unspecified while its sender looks for duplicates (RFC 4862).
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// Which of both.
    pub kind: NdpKind,
    /// The address that is asked for or told of.
    pub target: Ipv6Addr,
    /// The link-layer address option of the kind: of the source, or of the target.
    pub link_address: Option<Mac>,
}

/// What an [`NdpFrame`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpKind {
    /// Who has the target?
    Solicitation,
    /// Its source has the target.
    Advertisement {
        /// S: it answers a solicitation.
        solicited: bool,
        /// O: it replaces what the receiver knows.
        overrides: bool,
    },
}

/// The group that whoever looks for `address` asks (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of an IPv6 group (RFC 2464, section 7).
fn multicast(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

impl Frame {
    /// Reads a frame with its Ethernet header. `None`: it is no valid one of these kinds.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let kind: [u8; 2] = part(bytes, 12)?;
        match kind {
            ARP => arp(bytes).map(Self::Arp),
            IPV6 => ndp(bytes).map(Self::Ndp),
            _ => None,
        }
    }

    /// Its bytes, from the Ethernet header on, without padding.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Arp(frame) => frame.encode(),
            Self::Ndp(frame) => frame.encode(),
        }
    }

    /// The address that it asks for or, if it answers, tells of.
    pub fn target(&self) -> IpAddr {
        match self {
            Self::Arp(frame) => frame.target.into(),
            Self::Ndp(frame) => frame.target.into(),
        }
    }

    /// Whether it is a question: an ARP request for an address that is not its sender's own, or a
    /// solicitation.
    pub fn asks(&self) -> bool {
        match self {
            Self::Arp(frame) => !frame.reply && frame.sender != frame.target,
            Self::Ndp(frame) => frame.kind == NdpKind::Solicitation,
        }
    }

    /// The neighbour that it comes from: its address, unless it has none yet, and its hardware address.
    pub fn sender(&self) -> (Option<IpAddr>, Mac) {
        match self {
            Self::Arp(frame) => {
                let address = (!frame.sender.is_unspecified()).then_some(frame.sender.into());
                (address, frame.sender_mac)
            }
            Self::Ndp(frame) => {
                let address = (!frame.source.is_unspecified()).then_some(frame.source.into());
                (address, frame.link_address.unwrap_or(frame.from))
            }
        }
    }

    /// Which address its sender says to have, with the hardware address; a sender that still looks
    /// for duplicates says so of none.
    pub fn claim(&self) -> Option<(IpAddr, Mac)> {
        match self {
            Self::Arp(frame) => self.sender().0.map(|address| (address, frame.sender_mac)),
            Self::Ndp(frame) => match frame.kind {
                NdpKind::Solicitation => self.sender().0.map(|address| (address, self.sender().1)),
                NdpKind::Advertisement { .. } => {
                    Some((frame.target.into(), frame.link_address.unwrap_or(frame.from)))
                }
            },
        }
    }

    /// Which address its sender is about to take: the target of a probe (RFC 5227) or of duplicate
    /// address detection (RFC 4862).
    pub fn probed(&self) -> Option<(IpAddr, Mac)> {
        let (address, mac) = self.sender();
        (self.asks() && address.is_none()).then_some((self.target(), mac))
    }

    /// The answer of the holder of its target, whose hardware address is `own`. `None`: it asks
    /// nothing.
    ///
    /// A solicitation is answered with S and O set; one of a sender without address by telling all
    /// nodes, with S clear (RFC 4861, section 7.2.4).
    pub fn answer(&self, own: Mac) -> Option<Self> {
        if !self.asks() {
            return None;
        }
        Some(match self {
            Self::Arp(asked) => Self::Arp(ArpFrame {
                to: asked.sender_mac,
                from: own,
                reply: true,
                sender_mac: own,
                sender: asked.target,
                target_mac: asked.sender_mac,
                target: asked.sender,
            }),
            Self::Ndp(asked) if asked.source.is_unspecified() => {
                Self::announcement(asked.target, own)
            }
            Self::Ndp(asked) => Self::Ndp(NdpFrame {
                to: asked.link_address.unwrap_or(asked.from),
                from: own,
                source: asked.target,
                destination: asked.source,
                kind: NdpKind::Advertisement { solicited: true, overrides: true },
                target: asked.target,
                link_address: Some(own),
            }),
        })
    }

    /// Tells all neighbours of the new holder of `address`: a gratuitous ARP request and a
    /// gratuitous reply, since some learn from the one and some from the other, or an unsolicited
    /// advertisement with O set (RFC 4861, section 7.2.6).
    pub fn gratuitous(address: IpAddr, own: Mac) -> Vec<Self> {
        let arp = |address, reply| {
            Self::Arp(ArpFrame {
                to: BROADCAST,
                from: own,
                reply,
                sender_mac: own,
                sender: address,
                // RFC 5944, section 4.6: a gratuitous reply says it in both places.
                target_mac: if reply { own } else { NOBODY },
                target: address,
            })
        };
        match address {
            IpAddr::V4(address) => vec![arp(address, false), arp(address, true)],
            IpAddr::V6(address) => vec![Self::announcement(address, own)],
        }
    }

    /// Asks whether a neighbour has `address`, without claiming it: an ARP probe, or a solicitation
    /// without source.
    pub fn probe(address: IpAddr, own: Mac) -> Self {
        match address {
            IpAddr::V4(address) => Self::Arp(request(own, Ipv4Addr::UNSPECIFIED, address)),
            IpAddr::V6(address) => Self::Ndp(solicitation(own, Ipv6Addr::UNSPECIFIED, address)),
        }
    }

    /// Asks the neighbour at `target` for its hardware address as `address`: the neighbour learns
    /// who has `address` though it ignores what is gratuitous (row L-45). To `mac` alone if it is
    /// known. `None`: the families differ.
    pub fn question(address: IpAddr, own: Mac, target: IpAddr, mac: Option<Mac>) -> Option<Self> {
        let mut frame = match (address, target) {
            (IpAddr::V4(address), IpAddr::V4(target)) => Self::Arp(request(own, address, target)),
            (IpAddr::V6(address), IpAddr::V6(target)) => {
                Self::Ndp(solicitation(own, address, target))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        if let Some(mac) = mac {
            match &mut frame {
                Self::Arp(frame) => frame.to = mac,
                Self::Ndp(frame) => frame.to = mac,
            }
        }
        Some(frame)
    }

    fn announcement(address: Ipv6Addr, own: Mac) -> Self {
        Self::Ndp(NdpFrame {
            to: multicast(ALL_NODES),
            from: own,
            source: address,
            destination: ALL_NODES,
            kind: NdpKind::Advertisement { solicited: false, overrides: true },
            target: address,
            link_address: Some(own),
        })
    }
}

fn request(own: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> ArpFrame {
    ArpFrame {
        to: BROADCAST,
        from: own,
        reply: false,
        sender_mac: own,
        sender,
        target_mac: NOBODY,
        target,
    }
}

/// A sender without address must not name its hardware address either (RFC 4861, section 4.3).
fn solicitation(own: Mac, source: Ipv6Addr, target: Ipv6Addr) -> NdpFrame {
    let group = solicited_node(target);
    NdpFrame {
        to: multicast(group),
        from: own,
        source,
        destination: group,
        kind: NdpKind::Solicitation,
        target,
        link_address: (!source.is_unspecified()).then_some(own),
    }
}

impl ArpFrame {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = [&self.to.0[..], &self.from.0, &ARP, &ARP_HEAD].concat();
        bytes.extend([0, if self.reply { 2 } else { 1 }]);
        bytes.extend(self.sender_mac.0);
        bytes.extend(self.sender.octets());
        bytes.extend(self.target_mac.0);
        bytes.extend(self.target.octets());
        bytes
    }
}

impl NdpFrame {
    fn encode(&self) -> Vec<u8> {
        let (kind, flags, option) = match self.kind {
            NdpKind::Solicitation => (SOLICITATION, 0, SOURCE_LINK_ADDRESS),
            NdpKind::Advertisement { solicited, overrides } => {
                let flags = u8::from(solicited) << 6 | u8::from(overrides) << 5;
                (ADVERTISEMENT, flags, TARGET_LINK_ADDRESS)
            }
        };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(self.target.octets());
        if let Some(mac) = self.link_address {
            message.extend([option, 1]);
            message.extend(mac.0);
        }
        let sum = !sum(self.source, self.destination, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut bytes = [&self.to.0[..], &self.from.0, &IPV6].concat();
        let length = u8::try_from(message.len()).unwrap_or_default();
        bytes.extend([0x60, 0, 0, 0, 0, length, ICMPV6, HOP_LIMIT]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(message);
        bytes
    }
}

/// `N` bytes from `from` on.
fn part<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from.checked_add(N)?)?.try_into().ok()
}

fn arp(bytes: &[u8]) -> Option<ArpFrame> {
    let head: [u8; 6] = part(bytes, 14)?;
    let reply = match part(bytes, 20)? {
        [0, 1] => false,
        [0, 2] => true,
        _ => return None,
    };
    let frame = ArpFrame {
        to: Mac(part(bytes, 0)?),
        from: Mac(part(bytes, 6)?),
        reply,
        sender_mac: Mac(part(bytes, 22)?),
        sender: Ipv4Addr::from(part::<4>(bytes, 28)?),
        target_mac: Mac(part(bytes, 32)?),
        target: Ipv4Addr::from(part::<4>(bytes, 38)?),
    };
    // A group as sender would have the answer go to many.
    (head == ARP_HEAD && !is_group(frame.sender_mac)).then_some(frame)
}

fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 == 1
}

/// By the rules of validation of RFC 4861, sections 7.1.1 and 7.1.2.
fn ndp(bytes: &[u8]) -> Option<NdpFrame> {
    let [version, ..] = part::<1>(bytes, 14)?;
    let length = usize::from(u16::from_be_bytes(part(bytes, 18)?));
    let message = bytes.get(54..54_usize.checked_add(length)?)?;
    let source = Ipv6Addr::from(part::<16>(bytes, 22)?);
    let destination = Ipv6Addr::from(part::<16>(bytes, 38)?);
    let carried = part(bytes, 20)? == [ICMPV6, HOP_LIMIT]
        && version >> 4 == 6
        && sum(source, destination, message) == u16::MAX;
    let [kind, code, _, _, flags] = part::<5>(message, 0)?;
    let (kind, option) = match kind {
        SOLICITATION => (NdpKind::Solicitation, SOURCE_LINK_ADDRESS),
        ADVERTISEMENT => {
            let kind = NdpKind::Advertisement {
                solicited: flags & 0x40 != 0,
                overrides: flags & 0x20 != 0,
            };
            (kind, TARGET_LINK_ADDRESS)
        }
        _ => return None,
    };
    let target = Ipv6Addr::from(part::<16>(message, 8)?);
    let link_address = link_address(message.get(24..)?, option)?;
    let frame = NdpFrame {
        to: Mac(part(bytes, 0)?),
        from: Mac(part(bytes, 6)?),
        source,
        destination,
        kind,
        target,
        link_address,
    };
    let valid = carried
        && code == 0
        && !target.is_multicast()
        && !source.is_multicast()
        && ![Some(frame.from), link_address].into_iter().flatten().any(is_group);
    (valid && frame.fits_its_kind()).then_some(frame)
}

impl NdpFrame {
    fn fits_its_kind(&self) -> bool {
        match self.kind {
            NdpKind::Solicitation if self.source.is_unspecified() => {
                self.destination == solicited_node(self.target) && self.link_address.is_none()
            }
            NdpKind::Solicitation => true,
            NdpKind::Advertisement { solicited, .. } => {
                !(solicited && self.destination.is_multicast())
            }
        }
    }
}

/// The link-layer address among options. `None`: they are broken.
fn link_address(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, eights] = part(options, 0)?;
        let length = usize::from(eights) * 8;
        if length == 0 {
            return None;
        }
        let option = options.get(..length)?;
        if kind == wanted && length == 8 {
            found = Some(Mac(part(option, 2)?));
        }
        options = &options[length..];
    }
    Some(found)
}

/// The sum of RFC 1071 over a message of ICMPv6 with its pseudo header (RFC 8200, section 8.1);
/// all ones if the message has its right checksum.
fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = [&source.octets()[..], &destination.octets(), message].concat();
    let mut sum: u32 = u32::from(ICMPV6) + u32::try_from(message.len()).unwrap_or_default();
    for word in words.chunks(2) {
        let low = word.get(1).copied().unwrap_or_default();
        sum += u32::from(word[0]) << 8 | u32::from(low);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests;
