//! Addresses of load balancers: which of them this node is to hold, once their rules are in the
//! kernel (row L-38), and what the thread that announces them says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{Index, ObjectKey, ServiceType};

use super::Engine;
use crate::announce::Announce;
use crate::conditions::Concern;
use crate::state::{AnnounceState, Committed};

/// What the thread was told.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// `None` before it is started, and while a node among several announces nothing.
    announce: Option<Announce>,
    /// Addresses of services that have a ready endpoint.
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
        let index = &self.state.index;
        let wanted = &mut self.holding.wanted;
        // The rest is as it was.
        let touched: Box<dyn Iterator<Item = &ObjectKey>> = match commit.full {
            true => {
                wanted.retain(|key, _| index.services().contains_key(key));
                Box::new(index.services().keys())
            }
            false => Box::new(commit.touched.services.iter()),
        };
        for key in touched {
            match addresses(index, key) {
                addresses if addresses.is_empty() => drop(wanted.remove(key)),
                addresses => drop(wanted.insert(key.clone(), addresses)),
            }
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

/// Addresses of a service that this node may announce: those of its status that packets are to come
/// to, as long as there is a ready endpoint (row L-12), unless another program sees to the service
/// (`spec.loadBalancerClass`).
fn addresses(index: &Index, key: &ObjectKey) -> Vec<IpAddr> {
    let Some(service) = index.services().get(key) else { return Vec::new() };
    let ours = service.service_type == ServiceType::LoadBalancer
        && service.load_balancer_class.is_none()
        && !service.ingress.is_empty();
    let ready = || {
        let resolved = index.resolve(key)?;
        Some(resolved.ports.iter().any(|port| port.endpoints.iter().any(|one| one.ready)))
    };
    if !ours || ready() != Some(true) {
        return Vec::new();
    }
    let inside = service.ingress.iter().filter(|ingress| !ingress.proxy);
    inside.filter_map(|ingress| ingress.ip).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What is not as it should be, in words.
fn problems(state: &AnnounceState) -> Vec<String> {
    let failure = state.failure.iter().map(|failure| format!("look at interfaces: {failure}"));
    let missing = state.missing.iter();
    let missing = missing.map(|name| format!("--lb-interface {name}: there is no such interface"));
    let reasons = state.addresses.iter().filter(|(_, held)| held.broken);
    let reasons = reasons.filter_map(|(address, held)| {
        held.reason.as_ref().map(|reason| format!("{address} {reason}"))
    });
    failure.chain(missing).chain(reasons).collect()
}
