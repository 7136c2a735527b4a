//! What names of the cluster lead to, and which names addresses have.

mod pods;
mod service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::ObjectKey;
use hickory_proto::rr::Name;
use ipnetwork::IpNetwork;

pub use pods::PodRecords;
pub use service::{Host, ServiceNames};

/// What a zone is.
#[derive(Clone, Debug)]
pub struct ZoneSettings {
    /// `--dns-domain`
    pub domain: Name,
    /// `--dns-ttl`, seconds.
    pub ttl: u32,
    /// Networks whose addresses have names from us alone: service and cluster network.
    pub networks: Vec<IpNetwork>,
    /// `--dns-vip`: addresses of the DNS service, which is `kube-dns` in `kube-system` unless there is
    /// a service of that name.
    pub vips: Vec<IpAddr>,
    /// Names of pods' addresses (row D-18).
    pub pods: PodRecords,
    /// Names for the endpoints of one topology zone (row D-22b).
    pub zonal: bool,
    /// An endpoint without a host name has no PTR (row D-57).
    pub hostnames_only: bool,
    /// Where the serial of the SOA record begins; a time in seconds lets it rise over restarts.
    pub serial: u32,
}

impl ZoneSettings {
    /// Without a DNS service and without what is optional.
    pub fn new(domain: Name, ttl: u32, networks: Vec<IpNetwork>) -> Self {
        Self {
            domain,
            ttl,
            networks,
            vips: Vec::new(),
            pods: PodRecords::Disabled,
            zonal: false,
            hostnames_only: false,
            serial: 1,
        }
    }
}

/// The names of all services.
#[derive(Debug)]
pub struct Zone {
    settings: ZoneSettings,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// The services that an address belongs to.
    owners: BTreeMap<IpAddr, Owners>,
    synced: bool,
    serial: u32,
}

#[derive(Debug, Default)]
struct Namespace {
    services: BTreeMap<Arc<str>, ServiceNames>,
    pods: BTreeSet<IpAddr>,
}

/// Most addresses have one.
#[derive(Debug)]
enum Owners {
    One(ObjectKey),
    Several(Box<[ObjectKey]>),
}

impl Owners {
    fn all(&self) -> &[ObjectKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Several(keys) => keys,
        }
    }

    fn of(mut keys: Vec<ObjectKey>) -> Option<Self> {
        match keys.len() {
            0 | 1 => keys.pop().map(Self::One),
            _ => Some(Self::Several(keys.into())),
        }
    }
}

impl Zone {
    /// Without services. Nothing of the cluster is known yet: names in it are answered SERVFAIL until
    /// [`Zone::set_synced`] (row D-22).
    pub fn new(settings: ZoneSettings) -> Self {
        let serial = settings.serial;
        let (namespaces, owners) = (BTreeMap::new(), BTreeMap::new());
        let mut zone = Self { settings, namespaces, owners, synced: false, serial };
        zone.replace(&dns_service(), None);
        zone
    }

    /// What it is.
    pub fn settings(&self) -> &ZoneSettings {
        &self.settings
    }

    /// All services are known: what is not here is not there.
    pub fn set_synced(&mut self) {
        self.synced = true;
    }

    /// Whether all services are known.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// Serial of the SOA record: one more with each change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// A service is new, changed, or gone. Costs what it has, whatever the others are.
    pub fn put(&mut self, key: ObjectKey, names: Option<ServiceNames>) {
        let entry = self.namespaces.get_mut(&key.namespace);
        let old = entry.and_then(|entry| entry.services.get_mut(&key.name));
        match (old, names) {
            (None, None) => {}
            // What is shared with the index stays shared if the index has it anew.
            (Some(old), Some(names)) if *old == names => *old = names,
            (_, names) => self.replace(&key, names),
        }
    }

