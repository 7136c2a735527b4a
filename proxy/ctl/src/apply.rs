//! `causeway apply`

use causeway_api::{Applied, AppliedObject, AppliedOutcome, Apply, FieldProblem, chain};
use causeway_model::{Object, manifest};
use serde_json::{Value, json};

use crate::cli::{ApplyArgs, Format};
use crate::daemon::Daemon;
use crate::files::{self, Manifest};
use crate::kind::Kind;
use crate::screen::{Screen, Style};
use crate::{Failure, Verdict};

/// Bytes of objects in a request; servers refuse bodies without bound.
const CHUNK: usize = 16 << 20;

/// A document and the place that it comes from.
struct Item {
    shown: String,
    line: usize,
    value: Value,
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
    let (items, refused) = check(screen, &manifests)?;
    let mut bad = refused || !unreadable.is_empty();
    if !bad && manifests.iter().all(|manifest| manifest.documents.is_empty()) {
        bad = true;
        screen.complain("there are no objects to apply")?;
    }
    let mut all = Vec::new();
    for chunk in chunks(items) {
        let objects: Vec<Value> = chunk.iter().map(|item| item.value.clone()).collect();
        let body = json!(Apply { objects, wait: !args.no_wait });
        let applied: Applied = daemon.post("/v1/apply", &body)?;
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
fn check(screen: &mut Screen, manifests: &[Manifest]) -> Result<(Vec<Item>, bool), Failure> {
    let (mut items, mut refused) = (Vec::new(), false);
    for Manifest { shown, documents } in manifests {
        for document in documents {
            for warning in &document.warnings {
                let line = format!("{shown}:{}: warning: {warning}", document.line);
                screen.note(Style::Notice, &line)?;
            }
            match &document.objects {
                Ok(objects) if objects.is_empty() => {}
                Ok(objects) => items.push(Item {
                    shown: shown.clone(),
                    line: document.line,
                    value: whole(objects),
                }),
                Err(refusal) => {
                    refused = true;
                    screen.note(Style::Bad, &files::refusal(shown, refusal))?;
                }
            }
        }
    }
    Ok((items, refused))
}

/// A document for the daemon. What came as one, as `Endpoints` of two families, stays one: the
/// daemon takes it as the whole of what is wanted.
fn whole(objects: &[Object]) -> Value {
    let mut items: Vec<Value> = objects.iter().map(manifest::to_json).collect();
    if items.len() == 1 {
        return items.remove(0);
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Items in requests of bounded size.
fn chunks(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut chunks: Vec<Vec<Item>> = Vec::new();
    let mut size = 0;
    for item in items {
        let length = item.value.to_string().len();
        match chunks.last_mut().filter(|_| size + length <= CHUNK) {
            Some(chunk) => {
                size += length;
                chunk.push(item);
            }
            None => {
                size = length;
                chunks.push(vec![item]);
            }
        }
    }
    chunks
}

/// Says what became of objects; returns whether any was refused.
fn report(
    screen: &mut Screen,
    items: &[Item],
    applied: &Applied,
    format: Option<Format>,
) -> Result<bool, Failure> {
    let mut refused = false;
    for result in &applied.results {
        let kind = Kind::from_word(&result.kind).map(Kind::singular);
        let kind = kind.unwrap_or(&result.kind);
        let place = place(items.get(result.document), result);
        for warning in &result.warnings {
            screen.note(Style::Notice, &format!("{place}: warning: {warning}"))?;
        }
        let word = match result.outcome {
            AppliedOutcome::Created => "created",
            AppliedOutcome::Configured => "configured",
            AppliedOutcome::Unchanged => "unchanged",
            AppliedOutcome::Deleted => "deleted",
            AppliedOutcome::Refused => {
                refused = true;
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

/// `FILE:LINE: KIND NAMESPACE/NAME`, with the kind as documents have it.
fn place(item: Option<&Item>, result: &AppliedObject) -> String {
    let kind = Kind::from_word(&result.kind).map(Kind::written).unwrap_or(&result.kind);
    let slash = if result.namespace.is_empty() { "" } else { "/" };
    let object = format!("{kind} {}{slash}{}", result.namespace, result.name);
    match item {
        Some(Item { shown, line, .. }) => format!("{shown}:{line}: {object}"),
        None => object,
    }
}

/// `FIELD: reason` of a refusal, without the field where it is not known.
fn why(result: &AppliedObject) -> String {
    match &result.refusal {
        Some(FieldProblem { field, reason }) if field.is_empty() => reason.clone(),
        Some(FieldProblem { field, reason }) => format!("{field}: {reason}"),
        None => "causewayd does not say why".to_owned(),
    }
}
