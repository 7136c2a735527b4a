//! Who has which load balancer addresses, and who may have them together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::names::Names;
use crate::{
    IpFamily, IpFamilyPolicy, LabelSet, ObjectKey, Protocol, Service, ServiceType, TrafficPolicy,
};

use super::address::{address, number};
use super::pool::AddressRange;
use super::spans::Spans;
use super::wish::{addresses, is_allocated, is_balanced, is_given, sharing, wish};

/// Load balancer addresses that services have.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    users: BTreeMap<IpAddr, BTreeMap<ObjectKey, Use>>,
    of: BTreeMap<ObjectKey, Vec<IpAddr>>,
    shared: BTreeMap<Box<str>, BTreeSet<IpAddr>>,
    spans: [Spans; 2],
    names: Names,
    /// Services that waited when it was looked last.
    waiting: BTreeSet<ObjectKey>,
    /// Families that no pool has, as it was then.
    absent: Vec<IpFamily>,
    /// Who has left which address since, and what it did there; empty if nobody waits.
    left: BTreeMap<(IpAddr, ObjectKey), Use>,
    standing: Standing,
    /// Counts what came and went.
    version: u64,
}

/// Whether who has which address is as it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is.
    #[default]
    Settled,
    /// It is known how it has to be, and not stored yet.
    Owed,
    /// Something came or went, and has to be looked at.
    Unsettled,
}

/// What a service does with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// The document gave it.
    is_given: bool,
    sharing: Option<Box<str>>,
    ports: Box<[(Protocol, u16)]>,
    is_local: bool,
    selector: LabelSet,
}

impl Use {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            is_given: is_given(service),
            sharing: sharing(service).map(Box::from),
            ports: service.ports.iter().map(|port| (port.protocol, port.port)).collect(),
            is_local: service.external_policy == TrafficPolicy::Local,
            selector: service.selector.clone(),
        }
    }

    /// Why two cannot have one address, as the second is told.
    fn clash(&self, other: &Self, owner: &ObjectKey) -> Option<String> {
        if self.sharing.is_none() || self.sharing != other.sharing || other.is_given {
            return Some(format!("service {owner} has it"));
        }
        let port = self.ports.iter().find(|port| other.ports.contains(port));
        if let Some((protocol, port)) = port {
            let protocol = protocol.name();
            return Some(format!("service {owner} shares it and has port {port}/{protocol}, too"));
        }
        let same_pods = !self.selector.is_empty() && self.selector == other.selector;
        ((self.is_local || other.is_local) && !same_pods).then(|| {
            format!(
                "service {owner} shares it, and with externalTrafficPolicy Local both need the same \
                 selector"
            )
        })
    }
}

impl Held {
    /// Notes what a service has, in the place of what it had.
    pub(super) fn hold(&mut self, service: &Service) {
        let all: Vec<IpAddr> = addresses(service).collect();
        self.hold_at(service, &all);
        if is_balanced(service) && (self.lacks(service) || wish(service).is_err()) {
            self.standing = Standing::Unsettled;
        }
    }

    /// Notes that a service has these addresses, in the place of what it had.
    pub(super) fn hold_at(&mut self, service: &Service, all: &[IpAddr]) {
        self.release(&service.key);
        if all.is_empty() || service.service_type != ServiceType::LoadBalancer {
            return;
        }
        let mut key = service.key.clone();
        self.names.share(&mut key.namespace);
        let used = Use::of(service);
        for ip in all {
            if is_allocated(service) && self.clash(*ip, &key, &used).is_some() {
                self.standing = Standing::Unsettled;
            }
            let place = (*ip, key.clone());
            if self.left.get(&place) == Some(&used) {
                self.left.remove(&place);
            }
            self.users.entry(*ip).or_default().insert(key.clone(), used.clone());
            self.spans[slot(*ip)].insert(number(*ip));
            if let Some(sharing) = &used.sharing {
                self.shared.entry(sharing.clone()).or_default().insert(*ip);
            }
        }
        self.version += 1;
        self.of.insert(key, all.to_vec());
    }

