//! Names of addresses: below `in-addr.arpa` and `ip6.arpa` (RFC 1035 section 3.5, RFC 3596).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;
use ipnetwork::IpNetwork;

use super::place::{Found, Place};
use crate::zone::Zone;

/// What a name says of an address.
struct Reverse {
    /// Its first bits, in the upper end.
    bits: u128,
    /// How many.
    length: u8,
    v4: bool,
    /// Labels follow that say nothing of an address.
    more: bool,
}

/// Addresses of our networks are ours whether they have a name or not (row D-57); others are if they
/// have one.
pub(super) fn find<'a>(zone: &Zone, name: &Name) -> Option<Found<'a>> {
    let reverse = parse(name)?;
    let (first, last) = reverse.range();
    let inside = |network: &&IpNetwork| {
        network.prefix() <= reverse.length && network.contains(first) && network.contains(last)
    };
    let network = zone.settings().networks.iter().filter(inside).max_by_key(|net| net.prefix());
    let whole = first == last && !reverse.more;
    let known = || zone.owners(first).any(|(_, names)| has_names(zone, names, first));
    let labels = match network {
        Some(network) if first.is_ipv4() => usize::from(network.prefix()).div_ceil(8),
        Some(network) => usize::from(network.prefix()).div_ceil(4),
        None if whole && known() => name.iter().len() - 2,
        None => return None,
    };
    let apex = labels + 2;
    let place = if whole && known() {
        Place::Reverse(first)
    } else if name.iter().len() == apex {
        Place::Apex
    } else if !reverse.more && first != last && zone.names_between(first, last) {
        Place::Empty
    } else {
        Place::Missing
    };
    Some(Found { place, apex })
}

/// Whether the service gives the address a name; with host names only, some do not.
fn has_names(zone: &Zone, names: &crate::zone::ServiceNames, address: IpAddr) -> bool {
    let hosts = names.hosts();
    !zone.settings().hostnames_only
        || !names.is_headless()
        || hosts.iter().any(|host| host.address == address && host.hostname.is_some())
}

impl Reverse {
    /// The first and the last address that begin with these bits.
    fn range(&self) -> (IpAddr, IpAddr) {
        let rest = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
        let (first, last) = (self.bits, self.bits | rest);
        if !self.v4 {
            return (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into());
        }
        let v4 = |bits: u128| Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap_or(0));
        (v4(first).into(), v4(last).into())
    }
}

fn parse(name: &Name) -> Option<Reverse> {
    let mut labels = name.iter().rev();
    if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let family = labels.next()?;
    let v4 = family.eq_ignore_ascii_case(b"in-addr");
    if !v4 && !family.eq_ignore_ascii_case(b"ip6") {
        return None;
    }
    let (step, width) = if v4 { (8, 32) } else { (4, 128) };
    let mut reverse = Reverse { bits: 0, length: 0, v4, more: false };
    for label in labels {
        let part = if v4 { octet(label) } else { nibble(label) };
        match part.filter(|_| reverse.length < width) {
            Some(part) => {
                reverse.length += step;
                reverse.bits |= u128::from(part) << (128 - reverse.length);
            }
            None => {
                reverse.more = true;
                break;
            }
        }
    }
    Some(reverse)
}

fn octet(label: &[u8]) -> Option<u8> {
    let text = str::from_utf8(label).ok()?;
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
