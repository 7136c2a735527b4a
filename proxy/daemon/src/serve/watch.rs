//! Followers of lists: one line of JSON per change. A follower that does not read is disconnected:
//! its next request begins with the list again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use causeway_model::{ObjectKey, ObjectKind};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::collect::{self, Item, Kind};
use super::render;
pub(crate) use crate::request::answer::Lines;
use crate::state::{State, Touched};

/// Lines that wait for a follower at most.
const WAITING: usize = 512;

/// Bytes that wait for a follower at most, beside one line.
const WAITING_BYTES: usize = 32 << 20;

/// Changes of one commit above which the list is sent again.
const AT_ONCE: usize = 128;

impl Lines {
    /// The next line, as [`mpsc::Receiver::poll_recv`].
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        let line = self.lines.poll_recv(context);
        if let Poll::Ready(Some(line)) = &line {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        }
        line
    }
}

impl From<mpsc::Receiver<String>> for Lines {
    /// Of a sender that waits until there is room.
    fn from(lines: mpsc::Receiver<String>) -> Self {
        // Wraps around below zero; nobody asks.
        Self { lines, waiting: Arc::default() }
    }
}

/// All followers.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    all: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    kind: Kind,
    namespace: Option<String>,
    lines: mpsc::Sender<String>,
    /// Bytes that it has not read.
    waiting: Arc<AtomicUsize>,
    /// What it was told last.
    known: BTreeMap<Name, Arc<str>>,
}

/// Namespace and name, and for pods container and node.
type Name = collect::PodName;

impl Watchers {
    /// A new follower, who gets the list first.
    pub(crate) fn add(&mut self, state: &State, kind: Kind, namespace: Option<String>) -> Lines {
        self.drop_gone();
        let (lines, receiver) = mpsc::channel(WAITING);
        let waiting = Arc::<AtomicUsize>::default();
        let receiver = Lines { lines: receiver, waiting: Arc::clone(&waiting) };
        let mut watcher = Watcher { kind, namespace, lines, waiting, known: BTreeMap::new() };
        if watcher.reset(state) {
            self.all.push(watcher);
        }
        receiver
    }

    /// Tells everybody what a commit touched.
    pub(crate) fn touched(&mut self, state: &State, touched: &Touched) {
        self.drop_gone();
        self.all.retain_mut(|watcher| watcher.follow(state, touched));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    fn drop_gone(&mut self) {
        self.all.retain(|watcher| !watcher.lines.is_closed());
    }
}

impl Watcher {
    /// Sends the list; `false`: the follower is to be disconnected.
    fn reset(&mut self, state: &State) -> bool {
        self.known.clear();
        let mut items = Vec::new();
        for item in collect::all(state, self.kind, self.namespace.as_deref()) {
            if let Some(value) = item.render() {
                self.known.insert(name(&item), value.to_string().into());
                items.push(value);
            }
        }
        self.send("RESET", &render::list(items))
    }

    fn follow(&mut self, state: &State, touched: &Touched) -> bool {
        let names = match self.names(state, touched) {
            Some(names) if names.len() <= AT_ONCE => names,
            _ => return self.reset(state),
        };
        names.into_iter().all(|(name, item)| {
            let value = item.and_then(|item| item.render());
            self.tell(name, value)
        })
    }

    /// Sends what became of an object, if that is new.
    fn tell(&mut self, name: Name, value: Option<Value>) -> bool {
        let Some(value) = value else {
            let Some(last) = self.known.remove(&name) else { return true };
            let last: Value = serde_json::from_str(&last).unwrap_or_default();
            return self.send("DELETED", &last);
        };
        let text: Arc<str> = value.to_string().into();
        match self.known.insert(name, Arc::clone(&text)) {
            None => self.send("ADDED", &value),
            Some(before) if before == text => true,
            Some(_) => self.send("MODIFIED", &value),
        }
    }

    /// What of a commit may concern this follower; `None` if that is not worth finding out.
    fn names(&self, state: &State, touched: &Touched) -> Option<Vec<(Name, Option<Item>)>> {
        let within = |key: &ObjectKey| {
            self.namespace.as_ref().is_none_or(|namespace| *key.namespace == **namespace)
        };
        let of_kind = |kind: ObjectKind| {
            let keys = touched.objects.iter().filter(move |(of, _)| *of == kind);
            keys.map(|(_, key)| key.clone()).collect::<BTreeSet<_>>()
        };
        let keys: BTreeSet<ObjectKey> = match self.kind {
            Kind::Services => of_kind(ObjectKind::Service),
            Kind::EndpointSlices => of_kind(ObjectKind::EndpointSlice),
            Kind::Nodes => {
                let named = touched.nodes.iter().map(|name| ObjectKey::new("", name.as_str()));
                of_kind(ObjectKind::Node).into_iter().chain(named).collect()
            }
            Kind::Endpoints => touched.services.clone(),
            Kind::Pods => return self.pods(state, touched),
        };
        let keys = keys.into_iter().filter(|key| self.kind == Kind::Nodes || within(key));
        let named = keys.map(|key| {
            let item = collect::one(state, self.kind, &key);
            (plain(&key), item)
        });
        Some(named.collect())
    }

    fn pods(&self, state: &State, touched: &Touched) -> Option<Vec<(Name, Option<Item>)>> {
        if touched.containers.len() > AT_ONCE {
            return None;
        }
        let ids: BTreeSet<&str> =
            touched.containers.iter().map(|key| key.container_id.as_str()).collect();
        if ids.is_empty() {
            return Some(Vec::new());
        }
        let mut named: BTreeMap<Name, Option<Item>> = BTreeMap::new();
        let known = self.known.keys().filter(|(_, id, _)| ids.contains(id.as_str()));
        named.extend(known.map(|name| (name.clone(), None)));
        for (name, pod) in collect::pods(&state.index) {
            let within =
                self.namespace.as_ref().is_none_or(|namespace| *name.0.namespace == **namespace);
            if within && ids.contains(name.1.as_str()) {
                named.insert(name, Some(Item::Pod(pod)));
            }
        }
        Some(named.into_iter().collect())
    }

    fn send(&self, kind: &str, object: &Value) -> bool {
        let line = json!({ "type": kind, "object": object }).to_string() + "\n";
        if self.waiting.load(Ordering::Relaxed) > WAITING_BYTES {
            return false;
        }
        self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        self.lines.try_send(line).is_ok()
    }
}

/// Of anything but a pod.
fn plain(key: &ObjectKey) -> Name {
    (key.clone(), String::new(), Arc::from(""))
}

fn name(item: &Item) -> Name {
    match item {
        Item::Service(service) => plain(&service.key),
        Item::Endpoints(resolved) => plain(&resolved.service.key),
        Item::Slice(slice) => plain(&slice.key),
        Item::Pod(pod) => {
            (pod.key(), pod.records[0].key.container_id.clone(), Arc::clone(&pod.node))
        }
        Item::Node(node) => plain(&ObjectKey::new("", node.name.as_str())),
    }
}

#[cfg(test)]
mod tests;
