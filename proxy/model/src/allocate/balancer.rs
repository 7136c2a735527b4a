//! Load balancer addresses: requested, kept, shared, or the lowest free one of a pool.
//!
//! Addresses that were given here are told from those of documents and of other controllers by the
//! annotation [`Service::LB_ALLOCATED`], which names the pools.

use std::net::IpAddr;

use crate::{Ingress, IpFamily, IpFamilyPolicy, Service, special};

use super::held::{Held, Standing, Use};
use super::pool::BalancerPool;
use super::wish::{Wish, addresses, is_allocated, is_balanced, is_given, wish};
use super::{Pools, Refused, Work, refused};

/// What a service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    /// At most one a family, in the order of the service's families.
    pub(super) addresses: Vec<IpAddr>,
    /// Why it has not all that it wants.
    pub(super) pending: Option<String>,
}

/// How far to go for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// What it has, if it may keep it.
    Kept,
    /// New ones as well.
    New,
}

impl Work<'_> {
    /// Settles load balancer addresses, except those that another service has waited for longer.
    ///
    /// # Errors
    /// The document gives an address that another service was given here.
    pub(super) fn balancer(&self, service: &mut Service) -> Result<(), Refused> {
        let before = self.previous.filter(|previous| is_allocated(previous));
        let had: Vec<IpAddr> = before.map(addresses).into_iter().flatten().collect();
        // Who writes back what `get -o yaml` shows need not write the annotation back.
        let is_same = !had.is_empty() && addresses(service).eq(had.iter().copied());
        if is_given(service) && !is_same {
            return self.check_given(service);
        }
        let marked = is_allocated(service);
        let had = match before {
            Some(_) => had,
            None if marked => addresses(service).collect(),
            None => Vec::new(),
        };
        if !is_balanced(service) {
            // It is not ours any more, and neither is what it had of us.
            if marked || is_same {
                give(service, &self.pools.balancers, &[]);
            }
            return Ok(());
        }
        if self.pools.balancers.is_empty() {
            // Nothing is given, and nothing is taken.
            match before.and_then(|before| before.annotations.get(Service::LB_ALLOCATED)) {
                Some(mark) => set(service, &had, mark),
                // The mark comes from another store or was written by hand: the address may be in use
                // elsewhere.
                None => unmark(service),
            }
            return Ok(());
        }
        let held = &self.allocator.held;
        let is_settled = held.standing() == Standing::Settled;
        let reach = if is_settled { Reach::New } else { Reach::Kept };
        let assigned = assign(self.pools, held, service, &had, reach);
        give(service, &self.pools.balancers, &assigned.addresses);
        Ok(())
    }

    /// Whether the addresses of a document are nobody's that got them here: whoever was given one by
    /// hand goes first at the next start, and the other service would lose it.
    fn check_given(&self, service: &Service) -> Result<(), Refused> {
        let before = self.previous.filter(|previous| is_given(previous));
        let stood = |ip: IpAddr| before.is_some_and(|before| addresses(before).any(|it| it == ip));
        for (index, ingress) in service.ingress.iter().enumerate() {
            let Some(ip) = ingress.ip.filter(|ip| !stood(*ip)) else { continue };
            if let Some(owner) = self.allocator.held.allocated(ip, &service.key) {
                let reason = format!(
                    "service {owner} has {ip} of a pool; give another address, or delete that \
                     service first"
                );
                return refused(format!("status.loadBalancer.ingress[{index}].ip"), reason);
            }
        }
        Ok(())
    }
}

