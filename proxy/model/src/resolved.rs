//! A service with its endpoints: what planning, DNS and the command line read.

use std::net::IpAddr;
use std::sync::Arc;

use crate::limits::{self, Excess};
use crate::{Hints, ObjectKey, Service};

/// A service and, port by port, the endpoints of all families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The service.
    pub service: Arc<Service>,
    /// As many as the service has ports, in their order. A headless service without ports has one,
    /// whose endpoints are addresses alone (their port is 0): names lead to them.
    pub ports: Vec<ResolvedPort>,
    /// What is over the limits and therefore not part of it.
    pub left_out: LeftOut,
}

impl Resolved {
    /// Whether `iptables` can carry the rules.
    ///
    /// # Errors
    /// Which limit is exceeded.
    pub fn fits_iptables(&self) -> Result<(), Excess> {
        for (port, resolved) in self.service.ports.iter().zip(&self.ports) {
            let v4 = resolved.endpoints.iter().filter(|one| one.address.is_ipv4()).count();
            let count = v4.max(resolved.endpoints.len() - v4);
            if count > limits::IPTABLES_ENDPOINTS {
                return Err(Excess::Iptables { port: Some(limits::named(port)), count });
            }
        }
        let count = self.ports.iter().map(|port| port.endpoints.len()).sum();
        match count > limits::IPTABLES_ALL {
            true => Err(Excess::Iptables { port: None, count }),
            false => Ok(()),
        }
    }
}

/// What is over the [`limits`] of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The service itself: it has neither endpoints nor rules.
    pub service: Option<Excess>,
    /// Slices, ascending.
    pub slices: Vec<(ObjectKey, Excess)>,
    /// How many containers, and the limit that the first of them would exceed.
    pub containers: Option<(usize, Excess)>,
}

impl LeftOut {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The endpoints of one service port, ascending by address and port, each address and port once
/// (of equal ones the most usable: ready before serving before the rest).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedPort {
    /// Endpoints whatever their condition: choosing among them is planning's.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port; 0 for an address alone.
    pub port: u16,
    /// Ready; [`Service::publish_not_ready`] is already part of it for selected containers.
    pub ready: bool,
    /// Serving.
    pub serving: bool,
    /// Terminating.
    pub terminating: bool,
    /// Node, if it is known. Containers attached here carry this node's name.
    pub node: Option<Arc<str>>,
    /// Zone, if it is known.
    pub zone: Option<Arc<str>>,
    /// Topology hints.
    pub hints: Option<Arc<Hints>>,
    /// Host name, for DNS.
    pub hostname: Option<Arc<str>>,
    /// The pod.
    pub pod: Option<Arc<ObjectKey>>,
}
