//! Objects of users: completed, stored, told to the index.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use causeway_api::{Applied, AppliedObject, AppliedOutcome, Apply, FieldProblem};
use causeway_model::allocate::Allocator;
use causeway_model::manifest::{self, Document, Refusal, Validate};
use causeway_model::{Event, Index, Object, ObjectKey, ObjectKind, Service};
use causeway_source::{Origin, Stored, check_size};
use serde_json::value::RawValue;

use super::Engine;
use super::ports::{self, Listening};
use super::removal::{self, Standing};
use super::room::Room;
use crate::clock;
use crate::log;
use crate::request::{Refused, Target};
use crate::state::ObjectId;

/// What is to be stored (`Some`) or deleted, not written yet.
#[derive(Debug, Default)]
pub(super) struct Staged {
    objects: BTreeMap<ObjectId, Option<Stored>>,
    /// Slices that are wanted as the `Endpoints` of services, by service. They may come as one
    /// document, or, as `get` prints them, each by itself.
    endpoints: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Nodes that are gone and are to be forgotten.
    nodes: BTreeSet<String>,
    /// Read when it is first asked for.
    listening: Option<Listening>,
    room: Room,
}

impl Staged {
    /// Marks an object as gone.
    pub(super) fn delete(&mut self, id: ObjectId) {
        self.objects.insert(id, None);
    }

    fn want_endpoints(&mut self, object: &Object) {
        if let Object::EndpointSlice(slice) = object
            && slice.from_endpoints()
            && let Some(service) = slice.service()
        {
            let service = ObjectKey::new(Arc::clone(&slice.key.namespace), service);
            self.endpoints.entry(service).or_default().insert(slice.key.clone());
        }
    }

    /// Whether the objects of a document stay within the limits together.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn together(&self, index: &Index, objects: &[Object]) -> Result<(), Refusal> {
        self.room.take_together((index, &self.objects), objects)
    }

    /// The nodes that are to be forgotten, taken out.
    pub(super) fn take_nodes(&mut self) -> BTreeSet<String> {
        mem::take(&mut self.nodes)
    }

    /// What is to be stored and what is to go.
    pub(super) fn parts(self) -> (Vec<Stored>, Vec<ObjectId>) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, stored) in self.objects {
            match stored {
                Some(stored) => put.push(stored),
                None => gone.push(id),
            }
        }
        (put, gone)
    }
}

impl Engine {
    /// Stages objects. Bad ones are refused one by one.
    pub(super) fn stage_apply(&mut self, apply: &Apply<Box<RawValue>>) -> (Staged, Applied) {
        let mut staged = Staged::default();
        let mut results = Vec::new();
        for (document, text) in apply.objects.iter().enumerate() {
            // Only nesting without end is JSON and yet no value.
            let value = serde_json::from_str(text.get()).unwrap_or_default();
            for found in manifest::parse_json(&value) {
                self.stage_document(document, (found, apply.validate), &mut staged, &mut results);
            }
        }
        for service in self.drop_old_endpoints(&mut staged) {
            let its = results.iter_mut().rfind(|one| is_endpoints_of(one, &service));
            if let Some(its) = its {
                its.outcome = changed(its.outcome, AppliedOutcome::Configured);
            }
        }
        (staged, Applied { results })
    }

    /// Stages a document as far as it is taken.
    fn stage_document(
        &mut self,
        document: usize,
        (found, validate): (Document, Validate),
        staged: &mut Staged,
        results: &mut Vec<AppliedObject>,
    ) {
        if let Some(refusal) = found.refusals(validate).first() {
            results.push(refused(document, refusal));
            return;
        }
        let warnings = found.warnings(validate).into_iter().map(|warning| warning.text);
        let warnings: Vec<String> = warnings.collect();
        let before = results.len();
        let objects = found.objects.unwrap_or_default();
        if objects.is_empty() && !warnings.is_empty() {
            results.push(skipped(document));
        }
        self.apply_document(document, objects, staged, results);
        if let Some(first) = results.get_mut(before) {
            first.warnings.splice(0..0, warnings);
        }
    }

