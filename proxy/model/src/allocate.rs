//! Cluster addresses, node ports and load balancer addresses: requested or picked; a request for a
//! cluster address or node port that is allocated is refused, one for a load balancer address waits.
//!
//! What is handed out follows from the service's name and from what is taken: a service made again
//! gets the same address if nobody took it meanwhile. The lower part of each range is left to
//! those who ask for a certain address or port, as long as the upper part has free ones (KEP-3070,
//! KEP-3668).

mod address;
mod balancer;
mod held;
mod misplaced;
mod pool;
mod port;
mod settle;
mod spans;
mod wish;

pub use held::Standing;
pub use pool::{AddressRange, BalancerPool};
pub use settle::{Settled, settle};

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use self::held::Held;
use crate::manifest::Refusal;
use crate::names::Names;
use crate::{Guarded, IpFamily, ObjectKey, Protocol, Service, ServiceType};

/// Where addresses and ports come from.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Service networks, at most one per IP family; the first one's family is that of services
    /// which do not say any.
    pub service_cidrs: Vec<IpNetwork>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Addresses of services that are given only to a service that asks for them.
    pub reserved: Vec<IpAddr>,
    /// Node and pod networks, which no service network may overlap; a single given address in them
    /// is accepted with a warning (the tutorials do it).
    pub foreign: Vec<IpNetwork>,
    /// What no service can have.
    pub guarded: Arc<Guarded>,
    /// Pools of load balancer addresses; none: such addresses come with documents.
    pub balancers: Vec<BalancerPool>,
    /// What those must keep clear of beside the networks above, with what each is.
    pub neighbours: Vec<(IpNetwork, String)>,
}

/// How much of a pool of load balancer addresses is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Name of the pool.
    pub name: String,
    /// How many addresses it gives away.
    pub size: u128,
    /// How many of them services have.
    pub used: usize,
}

impl Pools {
    /// Whether the settings make sense: one service network per IP family that overlaps neither
    /// node nor pod networks and has room, a range of node ports.
    ///
    /// # Errors
    /// What is wrong, with the remedy.
    pub fn check(&self) -> Result<(), String> {
        for (index, network) in self.service_cidrs.iter().enumerate() {
            if self.service_cidrs[..index].iter().any(|other| other.is_ipv4() == network.is_ipv4())
            {
                return Err(format!(
                    "service network {network}: at most one network per IP family"
                ));
            }
            let bits = if network.is_ipv4() { 32 } else { 128 };
            if bits - network.prefix() < 2 {
                return Err(format!(
                    "service network {network} is too small: use /{} or wider",
                    bits - 2
                ));
            }
            if let Some(other) =
                self.foreign.iter().find(|other| address::overlap(**other, *network))
            {
                return Err(format!(
                    "service network {network} overlaps {other}, a network of nodes or containers: \
                     choose one that does not overlap it"
                ));
            }
        }
        let (first, last) = self.node_ports;
        if first == 0 || first > last {
            return Err(format!(
                "node ports {first}-{last}: not FIRST-LAST with ports from 1 to 65535"
            ));
        }
        Ok(())
    }

    /// Whether the pools of load balancer addresses make sense: each address in one of them, none of
    /// them in a network of services, nodes or containers.
    ///
    /// # Errors
    /// What is wrong, with the remedy.
    pub fn check_balancers(&self) -> Result<(), String> {
        pool::check(&self.balancers)?;
        for network in &self.service_cidrs {
            pool::apart(&self.balancers, *network, "the service network")?;
        }
        for (network, what) in &self.neighbours {
            pool::apart(&self.balancers, *network, what)?;
        }
        Ok(())
    }

    fn network(&self, family: IpFamily) -> Option<IpNetwork> {
        self.service_cidrs
            .iter()
            .find(|network| network.is_ipv4() == (family == IpFamily::V4))
            .copied()
    }
}

/// What a service has that no other may have, as texts that are equal if two services want the
/// same: `address/10.96.0.1`, `port/tcp/30001`. Ascending, each once.
///
/// A load balancer address that was given here is `balancer/192.0.2.1`; one that is shared is
/// `balancer/192.0.2.1/tcp/80` for each port. Those of documents are nobody's alone.
pub fn claims(service: &Service) -> Vec<String> {
    let own = claimed(service).into_iter().map(|claim| claim.to_string());
    let all: BTreeSet<String> = own.chain(wish::claims(service)).collect();
    all.into_iter().collect()
}

/// Something that one service only may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Address(IpAddr),
    Port(Protocol, u16),
}

impl fmt::Display for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "address/{address}"),
            Self::Port(protocol, port) => {
                write!(out, "port/{}/{port}", protocol.name().to_ascii_lowercase())
            }
        }
    }
}

/// What is taken, and by whom. Kept beside the objects by who stores them.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    taken: BTreeMap<Claim, ObjectKey>,
    /// By the hash of the owner, which may be that of another owner, too.
    owned: BTreeSet<(u64, Claim)>,
    held: Held,
    names: Names,
}

impl Allocator {
    /// Notes what a stored service has, instead of what it had. What another service has stays with
    /// that.
    pub fn claim(&mut self, service: &Service) {
        self.release(&service.key);
        let mut key = service.key.clone();
        self.names.share(&mut key.namespace);
        for claim in claimed(service) {
            if let Entry::Vacant(entry) = self.taken.entry(claim) {
                entry.insert(key.clone());
                self.owned.insert((start(&key, ""), claim));
            }
        }
        self.held.hold(service);
    }