    /// A pod has this address. Namespaces that have pods exist, whatever [`ZoneSettings::pods`] is;
    /// addresses count for [`PodRecords::Verified`].
    pub fn put_pod(&mut self, namespace: &Arc<str>, address: IpAddr) {
        let entry = self.namespaces.entry(Arc::clone(namespace)).or_default();
        if entry.pods.insert(address) {
            self.serial = self.serial.wrapping_add(1);
        }
    }

    /// No pod of the namespace has this address any more.
    pub fn remove_pod(&mut self, namespace: &str, address: IpAddr) {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return };
        if entry.pods.remove(&address) {
            self.serial = self.serial.wrapping_add(1);
        }
        self.forget_if_empty(namespace);
    }

    /// A service by namespace and name, both in lower case.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&ServiceNames> {
        self.namespaces.get(namespace)?.services.get(name)
    }

    /// Whether a service or a pod is in the namespace.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Whether a pod of the namespace has this address.
    pub fn has_pod(&self, namespace: &str, address: IpAddr) -> bool {
        self.namespaces.get(namespace).is_some_and(|entry| entry.pods.contains(&address))
    }

    /// The services that have the address or an endpoint of it, ascending.
    pub fn owners(&self, address: IpAddr) -> impl Iterator<Item = (&ObjectKey, &ServiceNames)> {
        let keys = self.owners.get(&address).map_or(&[][..], Owners::all);
        keys.iter().filter_map(|key| Some((key, self.service(&key.namespace, &key.name)?)))
    }

    /// Whether an address between these two, both included, has a name.
    pub fn names_between(&self, first: IpAddr, last: IpAddr) -> bool {
        self.owners.range(first..=last).next().is_some()
    }

    /// The DNS service stands where no other of its name does.
    fn replace(&mut self, key: &ObjectKey, names: Option<ServiceNames>) {
        let vips = &self.settings.vips;
        let own =
            || (*key == dns_service() && !vips.is_empty()).then(|| ServiceNames::of_dns(vips));
        let names = names.or_else(own);
        let new = names.as_ref().map(ServiceNames::addresses).unwrap_or_default();
        let old = match names {
            Some(names) => {
                let entry = self.namespaces.entry(Arc::clone(&key.namespace)).or_default();
                entry.services.insert(Arc::clone(&key.name), names)
            }
            None => self
                .namespaces
                .get_mut(&key.namespace)
                .and_then(|entry| entry.services.remove(&key.name)),
        };
        let old = old.as_ref().map(ServiceNames::addresses).unwrap_or_default();
        for gone in old.iter().filter(|one| new.binary_search(one).is_err()) {
            self.change_owners(*gone, |keys| keys.retain(|other| other != key));
        }
        for added in new.iter().filter(|one| old.binary_search(one).is_err()) {
            self.change_owners(*added, |keys| {
                let place = keys.partition_point(|other| other < key);
                keys.insert(place, key.clone());
            });
        }
        self.forget_if_empty(&key.namespace);
        self.serial = self.serial.wrapping_add(1);
    }

    fn change_owners(&mut self, address: IpAddr, change: impl FnOnce(&mut Vec<ObjectKey>)) {
        let mut keys = match self.owners.get_mut(&address) {
            Some(Owners::Several(keys)) => mem::take(keys).into_vec(),
            Some(Owners::One(key)) => vec![key.clone()],
            None => Vec::new(),
        };
        change(&mut keys);
        match Owners::of(keys) {
            Some(owners) => drop(self.owners.insert(address, owners)),
            None => drop(self.owners.remove(&address)),
        }
    }

    fn forget_if_empty(&mut self, namespace: &str) {
        let empty = |entry: &Namespace| entry.services.is_empty() && entry.pods.is_empty();
        if self.namespaces.get(namespace).is_some_and(empty) {
            self.namespaces.remove(namespace);
        }
    }
}

/// What the DNS service is called in every cluster.
fn dns_service() -> ObjectKey {
    ObjectKey::new("kube-system", "kube-dns")
}
