//! `causeway get`

use serde_json::{Value, json};

use crate::cli::{Format, GetArgs};
use crate::columns::{self, Look};
use crate::daemon::{Daemon, list_path};
use crate::kind::{Kind, Selection};
use crate::screen::{Screen, Style};
use crate::table;
use crate::watch;
use crate::{Failure, Verdict, now};

/// Objects of a kind.
struct Group {
    kind: Kind,
    items: Vec<Value>,
    /// The daemon's answer to a request for all of them.
    list: Option<Value>,
}

/// What was found, and what was asked for by name and is not there.
struct Found {
    groups: Vec<Group>,
    missing: Vec<(Kind, String)>,
}

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &GetArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let selection = Selection::parse(&args.objects).map_err(Failure::Usage)?;
    if args.all_namespaces && matches!(selection, Selection::Names(_)) {
        return Err(Failure::Usage(
            "a resource cannot be named across all namespaces; use -n \
             instead of -A"
                .into(),
        ));
    }
    if args.watch {
        return watch::run(daemon, screen, (args, &selection), format);
    }
    let mut found = fetch(daemon, args, &selection)?;
    if matches!(format, None | Some(Format::Table | Format::Wide)) {
        add_built_in(daemon, args, &mut found.groups)?;
    }
    match format.unwrap_or(Format::Table) {
        Format::Table => tables(screen, args, &found.groups, false)?,
        Format::Wide => tables(screen, args, &found.groups, true)?,
        Format::Json => screen.json(&document(&selection, found.groups))?,
        Format::Yaml => screen.yaml(&document(&selection, found.groups))?,
        Format::Name => {
            for group in &found.groups {
                for item in &group.items {
                    let (kind, name) = (group.kind.singular(), group.kind.name(item));
                    screen.say(&format!("{kind}/{name}"))?;
                }
            }
        }
    }
    for (kind, name) in &found.missing {
        screen.complain(&not_found(*kind, &args.namespace.namespace, name))?;
    }
    Ok(Verdict::finding_if(!found.missing.is_empty()))
}

/// That an object is not there.
pub(crate) fn not_found(kind: Kind, namespace: &str, name: &str) -> String {
    if kind.is_namespaced() {
        format!("{} \"{name}\" not found in namespace {namespace}", kind.plural())
    } else {
        format!("{} \"{name}\" not found", kind.plural())
    }
}

fn fetch(daemon: &Daemon, args: &GetArgs, selection: &Selection) -> Result<Found, Failure> {
    let namespace = args.namespace.namespace.as_str();
    let scope = (!args.all_namespaces).then_some(namespace);
    let mut found = Found { groups: Vec::new(), missing: Vec::new() };
    match selection {
        Selection::Kinds(kinds) => {
            for &kind in kinds {
                let list: Value = daemon.get(&list_path(kind, scope, false))?;
                let items = columns::list(&list["items"]).cloned().collect();
                found.groups.push(Group { kind, items, list: Some(list) });
            }
        }
        Selection::Names(names) => {
            for (kind, name) in names {
                let Some(object) = named(daemon, *kind, namespace, name)? else {
                    found.missing.push((*kind, name.clone()));
                    continue;
                };
                match found.groups.last_mut().filter(|group| group.kind == *kind) {
                    Some(group) => group.items.push(object),
                    None => {
                        found.groups.push(Group { kind: *kind, items: vec![object], list: None })
                    }
                }
            }
        }
    }
    Ok(found)
}

/// What no object stands for, for people: lists in JSON and YAML are applied again.
fn add_built_in(daemon: &Daemon, args: &GetArgs, groups: &mut [Group]) -> Result<(), Failure> {
    /// The name server's.
    const NAMES: (&str, &str) = ("kube-system", "kube-dns");
    if !args.all_namespaces && args.namespace.namespace != NAMES.0 {
        return Ok(());
    }
    let lists = groups.iter_mut().filter(|one| one.kind == Kind::Service && one.list.is_some());
    for group in lists {
        let place = |item: &Value| {
            let text = |key: &str| item["metadata"][key].as_str().unwrap_or_default().to_owned();
            (text("namespace"), text("name"))
        };
        let known = group.items.iter().any(|item| place(item) == (NAMES.0.into(), NAMES.1.into()));
        if !known && let Some(object) = daemon.object(Kind::Service, NAMES.0, NAMES.1)? {
            group.items.push(object);
            group.items.sort_by_key(place);
        }
    }
    Ok(())
}

fn named(
    daemon: &Daemon,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Failure> {
    if kind != Kind::Lease {
        return daemon.object(kind, namespace, name);
    }
    let list: Value = daemon.get(&list_path(kind, None, false))?;
    Ok(columns::list(&list["items"]).find(|item| kind.name(item) == name).cloned())
}

/// One object asked for by name as it is, the daemon's list as it is, anything else as a list.
fn document(selection: &Selection, mut groups: Vec<Group>) -> Value {
    let by_name = matches!(selection, Selection::Names(names) if names.len() == 1);
    if let [Group { items, list, .. }] = groups.as_mut_slice() {
        if let Some(list) = list.take() {
            return list;
        }
        if by_name && items.len() == 1 {
            return items.remove(0);
        }
    }
    let items: Vec<Value> = groups.into_iter().flat_map(|group| group.items).collect();
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

fn tables(
    screen: &mut Screen,
    args: &GetArgs,
    groups: &[Group],
    wide: bool,
) -> Result<(), Failure> {
    let now = now();
    let prefixed = groups.len() > 1;
    let mut shown = false;
    for group in groups.iter().filter(|group| !group.items.is_empty()) {
        if shown {
            screen.say("")?;
        }
        shown = true;
        let kind = group.kind;
        let namespace = args.all_namespaces && kind.is_namespaced();
        let look = Look { kind, wide, namespace, prefixed };
        let rows: Vec<_> = group.items.iter().map(|item| look.row(item, now)).collect();
        screen.say_all(&table::lines(&look.header(), &rows))?;
    }
    let asked_all = groups.iter().any(|group| group.list.is_some());
    if !shown && asked_all {
        let namespaced = groups.iter().any(|group| group.kind.is_namespaced());
        let place = if args.all_namespaces || !namespaced {
            "No resources found".to_owned()
        } else {
            format!("No resources found in {} namespace.", args.namespace.namespace)
        };
        screen.note(Style::Plain, &place)?;
    }
    Ok(())
}
