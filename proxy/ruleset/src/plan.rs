//! Traffic decisions: what happens to a new connection to a service, before any backend's rules.
//!
//! Both backends, [`crate::trace`] and the tests' oracle read the same [`Plan`]. It is small (memory
//! at 45,000 services) and changes service by service.
//!
//! No two frontends of a plan are equal in place and protocol, and none lies on the cluster address
//! of another service: if services collide, the one of the lowest key has the place and the
//! others go without it.

mod build;
mod claims;
mod containers;
mod host_ports;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::{Balance, Guarded, IpFamily, ObjectKey, Protocol, Resolved};
use ipnetwork::IpNetwork;

pub use claims::{Contest, Place};
pub(crate) use containers::private;
pub use host_ports::{Hides, HostPlace, HostPort, Yield};

use claims::Claims;

/// What planning must know of the node and of the daemon's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanContext {
    /// Name of this node.
    pub node: String,
    /// Zone of this node, from its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Networks of all containers: sources in them keep their address. If there is none of a
    /// family, nobody is known to come from outside in that family (row 18).
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Networks of the services: their unallocated addresses are dropped.
    pub service_cidrs: Vec<IpNetwork>,
    /// Where node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade everything that goes to a service address (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Addresses of this node (row 58).
    pub node_ips: Vec<IpAddr>,
    /// By the backend that carries the plan out.
    pub source_hash: SourceHash,
}

/// Which hash of a source picks its endpoint of a source-hash service: the kernel's two are not the
/// same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceHash {
    /// nft's `jhash`.
    #[default]
    Nftables,
    /// `xt_cluster`.
    Iptables,
}

/// `--nodeport-addresses`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every local address, 127.0.0.1 included (and guarded); `::1` cannot be served by rules.
    All,
    /// Local addresses in these networks, localhost left out. `primary` is the node's addresses.
    /// Rules of row 44: a network of length 0 means all, none of a family all of that family.
    In(Vec<IpNetwork>),
}

/// All decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it was made with.
    pub facts: PlanContext,
    /// By service; services without rules (headless, `ExternalName`, proxied by another program)
    /// are absent.
    pub services: BTreeMap<ObjectKey, Arc<ServicePlan>>,
    /// What the rules are to know of this node's containers.
    pub here: Here,
    /// Host ports of this node's containers.
    host_ports: Vec<HostPort>,
    claims: Claims,
    /// What no service can have.
    guarded: Arc<Guarded>,
    /// What services ask for of it.
    denied: BTreeMap<ObjectKey, Box<[Place]>>,
}

/// What rules know of this node's containers beside the services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Their addresses, of a family in which one of them is outside the cluster networks.
    pub containers: BTreeSet<IpAddr>,
    /// Ports of this node that services leave to their host ports.
    pub yields: BTreeSet<HostPlace>,
}

/// The decisions for one service, one entry per port and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Port plans in the order of ports, IPv4 first.
    pub ports: Box<[PortPlan]>,
}

/// The decisions for one service port in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Name of the service port; may be empty.
    pub name: Box<str>,
    /// Family.
    pub family: IpFamily,
    /// Protocol.
    pub protocol: Protocol,
    /// The service's cluster address in this family, and port: identity of its pools.
    pub vip: (IpAddr, u16),
    /// How endpoints are chosen.
    pub balance: Balance,
    /// Session affinity, seconds.
    pub affinity: Option<u32>,
    /// Endpoints of the whole cluster after readiness (rows 65 to 67) and hints (68, 69).
    pub cluster: Box<[Target]>,
    /// Endpoints of this node after readiness; filled if a policy is `Local`.
    pub local: Box<[Target]>,
    /// Where it answers.
    pub frontends: Box<[Frontend]>,
}

/// A service port as people read it: `default/web:http`.
pub(crate) fn port_name(key: &ObjectKey, port: &str) -> String {
    if port.is_empty() { key.to_string() } else { format!("{key}:{port}") }
}

/// An endpoint that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// On this node, or on a node that is not known: it may talk to itself through the service.
    pub here: bool,
}

/// An address and port, or a node port, and what happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Where.
    pub at: At,
    /// What.
    pub decision: Decision,
    /// `loadBalancerSourceRanges`: all other sources are dropped. Of this family, row 58 applied,
    /// ascending, none within another, without host bits. `None`: no limit. Empty: nobody.
    pub allow: Option<Box<[IpNetwork]>>,
}

/// Where a frontend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// The cluster address: any other port of it is rejected.
    Cluster(IpAddr, u16),
    /// An external or load balancer address: other ports of it are left alone.
    External(IpAddr, u16),
    /// A port of this node's addresses.
    NodePort(u16),
}

