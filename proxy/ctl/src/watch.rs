//! `causeway get -w`: the current objects, then changes.

use std::collections::{BTreeMap, BTreeSet};

use causeway_api::Error;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{Format, GetArgs};
use crate::columns::{self, Look};
use crate::daemon::{Daemon, list_path};
use crate::kind::{self, Kind, Selection};
use crate::screen::{Screen, Style};
use crate::table::Table;
use crate::{Failure, Verdict, now};

/// A line of the daemon's answer.
#[derive(Debug, Deserialize)]
struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `RESET`
    #[serde(rename = "type")]
    kind: String,
    /// The object; with `RESET` the list of all.
    object: Value,
}

/// Namespace and name, and for pods node and container: several nodes may have one of a name.
type Key = [String; 4];

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    (args, selection): (&GetArgs, &Selection),
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let (kind, names) = one_kind(selection)?;
    let format = format.unwrap_or(Format::Table);
    let look = Look {
        kind,
        wide: format == Format::Wide,
        namespace: args.all_namespaces && kind.is_namespaced(),
        prefixed: false,
    };
    let mut watch = Watch { look, format, names, known: BTreeMap::new(), table: None };
    let scope = (!args.all_namespaces).then_some(args.namespace.namespace.as_str());
    let path = list_path(kind, scope, true);
    let mut begun = false;
    loop {
        let mut fresh = false;
        let ended = daemon.lines("GET", &path, None, &mut |event| {
            fresh = true;
            watch.take(event, screen)?;
            Ok(screen.flush()?)
        });
        begun |= fresh;
        match ended {
            Ok(()) if begun => {}
            // The connection broke, or the daemon is on its way out.
            Err(Failure::Daemon(Error::Broken { .. } | Error::Unreachable { .. })) if begun => {}
            Err(Failure::Daemon(Error::Refused { status: STOPPING, .. })) if begun => {}
            Ok(()) => return Err(Failure::WatchEnded),
            Err(failure) => return Err(failure),
        }
        // Said once, however often one that is on its way out still answers.
        if fresh {
            screen.note(Style::Notice, "causewayd ended the watch; resuming when it is back")?;
        }
        // The list that comes first then says what changed meanwhile.
        daemon.wait()?;
    }
}

/// HTTP's 503.
const STOPPING: u16 = 503;

fn one_kind(selection: &Selection) -> Result<(Kind, BTreeSet<String>), Failure> {
    let usage = || Failure::Usage("-w watches one resource type only".into());
    match selection {
        Selection::Kinds(kinds) => match kinds.as_slice() {
            [kind] => Ok((*kind, BTreeSet::new())),
            _ => Err(usage()),
        },
        Selection::Names(names) => {
            let kind = names.first().map(|(kind, _)| *kind).ok_or_else(usage)?;
            if names.iter().any(|(other, _)| *other != kind) {
                return Err(usage());
            }
            Ok((kind, names.iter().map(|(_, name)| name.clone()).collect()))
        }
    }
}

struct Watch {
    look: Look,
    format: Format,
    /// Names to show; all if there is none.
    names: BTreeSet<String>,
    known: BTreeMap<Key, Value>,
    /// There once the header is out.
    table: Option<Table>,
}

impl Watch {
    fn take(&mut self, event: Event, screen: &mut Screen) -> Result<(), Failure> {
        let changed = if event.kind == "RESET" {
            self.reset(&event.object)
        } else {
            self.change(&event.kind, event.object)
        };
        self.show(&changed, screen)
    }

    /// Takes the list of all and returns which objects are new, other, or gone (as they were).
    fn reset(&mut self, list: &Value) -> Vec<Value> {
        let mut before = std::mem::take(&mut self.known);
        let mut changed = Vec::new();
        for object in columns::list(&list["items"]) {
            if !self.is_asked_for(object) {
                continue;
            }
            let key = self.key(object);
            if before.remove(&key).as_ref() != Some(object) {
                changed.push(object.clone());
            }
            self.known.insert(key, object.clone());
        }
        changed.extend(before.into_values());
        changed
    }

    fn change(&mut self, kind: &str, object: Value) -> Vec<Value> {
        if !self.is_asked_for(&object) {
            return Vec::new();
        }
        let key = self.key(&object);
        if kind == "DELETED" {
            self.known.remove(&key);
        } else {
            self.known.insert(key, object.clone());
        }
        vec![object]
    }

    fn is_asked_for(&self, object: &Value) -> bool {
        self.names.is_empty() || self.names.contains(self.look.kind.name(object))
    }

