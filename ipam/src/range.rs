//! Address ranges and pools: arithmetic only, no state.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Address family. IPv4 sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// The family of `address`.
    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address of this family with the value `number`. Bits beyond the family are dropped.
    pub(crate) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => {
                IpAddr::V4(Ipv4Addr::from(u32::try_from(number & 0xffff_ffff).unwrap_or(u32::MAX)))
            }
            Self::V6 => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

/// The value of an address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// `address` with an IPv4-mapped IPv6 address as IPv4 (row C46).
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
    }
}

/// Consecutive addresses of one family, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Family of both ends.
    pub(crate) family: Family,
    /// Lowest address.
    pub(crate) first: u128,
    /// Highest address.
    pub(crate) last: u128,
}

impl Span {
    /// The addresses of `network`.
    pub(crate) fn of(network: IpNetwork) -> Self {
        let family = Family::of(network.ip());
        Self { family, first: number(network.network()), last: number(network.broadcast()) }
    }

    /// Just `address`.
    pub(crate) fn single(address: IpAddr) -> Self {
        Self { family: Family::of(address), first: number(address), last: number(address) }
    }

    /// Whether `address` lies between the ends.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.family == Family::of(address) && (self.first..=self.last).contains(&number(address))
    }

    /// What follows `address`, one of these; `None` behind the last.
    pub(crate) fn after(&self, address: IpAddr) -> Option<Self> {
        let first = number(address).checked_add(1).filter(|first| *first <= self.last)?;
        Some(Self { first, ..*self })
    }

    /// Whether the two share an address.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// What remains of `self` without `holes`, in ascending order.
    pub(crate) fn without(self, holes: &[Self]) -> Vec<Self> {
        let mut holes: Vec<_> = holes.iter().filter(|hole| hole.overlaps(&self)).collect();
        holes.sort_unstable();
        let mut rest = Vec::new();
        let mut next = self.first;
        for hole in holes {
            if hole.first > next {
                rest.push(Self { first: next, last: hole.first - 1, ..self });
            }
            if hole.last >= self.last {
                return rest;
            }
            next = next.max(hole.last + 1);
        }
        rest.push(Self { first: next, ..self });
        rest
    }
}

/// A range of a configuration, checked and completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Subnet, host bits zero.
    pub(crate) subnet: IpNetwork,
    /// What `rangeStart` and `rangeEnd` span, defaults filled in.
    pub(crate) span: Span,
    /// Gateway of the subnet; never allocated.
    pub(crate) gateway: IpAddr,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { family, first, last } = self.span;
        write!(f, "{}-{}", family.address(first), family.address(last))
    }
}

/// One address is taken from each pool: an inner list of `ranges`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// At least one, all of one family, in the order of the configuration.
    pub(crate) ranges: Vec<Range>,
    /// What may be handed out: the index of its range and the addresses, in the order of the
    /// ranges. Empty when gateways and exclusions cover everything.
    pub(crate) free: Vec<(usize, Span)>,
}

impl Pool {
    /// A pool of `ranges` that never hands out `excluded`, a gateway of one of its ranges, a network
    /// address or an IPv4 broadcast address.
    pub(crate) fn new(ranges: Vec<Range>, excluded: &[Span]) -> Self {
        let mut holes = excluded.to_vec();
        for range in &ranges {
            holes.push(Span::single(range.gateway));
            holes.push(Span::single(range.subnet.network()));
            if range.span.family == Family::V4 {
                holes.push(Span::single(range.subnet.broadcast()));
            }
        }
        let free = ranges
            .iter()
            .enumerate()
            .flat_map(|(index, range)| {
                range.span.without(&holes).into_iter().map(move |span| (index, span))
            })
            .collect();
        Self { ranges, free }
    }

    /// Family of all its ranges.
    pub(crate) fn family(&self) -> Family {
        self.ranges.first().map_or(Family::V4, |range| range.span.family)
    }

    /// The range whose span holds `address`.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.span.contains(address))
    }

    /// Whether `address` may be handed out.
    pub(crate) fn offers(&self, address: IpAddr) -> bool {
        self.free.iter().any(|(_, span)| span.contains(address))
    }

    /// Everything that may be handed out, once each, in round-robin order: what follows `last`,
    /// then the other spans, and at the end the part before `last` and `last` itself (rows 2b:
    /// the last address of a pool filled otherwise is found).
    pub(crate) fn round_robin(&self, last: Option<IpAddr>) -> Vec<(usize, Span)> {
        let Some((position, index, span)) = last.and_then(|last| self.position(last)) else {
            return self.free.clone();
        };
        let last = last.map_or(0, number);
        let mut order = Vec::with_capacity(self.free.len() + 1);
        if last < span.last {
            order.push((index, Span { first: span.first.max(last + 1), ..span }));
        }
        order.extend_from_slice(&self.free[position + 1..]);
        order.extend_from_slice(&self.free[..position]);
        if last >= span.first {
            order.push((index, Span { last: last.min(span.last), ..span }));
        }
        order
    }

    /// The free span to go on from after `last`: the one that holds it, else the next higher one
    /// of the same range.
    fn position(&self, last: IpAddr) -> Option<(usize, usize, Span)> {
        let range = self.ranges.iter().position(|range| range.span.contains(last))?;
        self.free
            .iter()
            .enumerate()
            .find(|(_, (index, span))| *index == range && span.last >= number(last))
            .map(|(position, (index, span))| (position, *index, *span))
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