    fn apply_document(
        &mut self,
        document: usize,
        objects: Vec<Object>,
        staged: &mut Staged,
        results: &mut Vec<AppliedObject>,
    ) {
        if let Err(refusal) = staged.together(&self.state.index, &objects) {
            results.push(refused(document, &refusal));
            return;
        }
        for object in objects {
            let mut result = described(document, &object, AppliedOutcome::Unchanged);
            match self.accept(object, &Origin::Api, staged) {
                Ok((outcome, warnings)) => {
                    result.outcome = outcome;
                    result.warnings = warnings;
                }
                Err(refusal) => result = refused(document, &refusal),
            }
            match results.last_mut() {
                // An `Endpoints` document is one, though it may be a slice a family.
                Some(last) if last.document == document && same(last, &result) => {
                    last.outcome = changed(last.outcome, result.outcome);
                }
                _ => results.push(result),
            }
        }
    }

    /// Stages the end of slices of earlier versions of `Endpoints` that are not wanted any more.
    /// Returns the services that had some.
    pub(super) fn drop_old_endpoints(&self, staged: &mut Staged) -> Vec<ObjectKey> {
        let mut services = Vec::new();
        for (service, wanted) in mem::take(&mut staged.endpoints) {
            let old = self.slices_of_endpoints(&service).filter(|key| !wanted.contains(key));
            let old: Vec<ObjectKey> = old.cloned().collect();
            if !old.is_empty() {
                services.push(service);
            }
            for key in old {
                staged.delete((ObjectKind::EndpointSlice, key));
            }
        }
        services
    }

