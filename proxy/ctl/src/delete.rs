//! `causeway delete`

use std::collections::BTreeSet;

use causeway_api::chain;
use causeway_model::Object;

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
        return Err(Failure::Usage("delete has no -o json and yaml; there is name".into()));
    }
    let (targets, mut bad) =
        if args.file.is_empty() { (by_name(args)?, false) } else { by_file(screen, args)? };
    for Target { kind, namespace, name } in &targets {
        let deleted = daemon.delete(*kind, namespace, name)?;
        let singular = kind.singular();
        if !deleted && !args.ignore_not_found {
            bad = true;
            screen.complain(&not_found(*kind, namespace, name))?;
        } else if deleted && format == Some(Format::Name) {
            screen.say(&format!("{singular}/{name}"))?;
        } else if deleted {
            screen.say(&format!("{singular} \"{name}\" deleted"))?;
        }
    }
    Ok(Verdict::finding_if(bad))
}

fn by_name(args: &DeleteArgs) -> Result<Vec<Target>, Failure> {
    let names = match Selection::parse(&args.objects).map_err(Failure::Usage)? {
        Selection::Names(names) => names,
        Selection::Kinds(_) => {
            return Err(Failure::Usage("name what to delete: KIND NAME..".into()));
        }
    };
    if let Some((kind, _)) = names.iter().find(|(kind, _)| !Kind::STORED.contains(kind)) {
        let plural = kind.plural();
        return Err(Failure::Usage(format!(
            "{plural} can not be deleted here: they go when the runtime removes their containers"
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
    if targets.is_empty() && !bad {
        bad = true;
        screen.complain("there are no objects to delete")?;
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