    /// Gives back what the service of this key has.
    pub fn release(&mut self, key: &ObjectKey) {
        self.held.release(key);
        let hash = start(key, "");
        let first = Claim::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let all = self.owned.range((hash, first)..).take_while(|(other, _)| *other == hash);
        let own: Vec<_> =
            all.filter(|(_, claim)| self.taken.get(claim) == Some(key)).copied().collect();
        for entry in own {
            self.taken.remove(&entry.1);
            self.owned.remove(&entry);
        }
    }

    /// Fills in what `wanted` leaves open: cluster addresses and families, node ports, health check
    /// node port. What its `previous` version had is kept if the document is silent. Nothing is
    /// claimed: [`Allocator::claim`] the result once it is stored. Also returns warnings.
    ///
    /// # Errors
    /// A given address or port is taken, out of range or of the wrong family, or none is free; or a
    /// cluster address would change, which Kubernetes does not allow either.
    pub fn complete(
        &self,
        pools: &Pools,
        wanted: Service,
        previous: Option<&Service>,
    ) -> Result<(Service, Vec<String>), Refusal> {
        let mut service = wanted;
        if let Some(previous) = previous {
            service.created = previous.created;
        }
        let mut warnings = Vec::new();
        let mut work = Work { allocator: self, pools, previous, warnings: &mut warnings };
        let done = work.drop_misplaced(&mut service);
        let done = done
            .and_then(|()| work.addresses(&mut service))
            .and_then(|()| work.ports(&mut service))
            .and_then(|()| work.balancer(&mut service))
            .and_then(|()| work.outside(&service));
        done.map_err(|(field, reason)| Refusal {
            line: 0,
            kind: "Service".to_owned(),
            object: service.key.to_string(),
            field,
            reason,
        })?;
        Ok((service, warnings))
    }

    /// Who has a node port.
    pub fn node_port(&self, protocol: Protocol, port: u16) -> Option<&ObjectKey> {
        self.taken.get(&Claim::Port(protocol, port))
    }

    /// Who has a cluster address.
    pub fn address(&self, address: IpAddr) -> Option<&ObjectKey> {
        self.taken.get(&Claim::Address(address))
    }

    /// How it stands with load balancer addresses. Unless all is settled nobody is given a new one.
    pub fn standing(&self) -> Standing {
        self.held.standing()
    }

    /// Says how it stands, before [`settle()`].
    pub fn set_standing(&mut self, standing: Standing) {
        self.held.set_standing(standing);
    }

    /// Says how it stands after [`settle()`], which found that these wait.
    pub fn settled(&mut self, pools: &Pools, waiting: BTreeSet<ObjectKey>, standing: Standing) {
        let has = |family| pools.balancers.iter().any(|pool| pool.ranges(family).next().is_some());
        let absent = [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| !has(*family));
        self.held.settled(waiting, absent.collect(), standing);
    }

    /// Another number whenever who has which load balancer address is other than it was.
    pub fn balancer_version(&self) -> u64 {
        self.held.version()
    }

    /// How much of the pools of load balancer addresses is used.
    pub fn pool_use(&self, pools: &Pools) -> Vec<PoolUse> {
        let of = |pool: &BalancerPool| PoolUse {
            name: pool.name.clone(),
            size: pool.size(),
            used: self.held.count(|ip| pool.has(ip)),
        };
        pools.balancers.iter().map(of).collect()
    }

    /// Who else has it.
    fn other(&self, claim: Claim, key: &ObjectKey) -> Option<&ObjectKey> {
        self.taken.get(&claim).filter(|owner| *owner != key)
    }
}

/// What completing a service needs.
struct Work<'a> {
    allocator: &'a Allocator,
    pools: &'a Pools,
    previous: Option<&'a Service>,
    warnings: &'a mut Vec<String>,
}

/// A field and why it is refused.
type Refused = (String, String);

fn refused<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, Refused> {
    Err((field.into(), reason.into()))
}

fn claimed(service: &Service) -> Vec<Claim> {
    let addresses = service.cluster_ips.iter().map(|address| Claim::Address(*address));
    let node_ports = service
        .ports
        .iter()
        .filter_map(|port| port.node_port.map(|number| Claim::Port(port.protocol, number)));
    let health = service.health_check_node_port.map(|port| Claim::Port(Protocol::Tcp, port));
    addresses.chain(node_ports).chain(health).collect()
}

/// Whether a service of this kind has a cluster address, `None` being one of them.
fn has_cluster_ip(service: &Service) -> bool {
    service.service_type != ServiceType::ExternalName
}

/// Where the search for a free one begins: the same for the same service and purpose.
fn start(key: &ObjectKey, purpose: &str) -> u64 {
    let mut hash = crate::hash::Fnv::default();
    for part in [&*key.namespace, &*key.name, purpose] {
        hash.text(part);
    }
    hash.value()
}

/// The first number that is free among `upper`, then among `lower`, from a start that the hash says
/// round to it. `first_free` returns the first free number of a range.
fn search(
    hash: u64,
    bands: [(u128, u128); 2],
    first_free: impl Fn(u128, u128) -> Option<u128>,
) -> Option<u128> {
    bands.into_iter().filter(|(from, to)| from <= to).find_map(|(from, to)| {
        let size = to - from + 1;
        let start = from + u128::from(hash) % size;
        first_free(start, to).or_else(|| (start > from).then(|| first_free(from, start - 1))?)
    })
}

/// First number from `from` to `to` that is not in the ascending `taken`, which begins there.
fn gap(from: u128, to: u128, taken: impl Iterator<Item = u128>) -> Option<u128> {
    let mut candidate = from;
    for number in taken {
        if number > candidate {
            break;
        }
        candidate = number.checked_add(1)?;
    }
    (candidate <= to).then_some(candidate)
}

/// Shared so that warnings name services as refusals do.
fn by(owner: &ObjectKey) -> String {
    format!("service {owner}")
}

#[cfg(test)]
pub(in crate::allocate) mod tests;