    /// Slices that were written as the `Endpoints` of a service.
    fn slices_of_endpoints<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let slices = self.state.index.slices_of(service);
        slices.filter(|slice| slice.from_endpoints()).map(|slice| &slice.key)
    }

    /// Completes an object and stages it, where it differs from what is stored.
    ///
    /// # Errors
    /// An address or port is not to be had.
    pub(super) fn accept(
        &mut self,
        object: Object,
        origin: &Origin,
        staged: &mut Staged,
    ) -> Result<(AppliedOutcome, Vec<String>), Refusal> {
        let id = (object.kind(), object.key().clone());
        staged.want_endpoints(&object);
        let previous = self.previous(&id, staged);
        let lost = self.membership.is_missing_in_store(&id);
        let elsewhere = self.elsewhere.get(&id).filter(|_| !lost);
        let completed = self.complete(object, previous.as_ref());
        if let (Origin::Manifest(_), Some((node, file))) = (origin, elsewhere) {
            let alike = completed.is_ok_and(|(object, _)| previous.as_ref() == Some(&object));
            let warning = (!alike).then(|| {
                format!(
                    "it also stands in {file} of the manifest directory of node {node}, which has \
                     it otherwise and counts; make both alike, or remove one"
                )
            });
            return Ok((AppliedOutcome::Unchanged, warning.into_iter().collect()));
        }
        let (object, mut warnings) = completed?;
        let known = self.state.files.get(&id);
        let moved = matches!(origin, Origin::Manifest(file) if known != Some(file));
        let origin = match (origin, known, elsewhere) {
            (Origin::Api, Some(file), _) => {
                warnings.push(format!(
                    "it also stands in {file} of the manifest directory, which counts again when \
                     that directory changes; change it there"
                ));
                Origin::Manifest(file.clone())
            }
            (Origin::Api, None, Some((node, file))) => {
                warnings.push(format!(
                    "it also stands in {file} of the manifest directory of node {node}, which \
                     counts again when that directory changes; change it there"
                ));
                Origin::Elsewhere { node: node.clone(), file: file.clone() }
            }
            (origin, ..) => origin.clone(),
        };
        let outcome = match &previous {
            None => AppliedOutcome::Created,
            // Nobody else has it any more.
            Some(_) if lost => AppliedOutcome::Created,
            Some(previous) if *previous == object => AppliedOutcome::Unchanged,
            Some(_) => AppliedOutcome::Configured,
        };
        if outcome != AppliedOutcome::Unchanged || moved {
            let stored = Stored { object, origin };
            check_size(&stored).map_err(|reason| too_large(&stored.object, reason))?;
            let object = &stored.object;
            let there = (&self.state.index, &staged.objects);
            staged.room.take(there, object, previous.as_ref())?;
            if let Object::Service(service) = object {
                let previous = previous.as_ref().and_then(as_service);
                let listening = staged.listening.get_or_insert_with(ports::listening);
                warnings.extend(ports::shadowed(service, previous, listening));
                self.allocator.release(&service.key);
                self.allocator.claim(service);
            }
            staged.objects.insert(id, Some(stored));
        }
        Ok((outcome, warnings))
    }

    fn complete(
        &self,
        object: Object,
        previous: Option<&Object>,
    ) -> Result<(Object, Vec<String>), Refusal> {
        let now = clock::unix().as_secs();
        Ok(match (object, previous) {
            (Object::Service(mut service), previous) => {
                let previous = previous.and_then(as_service);
                service.created = previous.map_or(now, |previous| previous.created);
                let (service, warnings) =
                    self.allocator.complete(&self.pools, service, previous)?;
                (Object::Service(service), warnings)
            }
            (Object::EndpointSlice(mut slice), previous) => {
                slice.created = previous.map_or(now, created);
                (Object::EndpointSlice(slice), Vec::new())
            }
            (Object::Node(mut node), previous) => {
                node.created = previous.map_or(now, created);
                (Object::Node(node), Vec::new())
            }
        })
    }

    /// What is staged, else stored.
    fn previous(&self, id: &ObjectId, staged: &Staged) -> Option<Object> {
        match staged.objects.get(id) {
            Some(staged) => staged.as_ref().map(|stored| stored.object.clone()),
            None => self.stored(id),
        }
    }

    /// An object as the index has it.
    pub(super) fn stored(&self, id: &ObjectId) -> Option<Object> {
        let index = &self.state.index;
        let (kind, key) = id;
        match kind {
            ObjectKind::Service => {
                index.services().get(key).map(|one| Object::Service((**one).clone()))
            }
            ObjectKind::EndpointSlice => {
                index.slices().get(key).map(|one| Object::EndpointSlice((**one).clone()))
            }
            ObjectKind::Node => {
                index.nodes().get(&*key.name).map(|one| Object::Node((**one).clone()))
            }
        }
    }

    /// Stages the end of objects. What a manifest directory has would come back with the next start:
    /// that is refused.
    pub(super) fn stage_delete(&self, targets: &[Target]) -> (Staged, Applied) {
        let mut staged = Staged::default();
        let mut results = Vec::new();
        for (document, target) in targets.iter().enumerate() {
            let (ids, kind, key): (Vec<ObjectId>, _, _) = match target {
                Target::Object(kind, key) => (vec![(*kind, key.clone())], kind.name(), key),
                Target::Endpoints(key) => {
                    let keys = self.slices_of_endpoints(key);
                    let ids = keys.map(|key| (ObjectKind::EndpointSlice, key.clone())).collect();
                    (ids, "endpoints", key)
                }
            };
            let there = |id: &ObjectId| match staged.objects.get(id) {
                Some(staged) => staged.is_some(),
                None => self.has_stored(id),
            };
            let ids: Vec<ObjectId> = ids.into_iter().filter(there).collect();
            let kept = ids.iter().find_map(|id| self.kept_by(id));
            let (node, kept, warnings) = self.node_of(target, kept, ids.is_empty());
            let outcome = match (&kept, ids.is_empty() && node.is_none()) {
                (Some(_), _) => AppliedOutcome::Refused,
                (None, true) => AppliedOutcome::NotFound,
                (None, false) => AppliedOutcome::Deleted,
            };
            if outcome == AppliedOutcome::Deleted {
                ids.into_iter().for_each(|id| staged.delete(id));
                staged.nodes.extend(node);
            }
            let refusal = kept.map(|reason| FieldProblem { field: String::new(), reason });
            results.push(AppliedObject {
                document,
                kind: kind.to_owned(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                outcome,
                refusal,
                warnings,
            });
        }
        (staged, Applied { results })
    }

    /// The node that goes with a target, why the target stays, and what to know. `kept` is why the
    /// objects of the target stay, `none` whether there are any.
    fn node_of(
        &self,
        target: &Target,
        kept: Option<String>,
        none: bool,
    ) -> (Option<String>, Option<String>, Vec<String>) {
        let Target::Object(ObjectKind::Node, ObjectKey { name, .. }) = target else {
            return (None, kept, Vec::new());
        };
        match (removal::standing(&self.state, name, self.membership.may_live(name)), &kept) {
            (Standing::Gone, None) => (Some(name.to_string()), None, Vec::new()),
            (Standing::Stays(why), None) if none => (None, Some(why), Vec::new()),
            // A document says something of a node and is not the node.
            (Standing::Stays(why), None) => {
                let warning = format!("what was applied for the node is deleted, not it: {why}");
                (None, None, vec![warning])
            }
            (_, _) => (None, kept, Vec::new()),
        }
    }

    /// Why an object cannot be deleted: a manifest has it.
    fn kept_by(&self, id: &ObjectId) -> Option<String> {
        if let Some(file) = self.state.files.get(id) {
            let path = self.state.settings.manifest_dir.join(file);
            let path = path.display();
            return Some(format!("it comes from the manifest {path}: remove it there"));
        }
        let (node, file) = self.elsewhere.get(id)?;
        // Of a node that is gone for good nobody else can.
        if !self.state.peers.contains_key(node) {
            return None;
        }
        Some(format!(
            "it comes from {file} of the manifest directory of node {node}: remove it there"
        ))
    }

    fn has_stored(&self, (kind, key): &ObjectId) -> bool {
        let index = &self.state.index;
        match kind {
            ObjectKind::Service => index.services().contains_key(key),
            ObjectKind::EndpointSlice => index.slices().contains_key(key),
            ObjectKind::Node => index.nodes().contains_key(&*key.name),
        }
    }

    /// Writes what is staged to this node's store, then tells the index.
    ///
    /// # Errors
    /// 503: nothing is written.
    pub(super) fn write(&mut self, staged: Staged) -> Result<(), Refused> {
        let (put, gone) = staged.parts();
        if put.is_empty() && gone.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.write(&put, &gone) {
            self.claim_anew();
            return Err(Refused::caused(503, "the objects cannot be stored", &error));
        }
        tell_written(put.iter().map(id_of), gone.iter().cloned());
        self.adopt(put, gone);
        Ok(())
    }

    /// Claims what the services of the index have, and nothing else: staging has claimed more.
    pub(super) fn claim_anew(&mut self) {
        self.allocator = Allocator::default();
        for service in self.state.index.services().values() {
            self.allocator.claim(service);
        }
    }

    /// Takes in objects of the cluster store.
    pub(super) fn adopt_objects(&mut self, put: Vec<Stored>, gone: Vec<ObjectId>) {
        let mut ids = put.iter().map(id_of).chain(gone.iter().cloned());
        self.pending.manifests |= ids.any(|id| self.shadowed.contains(&id));
        drop(ids);
        // What one gives back another may have taken.
        for stored in &put {
            if let Object::Service(service) = &stored.object {
                self.allocator.release(&service.key);
            }
        }
        for stored in &put {
            if let Object::Service(service) = &stored.object {
                self.allocator.claim(service);
            }
        }
        self.adopt(put, gone);
    }

    /// Takes in what is stored now.
    pub(super) fn adopt(&mut self, put: Vec<Stored>, gone: Vec<ObjectId>) {
        self.written += put.len() + gone.len();
        for (kind, key) in gone {
            if kind == ObjectKind::Service {
                self.allocator.release(&key);
            }
            self.comes_from((kind, key.clone()), Origin::Api);
            self.tell(kind, key.clone(), Event::Delete(kind, key));
        }
        for stored in put {
            let (kind, key) = (stored.object.kind(), stored.object.key().clone());
            self.comes_from((kind, key.clone()), stored.origin);
            self.tell(kind, key, Event::Apply(stored.object));
        }
    }

    /// Notes who an object came from.
    pub(super) fn comes_from(&mut self, id: ObjectId, origin: Origin) {
        let (files, elsewhere) = (&mut self.state.files, &mut self.elsewhere);
        files.remove(&id);
        elsewhere.remove(&id);
        match origin {
            Origin::Api => {}
            Origin::Manifest(file) => drop(files.insert(id, file)),
            Origin::Elsewhere { node, file } => drop(elsewhere.insert(id, (node, file))),
        }
    }

    pub(super) fn tell(&mut self, kind: ObjectKind, key: ObjectKey, fact: Event) {
        match kind {
            ObjectKind::Service => self.state.progress.service_changes += 1,
            ObjectKind::EndpointSlice => self.state.progress.endpoint_changes += 1,
            ObjectKind::Node => {}
        }
        self.pending.touched.objects.insert((kind, key));
        let changes = self.state.index.apply(fact);
        self.note(changes);
    }
}

