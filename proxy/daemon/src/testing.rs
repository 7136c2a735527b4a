//! A state from documents and containers, and an engine that answers from it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use causeway_model::{
    EndpointKey, EndpointRecord, Event as Fact, Home, Index, Labels, Object, ObjectKey, manifest,
};
use causeway_ruleset::plan::{Delta, NodePortAddresses, Plan, PlanContext};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::clock;
use crate::config::{
    BackendKind, LogFormat, LogLevel, NodePorts, OverlayKind, Settings, StoreKind,
};
use crate::event::Event;
use crate::followers::Followers;
use crate::request::Request;
use crate::serve::Front;
use crate::state::{Committed, Node, Progress, State, Touched};

/// Three ports of three protocols' kinds, and a container's selector.
pub(crate) const WEB: &str = r#"{ "apiVersion": "v1", "kind": "Service",
    "metadata": { "name": "web", "namespace": "default", "labels": { "team": "a" } },
    "spec": { "clusterIP": "10.96.0.10", "selector": { "app": "web" },
              "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } }"#;

/// A UDP service.
pub(crate) const DNS: &str = r#"{ "apiVersion": "v1", "kind": "Service",
    "metadata": { "name": "dns", "namespace": "kube-system" },
    "spec": { "type": "NodePort", "clusterIP": "10.96.0.53", "selector": { "app": "dns" },
              "ports": [{ "port": 53, "nodePort": 30053, "protocol": "UDP" }] } }"#;

pub(crate) fn settings(folder: &Path) -> Settings {
    Settings {
        node_name: Some("n1".to_owned()),
        node_ips: vec![ip("192.0.2.1")],
        node_labels: Labels::new(),
        run_dir: folder.to_owned(),
        state_dir: folder.to_owned(),
        manifest_dir: folder.join("manifests"),
        containerd_socket: folder.join("containerd.sock"),
        image_labels: false,
        service_cidrs: vec!["10.96.0.0/16".parse().expect("a network")],
        cluster_cidrs: vec!["10.0.0.0/16".parse().expect("a network")],
        cluster_chosen: false,
        node_subnet_len: 24,
        node_subnets: Vec::new(),
        node_port_range: (30_000, 32_767),
        backend: BackendKind::Nftables,
        node_port_addresses: NodePorts::Planned(NodePortAddresses::All),
        masquerade_all: false,
        balancer_interfaces: Vec::new(),
        dns: crate::config::DnsSettings {
            listen: crate::config::DnsListen::Auto,
            domain: "cluster.local".to_owned(),
            upstreams: Vec::new(),
            ttl: 5,
            vips: None,
        },
        store: StoreKind::Embedded,
        etcd_endpoints: Vec::new(),
        etcd_prefix: "/causeway".to_owned(),
        etcd_tls: causeway_source::cluster::Tls::default(),
        etcd_user: None,
        dead_grace: std::time::Duration::from_secs(60),
        endpoint_ttl: std::time::Duration::from_secs(40),
        subnet_ttl: std::time::Duration::from_secs(24 * 3600),
        peers_file: None,
        overlay: OverlayKind::None,
        vxlan_id: 1,
        vxlan_port: 8472,
        direct_routing: false,
        disable_tx_checksum: false,
        protected_ports: Vec::new(),
        balancer_pools: Vec::new(),
        healthz_listen: Vec::new(),
        metrics_listen: Vec::new(),
        log_format: LogFormat::Text,
        log_level: LogLevel::Info,
        warnings: Vec::new(),
    }
}

/// An empty state.
pub(crate) fn state(folder: &Path) -> State {
    let settings = settings(folder);
    let facts = PlanContext {
        node: "n1".to_owned(),
        zone: None,
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        node_port_addresses: NodePortAddresses::All,
        masquerade_all: false,
        node_ips: settings.node_ips.clone(),
        source_hash: causeway_ruleset::plan::SourceHash::Nftables,
    };
    let labels = [("zone".to_owned(), "z1".to_owned())].into();
    State {
        node: Node {
            name: "n1".to_owned(),
            ips: settings.node_ips.clone(),
            labels,
            subnets: vec!["10.0.1.0/24".parse().expect("a network")],
        },
        settings,
        index: Index::at(Home { node: Arc::from("n1"), ..Home::default() }),
        plan: Plan::new(facts),
        host_ports: std::collections::BTreeMap::new(),
        files: std::collections::BTreeMap::new(),
        progress: Progress::new(clock::now()),
        peers: std::collections::BTreeMap::new(),
        waiting: std::collections::BTreeMap::new(),
        cluster: None,
        overlay: None,
        balancers: crate::balancers::Balancers::default(),
        announced: None,
        conditions: crate::conditions::Conditions::default(),
        names: None,
        left_out: crate::left_out::LeftOutServices::default(),
    }
}

/// Takes facts in, as the engine does.
pub(crate) fn commit(state: &mut State, facts: Vec<Fact>) -> Committed {
    let mut touched = Touched::default();
    for fact in facts {
        match &fact {
            Fact::Apply(object) => {
                touched.objects.insert((object.kind(), object.key().clone()));
            }
            Fact::Delete(kind, key) => drop(touched.objects.insert((*kind, key.clone()))),
            Fact::Attach { record, .. } => drop(touched.containers.insert(record.key.clone())),
            Fact::Detach { key, .. } | Fact::Health { key, .. } => {
                touched.containers.insert(key.clone());
            }
            Fact::Reset(_) | Fact::NodeGone(_) | Fact::NodeLabels { .. } => {}
        }
        touched.services.extend(state.index.apply(fact).services);
    }
    let index = &state.index;
    let services = state.plan.update(&touched.services, &|key| index.resolve(key)).services;
    state.progress.syncs += 1;
    state.progress.synced = Some(clock::now());
    let took = std::time::Duration::from_millis(1);
    Committed { touched, delta: Delta { services, here: None }, full: false, took, latency: took }
}

