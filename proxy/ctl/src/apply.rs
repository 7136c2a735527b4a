//! `causeway apply`

use std::collections::BTreeMap;
use std::io;

use causeway_api::{Applied, AppliedObject, AppliedOutcome, Apply, FieldProblem, chain};
use causeway_model::Object;
use causeway_model::manifest::{self, Document, Validate, Warning};
use serde_json::value::{self, RawValue};
use serde_json::{Value, json};

use crate::cli::{ApplyArgs, Format};
use crate::daemon::Daemon;
use crate::files::{self, Manifest};
use crate::kind::Kind;
use crate::screen::{Screen, Style};
use crate::{Failure, Verdict};

/// Bytes of objects in a request. What the daemon needs at its peak for an apply goes by this, and
/// not by how much is applied; documents stand for themselves, so that parts are as good as all.
const CHUNK: usize = 1 << 20;

/// A document and the place that it comes from.
struct Item<'m> {
    shown: &'m str,
    document: &'m Document,
    /// The service whose `Endpoints` it is a slice of.
    endpoints_of: Option<(&'m str, &'m str)>,
    text: Box<RawValue>,
}

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &ApplyArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let (manifests, unreadable) = files::read(&args.file);
    for error in &unreadable {
        screen.complain(&chain(error))?;
    }
    let validate = args.validate.into();
    let (items, refused) = check(screen, &manifests, validate)?;
    let mut bad = refused || !unreadable.is_empty();
    if !bad && manifests.iter().all(|manifest| manifest.documents.is_empty()) {
        bad = true;
        screen.complain("no objects to apply")?;
    }
    let mut all = Vec::new();
    for chunk in chunks(items) {
        let objects: Vec<&RawValue> = chunk.iter().map(|item| &*item.text).collect();
        let apply = Apply { objects, wait: !args.no_wait, validate };
        let applied: Applied = daemon.post("/v1/apply", &apply)?;
        bad |= report(screen, &chunk, &applied, format)?;
        all.extend(applied.results);
    }
    match format {
        Some(Format::Json) => screen.json(&json!(Applied { results: all }))?,
        Some(Format::Yaml) => screen.yaml(&json!(Applied { results: all }))?,
        None | Some(Format::Table | Format::Wide | Format::Name) => {}
    }
    Ok(Verdict::finding_if(bad))
}

/// Says what is wrong with documents and returns the objects of the good ones, and whether any was
/// refused.
fn check<'m>(
    screen: &mut Screen,
    manifests: &'m [Manifest],
    validate: Validate,
) -> Result<(Vec<Item<'m>>, bool), Failure> {
    let (mut items, mut refused) = (Vec::new(), false);
    for Manifest { shown, documents } in manifests {
        for document in documents {
            for Warning { line, text } in document.warnings(validate) {
                screen.note(Style::Notice, &format!("{shown}:{line}: warning: {text}"))?;
            }
            let refusals = document.refusals(validate);
            refused |= !refusals.is_empty();
            for refusal in &refusals {
                screen.note(Style::Bad, &files::refusal(shown, refusal))?;
            }
            match document.objects.as_deref() {
                Ok(objects @ [first, ..]) if refusals.is_empty() => items.push(Item {
                    shown,
                    document,
                    endpoints_of: endpoints_of(first),
                    text: whole(objects)?,
                }),
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok((items, refused))
}

fn endpoints_of(object: &Object) -> Option<(&str, &str)> {
    match object {
        Object::EndpointSlice(slice) if slice.from_endpoints() => {
            Some((&slice.key.namespace, slice.service()?))
        }
        Object::EndpointSlice(_) | Object::Service(_) | Object::Node(_) => None,
    }
}

/// A document for the daemon. What came as one, as `Endpoints` of two families, stays one: the
/// daemon takes it as the whole of what is wanted.
fn whole(objects: &[Object]) -> Result<Box<RawValue>, Failure> {
    let mut items: Vec<Value> = objects.iter().map(manifest::to_json).collect();
    let value = if items.len() == 1 {
        items.remove(0)
    } else {
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    };
    Ok(value::to_raw_value(&value).map_err(io::Error::from)?)
}

/// Items in requests of bounded size. The slices of a service's `Endpoints`, as `get` prints them,
/// go together: the daemon takes them as the whole of what is wanted.
fn chunks(items: Vec<Item<'_>>) -> Vec<Vec<Item<'_>>> {
    let mut chunks: Vec<Vec<Item<'_>>> = Vec::new();
    let mut homes = BTreeMap::new();
    let mut size = 0;
    for item in items {
        let home = item.endpoints_of.and_then(|service| homes.get(&service).copied());
        if let Some(chunk) = home.and_then(|home: usize| chunks.get_mut(home)) {
            chunk.push(item);
            continue;
        }
        let length = item.text.get().len();
        if chunks.is_empty() || size + length > CHUNK {
            size = 0;
            chunks.push(Vec::new());
        }
        size += length;
        if let Some(service) = item.endpoints_of {
            homes.insert(service, chunks.len() - 1);
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(item);
        }
    }
    chunks
}

/// Says what became of objects; returns whether any was refused.
fn report(
    screen: &mut Screen,
    items: &[Item<'_>],
    applied: &Applied,
    format: Option<Format>,
) -> Result<bool, Failure> {
    let mut refused = false;
    for result in &applied.results {
        let kind = Kind::from_word(&result.kind).map(Kind::singular);
        let kind = kind.unwrap_or(&result.kind);
        let item = items.get(result.document);
        for warning in &result.warnings {
            let place = place(item, result, warning.split(": ").next().unwrap_or_default());
            screen.note(Style::Notice, &format!("{place}: warning: {warning}"))?;
        }
        let word = match result.outcome {
            AppliedOutcome::Created => "created",
            AppliedOutcome::Configured => "configured",
            AppliedOutcome::Unchanged => "unchanged",
            AppliedOutcome::Deleted => "deleted",
            AppliedOutcome::NotFound => "not found",
            AppliedOutcome::Skipped => continue,
            AppliedOutcome::Refused => {
                refused = true;
                let field = result.refusal.as_ref().map_or("", |refusal| &refusal.field);
                let place = place(item, result, field);
                screen.note(Style::Bad, &format!("{place}: {}", why(result)))?;
                continue;
            }
        };
        match format {
            None | Some(Format::Table | Format::Wide) => {
                screen.say(&format!("{kind}/{} {word}", result.name))?;
            }
            Some(Format::Name) => screen.say(&format!("{kind}/{}", result.name))?,
            Some(Format::Json | Format::Yaml) => {}
        }
    }
    Ok(refused)
}

/// `FILE:LINE: KIND NAMESPACE/NAME`, with the line of the field and the kind as documents have it.
fn place(item: Option<&Item<'_>>, result: &AppliedObject, field: &str) -> String {
    let kind = Kind::from_word(&result.kind).map(Kind::written).unwrap_or(&result.kind);
    let slash = if result.namespace.is_empty() { "" } else { "/" };
    let object = format!("{kind} {}{slash}{}", result.namespace, result.name);
    match item {
        Some(Item { shown, document, .. }) => {
            format!("{shown}:{}: {object}", document.line_of(field))
        }
        None => object,
    }
}

/// `FIELD: reason` of a refusal, without the field if it is not known.
pub(crate) fn why(result: &AppliedObject) -> String {
    match &result.refusal {
        Some(FieldProblem { field, reason }) if field.is_empty() => reason.clone(),
        Some(FieldProblem { field, reason }) => format!("{field}: {reason}"),
        None => "causewayd gave no reason".to_owned(),
    }
}
