//! `causeway delete`

use std::collections::BTreeSet;

use causeway_api::{Applied, AppliedObject, AppliedOutcome, Delete, ObjectName, chain};
use causeway_model::Object;

use crate::apply::why;
use crate::cli::{DeleteArgs, Format};
use crate::daemon::Daemon;
use crate::files;
use crate::get::not_found;
use crate::kind::{Kind, Selection};
use crate::screen::{Screen, Style};
use crate::{Failure, Verdict};

/// An object to delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    kind: Kind,
    namespace: String,
    name: String,
}

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &DeleteArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    if matches!(format, Some(Format::Json | Format::Yaml)) {
        return Err(Failure::Usage("delete does not support -o json or yaml; use name".into()));
    }
    let (targets, mut bad) =
        if args.file.is_empty() { (by_name(args)?, false) } else { by_file(screen, args)? };
    if targets.is_empty() {
        return Ok(Verdict::finding_if(bad));
    }
    let objects = targets.iter().map(|Target { kind, namespace, name }| ObjectName {
        kind: kind.plural().to_owned(),
        namespace: if kind.is_namespaced() { namespace.clone() } else { String::new() },
        name: name.clone(),
    });
    let deleted: Applied = daemon.post("/v1/delete", &Delete { objects: objects.collect() })?;
    for (target, result) in targets.iter().zip(&deleted.results) {
        bad |= report(screen, args, format, (target, result))?;
    }
    Ok(Verdict::finding_if(bad))
}

/// Says what became of an object; returns whether it is still there or never was.
fn report(
    screen: &mut Screen,
    args: &DeleteArgs,
    format: Option<Format>,
    (target, result): (&Target, &AppliedObject),
) -> Result<bool, Failure> {
    let Target { kind, namespace, name } = target;
    let singular = kind.singular();
    for warning in &result.warnings {
        screen.note(Style::Notice, &format!("{singular} {name}: warning: {warning}"))?;
    }
    match result.outcome {
        AppliedOutcome::Refused => {
            let slash = if kind.is_namespaced() { "/" } else { "" };
            let namespace = if kind.is_namespaced() { namespace } else { "" };
            let why = why(result);
            screen
                .complain(&format!("{singular} {namespace}{slash}{name} was not deleted: {why}"))?;
            return Ok(true);
        }
        AppliedOutcome::NotFound if args.ignore_not_found => return Ok(false),
        AppliedOutcome::NotFound => {
            screen.complain(&not_found(*kind, namespace, name))?;
            return Ok(true);
        }
        AppliedOutcome::Created
        | AppliedOutcome::Configured
        | AppliedOutcome::Unchanged
        | AppliedOutcome::Skipped
        | AppliedOutcome::Deleted => match format {
            Some(Format::Name) => screen.say(&format!("{singular}/{name}"))?,
            Some(_) | None => screen.say(&format!("{singular} \"{name}\" deleted"))?,
        },
    }
    Ok(false)
}

fn by_name(args: &DeleteArgs) -> Result<Vec<Target>, Failure> {
    let names = match Selection::parse(&args.objects).map_err(Failure::Usage)? {
        Selection::Names(names) => names,
        Selection::Kinds(_) => {
            return Err(Failure::Usage("nothing to delete was named; write KIND NAME..".into()));
        }
    };
    if let Some((kind, _)) = names.iter().find(|(kind, _)| !Kind::STORED.contains(kind)) {
        let plural = kind.plural();
        return Err(Failure::Usage(format!(
            "{plural} cannot be deleted with causeway; remove their containers through the \
             container runtime"
        )));
    }
    let namespace = &args.namespace.namespace;
    let target = |(kind, name)| Target { kind, namespace: namespace.clone(), name };
    Ok(names.into_iter().map(target).collect())
}

/// Objects of files, in order, each once; and whether any document was refused.
fn by_file(screen: &mut Screen, args: &DeleteArgs) -> Result<(Vec<Target>, bool), Failure> {
    let (manifests, unreadable) = files::read(&args.file);
    for error in &unreadable {
        screen.complain(&chain(error))?;
    }
    let mut bad = !unreadable.is_empty();
    let (mut targets, mut seen) = (Vec::new(), BTreeSet::new());
    for manifest in &manifests {
        for document in &manifest.documents {
            match &document.objects {
                Ok(objects) => {
                    for target in objects.iter().map(target) {
                        if seen.insert(target.clone()) {
                            targets.push(target);
                        }
                    }
                }
                Err(refusal) => {
                    bad = true;
                    screen.note(Style::Bad, &files::refusal(&manifest.shown, refusal))?;
                }
            }
        }
    }
    if !bad && manifests.iter().all(|manifest| manifest.documents.is_empty()) {
        bad = true;
        screen.complain("no objects to delete")?;
    }
    Ok((targets, bad))
}

fn target(object: &Object) -> Target {
    let key = object.key();
    let (kind, name) = match object {
        Object::Service(_) => (Kind::Service, &*key.name),
        Object::EndpointSlice(slice) if slice.from_endpoints() => {
            (Kind::Endpoints, slice.service().unwrap_or(&key.name))
        }
        Object::EndpointSlice(_) => (Kind::EndpointSlice, &*key.name),
        Object::Node(_) => (Kind::Node, &*key.name),
    };
    Target { kind, namespace: key.namespace.to_string(), name: name.to_owned() }
}
