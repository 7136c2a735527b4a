//! Addresses of load balancers: which of them this node is to hold, once their rules are in the
//! kernel (row L-38), and what the thread that announces them says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::allocate::BalancerPool;
use causeway_model::{Endpoint, Index, ObjectKey, Service, ServiceType, TrafficPolicy};
use causeway_ruleset::plan::{At, Plan};

use super::Engine;
use crate::announce::Announce;
use crate::conditions::Concern;
use crate::log;
use crate::state::{AnnounceState, Committed};

/// So many problems stand in `status`.
const SHOWN: usize = 20;

/// What the thread was told.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// `None` before it is started, and while a node among several announces nothing.
    announce: Option<Announce>,
    /// What each service has for this node to announce; services with nothing are absent.
    wanted: BTreeMap<ObjectKey, Vec<IpAddr>>,
    told: BTreeMap<IpAddr, ()>,
}

impl Engine {
    /// Has a thread announce what there is from the next commit on.
    pub(crate) fn announce_by(&mut self, announce: Announce) {
        self.holding.announce = Some(announce);
    }

    /// What was committed may have given a service an address or its first endpoint, or taken them.
    pub(super) fn hold_addresses(&mut self, commit: &Committed) {
        let Some(announce) = &self.holding.announce else { return };
        let grounds = Grounds {
            index: &self.state.index,
            plan: &self.state.plan,
            pools: &self.objects.pools.balancers,
            own: &self.state.node.name,
        };
        let wanted = &mut self.holding.wanted;
        // The rest is as it was.
        let differs = match commit.full {
            true => {
                renew(wanted, &grounds, grounds.index.services().keys()) | forget(wanted, &grounds)
            }
            false => {
                let planned = commit.delta.services.iter().map(|(key, ..)| key);
                renew(wanted, &grounds, commit.touched.services.iter().chain(planned))
            }
        };
        if !differs {
            return;
        }
        let all: BTreeMap<IpAddr, ()> = wanted.values().flatten().map(|ip| (*ip, ())).collect();
        if all != self.holding.told {
            announce.hold(all.clone());
            self.holding.told = all;
        }
    }

    /// Keeps what the thread says, for metrics and `status`.
    pub(super) fn on_announced(&mut self, state: AnnounceState) {
        for (address, mac) in &state.claims {
            tracing::warn!(%address, %mac, "another machine claims an address that this node holds");
        }
        let new = self.state.conditions.set_lines(Concern::Announce, problems(&state));
        for problem in new {
            tracing::error!("{}: {problem}", Concern::Announce);
        }
        let hints = state.silent.iter().map(|name| {
            format!(
                "nobody has asked for an address on {name} for ten minutes; if clients do not find \
                 announced ones, the interface may pass broadcasts on in promiscuous mode only \
                 (ip link set {name} promisc on)"
            )
        });
        let new = self.state.conditions.update_warnings(Concern::Announce, hints.collect());
        for hint in new {
            tracing::warn!("{}: {hint}", Concern::Announce);
        }
        self.state.announced = Some(state);
    }
}

/// Looks at these services again. Whether anything differs from what was known.
fn renew<'a>(
    wanted: &mut BTreeMap<ObjectKey, Vec<IpAddr>>,
    grounds: &Grounds<'_>,
    keys: impl Iterator<Item = &'a ObjectKey>,
) -> bool {
    let mut differs = false;
    for key in keys {
        let addresses = grounds.addresses(key);
        if addresses.is_empty() {
            differs |= wanted.remove(key).is_some();
        } else if wanted.get(key) != Some(&addresses) {
            wanted.insert(key.clone(), addresses);
            differs = true;
        }
    }
    differs
}

/// Forgets services that are gone. Whether there were any.
fn forget(wanted: &mut BTreeMap<ObjectKey, Vec<IpAddr>>, grounds: &Grounds<'_>) -> bool {
    let before = wanted.len();
    wanted.retain(|key, _| grounds.index.services().contains_key(key));
    wanted.len() != before
}

/// By what it is decided which addresses this node may announce.
struct Grounds<'a> {
    index: &'a Index,
    plan: &'a Plan,
    pools: &'a [BalancerPool],
    /// Name of this node.
    own: &'a str,
}

impl Grounds<'_> {
    /// Addresses of a service that this node may announce, ascending: those of its pools that were
    /// allocated here and have rules, as long as there is a ready endpoint (row L-12), with external
    /// policy Local one of this node (row L-11). Anybody can write the mark of an allocation into a
    /// document; an address that is in no pool, or that another program gave, may be another
    /// machine's.
    fn addresses(&self, key: &ObjectKey) -> Vec<IpAddr> {
        let Some(service) = self.index.services().get(key) else { return Vec::new() };
        let is_ours = service.service_type == ServiceType::LoadBalancer
            && service.annotations.contains_key(Service::LB_ALLOCATED);
        if !is_ours || service.ingress.is_empty() || !self.serves(service) {
            return Vec::new();
        }
        let inside = service.ingress.iter().filter(|ingress| !ingress.proxy);
        let inside = inside.filter_map(|ingress| ingress.ip).filter(|ip| {
            self.pools.iter().any(|pool| pool.has(*ip))
                && self.plan.guarded().owner(*ip).is_none()
                && self.has_rules(key, *ip)
        });
        inside.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether this node may bring a connection to an endpoint.
    fn serves(&self, service: &Service) -> bool {
        let is_local = service.external_policy == TrafficPolicy::Local;
        let serves =
            |one: &Endpoint| one.ready && (!is_local || one.node.as_deref() == Some(self.own));
        let Some(resolved) = self.index.resolve(&service.key) else { return false };
        resolved.ports.iter().any(|port| port.endpoints.iter().any(serves))
    }

    /// Whether a port of an address of a service leads somewhere: not if another service has it, or
    /// if the service is left out.
    fn has_rules(&self, key: &ObjectKey, address: IpAddr) -> bool {
        let ports = self.plan.services.get(key).map_or(&[][..], |plan| &plan.ports);
        let mut frontends = ports.iter().flat_map(|port| &port.frontends);
        frontends.any(|frontend| matches!(frontend.at, At::External(ip, _) if ip == address))
    }
}

/// What is not as it should be, in few words: addresses of one reason together.
fn problems(state: &AnnounceState) -> Vec<String> {
    let failure = state.failure.iter().cloned();
    let missing = state.missing.iter();
    let missing = missing.map(|name| format!("--lb-interface {name}: there is no such interface"));
    let mut reasons: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for (address, held) in state.addresses.iter().filter(|(_, held)| held.broken) {
        if let Some(reason) = &held.reason {
            reasons.entry(reason).or_default().push(*address);
        }
    }
    let reasons = reasons.into_iter().map(|(reason, addresses)| match addresses.as_slice() {
        [address] => format!("{address} {reason}"),
        all => format!("{}: {reason}", log::names(all.iter())),
    });
    let all = failure.chain(missing).chain(reasons);
    log::lines(all, SHOWN, |more| format!("{more} more problems of announced addresses"))
}

#[cfg(test)]
mod tests;
