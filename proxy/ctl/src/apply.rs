//! `causeway apply`

use causeway_api::{Applied, AppliedObject, AppliedOutcome, Apply, FieldProblem};
use causeway_model::manifest;
use serde_json::{Value, json};

use crate::cli::{ApplyArgs, Format};
use crate::daemon::Daemon;
use crate::files::{self, Manifest};
use crate::kind::Kind;
use crate::screen::{Screen, Style, chain};
use crate::{Failure, Verdict};

/// Bytes of objects in a request; servers refuse bodies without bound.
const CHUNK: usize = 1 << 20;

/// An object and the document that it comes from.
struct Item {
    shown: String,
    line: usize,
    /// Position of the document among all, for objects that come from one document.
    document: usize,
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
    if items.is_empty() {
        if unreadable.is_empty() && !refused {
            screen.complain("there are no objects to apply")?;
        }
        return Ok(Verdict::Finding);
    }
    let mut bad = refused || !unreadable.is_empty();
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
    let (mut items, mut refused, mut position) = (Vec::new(), false, 0);
    for Manifest { shown, documents } in manifests {
        for document in documents {
            position += 1;
            for warning in &document.warnings {
                let line = format!("{shown}:{}: warning: {warning}", document.line);
                screen.note(Style::Notice, &line)?;
            }
            match &document.objects {
                Ok(objects) => items.extend(objects.iter().map(|object| Item {
                    shown: shown.clone(),
                    line: document.line,
                    document: position,
                    value: manifest::to_json(object),
                })),
                Err(refusal) => {
                    refused = true;
                    screen.note(Style::Bad, &files::refusal(shown, refusal))?;
                }
            }
        }
    }
    Ok((items, refused))
}

/// Items in requests of bounded size; the objects of one document stay together.
fn chunks(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut chunks: Vec<Vec<Item>> = Vec::new();
    let mut size = 0;
    for item in items {
        let length = item.value.to_string().len();
        let last = chunks.last_mut();
        let together = last.as_ref().and_then(|chunk| chunk.last()).map(|last| last.document)
            == Some(item.document);
        match last.filter(|_| together || size + length <= CHUNK) {
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
    for result in merge(items, &applied.results) {
        let kind = Kind::from_word(&result.kind).map(Kind::singular);
        let kind = kind.unwrap_or(&result.kind);
        let place = place(items.get(result.document), &result);
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
                screen.note(Style::Bad, &format!("{place}: {}", why(&result)))?;
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

/// `FILE:LINE: KIND NAMESPACE/NAME`, with the kind as the document has it.
fn place(item: Option<&Item>, result: &AppliedObject) -> String {
    let kind = item.and_then(|item| item.value["kind"].as_str()).unwrap_or(&result.kind);
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

/// Results with one for an object that came as several, as `Endpoints` of two families do: of
/// these the one that says most.
fn merge(items: &[Item], results: &[AppliedObject]) -> Vec<AppliedObject> {
    let document = |result: &AppliedObject| items.get(result.document).map(|item| item.document);
    let weight = |outcome| match outcome {
        AppliedOutcome::Unchanged => 0,
        AppliedOutcome::Deleted => 1,
        AppliedOutcome::Configured => 2,
        AppliedOutcome::Created => 3,
        AppliedOutcome::Refused => 4,
    };
    let mut merged: Vec<AppliedObject> = Vec::new();
    for result in results {
        let same = |last: &&mut AppliedObject| {
            document(last) == document(result)
                && (&last.kind, &last.namespace, &last.name)
                    == (&result.kind, &result.namespace, &result.name)
        };
        match merged.last_mut().filter(same) {
            Some(last) => {
                last.warnings.extend(result.warnings.iter().cloned());
                if weight(result.outcome) > weight(last.outcome) {
                    last.outcome = result.outcome;
                    last.refusal = result.refusal.clone();
                }
            }
            None => merged.push(result.clone()),
        }
    }
    merged
}
