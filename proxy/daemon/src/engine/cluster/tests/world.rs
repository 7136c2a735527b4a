//! An engine over a fake of the kernel's rules, and a cluster store that the test plays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use causeway_api::{Applied, AppliedOutcome, Apply};
use causeway_model::allocate::{AddressRange, BalancerPool};
use causeway_model::{
    EndpointEvent, EndpointKey, EndpointRecord, Labels, NodeIdentity, NodeRecord, ObjectKey,
    ObjectKind, SubnetRecord, manifest,
};
use causeway_nft::Fake;
use causeway_ruleset::plan::NodePortAddresses;
use causeway_source::cluster::{
    Change, Cluster, Command, Container, Known, Report, View, Write, WriteError,
};
use causeway_source::{Store, Stored};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::backend::Backend;
use crate::config::StoreKind;
use crate::engine::{Engine, EngineParts};
use crate::event::Event;
use crate::node::NodeInfo;
use crate::notify::Notifier;
use crate::request::{Refused, Request, Target};
use crate::serve::Front;
use crate::sysctls::Sysctls;
use crate::testing;

pub(super) const BOOT: &str = "boot";
pub(super) const STORE: &str = "store-1";

/// What a request is answered.
pub(super) type Answer = oneshot::Receiver<Result<Applied, Refused>>;

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) engine: Engine,
    /// The kernel's; `None`: it keeps none.
    rules: Option<Fake>,
    pub(super) said: mpsc::UnboundedReceiver<Command>,
    /// Of the store.
    pub(super) revision: i64,
    /// Keeps the way to the engine open.
    _events: mpsc::Receiver<Event>,
}

/// Runs a test.
pub(super) fn test(work: impl FnOnce(World)) {
    let folder = tempfile::tempdir().expect("a folder");
    testing::run(async { work(World::of(folder, StoreKind::Etcd, Some(Fake::default()))) });
}

/// Runs a test of what is too much for the fake.
pub(super) fn test_without_rules(work: impl FnOnce(World)) {
    let folder = tempfile::tempdir().expect("a folder");
    testing::run(async { work(World::of(folder, StoreKind::Etcd, None)) });
}

fn engine(
    folder: &Path,
    store: StoreKind,
    rules: Option<&Fake>,
) -> (Engine, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel(64);
    let mut settings = testing::settings(folder);
    settings.store = store;
    let range = AddressRange::parse("203.0.113.1").expect("an address");
    settings.balancer_pools =
        vec![BalancerPool { ranges: vec![range], ..BalancerPool::new("default") }];
    settings.etcd_endpoints = vec!["http://192.0.2.9:2379".to_owned()];
    let facts = NodeInfo {
        name: "n1".into(),
        boot_id: BOOT.to_owned(),
        ips: settings.node_ips.clone(),
        routers: Vec::new(),
        node_ports: NodePortAddresses::All,
        refused: None,
    };
    std::fs::create_dir_all(&settings.manifest_dir).expect("a folder");
    let parts = EngineParts {
        facts,
        store: Store::open(folder).expect("a store"),
        backend: rules.map_or_else(|| Backend::refusing(BTreeSet::new()), Backend::of),
        notifies: true,
        sysctls: Sysctls::open(folder, BOOT).expect("sysctls"),
        overlay: None,
        forward: None,
        front: Front::new(sender, &settings),
        notifier: Notifier::new(&BTreeMap::new()).expect("nobody to notify"),
        machine_id: "machine-1".to_owned(),
        settings,
    };
    (Engine::load(parts).expect("loaded"), events)
}

impl World {
    pub(super) fn of(folder: TempDir, store: StoreKind, rules: Option<Fake>) -> Self {
        let (mut engine, events) = engine(folder.path(), store, rules.as_ref());
        engine.commit();
        let (commands, said) = mpsc::unbounded_channel();
        if store == StoreKind::Etcd {
            engine.join(Cluster::over(commands));
        }
        Self { folder, engine, rules, said, revision: 0, _events: events }
    }

    /// Kills the daemon and starts it again.
    pub(super) fn restart(self, store: StoreKind) -> Self {
        let Self { folder, engine, rules, revision, .. } = self;
        // What a kill loses otherwise.
        engine.store.flush().expect("flushed");
        drop(engine);
        Self { revision, ..Self::of(folder, store, rules) }
    }