/// Objects of a document.
pub(crate) fn objects(text: &str) -> Vec<Fact> {
    let documents = manifest::parse(text);
    let objects = documents.into_iter().flat_map(|one| one.objects.expect("a good document"));
    objects.map(|object: Object| Fact::Apply(object)).collect()
}

/// A container of namespace `default`.
pub(crate) fn attach(name: &str, address: &str, app: &str) -> Fact {
    attach_in("default", name, address, app)
}

pub(crate) fn attach_in(namespace: &str, name: &str, address: &str, app: &str) -> Fact {
    let labels: Labels = [
        ("app", app),
        (EndpointRecord::POD_NAME, name),
        (EndpointRecord::POD_NAMESPACE, namespace),
        (EndpointRecord::NETWORK, "causeway"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let record = EndpointRecord {
        key: key(name),
        netns: None,
        ips: vec![ip(address)],
        labels,
        created: 1_795_359_840,
    };
    Fact::Attach { node: Arc::from("n1"), record }
}

/// The container that [`attach`] made is gone.
pub(crate) fn detach(name: &str) -> Fact {
    Fact::Detach { node: "n1".into(), key: key(name) }
}

/// The container that [`attach`] made answers probes, or does not.
pub(crate) fn health(name: &str, healthy: bool) -> Fact {
    Fact::Health { node: "n1".into(), key: key(name), healthy }
}

/// Key of a container that [`attach`] made.
pub(crate) fn key(name: &str) -> EndpointKey {
    EndpointKey {
        network: "causeway".to_owned(),
        container_id: format!("0123456789abcdef-{name}"),
        ifname: "eth0".to_owned(),
    }
}

pub(crate) fn named(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs on a runtime of one thread, as the daemon does.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// What the stub engine is told to do beside requests.
#[derive(Debug)]
pub(crate) enum Step {
    /// Take facts in and follow the commit.
    Commit(Vec<Fact>),
}

/// An engine that commits by itself, answers queries, and hands out what it was asked to change.
pub(crate) struct Stub {
    pub(crate) socket: std::path::PathBuf,
    pub(crate) steps: mpsc::Sender<Step>,
    pub(crate) changes: mpsc::Receiver<Request>,
    /// Goes with the stub.
    _folder: tempfile::TempDir,
}

/// Starts a stub with a state; listens on its socket.
pub(crate) fn start(prepare: impl FnOnce(&mut State)) -> Stub {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    prepare(&mut state);
    let socket = folder.path().join("causeway.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let (events, mut inbox) = mpsc::channel(64);
    let (steps, mut todo) = mpsc::channel(64);
    let (changed, changes) = mpsc::channel(256);
    let mut front = Front::new(events, &state.settings);
    front.start(listener, &mut state);
    let mut followers = Followers::new(front.api());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(event) = inbox.recv() => match event {
                    Event::Request(Request::Query(query)) => front.answer(&state, query, || None),
                    Event::Request(change) => changed.send(change).await.expect("a receiver"),
                    Event::Health { key, healthy } => {
                        let commit = commit(&mut state, vec![Fact::Health { node: "n1".into(), key, healthy }]);
                        followers.committed(&mut state, &commit);
                        front.synced(&state, &commit);
                    }
                    Event::Labels { .. }
                    | Event::Spool
                    | Event::Manifests
                    | Event::KernelChanged { .. }
                    | Event::Cluster(_)
                    | Event::Overlay(_)
                    | Event::Announced(_)
                    | Event::Addresses(_)
                    | Event::Forward(_)
                    | Event::Attachments(_)
                    | Event::Dead { .. }
                    | Event::DeadAttachments(_)
                    | Event::OldMtu(_)
                    | Event::Unguarded(_)
                    | Event::NameAddresses(_)
                    | Event::NameProblems(_)
                    | Event::Peers
                    | Event::Condition { .. }
                    | Event::BridgeSettings
                    | Event::StoreAddresses(_)
                    | Event::Stop => {}
                },
                Some(Step::Commit(facts)) = todo.recv() => {
                    let commit = commit(&mut state, facts);
                    followers.committed(&mut state, &commit);
                    front.synced(&state, &commit);
                }
                else => return,
            }
        }
    });
    Stub { socket, steps, changes, _folder: folder }
}

impl Stub {
    /// Sends a request from a thread: status (200 for any good one) and body.
    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (socket, method) = (self.socket.clone(), method.to_owned());
        let (path, body) = (path.to_owned(), body.to_owned());
        let ask = move || {
            let client = causeway_api::Client::new(&socket);
            let patience = std::time::Duration::from_secs(10);
            match client.request(&method, &path, body.as_bytes(), patience) {
                Ok(bytes) => (200, String::from_utf8(bytes).expect("text")),
                Err(causeway_api::Error::Refused { status, problem }) => {
                    (status, problem.message + &problem.causes.join(": "))
                }
                Err(error) => panic!("{error}"),
            }
        };
        tokio::task::spawn_blocking(ask).await.expect("an answer")
    }

    /// A good answer in JSON.
    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.request("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }
}
