//! Allocation of addresses. Decides over a [`Store`]; reads no clock and no file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::range::{Family, Pool, Range, Span};
use crate::store::{self, Change, Lease, Owner, Store};

/// The moment of an operation, read once at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Wall clock, seconds since 1970.
    pub(crate) unix: u64,
    /// `CLOCK_BOOTTIME` in milliseconds: goes on through clock jumps and suspend (row F30).
    pub(crate) boot_ms: u64,
    /// Boot id; empty when the kernel does not tell, and then no boot is ever noticed.
    pub(crate) boot: String,
}

/// What ADD asks for.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    /// One address is taken from each.
    pub(crate) pools: &'a [Pool],
    /// Addresses asked for by name; each goes to the first pool whose ranges hold it.
    pub(crate) requested: &'a [IpAddr],
    /// For whom.
    pub(crate) owner: &'a Owner,
    /// How long an address rests between two holders.
    pub(crate) reuse_delay: Duration,
    /// When.
    pub(crate) now: &'a Now,
    /// Who else has an address, as far as it can be told: upstream's plugin before ours.
    pub(crate) elsewhere: &'a dyn Fn(IpAddr) -> Option<Owner>,
}

/// One address given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The address.
    pub(crate) address: IpAddr,
    /// The range it came from: prefix length and gateway.
    pub(crate) range: Range,
}

/// Why no address was given out. Nothing is allocated then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Every address of a pool is leased or cools down.
    #[error("no IP addresses available in range set: {pool}")]
    Exhausted {
        /// The ranges.
        pool: String,
        /// How many addresses of the pool cool down.
        cooling: usize,
    },
    /// The attachment has an address already.
    #[error("{address} has been allocated to {id}, duplicate allocation is not allowed")]
    Duplicate {
        /// What it has.
        address: IpAddr,
        /// The container.
        id: String,
    },
    /// The requested address is leased.
    #[error("requested IP address {address} is not available in range set {pool}")]
    Taken {
        /// What was asked for.
        address: IpAddr,
        /// The ranges.
        pool: String,
        /// Who has it.
        holder: Owner,
    },
    /// The requested address is never given out.
    #[error("requested IP address {address} is {why}")]
    Reserved {
        /// What was asked for.
        address: IpAddr,
        /// What it is instead.
        why: &'static str,
    },
    /// No pool takes these: outside of every range, or more than one for a pool.
    #[error("failed to allocate all requested IPs: {0}")]
    Unplaced(String),
    /// Another network draws from the node's subnets, out of a store of its own.
    #[error(
        "network {network:?} cannot use \"subnet\": \"auto\": the node's subnets belong to network \
         {other:?}, which has leased {address}; give one of the two networks its own range"
    )]
    Shared {
        /// Who asks.
        network: String,
        /// Who has addresses of the node's subnets.
        other: String,
        /// One of them.
        address: IpAddr,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Gives one address of each pool to the owner, in the order of the pools, all or nothing.
///
/// # Errors
/// [`Refusal`]; nothing is allocated then (rows F31 to F33).
pub(crate) fn allocate(store: &mut dyn Store, ask: &Ask<'_>) -> Result<Vec<Grant>, Refusal> {
    forget_other_boot(store, ask.now)?;
    if let Some(address) = store.owned(ask.owner)?.first() {
        let id = ask.owner.container_id.clone();
        return Err(Refusal::Duplicate { address: *address, id });
    }
    let named = place(ask.pools, ask.requested)?;
    let mut change = Change::default();
    let mut grants = Vec::with_capacity(ask.pools.len());
    for (index, pool) in ask.pools.iter().enumerate() {
        let grant = match named.get(&index) {
            Some(address) => take_named(store, pool, *address, ask)?,
            None => take_next(store, pool, index, ask)?,
        };
        if let Ok(index) = u16::try_from(index) {
            change.cursors.insert(index, grant.address);
        }
        change.lease.push(Lease {
            address: grant.address,
            owner: ask.owner.clone(),
            since: ask.now.unix,
            boot_ms: ask.now.boot_ms,
        });
        grants.push(grant);
    }
    store.commit(change)?;
    Ok(grants)
}

/// Ends every lease of `owner`, whatever the ranges are by now (rows C67, F34).
/// Returns how many there were.
///
/// # Errors
/// The store failed.
pub(crate) fn release(
    store: &mut dyn Store,
    owner: &Owner,
    reuse_delay: Duration,
    now: &Now,
) -> Result<usize, store::Error> {
    let owned = store.owned(owner)?;
    end(store, owned, reuse_delay, now)
}

/// Ends every lease whose holder is not in `valid`, except those given at or after `drawn_ms`
/// (`CLOCK_BOOTTIME`, milliseconds): they are newer than the list (rows C73, F46).
///
/// # Errors
/// The store failed.
pub(crate) fn collect(
    store: &mut dyn Store,
    valid: &BTreeSet<Owner>,
    drawn_ms: u64,
    reuse_delay: Duration,
    now: &Now,
) -> Result<usize, store::Error> {
    let containers: BTreeSet<&str> = valid.iter().map(|o| o.container_id.as_str()).collect();
    let same_boot = store.state().boot == now.boot;
    let stale = store
        .leases()?
        .into_iter()
        .filter(|lease| {
            let listed = valid.contains(&lease.owner)
                || (lease.owner.ifname.is_empty()
                    && containers.contains(lease.owner.container_id.as_str()));
            let newer = same_boot && lease.boot_ms >= drawn_ms;
            !listed && !newer
        })
        .map(|lease| lease.address)
        .collect();
    end(store, stale, reuse_delay, now)
}

/// The first pool that could give nothing now, for STATUS. Changes nothing.
///
/// # Errors
/// The store failed.
pub(crate) fn exhausted<'a>(
    store: &dyn Store,
    pools: &'a [Pool],
    reuse_delay: Duration,
    now: &Now,
) -> Result<Option<&'a Pool>, store::Error> {
    if other_boot(store, now) {
        return Ok(pools.iter().find(|pool| pool.free.is_empty()));
    }
    for pool in pools {
        let free = first_free(store, &pool.free)?.is_some();
        if !free && due(store, pool, reuse_delay, now)?.0.is_empty() {
            return Ok(Some(pool));
        }
    }
    Ok(None)
}