    /// The store answers, with this view.
    pub(super) fn connect(&mut self, view: View, same: bool) {
        self.report(Report::Connection(Ok(())));
        self.reset(view, STORE, same);
        self.commands();
    }

    pub(super) fn reset(&mut self, view: View, store: &str, same: bool) {
        self.revision += 1;
        let known = Known {
            store: Some(store.to_owned()),
            revision: self.revision,
            lease: Some(7),
            lost: false,
        };
        self.report(Report::Reset { view, known, same });
    }

    pub(super) fn away(&mut self) {
        self.report(Report::Connection(Err("connection refused".to_owned())));
    }

    pub(super) fn report(&mut self, report: Report) {
        self.on_event(Event::Cluster(report));
    }

    pub(super) fn on_event(&mut self, event: Event) {
        self.engine.on_event(event);
        self.engine.commit();
    }

    /// What another node wrote, at the next revision.
    pub(super) fn changed(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        self.report(Report::Changed { changes, revision: self.revision });
    }

    /// What was said since the last look.
    pub(super) fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.said.try_recv().ok()).collect()
    }

    /// The only write since the last look.
    pub(super) fn written(&mut self) -> Write {
        let mut writes = self.writes();
        assert_eq!(writes.len(), 1, "{writes:?}");
        writes.remove(0)
    }

    pub(super) fn writes(&mut self) -> Vec<Write> {
        let write = |command| {
            let Command::Write(write) = command else { return None };
            Some(write)
        };
        self.commands().into_iter().filter_map(write).collect()
    }

    /// The store takes a write and shows what it did.
    pub(super) fn accept(&mut self, write: Write) {
        let id = write.id;
        self.show(write);
        self.report(Report::Written { id, result: Ok(self.revision) });
    }

    pub(super) fn show(&mut self, write: Write) {
        let put = write.put.into_iter().map(|(stored, _)| Change::Object(stored));
        let gone = write.delete.into_iter().map(|(kind, key, _)| Change::ObjectGone(kind, key));
        let of_nodes =
            self.engine.state.peers.values().filter(|one| write.nodes.contains(&one.name));
        let subnets = of_nodes.flat_map(|peer| peer.subnets.clone()).map(Change::SubnetGone);
        let changes = put.chain(gone).chain(subnets).collect();
        self.changed(changes);
    }

    pub(super) fn refuse(&mut self, write: &Write, error: WriteError) {
        self.report(Report::Written { id: write.id, result: Err(error) });
    }

    pub(super) fn apply(&mut self, objects: Vec<Value>) -> Answer {
        self.ask(Apply { objects, wait: true, ..Apply::default() })
    }

    pub(super) fn ask(&mut self, apply: Apply) -> Answer {
        let (reply, answer) = oneshot::channel();
        let raw = |object| serde_json::value::to_raw_value(object).expect("JSON");
        let objects = apply.objects.iter().map(raw).collect();
        let apply = Apply { objects, wait: apply.wait, validate: apply.validate };
        self.on_event(Event::Request(Request::Apply { apply, reply }));
        answer
    }

    pub(super) fn delete(&mut self, service: &str) -> Answer {
        self.remove(Target::Object(ObjectKind::Service, key(service)))
    }

    pub(super) fn delete_node(&mut self, name: &str) -> Answer {
        self.remove(Target::Object(ObjectKind::Node, ObjectKey::new("", name)))
    }

    fn remove(&mut self, target: Target) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.on_event(Event::Request(Request::Delete { targets: vec![target], reply }));
        answer
    }

    /// A container of this node is attached (`Some`: with this address) or gone.
    pub(super) fn container(&mut self, name: &str, seq: u64, address: Option<&str>) {
        self.event(name, seq, address.map(|address| record(name, address)));
    }

    /// The same with all that the plugin says.
    pub(super) fn event(&mut self, name: &str, seq: u64, record: Option<EndpointRecord>) {
        let (reply, mut answer) = oneshot::channel();
        let event = EndpointEvent { key: endpoint(name), seq, boot_id: BOOT.to_owned(), record };
        self.on_event(Event::Request(Request::Event { event, labels: Labels::new(), reply }));
        answer.try_recv().expect("answered").expect("taken");
    }

    pub(super) fn manifest(&mut self, file: &str, documents: &[Value]) {
        let path = self.folder.path().join("manifests").join(file);
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": documents });
        std::fs::write(path, list.to_string()).expect("written");
        self.on_event(Event::Manifests);
    }

    /// Endpoints of the first port of a service.
    pub(super) fn endpoints(&self, service: &str) -> Vec<String> {
        let resolved = self.engine.state.index.resolve(&key(service));
        let Some(resolved) = resolved else { return vec!["no such service".to_owned()] };
        let ready = resolved.ports[0].endpoints.iter().filter(|endpoint| endpoint.ready);
        ready.map(|endpoint| endpoint.address.to_string()).collect()
    }

    pub(super) fn address(&self, service: &str) -> Option<String> {
        let service = self.engine.state.index.services().get(&key(service))?;
        service.cluster_ips.first().map(ToString::to_string)
    }

    /// The text of what is degraded.
    pub(super) fn degraded(&mut self) -> String {
        self.engine.report_connection();
        self.engine.state.conditions.degraded().map(|line| line + "\n").collect()
    }

    pub(super) fn peers(&self) -> Vec<String> {
        let shown = |peer: &causeway_model::Peer| {
            let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
            let alive = if peer.record.is_some() { "" } else { " silent" };
            format!("{} {}{alive}", peer.name, subnets.join(","))
        };
        self.engine.state.peers.values().map(shown).collect()
    }
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

