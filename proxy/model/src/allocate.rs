//! Cluster addresses and node ports: given or free, refused where taken.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::manifest::Refusal;
use crate::{ObjectKey, Protocol, Service};

/// Where addresses and ports come from.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Service networks, one a family at most.
    pub service_cidrs: Vec<IpNetwork>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Node and pod networks, which no service network may overlap; a single given address in them
    /// is accepted with a warning (the tutorials do it).
    pub foreign: Vec<IpNetwork>,
}

/// What is taken, and by whom. Kept beside the objects by who stores them.
#[derive(Clone, Debug, Default)]
pub struct Allocator {}

impl Allocator {
    /// Notes what a stored service has.
    pub fn claim(&mut self, _service: &Service) {
        todo!()
    }

    /// Gives back what the service of this key has.
    pub fn release(&mut self, _key: &ObjectKey) {
        todo!()
    }

    /// Fills in what `wanted` leaves open: cluster addresses and families, node ports, health check
    /// node port. What its `previous` version had is kept where the document is silent. Nothing is
    /// claimed: [`Allocator::claim`] the result once it is stored. Also returns warnings.
    ///
    /// # Errors
    /// A given address or port is taken, out of range or of the wrong family, or none is free.
    pub fn complete(
        &self,
        _pools: &Pools,
        _wanted: Service,
        _previous: Option<&Service>,
    ) -> Result<(Service, Vec<String>), Refusal> {
        todo!()
    }

    /// Who has a node port.
    pub fn node_port(&self, _protocol: Protocol, _port: u16) -> Option<&ObjectKey> {
        todo!()
    }

    /// Who has a cluster address.
    pub fn address(&self, _address: IpAddr) -> Option<&ObjectKey> {
        todo!()
    }
}