/// Kind and key of a stored object.
pub(super) fn id_of(stored: &Stored) -> ObjectId {
    (stored.object.kind(), stored.object.key().clone())
}

/// A line of the log for what was stored, and one for what was deleted.
pub(super) fn tell_written(
    put: impl ExactSizeIterator<Item = ObjectId>,
    gone: impl ExactSizeIterator<Item = ObjectId>,
) {
    let name = |(kind, key): ObjectId| format!("{} {key}", kind.name());
    if put.len() > 0 {
        tracing::info!("stored {}", log::names(put.map(name)));
    }
    if gone.len() > 0 {
        tracing::info!("deleted {}", log::names(gone.map(name)));
    }
}

fn as_service(object: &Object) -> Option<&Service> {
    match object {
        Object::Service(service) => Some(service),
        Object::EndpointSlice(_) | Object::Node(_) => None,
    }
}

fn created(object: &Object) -> u64 {
    match object {
        Object::Service(service) => service.created,
        Object::EndpointSlice(slice) => slice.created,
        Object::Node(node) => node.created,
    }
}

/// An object that no store takes.
fn too_large(object: &Object, reason: String) -> Refusal {
    let (kind, field) = match object {
        Object::Service(_) => ("Service", "spec"),
        Object::EndpointSlice(_) => ("EndpointSlice", "endpoints"),
        Object::Node(_) => ("Node", "metadata"),
    };
    let object = object.key().to_string();
    Refusal { line: 0, kind: kind.to_owned(), object, field: field.to_owned(), reason }
}