/// Decides which addresses a service has. `had` are those that it had; what it wants stays decided
/// for those that have its wishes. If those cannot be read it gets nothing new.
pub(super) fn assign(
    pools: &Pools,
    held: &Held,
    service: &Service,
    had: &[IpAddr],
    reach: Reach,
) -> Assigned {
    // A slip of the pen takes no running address away.
    let (wish, reach, slip) = match wish(service) {
        Ok(wish) => (wish, reach, None),
        Err(why) => (Wish::default(), Reach::Kept, Some(why)),
    };
    let search = Search { pools, held, service, wish: &wish, using: Use::of(service) };
    let (mut found, mut why, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for family in service.ip_families {
        let of = |ip: &&IpAddr| IpFamily::of(**ip) == *family;
        let kept = had.iter().find(of).filter(|ip| search.may_keep(**ip)).copied();
        let asked = wish.addresses.iter().find(of).copied();
        let answer = match (kept, asked) {
            (Some(kept), _) => Ok(kept),
            (None, _) if reach == Reach::Kept => Err(String::new()),
            (None, Some(asked)) => search.asked(asked).map(|()| asked),
            (None, None) if !search.knows(*family) => {
                absent.push(format!("no pool has {family:?} addresses"));
                continue;
            }
            (None, None) => search.free(*family),
        };
        match answer {
            Ok(ip) => found.push(ip),
            Err(reason) => why.push(reason),
        }
    }
    let needs_all = service.ip_family_policy == IpFamilyPolicy::RequireDualStack;
    if needs_all || (found.is_empty() && why.is_empty()) {
        why.extend(absent);
    }
    if needs_all && !why.is_empty() {
        found.retain(|ip| had.contains(ip));
    }
    let pending = slip.or_else(|| (!why.is_empty()).then(|| why.join("; ")));
    Assigned { addresses: found, pending }
}

/// Gives a service these addresses, and marks them.
pub(super) fn give(service: &mut Service, pools: &[BalancerPool], addresses: &[IpAddr]) {
    set(service, addresses, &names(pools, addresses));
}

/// The pools that addresses are of, each once.
pub(super) fn names(pools: &[BalancerPool], addresses: &[IpAddr]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for ip in addresses {
        let pool = pools.iter().find(|pool| pool.has(*ip)).map_or("", |pool| &pool.name);
        if !names.contains(&pool) {
            names.push(pool);
        }
    }
    names.join(",")
}

fn set(service: &mut Service, addresses: &[IpAddr], mark: &str) {
    let ingress = |ip: &IpAddr| Ingress { ip: Some(*ip), hostname: None, proxy: false };
    service.ingress = addresses.iter().map(ingress).collect();
    if addresses.is_empty() {
        return unmark(service);
    }
    let mut annotations = service.annotations.to_map();
    annotations.insert(Service::LB_ALLOCATED.to_owned(), mark.to_owned());
    service.annotations = annotations.into_iter().collect();
}

/// Its addresses were not given here.
fn unmark(service: &mut Service) {
    if is_allocated(service) {
        let mut annotations = service.annotations.to_map();
        annotations.remove(Service::LB_ALLOCATED);
        service.annotations = annotations.into_iter().collect();
    }
}

struct Search<'a> {
    pools: &'a Pools,
    held: &'a Held,
    service: &'a Service,
    wish: &'a Wish<'a>,
    /// What it does with an address.
    using: Use,
}

