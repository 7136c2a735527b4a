//! Traffic decisions: what happens to a new connection to a service, before any backend's rules.
//!
//! Both backends, [`crate::trace`] and the tests' oracle read the same [`Plan`]. It is small (memory
//! at 45,000 services) and changes service by service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::{Balance, IpFamily, ObjectKey, Protocol, Resolved};
use ipnetwork::IpNetwork;

/// What planning must know of the node and of the daemon's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name of this node.
    pub node: String,
    /// Zone of this node, from its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Networks of all containers: sources in them keep their address.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Networks of the services: their unallocated addresses are dropped.
    pub service_cidrs: Vec<IpNetwork>,
    /// Where node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade everything that goes to a service address (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Addresses of this node (row 58).
    pub node_ips: Vec<IpAddr>,
}

/// `--nodeport-addresses`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Every local address, 127.0.0.1 included (and guarded); `::1` can not be served by rules.
    All,
    /// Local addresses in these networks, localhost left out. `primary` is the node's addresses.
    /// Rules of row 44: a network of length 0 means all, none of a family all of that family.
    In(Vec<IpNetwork>),
}

/// All decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it was made with.
    pub facts: Facts,
    /// By service; services without rules (headless, `ExternalName`, proxied by somebody else) are
    /// absent.
    pub services: BTreeMap<ObjectKey, Arc<ServicePlan>>,
    claims: Claims,
}

/// Who wants an address and port that is not its own cluster address: the lowest key has it.
type Claims = BTreeMap<(IpAddr, u16, Protocol), BTreeSet<ObjectKey>>;

/// The decisions for one service, one entry a port and family.
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
    /// Endpoints of this node after readiness; filled where a policy is `Local`.
    pub local: Box<[Target]>,
    /// Where it answers.
    pub frontends: Box<[Frontend]>,
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
    /// `loadBalancerSourceRanges`: all other sources are dropped. Of this family, row 58 applied.
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
    /// External policy `Local` (rows 33 to 38): sources in the cluster networks go to pool `Cluster`
    /// with their address, this node itself to pool `Cluster` masqueraded, others to pool `Local`
    /// with their address, or are dropped where it is empty.
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
    /// Sources outside the cluster networks.
    Outside,
    /// All.
    Always,
}

/// What changed: the input of a backend's incremental step.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Per service the plan before and after; absent is no rules. Never equal.
    pub services: Vec<(ObjectKey, Option<Arc<ServicePlan>>, Option<Arc<ServicePlan>>)>,
}

impl Plan {
    /// An empty plan.
    pub fn new(facts: Facts) -> Self {
        Self { facts, services: BTreeMap::new(), claims: Claims::new() }
    }

    /// Plans the given services anew; `resolve` says what they are now, `None` where they are gone.
    /// Services that share an external address with them are planned anew as well.
    pub fn update(
        &mut self,
        _changed: &BTreeSet<ObjectKey>,
        _resolve: &dyn Fn(&ObjectKey) -> Option<Resolved>,
    ) -> Delta {
        todo!()
    }
}