fn described(document: usize, object: &Object, outcome: AppliedOutcome) -> AppliedObject {
    let (kind, name) = match object {
        Object::EndpointSlice(slice) if slice.from_endpoints() => {
            ("endpoints", slice.service().unwrap_or(&slice.key.name).to_owned())
        }
        Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => {
            (object.kind().name(), object.key().name.to_string())
        }
    };
    AppliedObject {
        document,
        kind: kind.to_owned(),
        namespace: object.key().namespace.to_string(),
        name,
        outcome,
        refusal: None,
        warnings: Vec::new(),
    }
}

/// A document of a kind that is not ours; its warning names it.
fn skipped(document: usize) -> AppliedObject {
    AppliedObject {
        document,
        kind: String::new(),
        namespace: String::new(),
        name: String::new(),
        outcome: AppliedOutcome::Skipped,
        refusal: None,
        warnings: Vec::new(),
    }
}

fn refused(document: usize, refusal: &Refusal) -> AppliedObject {
    let (namespace, name) = refusal.object.split_once('/').unwrap_or(("", &refusal.object));
    AppliedObject {
        document,
        kind: refusal.kind.to_lowercase(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        outcome: AppliedOutcome::Refused,
        refusal: Some(FieldProblem {
            field: refusal.field.clone(),
            reason: refusal.reason.clone(),
        }),
        warnings: Vec::new(),
    }
}

fn is_endpoints_of(one: &AppliedObject, service: &ObjectKey) -> bool {
    one.kind == "endpoints"
        && one.outcome != AppliedOutcome::Refused
        && (&*one.namespace, &*one.name) == (&*service.namespace, &*service.name)
}

fn same(a: &AppliedObject, b: &AppliedObject) -> bool {
    a.kind == "endpoints" && (&a.kind, &a.namespace, &a.name) == (&b.kind, &b.namespace, &b.name)
}

/// What happened to a document of which two things happened.
fn changed(a: AppliedOutcome, b: AppliedOutcome) -> AppliedOutcome {
    if a == AppliedOutcome::Unchanged && b != a {
        return AppliedOutcome::Configured;
    }
    a
}
