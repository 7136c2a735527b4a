//! Services by a label of their selector, slices by service: compact, for tens of thousands.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::hash::Fnv;
use crate::{EndpointSlice, HeldRecord, LabelSet, ObjectKey, Service};

/// Services by the hash of a namespace and one pair of their selector. A container is compared with
/// the services under its own pairs only.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    by_pair: BTreeSet<(u64, ObjectKey)>,
}

/// Enough to say that a pair is a common one.
const COMMON: usize = 16;

impl Selectors {
    /// Under that pair of the selector which fewer services have so far.
    pub(super) fn add(&mut self, service: &Service) {
        let rarest = pairs(service).min_by_key(|hash| self.under(*hash).take(COMMON).count());
        if let Some(hash) = rarest {
            self.by_pair.insert((hash, service.key.clone()));
        }
    }

    pub(super) fn remove(&mut self, service: &Service) {
        for hash in pairs(service) {
            self.by_pair.remove(&(hash, service.key.clone()));
        }
    }

    /// Takes the least memory.
    pub(super) fn pack(&mut self) {
        self.by_pair = std::mem::take(&mut self.by_pair).into_iter().collect();
    }

    /// Services that may select a container of these labels.
    pub(super) fn candidates<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a LabelSet,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        labels.iter().flat_map(move |(key, value)| self.under(pair(namespace, key, value)))
    }

    fn under(&self, hash: u64) -> impl Iterator<Item = &ObjectKey> {
        let first = (hash, ObjectKey::new("", ""));
        self.by_pair.range(first..).take_while(move |(other, _)| *other == hash).map(|(_, key)| key)
    }
}

fn pairs(service: &Service) -> impl Iterator<Item = u64> {
    service.selector.iter().map(|(key, value)| pair(&service.key.namespace, key, value))
}

/// Hash of a label in a namespace.
pub(super) fn pair(namespace: &str, key: &str, value: &str) -> u64 {
    let mut hash = Fnv::default();
    for part in [namespace, key, value] {
        hash.text(part);
    }
    hash.value()
}

/// Whether a service selects a container in this namespace. One without selector selects nothing.
pub(super) fn selects(service: &Service, namespace: &str, record: &HeldRecord) -> bool {
    *service.key.namespace == *namespace
        && !service.selector.is_empty()
        && service
            .selector
            .iter()
            .all(|(key, value)| record.labels.get(key).is_some_and(|other| other == value))
}

/// Slices by service.
#[derive(Clone, Debug, Default)]
pub(super) struct SlicesOf {
    by_service: BTreeSet<(u64, ObjectKey)>,
}

impl SlicesOf {
    pub(super) fn add(&mut self, slice: &EndpointSlice) {
        if let Some(service) = slice.service() {
            let hash = pair(&slice.key.namespace, service, "");
            self.by_service.insert((hash, slice.key.clone()));
        }
    }

    pub(super) fn remove(&mut self, slice: &EndpointSlice) {
        if let Some(service) = slice.service() {
            let hash = pair(&slice.key.namespace, service, "");
            self.by_service.remove(&(hash, slice.key.clone()));
        }
    }

    /// Takes the least memory.
    pub(super) fn pack(&mut self) {
        self.by_service = std::mem::take(&mut self.by_service).into_iter().collect();
    }

    /// Keys of slices that may be of this service.
    pub(super) fn of(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let hash = pair(&service.namespace, &service.name, "");
        let first = (hash, ObjectKey::new(Arc::clone(&service.namespace), ""));
        self.by_service
            .range(first..)
            .take_while(move |(other, key)| *other == hash && key.namespace == service.namespace)
            .map(|(_, key)| key)
    }
}
