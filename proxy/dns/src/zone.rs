//! What names of the cluster lead to, and which names addresses have.

use std::collections::BTreeMap;

use causeway_model::{ObjectKey, Resolved};
use hickory_proto::rr::Name;
use ipnetwork::IpNetwork;

/// What a zone is.
#[derive(Clone, Debug)]
pub struct ZoneSettings {
    /// `--dns-domain`
    pub domain: Name,
    /// `--dns-ttl`, seconds.
    pub ttl: u32,
    /// Networks whose addresses have names from us alone: service and cluster network.
    pub networks: Vec<IpNetwork>,
}

/// What names of one service need, in little memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {}

impl ServiceNames {
    /// Of a service with its endpoints as they are now.
    pub fn of(_resolved: &Resolved) -> Self {
        Self {}
    }
}

/// The names of all services.
#[derive(Debug)]
pub struct Zone {
    settings: ZoneSettings,
    services: BTreeMap<ObjectKey, ServiceNames>,
}

impl Zone {
    /// An empty one, of which nothing is known yet (row D-22).
    pub fn new(settings: ZoneSettings) -> Self {
        Self { settings, services: BTreeMap::new() }
    }

    /// What it is.
    pub fn settings(&self) -> &ZoneSettings {
        &self.settings
    }

    /// A service is new, changed, or gone.
    pub fn put(&mut self, key: ObjectKey, names: Option<ServiceNames>) {
        match names {
            Some(names) => drop(self.services.insert(key, names)),
            None => drop(self.services.remove(&key)),
        }
    }
}
