//! Pools of load balancer addresses: ranges, and the services that they are open to.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{IpFamily, Labels, Service, special};

use super::address::{address, number};

/// A pool of load balancer addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancerPool {
    /// Name, unique among pools.
    pub name: String,
    /// Its addresses. No two ranges of all pools have one in common.
    pub ranges: Vec<AddressRange>,
    /// Services that ask for nothing get addresses of it.
    pub auto_assign: bool,
    /// Pools with a lower one come first; 0 comes last.
    pub priority: u32,
    /// Namespaces that it is open to; empty: to all.
    pub namespaces: Vec<String>,
    /// Labels of services that it is open to: those that have all labels of one of these; empty: to
    /// all.
    pub selectors: Vec<Labels>,
    /// IPv4 addresses that end in .0 or .255, which some old clients do not reach, are left out.
    pub avoid_buggy_ips: bool,
}

/// Addresses of one family, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    pub(super) family: IpFamily,
    pub(super) first: u128,
    pub(super) last: u128,
}

impl AddressRange {
    /// Reads `CIDR`, which is all its addresses, or `FROM-TO`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        const REMEDY: &str = "write a network such as 192.168.1.240/28, or a range such as \
                              192.168.1.240-192.168.1.250";
        let range = if text.contains('/') {
            let network: IpNetwork =
                text.parse().map_err(|_| format!("not a network; {REMEDY}"))?;
            if network.ip() != network.network() {
                let right = format!("{}/{}", network.network(), network.prefix());
                return Err(format!("has host bits set; write {right}"));
            }
            Self::of(network)
        } else {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            let read = |text: &str| text.trim().parse::<IpAddr>();
            let ends = read(from).and_then(|from| Ok((from, read(to)?)));
            let (from, to) = ends.map_err(|_| format!("not addresses; {REMEDY}"))?;
            if from.is_ipv4() != to.is_ipv4() || from > to {
                return Err(format!("does not lead from an address to a higher one; {REMEDY}"));
            }
            Self { family: IpFamily::of(from), first: number(from), last: number(to) }
        };
        for end in [range.first, range.last] {
            if let Some(what) = special(address(end, range.family)) {
                return Err(format!("contains {what}; {REMEDY}"));
            }
        }
        Ok(range)
    }

    /// All addresses of a network.
    pub fn of(network: IpNetwork) -> Self {
        let (first, last) = (number(network.network()), number(network.broadcast()));
        Self { family: IpFamily::of(network.ip()), first, last }
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    fn contains(self, address: IpAddr) -> bool {
        let number = number(address);
        self.family == IpFamily::of(address) && self.first <= number && number <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (address(self.first, self.family), address(self.last, self.family));
        if first == last { write!(out, "{first}") } else { write!(out, "{first}-{last}") }
    }
}

impl BalancerPool {
    /// Of this name, with nothing in it, given to whoever asks for nothing.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), auto_assign: true, ..Self::default() }
    }

    /// Whether it has an address, and gives it away.
    pub fn has(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address)) && !self.is_avoided(address)
    }

    /// How many addresses it gives away.
    pub fn size(&self) -> u128 {
        let count = |range: &AddressRange| {
            let all = (range.last - range.first).saturating_add(1);
            let avoided = if self.avoid_buggy_ips && range.family == IpFamily::V4 {
                ending(range, 0) + ending(range, 255)
            } else {
                0
            };
            all - avoided
        };
        self.ranges.iter().map(count).fold(0, u128::saturating_add)
    }

    /// Whether a service may have addresses of it.
    pub fn is_open_to(&self, service: &Service) -> bool {
        let has = |selector: &Labels| {
            selector.iter().all(|(key, value)| service.labels.get(key) == Some(value.as_str()))
        };
        (self.namespaces.is_empty()
            || self.namespaces.iter().any(|one| **one == *service.key.namespace))
            && (self.selectors.is_empty() || self.selectors.iter().any(has))
    }

    /// Ranges of a family, in the order they are used up.
    pub(super) fn ranges(&self, family: IpFamily) -> impl Iterator<Item = AddressRange> {
        self.ranges.iter().copied().filter(move |range| range.family == family)
    }

    pub(super) fn is_avoided(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.avoid_buggy_ips && matches!(v4.octets()[3], 0 | 255),
            IpAddr::V6(_) => false,
        }
    }

    /// Where it stands among pools: those for certain services first, then by priority.
    pub(super) fn order(&self) -> (bool, u32) {
        let for_all = self.namespaces.is_empty() && self.selectors.is_empty();
        // 0 wraps to the highest.
        (for_all, self.priority.wrapping_sub(1))
    }
}

/// How many addresses of a range end in this octet.
fn ending(range: &AddressRange, octet: u128) -> u128 {
    // Of the numbers below `end`.
    let below = |end: u128| (end + 255 - octet) / 256;
    below(range.last + 1) - below(range.first)
}

/// Whether pools make sense: named once each, no address in two of them.
///
/// # Errors
/// What is wrong, with the remedy.
pub(super) fn check(pools: &[BalancerPool]) -> Result<(), String> {
    for (index, pool) in pools.iter().enumerate() {
        let before = &pools[..index];
        if before.iter().any(|other| other.name == pool.name) {
            return Err(format!("pool {}: there are two of this name; rename one", pool.name));
        }
        if pool.ranges.is_empty() {
            return Err(format!("pool {}: has no addresses; give some", pool.name));
        }
        for (at, range) in pool.ranges.iter().enumerate() {
            let others = before.iter().flat_map(|other| {
                other.ranges.iter().map(move |range| (other.name.as_str(), range))
            });
            let own = pool.ranges[..at].iter().map(|range| (pool.name.as_str(), range));
            if let Some((name, other)) = others.chain(own).find(|(_, one)| one.overlaps(*range)) {
                return Err(format!(
                    "pool {}: {range} overlaps {other} of pool {name}: choose addresses that are \
                     in one pool only",
                    pool.name
                ));
            }
        }
    }
    Ok(())
}

/// Whether pools keep clear of a network that is something else.
///
/// # Errors
/// One does not: which, and the remedy.
pub(super) fn apart(pools: &[BalancerPool], other: IpNetwork, what: &str) -> Result<(), String> {
    for pool in pools {
        if let Some(range) =
            pool.ranges.iter().find(|range| range.overlaps(AddressRange::of(other)))
        {
            let other = if u32::from(other.prefix()) == if other.is_ipv4() { 32 } else { 128 } {
                other.ip().to_string()
            } else {
                other.to_string()
            };
            return Err(format!(
                "pool {}: {range} overlaps {other}, {what}: choose addresses that nothing else has",
                pool.name
            ));
        }
    }
    Ok(())
}
