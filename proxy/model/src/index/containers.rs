//! Attached containers, by key and by label.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lookup::{pair, selects};
use crate::{EndpointKey, EndpointRecord, ObjectKey, Service};

/// Node, record, and whether it is healthy.
pub(super) type Container = (Arc<str>, Arc<EndpointRecord>, bool);

/// A container as services find it.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) record: Arc<EndpointRecord>,
    pub(super) pod: Arc<ObjectKey>,
}

impl PartialEq for Attached {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Attached {}

impl PartialOrd for Attached {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Attached {
    fn cmp(&self, other: &Self) -> Ordering {
        self.record.key.cmp(&other.record.key)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Containers {
    all: BTreeMap<EndpointKey, Container>,
    by_label: BTreeMap<u64, BTreeSet<Arc<Attached>>>,
}

impl Containers {
    pub(super) fn all(&self) -> &BTreeMap<EndpointKey, Container> {
        &self.all
    }

    /// In place of what there was under its key. One that differs in labels only is as healthy as
    /// before.
    pub(super) fn put(&mut self, node: Arc<str>, record: Arc<EndpointRecord>) {
        let same = |old: &EndpointRecord| (&old.ips, old.created) == (&record.ips, record.created);
        let old = self.remove(&record.key);
        let healthy = old.is_none_or(|(_, old, healthy)| healthy || !same(&old));
        let attached =
            Arc::new(Attached { record: Arc::clone(&record), pod: Arc::new(record.pod()) });
        for (key, value) in &record.labels {
            let hash = pair(&attached.pod.namespace, key, value);
            self.by_label.entry(hash).or_default().insert(Arc::clone(&attached));
        }
        self.all.insert(record.key.clone(), (node, record, healthy));
    }

    pub(super) fn remove(&mut self, key: &EndpointKey) -> Option<Container> {
        let container = self.all.remove(key)?;
        let record = &container.1;
        let pod = Arc::new(record.pod());
        for (key, value) in &record.labels {
            let hash = pair(&pod.namespace, key, value);
            let attached = Attached { record: Arc::clone(record), pod: Arc::clone(&pod) };
            if let Some(set) = self.by_label.get_mut(&hash) {
                set.remove(&attached);
                if set.is_empty() {
                    self.by_label.remove(&hash);
                }
            }
        }
        Some(container)
    }

    /// The record where its health is another one now.
    pub(super) fn set_health(
        &mut self,
        key: &EndpointKey,
        healthy: bool,
    ) -> Option<Arc<EndpointRecord>> {
        let (_, record, now) = self.all.get_mut(key)?;
        (std::mem::replace(now, healthy) != healthy).then(|| Arc::clone(record))
    }

    /// The containers that a service selects: looked for under that pair of its selector which the
    /// fewest containers have.
    pub(super) fn selected<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl Iterator<Item = (&'a Attached, &'a Container)> {
        let namespace = &service.key.namespace;
        let mut rarest: Option<&BTreeSet<Arc<Attached>>> = None;
        for (key, value) in service.selector.iter() {
            match self.by_label.get(&pair(namespace, key, value)) {
                None => {
                    rarest = None;
                    break;
                }
                Some(set) if rarest.is_none_or(|other| set.len() < other.len()) => {
                    rarest = Some(set);
                }
                Some(_) => {}
            }
        }
        rarest
            .into_iter()
            .flatten()
            .filter(|attached| selects(service, &attached.pod.namespace, &attached.record))
            .filter_map(|attached| Some((&**attached, self.all.get(&attached.record.key)?)))
    }
}
