//! Whether what is staged stays within the limits of services. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use causeway_model::limits::{Excess, Load};
use causeway_model::manifest::Refusal;
use causeway_model::{EndpointSlice, Index, Object, ObjectKey, ObjectKind, Service};
use causeway_source::Stored;

use crate::state::ObjectId;

/// What is staged, `None` for what goes.
type StagedObjects = BTreeMap<ObjectId, Option<Stored>>;

/// What is known of the services that something staged concerns.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// What they take with what is staged.
    loads: BTreeMap<ObjectKey, Load<Arc<Service>>>,
    /// Their slices that are staged, or were of them before that.
    slices: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Room {
    /// Takes in an object that is staged next, in the place of `previous`.
    ///
    /// # Errors
    /// It brings a service over a limit; nothing is taken in.
    pub(super) fn take(
        &mut self,
        (index, staged): (&Index, &StagedObjects),
        object: &Object,
        previous: Option<&Object>,
    ) -> Result<(), Refusal> {
        match object {
            Object::Service(service) => {
                self.loads.remove(&service.key);
                let none = BTreeSet::new();
                let replaced = self.slices.get(&service.key).unwrap_or(&none);
                let by = staged_slices(staged, replaced, &service.key);
                let fits = index.load(&service, replaced, by);
                fits.map(drop).map_err(|excess| refusal("Service", &service.key, &excess))
            }
            Object::EndpointSlice(slice) => {
                let previous = previous.and_then(as_slice);
                if let Some(old) = previous.filter(|old| old.service() != slice.service()) {
                    self.leave(old);
                }
                let Some(service) = service_of(slice) else { return Ok(()) };
                let fits = self.add((index, staged), &service, slice, previous);
                fits.map_err(|excess| refusal_of(slice, &excess))?;
                self.slices.entry(service).or_default().insert(slice.key.clone());
                Ok(())
            }
            Object::Node(_) => Ok(()),
        }
    }

    /// Whether all slices of a document have room together, in the place of those that its earlier
    /// version became: it is stored whole or not at all.
    ///
    /// # Errors
    /// They bring their service over a limit.
    pub(super) fn take_together(
        &self,
        (index, staged): (&Index, &StagedObjects),
        objects: &[Object],
    ) -> Result<(), Refusal> {
        let slices: Vec<&EndpointSlice> = objects.iter().filter_map(as_slice).collect();
        let [first, _, ..] = slices.as_slice() else { return Ok(()) };
        let Some(key) = service_of(first) else { return Ok(()) };
        let Some(service) = service_now(index, staged, &key) else { return Ok(()) };
        let mut replaced = self.slices.get(&key).cloned().unwrap_or_default();
        let old = index.slices_of(&key).filter(|slice| slice.from_endpoints());
        replaced.extend(old.map(|slice| slice.key.clone()));
        replaced.extend(slices.iter().map(|slice| slice.key.clone()));
        let others = staged_slices(staged, &replaced, &key);
        let others = others.filter(|other| !other.from_endpoints());
        let fits = index.load(&service, &replaced, others.chain(slices.iter().copied()));
        fits.map(drop).map_err(|excess| refusal_of(first, &excess))
    }

    /// A slice is not of its service any more.
    fn leave(&mut self, slice: &EndpointSlice) {
        if let Some(key) = service_of(slice) {
            if let Some(load) = self.loads.get_mut(&key) {
                load.remove(slice);
            }
            self.slices.entry(key).or_default().insert(slice.key.clone());
        }
    }

    fn add(
        &mut self,
        (index, staged): (&Index, &StagedObjects),
        key: &ObjectKey,
        slice: &EndpointSlice,
        previous: Option<&EndpointSlice>,
    ) -> Result<(), Excess> {
        if let Some(load) = self.loads.get_mut(key) {
            let old = previous.filter(|old| old.service() == slice.service());
            old.into_iter().for_each(|old| load.remove(old));
            let added = load.add(slice);
            if let (Err(_), Some(old)) = (&added, old) {
                // It was there before, so there is room.
                drop(load.add(old));
            }
            return added;
        }
        let Some(service) = service_now(index, staged, key) else { return Ok(()) };
        let mut replaced = self.slices.get(key).cloned().unwrap_or_default();
        replaced.insert(slice.key.clone());
        let others = staged_slices(staged, &replaced, key).filter(|one| one.key != slice.key);
        let load = index.load(&service, &replaced, others.chain([slice]))?;
        self.loads.insert(key.clone(), load);
        Ok(())
    }
}

/// Those slices of a service that are staged.
fn staged_slices<'a>(
    staged: &'a StagedObjects,
    keys: &'a BTreeSet<ObjectKey>,
    service: &'a ObjectKey,
) -> impl Iterator<Item = &'a EndpointSlice> {
    let of = |key: &ObjectKey| staged.get(&(ObjectKind::EndpointSlice, key.clone()));
    let slices = keys.iter().filter_map(of).flatten().filter_map(|one| as_slice(&one.object));
    slices.filter(|slice| slice.service() == Some(&service.name))
}

/// A service as it is with what is staged.
fn service_now(index: &Index, staged: &StagedObjects, key: &ObjectKey) -> Option<Arc<Service>> {
    match staged.get(&(ObjectKind::Service, key.clone())) {
        Some(Some(Stored { object: Object::Service(service), .. })) => {
            Some(Arc::new(service.clone()))
        }
        Some(_) => None,
        None => index.services().get(key).cloned(),
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    Some(ObjectKey::new(Arc::clone(&slice.key.namespace), slice.service()?))
}

fn as_slice(object: &Object) -> Option<&EndpointSlice> {
    match object {
        Object::EndpointSlice(slice) => Some(slice),
        Object::Service(_) | Object::Node(_) => None,
    }
}

fn refusal_of(slice: &EndpointSlice, excess: &Excess) -> Refusal {
    match service_of(slice).filter(|_| slice.from_endpoints()) {
        Some(key) => Refusal { field: "subsets".to_owned(), ..refusal("Endpoints", &key, excess) },
        None => {
            let field = "endpoints".to_owned();
            Refusal { field, ..refusal("EndpointSlice", &slice.key, excess) }
        }
    }
}

fn refusal(kind: &str, key: &ObjectKey, excess: &Excess) -> Refusal {
    let field = match excess {
        Excess::Ports(_) => "spec.ports",
        Excess::Endpoints { .. } | Excess::Ways(_) | Excess::Iptables { .. } => "spec",
    };
    Refusal {
        line: 0,
        kind: kind.to_owned(),
        object: key.to_string(),
        field: field.to_owned(),
        reason: excess.to_string(),
    }
}

#[cfg(test)]
mod tests;
