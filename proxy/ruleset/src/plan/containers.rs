//! Containers of this node in networks outside the cluster networks: runtimes make such networks of
//! their own, and other nodes have the same again.
//!
//! They are sources whose address endpoints of this node can answer, and nobody else's. So what they
//! send to a service is masqueraded if the endpoint is not a container of this node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_model::IpFamily;

use super::{Delta, Here, Plan, PlanContext};

impl Plan {
    /// Takes the addresses of all containers of this node.
    pub fn set_containers(&mut self, all: impl IntoIterator<Item = IpAddr>) -> Delta {
        let containers = relevant(&self.facts, all.into_iter().collect());
        self.replace_here(Here { containers, ..self.here.clone() })
    }

    /// Whether a source is a container of this node outside the cluster networks.
    pub fn is_private(&self, source: IpAddr) -> bool {
        self.facts.is_outside(source, false) && self.here.containers.contains(&source)
    }

    /// Whether such a source is seen as it is by an endpoint.
    pub(crate) fn keeps(&self, source: IpAddr, endpoint: IpAddr) -> bool {
        !self.facts.masquerade_all
            && self.is_private(source)
            && self.here.containers.contains(&endpoint)
    }
}

/// Those of `containers` that are outside the cluster networks, of a family.
pub(crate) fn private<'a>(
    facts: &'a PlanContext,
    containers: &'a BTreeSet<IpAddr>,
    family: IpFamily,
) -> impl Iterator<Item = IpAddr> + 'a {
    let of_family = containers.iter().copied().filter(move |ip| IpFamily::of(*ip) == family);
    of_family.filter(|ip| facts.is_outside(*ip, false))
}

/// All of a family if one of it is outside the cluster networks, else none: rules ask for them only
/// then, and most nodes have no such container.
fn relevant(facts: &PlanContext, mut all: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let has = |family| private(facts, &all, family).next().is_some();
    let (v4, v6) = (has(IpFamily::V4), has(IpFamily::V6));
    all.retain(|ip| if ip.is_ipv4() { v4 } else { v6 });
    all
}
