//! Who has which load balancer address, decided over all services at once: what stands in status is
//! confirmed first, oldest first; then come requests, then the rest, each in the order of waiting.
//! Nothing is given before all services are known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::{ObjectKey, Service, ServiceType};

use super::Pools;
use super::balancer::{Reach, assign, give, names};
use super::held::Held;
use super::wish::{addresses, is_balanced, is_given, wish};

/// Why a service waits where no addresses are given away.
const NO_POOL: &str = "there is no pool of load balancer addresses: set --lb-pool, or give one in \
     status.loadBalancer.ingress";

/// What is to become of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Services whose addresses are to be others, as they are to be.
    pub changed: Vec<Service>,
    /// Services that wait for an address, and why, longest first.
    pub waiting: Vec<(ObjectKey, String)>,
    /// Those, and services that have waited and are to be given something. Until that is stored they
    /// are no later than they were.
    pub queue: Vec<ObjectKey>,
}

/// Decides who has which address. `before` is the queue of last time, longest first.
pub fn settle<'a>(
    pools: &Pools,
    services: impl Iterator<Item = &'a Arc<Service>>,
    before: &[ObjectKey],
) -> Settled {
    let mut held = Held::default();
    let mut ours: BTreeMap<(u64, &ObjectKey), &Service> = BTreeMap::new();
    for service in services.filter(|one| one.service_type == ServiceType::LoadBalancer) {
        match is_balanced(service) && !is_given(service) {
            true => drop(ours.insert((service.created, &service.key), service)),
            // Whoever gave it, it is in use.
            false => held.hold(service),
        }
    }
    if pools.balancers.is_empty() {
        let without = ours.into_values().filter(|one| one.ingress.is_empty());
        let queue: Vec<ObjectKey> = without.map(|one| one.key.clone()).collect();
        let waiting = queue.iter().map(|key| (key.clone(), NO_POOL.to_owned())).collect();
        return Settled { changed: Vec::new(), waiting, queue };
    }
    let place: BTreeMap<&ObjectKey, usize> =
        before.iter().enumerate().map(|(place, key)| (key, place)).collect();
    let place = |key: &ObjectKey| place.get(key).copied().unwrap_or(before.len());
    let mut settled = Settled::default();
    // Who waits, by how long, with what it has.
    let mut queue: BTreeMap<(usize, u64, &ObjectKey), (&Service, Vec<IpAddr>)> = BTreeMap::new();
    for (by, service) in ours {
        let had: Vec<IpAddr> = addresses(service).collect();
        let kept = assign(pools, &held, service, &had, Reach::Kept);
        held.hold_at(service, &kept.addresses);
        match kept.pending {
            Some(_) => drop(queue.insert((place(by.1), by.0, by.1), (service, kept.addresses))),
            None => settled.changed.extend(change(pools, service, &kept.addresses)),
        }
    }
    let mut pending: BTreeMap<&ObjectKey, String> = BTreeMap::new();
    let mut served: BTreeSet<&ObjectKey> = BTreeSet::new();
    for with_request in [true, false] {
        for (service, had) in queue.values() {
            let requests = wish(service).is_ok_and(|wish| !wish.addresses.is_empty());
            if requests != with_request {
                continue;
            }
            let got = assign(pools, &held, service, had, Reach::New);
            held.hold_at(service, &got.addresses);
            if let Some(changed) = change(pools, service, &got.addresses) {
                settled.changed.push(changed);
                served.insert(&service.key);
            }
            pending.extend(got.pending.map(|why| (&service.key, why)));
        }
    }
    for (.., key) in queue.into_keys() {
        let why = pending.remove(key);
        if why.is_some() || served.contains(key) {
            settled.queue.push(key.clone());
        }
        settled.waiting.extend(why.map(|why| (key.clone(), why)));
    }
    settled
}

/// A service with other addresses than it has, or of pools with other names.
fn change(pools: &Pools, service: &Service, now: &[IpAddr]) -> Option<Service> {
    let same = addresses(service).eq(now.iter().copied())
        && service.annotations.get(Service::LB_ALLOCATED).unwrap_or_default()
            == names(&pools.balancers, now);
    (!same).then(|| {
        let mut service = service.clone();
        give(&mut service, &pools.balancers, now);
        service
    })
}

#[cfg(test)]
mod tests;