impl Search<'_> {
    /// The pool that it asks for, if there is one of this name.
    fn pool_asked(&self) -> Option<&BalancerPool> {
        let name = self.wish.pool?;
        self.pools.balancers.iter().find(|pool| pool.name == name)
    }

    /// Whether an address that it had stays: whatever became of pools' names and ranges.
    fn may_keep(&self, ip: IpAddr) -> bool {
        let asked = self.wish.addresses.iter().find(|asked| asked.is_ipv4() == ip.is_ipv4());
        let open = |pool: &&BalancerPool| pool.has(ip) && pool.is_open_to(self.service);
        asked.is_none_or(|asked| *asked == ip)
            && self.pool_asked().is_none_or(|pool| pool.has(ip))
            && self.pools.balancers.iter().any(|pool| open(&pool))
            && self.unfit(ip).is_none()
            && self.held.clash(ip, &self.service.key, &self.using).is_none()
    }

    /// Whether it can have the address that it asks for.
    fn asked(&self, ip: IpAddr) -> Result<(), String> {
        let why = |reason: String| Err(format!("it asks for {ip}: {reason}"));
        let Some(pool) = self.pools.balancers.iter().find(|pool| pool.has(ip)) else {
            return why("no pool has it; choose another address or extend a pool".to_owned());
        };
        if let Some(name) = self.wish.pool
            && name != pool.name
        {
            return why(format!("it is in pool {}, and it asks for pool {name}, too", pool.name));
        }
        if !pool.is_open_to(self.service) {
            return why(self.closed(pool));
        }
        match self.unfit(ip).or_else(|| self.held.clash(ip, &self.service.key, &self.using)) {
            Some(reason) => why(reason),
            None => Ok(()),
        }
    }

    fn closed(&self, pool: &BalancerPool) -> String {
        let name = &pool.name;
        format!("pool {name} is not open to it; see the pool's namespaces and selectors")
    }

    /// Whether there are addresses of this family for it.
    fn knows(&self, family: IpFamily) -> bool {
        match self.wish.pool {
            Some(_) => self.pool_asked().is_none_or(|pool| pool.ranges(family).next().is_some()),
            None => self.candidates().iter().any(|pool| pool.ranges(family).next().is_some()),
        }
    }

    /// Pools that give it addresses, in order.
    fn candidates(&self) -> Vec<&BalancerPool> {
        if self.wish.pool.is_some() {
            return self.pool_asked().into_iter().collect();
        }
        let all = self.pools.balancers.iter();
        let open = all.filter(|pool| pool.auto_assign && pool.is_open_to(self.service));
        let mut open: Vec<&BalancerPool> = open.collect();
        open.sort_by_key(|pool| pool.order());
        open
    }

    /// The lowest free address of a family, or one in company.
    fn free(&self, family: IpFamily) -> Result<IpAddr, String> {
        if let Some(name) = self.wish.pool {
            let Some(pool) = self.pool_asked() else {
                let all = self.pools.balancers.iter().map(|pool| pool.name.as_str());
                let all = all.collect::<Vec<_>>().join(", ");
                return Err(format!("it asks for pool {name}, and there are only: {all}"));
            };
            if !pool.is_open_to(self.service) {
                return Err(self.closed(pool));
            }
        }
        let pools = self.candidates();
        let fits = |ip: &IpAddr| {
            IpFamily::of(*ip) == family
                && pools.iter().any(|pool| pool.has(*ip))
                && self.unfit(*ip).is_none()
                && self.held.clash(*ip, &self.service.key, &self.using).is_none()
        };
        if let Some(shared) = self.held.company(self.service).find(fits) {
            return Ok(shared);
        }
        let leave_out = |pool: &BalancerPool, ip| pool.is_avoided(ip) || self.unfit(ip).is_some();
        let free = pools.iter().find_map(|pool| {
            let mut ranges = pool.ranges(family);
            ranges.find_map(|range| self.held.lowest_free(range, |ip| leave_out(pool, ip)))
        });
        free.ok_or_else(|| {
            let names = pools.iter().filter(|pool| pool.ranges(family).next().is_some());
            let names: Vec<&str> = names.map(|pool| pool.name.as_str()).collect();
            format!(
                "all {family:?} addresses of pool {} are in use; extend it, or delete a service",
                names.join(", ")
            )
        })
    }

    /// Why nobody can have an address, whatever pools say.
    fn unfit(&self, ip: IpAddr) -> Option<String> {
        let owner = || self.pools.guarded.owner(ip).map(|whose| format!("the address of {whose}"));
        special(ip).map(str::to_owned).or_else(owner).map(|what| format!("it is {what}"))
    }
}

#[cfg(test)]
pub(super) mod tests;
