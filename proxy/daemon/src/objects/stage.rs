//! Objects that are to be stored or deleted: completed, checked, and staged if they differ from those
//! that are stored.

use std::mem;

use causeway_api::{Applied, AppliedObject, AppliedOutcome, Apply, FieldProblem};
use causeway_model::manifest::{self, Document, Refusal, Validate};
use causeway_model::{Index, Object, ObjectKey, ObjectKind};
use causeway_source::{Origin, Stored, check_size};
use serde_json::value::RawValue;

use super::removal::{self, Standing};
use super::{Objects, Staged, StagingContext, as_service, ports};
use crate::request::Target;
use crate::state::{ObjectId, has_stored, stored};

/// Changes that are being staged.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(super) objects: &'a mut Objects,
    pub(super) context: StagingContext<'a>,
    pub(super) staged: Staged,
}

impl<'a> Stage<'a> {
    /// Nothing is staged.
    pub(crate) fn new(objects: &'a mut Objects, context: StagingContext<'a>) -> Self {
        Self { objects, context, staged: Staged::default() }
    }

    /// Stages objects. Bad ones are refused one by one.
    pub(crate) fn apply(mut self, apply: &Apply<Box<RawValue>>) -> (Staged, Applied) {
        let mut results = Vec::new();
        for (document, text) in apply.objects.iter().enumerate() {
            // Only nesting without end is JSON and yet no value.
            let value = serde_json::from_str(text.get()).unwrap_or_default();
            for found in manifest::parse_json(&value) {
                self.stage_document(document, (found, apply.validate), &mut results);
            }
        }
        for service in self.drop_old_endpoints() {
            let its = results.iter_mut().rfind(|one| is_endpoints_of(one, &service));
            if let Some(its) = its {
                its.outcome = changed(its.outcome, AppliedOutcome::Configured);
            }
        }
        (self.staged, Applied { results })
    }

    /// Stages a document as far as it is taken.
    fn stage_document(
        &mut self,
        document: usize,
        (found, validate): (Document, Validate),
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
        self.apply_document(document, objects, results);
        if let Some(first) = results.get_mut(before) {
            first.warnings.splice(0..0, warnings);
        }
    }

    fn apply_document(
        &mut self,
        document: usize,
        objects: Vec<Object>,
        results: &mut Vec<AppliedObject>,
    ) {
        if let Err(refusal) = self.staged.together(&self.context.state.index, &objects) {
            results.push(refused(document, &refusal));
            return;
        }
        for object in objects {
            let mut result = described(document, &object, AppliedOutcome::Unchanged);
            match self.accept(object, &Origin::Api) {
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
    pub(crate) fn drop_old_endpoints(&mut self) -> Vec<ObjectKey> {
        let mut services = Vec::new();
        for (service, wanted) in mem::take(&mut self.staged.endpoints) {
            let old = slices_of_endpoints(&self.context.state.index, &service)
                .filter(|key| !wanted.contains(key));
            let old: Vec<ObjectKey> = old.cloned().collect();
            if !old.is_empty() {
                services.push(service);
            }
            for key in old {
                self.staged.delete((ObjectKind::EndpointSlice, key));
            }
        }
        services
    }

    /// Completes an object and stages it, if it differs from what is stored.
    ///
    /// # Errors
    /// An address or port is not to be had.
    pub(crate) fn accept(
        &mut self,
        object: Object,
        origin: &Origin,
    ) -> Result<(AppliedOutcome, Vec<String>), Refusal> {
        let id = (object.kind(), object.key().clone());
        self.staged.want_endpoints(&object);
        let previous = self.previous(&id);
        let lost = self.context.membership.is_missing_in_store(&id);
        let elsewhere = self.objects.elsewhere.get(&id).filter(|_| !lost);
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
        let known = self.context.state.files.get(&id);
        let moved = matches!(origin, Origin::Manifest(file) if known != Some(file));
        let origin = origin_kept(origin, known, elsewhere, &mut warnings);
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
            let Staged { objects, room, .. } = &mut self.staged;
            room.take((&self.context.state.index, objects), object, previous.as_ref())?;
            if let Object::Service(service) = object {
                let previous = previous.as_ref().and_then(as_service);
                let listening = self.staged.listening.get_or_insert_with(self.context.listening);
                warnings.extend(ports::shadowed(service, previous, listening));
                self.objects.allocator.release(&service.key);
                self.objects.allocator.claim(service);
            }
            self.staged.objects.insert(id, Some(stored));
        }
        Ok((outcome, warnings))
    }

    fn complete(
        &self,
        object: Object,
        previous: Option<&Object>,
    ) -> Result<(Object, Vec<String>), Refusal> {
        let now = self.context.now;
        Ok(match (object, previous) {
            (Object::Service(mut service), previous) => {
                let previous = previous.and_then(as_service);
                service.created = previous.map_or(now, |previous| previous.created);
                let (service, warnings) =
                    self.objects.allocator.complete(&self.objects.pools, service, previous)?;
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
    fn previous(&self, id: &ObjectId) -> Option<Object> {
        match self.staged.objects.get(id) {
            Some(staged) => staged.as_ref().map(|stored| stored.object.clone()),
            None => stored(&self.context.state.index, id),
        }
    }

    /// Stages the end of objects. What a manifest directory has would come back with the next start:
    /// that is refused.
    pub(crate) fn delete(mut self, targets: &[Target]) -> (Staged, Applied) {
        let mut results = Vec::new();
        for (document, target) in targets.iter().enumerate() {
            let (ids, kind, key): (Vec<ObjectId>, _, _) = match target {
                Target::Object(kind, key) => (vec![(*kind, key.clone())], kind.name(), key),
                Target::Endpoints(key) => {
                    let keys = slices_of_endpoints(&self.context.state.index, key);
                    let ids = keys.map(|key| (ObjectKind::EndpointSlice, key.clone())).collect();
                    (ids, "endpoints", key)
                }
            };
            let there = |id: &ObjectId| match self.staged.objects.get(id) {
                Some(staged) => staged.is_some(),
                None => has_stored(&self.context.state.index, id),
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
                ids.into_iter().for_each(|id| self.staged.delete(id));
                self.staged.nodes.extend(node);
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
        (self.staged, Applied { results })
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
        match (
            removal::standing(self.context.state, name, self.context.membership.may_live(name)),
            &kept,
        ) {
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
        if let Some(file) = self.context.state.files.get(id) {
            let path = self.context.state.settings.manifest_dir.join(file);
            let path = path.display();
            return Some(format!("it comes from the manifest {path}: remove it there"));
        }
        let (node, file) = self.objects.elsewhere.get(id)?;
        // Of a node that is gone for good nobody else can.
        if !self.context.state.peers.contains_key(node) {
            return None;
        }
        Some(format!(
            "it comes from {file} of the manifest directory of node {node}: remove it there"
        ))
    }
}

/// Slices that were written as the `Endpoints` of a service.
fn slices_of_endpoints<'a>(
    index: &'a Index,
    service: &'a ObjectKey,
) -> impl Iterator<Item = &'a ObjectKey> {
    let slices = index.slices_of(service);
    slices.filter(|slice| slice.from_endpoints()).map(|slice| &slice.key)
}

/// Where an object counts as from: what a user changes stays its manifest's.
pub(super) fn origin_kept(
    origin: &Origin,
    known: Option<&String>,
    elsewhere: Option<&(String, String)>,
    warnings: &mut Vec<String>,
) -> Origin {
    match (origin, known, elsewhere) {
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