/// What happens to a new connection at a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// ICMP port unreachable: no endpoint anywhere (rows 12, 35).
    Reject,
    /// Dropped: policy `Local` and endpoints on other nodes only (row 39).
    Drop,
    /// To one of a pool.
    Balance {
        /// Which endpoints.
        pool: Pool,
        /// Whose source address is hidden.
        masquerade: Masquerade,
    },
    /// External policy `Local` (rows 33 to 38), in this order: this node itself goes to pool
    /// `Cluster` masqueraded, sources in the cluster networks to pool `Cluster` with their address,
    /// others to pool `Local` with their address, or are dropped if it is empty. `Cluster` is
    /// not empty.
    ByOrigin,
}

/// One of the two lists of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// [`PortPlan::cluster`]
    Cluster,
    /// [`PortPlan::local`]
    Local,
}

/// Whose source address is hidden behind the node's. An endpoint that reaches itself always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// Sources outside the cluster networks, this node itself among them whatever its address;
    /// nobody if no cluster network of the family is known ([`PlanContext::is_outside`]).
    Outside,
    /// All.
    Always,
}

/// What changed: the input of a backend's incremental step.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Each service once, ascending; absent is no rules. Before and after are never equal.
    pub services: Vec<Change>,
    /// What rules know of this node's containers, before and after, if it is something else.
    pub here: Option<Box<(Here, Here)>>,
}

/// A service with its plan before and after.
pub type Change = (ObjectKey, Option<Arc<ServicePlan>>, Option<Arc<ServicePlan>>);

impl Plan {
    /// An empty plan.
    pub fn new(facts: PlanContext) -> Self {
        Self {
            facts,
            services: BTreeMap::new(),
            here: Here::default(),
            host_ports: Vec::new(),
            claims: Claims::default(),
            guarded: Arc::default(),
            denied: BTreeMap::new(),
        }
    }

    /// A plan of these services.
    pub fn fresh(facts: PlanContext, services: &BTreeMap<ObjectKey, Resolved>) -> Self {
        let mut plan = Self::new(facts);
        plan.update(&services.keys().cloned().collect(), &|key| services.get(key).cloned());
        plan
    }

    /// What a service asks for and does not have, because another one has it.
    pub fn contests<'a>(&'a self, key: &'a ObjectKey) -> impl Iterator<Item = Contest> + 'a {
        self.claims.contests(key)
    }

    /// The same of all services, ascending by who lost.
    pub fn all_contests(&self) -> impl Iterator<Item = Contest> {
        self.claims.all_contests()
    }

    /// Takes what no service can have from now on. Yields the services that this concerns, to be given
    /// to [`Plan::update`].
    pub fn guard(&mut self, guarded: Arc<Guarded>) -> BTreeSet<ObjectKey> {
        let before = std::mem::replace(&mut self.guarded, guarded);
        if before == self.guarded {
            return BTreeSet::new();
        }
        if !before.same_ports(&self.guarded) {
            return self.claims.all_asking().chain(self.denied.keys()).cloned().collect();
        }
        let addresses: BTreeSet<IpAddr> = before.differing(&self.guarded).collect();
        let denied = |places: &[Place]| {
            places.iter().any(|place| place.address().is_some_and(|ip| addresses.contains(&ip)))
        };
        let were = self.denied.iter().filter(|(_, places)| denied(places)).map(|(key, _)| key);
        let asking = addresses.iter().flat_map(|address| self.claims.asking(*address));
        asking.chain(were).cloned().collect()
    }

    /// What no service can have.
    pub fn guarded(&self) -> &Arc<Guarded> {
        &self.guarded
    }

    /// Services that ask for some of that, by number.
    pub fn denied_count(&self) -> usize {
        self.denied.len()
    }

    /// What services ask for of that and are not given, with why, ascending by service.
    pub fn denied(&self) -> impl Iterator<Item = (&ObjectKey, Place, String)> {
        self.denied.iter().flat_map(move |(key, places)| {
            let why = move |place: &Place| Some((key, *place, place.denial(&self.guarded)?));
            places.iter().filter_map(why)
        })
    }

    /// Plans the given services again; `resolve` says what they are now, `None` if they are gone.
    /// Services that share an external address with them are planned again as well. Costs what the
    /// given services cost, whatever else there is.
    pub fn update(
        &mut self,
        changed: &BTreeSet<ObjectKey>,
        resolve: &dyn Fn(&ObjectKey) -> Option<Resolved>,
    ) -> Delta {
        let (mut changes, mut others) = (Vec::new(), BTreeSet::new());
        for key in changed {
            others.extend(self.renew(key, resolve(key), &mut changes));
        }
        // A service comes back only when a place changed hands, and then its own wishes are noted
        // already: this ends.
        while let Some(key) = others.pop_first() {
            others.extend(self.renew(&key, resolve(&key), &mut changes));
        }
        let mut delta = Delta::of(changes);
        delta.append(self.renew_yields());
        delta
    }