    /// Takes back what a service has.
    pub(super) fn release(&mut self, key: &ObjectKey) {
        if self.waiting.remove(key) {
            self.standing = Standing::Unsettled;
        }
        let Some(all) = self.of.remove(key) else { return };
        self.version += 1;
        for ip in all {
            let Some(users) = self.users.get_mut(&ip) else { continue };
            let gone = users.remove(key);
            if !self.waiting.is_empty() {
                self.left.extend(gone.clone().map(|gone| ((ip, key.clone()), gone)));
            }
            if users.is_empty() {
                self.users.remove(&ip);
                self.spans[slot(ip)].remove(number(ip));
                let sharing = gone.and_then(|gone| gone.sharing);
                if let Some(sharing) = sharing
                    && let Some(shared) = self.shared.get_mut(&sharing)
                {
                    shared.remove(&ip);
                    if shared.is_empty() {
                        self.shared.remove(&sharing);
                    }
                }
            }
        }
    }

    /// Nobody is given anything new but while all is settled.
    pub(super) fn standing(&self) -> Standing {
        let has_freed = !self.left.is_empty() && !self.waiting.is_empty();
        if has_freed { Standing::Unsettled } else { self.standing }
    }

    /// Says how it is.
    pub(super) fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// It was looked: these wait, and these families no pool has.
    pub(super) fn settled(
        &mut self,
        waiting: BTreeSet<ObjectKey>,
        absent: Vec<IpFamily>,
        standing: Standing,
    ) {
        self.left.clear();
        (self.waiting, self.absent, self.standing) = (waiting, absent, standing);
    }

    /// Whether a service has no address of some family that it may get one of.
    fn lacks(&self, service: &Service) -> bool {
        let has = |family: &IpFamily| addresses(service).any(|ip| IpFamily::of(ip) == *family);
        let needs_all = service.ip_family_policy == IpFamilyPolicy::RequireDualStack;
        let mut missing = service.ip_families.iter().filter(|family| !has(family));
        let is_missed = |family: &IpFamily| needs_all || !self.absent.contains(family);
        service.ingress.is_empty() || (!is_given(service) && missing.any(is_missed))
    }

    /// Another number whenever who has what is other than it was.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// How many addresses a test is true of.
    pub(super) fn count(&self, is: impl Fn(IpAddr) -> bool) -> usize {
        self.users.keys().filter(|ip| is(**ip)).count()
    }

    /// Why a service that does this cannot have an address because of others; `None`: it can.
    pub(super) fn clash(&self, ip: IpAddr, key: &ObjectKey, using: &Use) -> Option<String> {
        let mut others = self.users.get(&ip)?.iter().filter(|(other, _)| *other != key);
        others.find_map(|(owner, other)| using.clash(other, owner))
    }

    /// Which other service was given an address here.
    pub(super) fn allocated(&self, ip: IpAddr, key: &ObjectKey) -> Option<&ObjectKey> {
        let mut users = self.users.get(&ip)?.iter();
        users.find(|(other, using)| *other != key && !using.is_given).map(|(other, _)| other)
    }

    /// Addresses that others have by the key that this service shares by, lowest first.
    pub(super) fn company(&self, service: &Service) -> impl Iterator<Item = IpAddr> {
        let all = sharing(service).and_then(|sharing| self.shared.get(sharing));
        all.into_iter().flatten().copied()
    }

    /// The lowest address of a range that nobody has and that is not to be left out.
    pub(super) fn lowest_free(
        &self,
        range: AddressRange,
        leave_out: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut from = range.first;
        loop {
            let spans = &self.spans[if range.family == IpFamily::V4 { 0 } else { 1 }];
            let free = spans.gap(from, range.last)?;
            let ip = address(free, range.family);
            if !leave_out(ip) {
                return Some(ip);
            }
            from = free.checked_add(1)?;
        }
    }
}

fn slot(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}