pub(super) fn endpoint(name: &str) -> EndpointKey {
    EndpointKey {
        network: "net".to_owned(),
        container_id: name.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

pub(super) fn record(name: &str, address: &str) -> EndpointRecord {
    EndpointRecord {
        key: endpoint(name),
        netns: None,
        ips: vec![address.parse().expect("an address")],
        labels: Labels::from([("app".to_owned(), "web".to_owned())]),
        created: 1,
    }
}

pub(super) fn container(name: &str, address: &str) -> Container {
    Container { record: record(name, address), healthy: true }
}

pub(super) fn node(name: &str) -> NodeRecord {
    NodeRecord {
        identity: NodeIdentity { node: name.to_owned(), machine_id: format!("machine-{name}") },
        boot_id: "other".to_owned(),
        ips: vec!["192.0.2.2".parse().expect("an address")],
        labels: Labels::new(),
        version: "1".to_owned(),
        started: 1,
        config: String::new(),
        created: 0,
    }
}

pub(super) fn subnet(node_name: &str, subnet: &str) -> SubnetRecord {
    let NodeRecord { identity: owner, ips, .. } = node(node_name);
    SubnetRecord {
        subnet: subnet.parse().expect("a network"),
        owner,
        ips,
        vtep: None,
        mtu: None,
        created: 0,
    }
}

/// A view with these nodes.
pub(super) fn view(nodes: &[&str]) -> View {
    View {
        nodes: nodes.iter().map(|name| ((*name).to_owned(), node(name))).collect(),
        ..View::default()
    }
}

pub(super) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "protocol": "TCP" }] },
    })
}

/// A service of this address.
pub(super) fn at(name: &str, address: &str) -> Value {
    let mut service = service(name);
    service["spec"]["clusterIP"] = json!(address);
    service
}

/// The object of a document as another node wrote it.
pub(super) fn stored(document: &Value, origin: causeway_source::Origin) -> Stored {
    let mut objects = manifest::from_json(document).expect("a good document");
    Stored { object: objects.remove(0), origin }
}

/// The outcomes of an answer that is there.
pub(super) fn outcomes(answer: &mut Answer) -> Vec<AppliedOutcome> {
    let applied = answer.try_recv().expect("answered").expect("not refused");
    applied.results.iter().map(|one| one.outcome).collect()
}

/// The refusal of an answer that is there, in words.
pub(super) fn refusal(answer: &mut Answer) -> String {
    let refused = answer.try_recv().expect("answered").expect_err("refused");
    assert_eq!(refused.status, 503, "{refused:?}");
    format!("{}: {}", refused.problem.message, refused.problem.causes.join(": "))
}