    fn replace_here(&mut self, after: Here) -> Delta {
        if after == self.here {
            return Delta::default();
        }
        let before = std::mem::replace(&mut self.here, after.clone());
        Delta { services: Vec::new(), here: Some(Box::new((before, after))) }
    }

    /// Plans one service again. Yields those that have to be planned again because of it.
    fn renew(
        &mut self,
        key: &ObjectKey,
        resolved: Option<Resolved>,
        changes: &mut Vec<Change>,
    ) -> BTreeSet<ObjectKey> {
        let slot = self.services.entry(key.clone());
        let old = match &slot {
            Entry::Occupied(there) => Some(Arc::clone(there.get())),
            Entry::Vacant(_) => None,
        };
        let wanted = resolved.as_ref().map(|resolved| build::wants(&self.guarded, resolved));
        let (wanted, denied) = wanted.unwrap_or_default();
        match denied.is_empty() {
            true => drop(self.denied.remove(key)),
            false => drop(self.denied.insert(key.clone(), denied.into())),
        }
        let held = old.as_deref().map(build::places).unwrap_or_default();
        let others = self.claims.replace(key, held, &wanted);
        let has = |place: &_| self.claims.has(key, place);
        let plan = resolved.and_then(|resolved| build::service(&self.facts, &resolved, &has));
        let held = plan.as_ref().map(build::places).unwrap_or_default();
        self.claims.note_lost(key, &wanted, &held);
        if old.as_deref() == plan.as_ref() {
            return others;
        }
        let new = plan.map(Arc::new);
        changes.push((key.clone(), old, new.clone()));
        match (slot, new) {
            (Entry::Occupied(mut there), Some(new)) => drop(there.insert(new)),
            (Entry::Occupied(there), None) => drop(there.remove()),
            (Entry::Vacant(there), Some(new)) => drop(there.insert(new)),
            (Entry::Vacant(_), None) => {}
        }
        others
    }
}

impl Delta {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.here.is_none()
    }

    /// Adds what changed after this, so that both are one change.
    pub fn append(&mut self, later: Self) {
        self.here = match (self.here.take(), later.here) {
            (Some(first), Some(last)) => Some(Box::new((first.0, last.1))),
            (first, last) => first.or(last),
        };
        self.here.take_if(|both| both.0 == both.1);
        if self.services.is_empty() {
            self.services = later.services;
        } else if !later.services.is_empty() {
            self.services.extend(later.services);
            self.services = Self::of(std::mem::take(&mut self.services)).services;
        }
    }

    /// Of changes one after the other, several of one service among them.
    fn of(mut changes: Vec<Change>) -> Self {
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        changes.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.2 = later.2.take();
            }
            same
        });
        changes.retain(|(_, before, after)| before != after);
        Self { services: changes, here: None }
    }
}

impl PlanContext {
    /// The cluster network that a source lies in.
    pub fn cluster_cidr(&self, source: IpAddr) -> Option<IpNetwork> {
        self.cluster_cidrs.iter().find(|net| net.contains(source)).copied()
    }

    /// Whether a source counts as outside the cluster networks ([`Masquerade::Outside`]).
    pub fn is_outside(&self, source: IpAddr, from_node: bool) -> bool {
        let family = IpFamily::of(source);
        let known = self.cluster_cidrs.iter().any(|net| IpFamily::of(net.ip()) == family);
        known && (from_node || self.cluster_cidr(source).is_none())
    }
}

impl NodePortAddresses {
    /// The networks whose local addresses answer at node ports, `None` for every local address;
    /// localhost apart.
    pub fn nets(&self, family: IpFamily) -> Option<Vec<IpNetwork>> {
        let Self::In(nets) = self else { return None };
        let nets = nets.iter().filter(|net| IpFamily::of(net.ip()) == family);
        let nets = nets.copied().collect::<Vec<_>>();
        let all = nets.is_empty() || nets.iter().any(|net| net.prefix() == 0);
        (!all).then_some(nets)
    }

    /// Whether an address of this node answers at node ports.
    pub fn answer(&self, local: IpAddr) -> bool {
        if local.is_loopback() {
            return *self == Self::All && local.is_ipv4();
        }
        let nets = self.nets(IpFamily::of(local));
        nets.is_none_or(|nets| nets.iter().any(|net| net.contains(local)))
    }
}