/// No container survives a boot, so the leases of another boot are nobody's (row F29).
pub(crate) fn other_boot(store: &dyn Store, now: &Now) -> bool {
    !now.boot.is_empty() && store.state().boot != now.boot
}

fn forget_other_boot(store: &mut dyn Store, now: &Now) -> Result<(), store::Error> {
    if !other_boot(store, now) {
        return Ok(());
    }
    let forget = !store.state().boot.is_empty();
    store.commit(Change { forget, boot: Some(now.boot.clone()), ..Change::default() })
}

fn end(
    store: &mut dyn Store,
    addresses: Vec<IpAddr>,
    reuse_delay: Duration,
    now: &Now,
) -> Result<usize, store::Error> {
    let count = addresses.len();
    if count == 0 {
        return Ok(0);
    }
    let mut change = Change::default();
    if reuse_delay.is_zero() {
        change.free = addresses;
    } else {
        change.cool = addresses.into_iter().map(|address| (address, now.boot_ms)).collect();
    }
    store.commit(change)?;
    Ok(count)
}

/// Gives each requested address to a pool: by pool index.
fn place(pools: &[Pool], requested: &[IpAddr]) -> Result<BTreeMap<usize, IpAddr>, Refusal> {
    let mut rest: Vec<IpAddr> = Vec::new();
    for address in requested {
        if !rest.contains(address) {
            rest.push(*address);
        }
    }
    let mut named = BTreeMap::new();
    for (index, pool) in pools.iter().enumerate() {
        if let Some(at) = rest.iter().position(|address| pool.range_of(*address).is_some()) {
            named.insert(index, rest.remove(at));
        }
    }
    if rest.is_empty() {
        return Ok(named);
    }
    let list: Vec<String> = rest.iter().map(|address| unplaced(pools, *address)).collect();
    Err(Refusal::Unplaced(list.join(", ")))
}