    fn key(&self, object: &Value) -> Key {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let (node, container) = if self.look.kind == Kind::Pod {
            let container = &object["metadata"]["annotations"]["causeway.io/container-id"];
            (text(&object["spec"]["nodeName"]), text(container))
        } else {
            (String::new(), String::new())
        };
        let namespace = kind::namespace(object).to_owned();
        [namespace, self.look.kind.name(object).to_owned(), node, container]
    }

    fn show(&mut self, objects: &[Value], screen: &mut Screen) -> Result<(), Failure> {
        let now = now();
        match self.format {
            Format::Table | Format::Wide => {
                let rows: Vec<_> = objects.iter().map(|one| self.look.row(one, now)).collect();
                self.rows(&rows, screen)?;
            }
            Format::Json => objects.iter().try_for_each(|object| screen.json(object))?,
            Format::Yaml => {
                for object in objects {
                    screen.say("---")?;
                    screen.yaml(object)?;
                }
            }
            Format::Name => {
                for object in objects {
                    let kind = self.look.kind;
                    screen.say(&format!("{}/{}", kind.singular(), kind.name(object)))?;
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, rows: &[Vec<String>], screen: &mut Screen) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let is_first = self.table.is_none();
        let table = self.table.get_or_insert_default();
        if is_first {
            table.fit(&self.look.header());
        }
        rows.iter().for_each(|row| table.fit(row));
        if is_first {
            screen.say(&table.line(&self.look.header()))?;
        }
        for row in rows {
            screen.say(&table.line(row))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: u32) -> Value {
        json!({"metadata": {"namespace": "default", "name": name, "resourceVersion": version}})
    }

    /// An event and the names and versions that are shown after it.
    type Step<'a> = (&'a str, Value, &'a [(&'a str, u32)]);

    /// Follows the named objects (none named: all).
    fn check(names: &[&str], events: Vec<Step<'_>>) {
        let look = Look { kind: Kind::Service, wide: false, namespace: false, prefixed: false };
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let format = Format::Name;
        let mut watch = Watch { look, format, names, known: BTreeMap::new(), table: None };
        for (kind, payload, wanted) in events {
            let shown = match kind {
                "RESET" => watch.reset(&payload),
                _ => watch.change(kind, payload),
            };
            let wanted: Vec<Value> = wanted.iter().map(|&(name, n)| object(name, n)).collect();
            assert_eq!(shown, wanted, "{kind}");
        }
    }

    #[test]
    fn containers_of_one_name_on_two_nodes_are_two() {
        let look = Look { kind: Kind::Pod, wide: false, namespace: false, prefixed: false };
        let (names, known) = (BTreeSet::new(), BTreeMap::new());
        let mut watch = Watch { look, format: Format::Name, names, known, table: None };
        let pod = |node: &str| {
            json!({
                "metadata": { "namespace": "default", "name": "web",
                              "annotations": { "causeway.io/container-id": format!("id-{node}") } },
                "spec": { "nodeName": node },
            })
        };
        let list = |nodes: &[&str]| json!({ "items": nodes.iter().map(|node| pod(node)).collect::<Vec<_>>() });
        assert_eq!(watch.reset(&list(&["n1", "n2"])), [pod("n1"), pod("n2")]);
        assert_eq!(watch.reset(&list(&["n1", "n2"])), [json!(null); 0]);
        watch.change("DELETED", pod("n1"));
        assert_eq!(watch.reset(&list(&["n2"])), [json!(null); 0]);
        assert_eq!(watch.reset(&list(&["n1"])), [pod("n1"), pod("n2")]);
    }

    #[test]
    fn a_watch_shows_what_changed() {
        let list = |items: &[(&str, u32)]| json!({"items": items.iter().map(|&(name, n)| object(name, n)).collect::<Vec<_>>()});
        check(
            &[],
            vec![
                ("RESET", list(&[("a", 1), ("b", 1)]), &[("a", 1), ("b", 1)]),
                ("MODIFIED", object("a", 2), &[("a", 2)]),
                ("ADDED", object("c", 1), &[("c", 1)]),
                ("DELETED", object("b", 1), &[("b", 1)]),
                ("RESET", list(&[("a", 2), ("d", 1)]), &[("d", 1), ("c", 1)]),
            ],
        );
        check(
            &["a"],
            vec![
                ("RESET", list(&[("a", 1), ("b", 1)]), &[("a", 1)]),
                ("MODIFIED", object("b", 2), &[]),
                ("DELETED", object("a", 1), &[("a", 1)]),
            ],
        );
    }
}