/// Why a requested address is given to no pool.
fn unplaced(pools: &[Pool], address: IpAddr) -> String {
    if pools.iter().any(|pool| pool.range_of(address).is_some()) {
        return format!("{address} is in the same range set as another requested address");
    }
    let all: Vec<String> = pools.iter().map(ToString::to_string).collect();
    format!("{address} is outside the range {}", all.join(", "))
}

/// A requested address is not made to wait for its cool-down: who names it wants just that one.
fn take_named(
    store: &dyn Store,
    pool: &Pool,
    address: IpAddr,
    ask: &Ask<'_>,
) -> Result<Grant, Refusal> {
    let Some(range) = pool.range_of(address) else {
        return Err(Refusal::Unplaced(unplaced(std::slice::from_ref(pool), address)));
    };
    if !pool.offers(address) {
        let why = if pool.ranges.iter().any(|range| range.gateway == address) {
            "the subnet's gateway"
        } else if address == range.subnet.network() {
            "the subnet's network address"
        } else if address == range.subnet.broadcast() && Family::of(address) == Family::V4 {
            "the subnet's broadcast address"
        } else {
            "excluded by the configuration"
        };
        return Err(Refusal::Reserved { address, why });
    }
    let holder = store.lease(address)?.map(|lease| lease.owner);
    if let Some(holder) = holder.or_else(|| (ask.elsewhere)(address)) {
        return Err(Refusal::Taken { address, pool: pool.to_string(), holder });
    }
    Ok(Grant { address, range: range.clone() })
}

fn take_next(
    store: &mut dyn Store,
    pool: &Pool,
    index: usize,
    ask: &Ask<'_>,
) -> Result<Grant, Refusal> {
    let cursor = u16::try_from(index).ok().and_then(|i| store.state().cursors.get(&i).copied());
    let order = pool.round_robin(cursor);
    let mut found = first_untaken(store, &order, ask)?;
    if found.is_none() {
        let (due, resting) = due(store, pool, ask.reuse_delay, ask.now)?;
        if due.is_empty() {
            return Err(Refusal::Exhausted { pool: pool.to_string(), cooling: resting });
        }
        store.commit(Change { free: due, ..Change::default() })?;
        found = first_untaken(store, &order, ask)?;
    }
    let Some((range, address)) = found else {
        return Err(Refusal::Exhausted { pool: pool.to_string(), cooling: 0 });
    };
    Ok(Grant { address, range: pool.ranges[range].clone() })
}

/// The first free address that nobody else has either.
fn first_untaken(
    store: &dyn Store,
    order: &[(usize, Span)],
    ask: &Ask<'_>,
) -> Result<Option<(usize, IpAddr)>, store::Error> {
    for (index, span) in order {
        let mut rest = Some(*span);
        while let Some(span) = rest {
            let Some(address) = store.free_in(span)? else { break };
            if (ask.elsewhere)(address).is_none() {
                return Ok(Some((*index, address)));
            }
            rest = span.after(address);
        }
    }
    Ok(None)
}

fn first_free(
    store: &dyn Store,
    order: &[(usize, Span)],
) -> Result<Option<(usize, IpAddr)>, store::Error> {
    for (index, span) in order {
        if let Some(address) = store.free_in(*span)? {
            return Ok(Some((*index, address)));
        }
    }
    Ok(None)
}

/// The addresses of `pool` whose cool-down is over, and how many still rest. A cool-down that
/// began in the future can only come from another clock, and is over (row F30).
fn due(
    store: &dyn Store,
    pool: &Pool,
    reuse_delay: Duration,
    now: &Now,
) -> Result<(Vec<IpAddr>, usize), store::Error> {
    let delay = u64::try_from(reuse_delay.as_millis()).unwrap_or(u64::MAX);
    let mut over = Vec::new();
    let mut resting = 0;
    for (_, span) in &pool.free {
        for (address, since) in store.cooling_in(*span)? {
            match now.boot_ms.checked_sub(since) {
                Some(age) if age < delay => resting += 1,
                Some(_) | None => over.push(address),
            }
        }
    }
    Ok((over, resting))
}

#[cfg(test)]
mod tests;
