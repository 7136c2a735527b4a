//! A node: a task with what it reported.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use causeway_model::{
    ClusterConfig, EndpointKey, EndpointRecord, MacAddress, NodeIdentity, NodeRecord, Object,
    ObjectKey, ObjectKind, SubnetRecord, allocate, manifest,
};
use causeway_source::cluster::{
    Change, Cluster, ClusterSettings, Command, Container, Known, Reach, Report, Subnets, Tls, View,
    Write, WriteError,
};
use causeway_source::{Origin, Stored};
use ipnetwork::IpNetwork;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::etcd::{Etcd, LIMIT};

/// What a node knows from its reports.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) view: View,
    pub(crate) known: Known,
    pub(crate) resets: usize,
    /// Of the last reset.
    pub(crate) same: bool,
    pub(crate) connection: Option<Result<(), String>>,
    pub(crate) excluded: Option<String>,
    pub(crate) denied: Option<String>,
    /// How often keys that cannot be read were named.
    pub(crate) named: usize,
    pub(crate) subnets: Option<Subnets>,
    pub(crate) written: BTreeMap<u64, Result<i64, WriteError>>,
    /// Containers of others, by node and id.
    pub(crate) containers: BTreeMap<(String, String), Container>,
}

pub(crate) struct Node {
    pub(crate) settings: ClusterSettings,
    pub(crate) cluster: Option<Cluster>,
    reports: mpsc::Receiver<Report>,
    pub(crate) seen: Seen,
    writes: u64,
}

/// Runs a test inside a runtime like the daemon's.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime").block_on(test);
}

/// Runs a test of a store and of `n2`, which has its subnet.
pub(crate) fn of_one(test: impl AsyncFnOnce(Etcd, Node)) {
    run(async {
        let etcd = Etcd::start();
        let mut n2 = Node::start(settings(&etcd, "n2"));
        n2.held().await;
        test(etcd, n2).await;
    });
}

/// The same with `n3`.
pub(crate) fn of_two(test: impl AsyncFnOnce(Etcd, Node, Node)) {
    of_one(async |etcd, n2| {
        let mut n3 = Node::start(settings(&etcd, "n3"));
        n3.held().await;
        test(etcd, n2, n3).await;
    });
}

pub(crate) fn config() -> ClusterConfig {
    ClusterConfig {
        schema: ClusterConfig::SCHEMA,
        cluster_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_subnet_len: 24,
        node_ports: (30000, 32767),
        overlay: "vxlan".into(),
        vxlan_id: 1,
        vxlan_port: 8472,
    }
}

pub(crate) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// Of the node `n3`, 172.18.0.3.
pub(crate) fn ip(name: &str) -> IpAddr {
    format!("172.18.0.{}", name.trim_start_matches('n')).parse().unwrap()
}

pub(crate) fn settings(etcd: &Etcd, name: &str) -> ClusterSettings {
    ClusterSettings {
        endpoints: vec![etcd.url()],
        prefix: "/causeway".into(),
        tls: Tls::default(),
        user: None,
        endpoint_ttl: Duration::from_secs(5),
        subnet_ttl: Duration::from_secs(60),
        identity: NodeIdentity { node: name.into(), machine_id: format!("machine-{name}") },
        config: config(),
        asked: Vec::new(),
        previous: Vec::new(),
        known: Known::default(),
    }
}

pub(crate) fn record(settings: &ClusterSettings) -> NodeRecord {
    NodeRecord {
        identity: settings.identity.clone(),
        boot_id: format!("boot-{}", settings.identity.machine_id),
        ips: vec![ip(&settings.identity.node)],
        labels: BTreeMap::new(),
        version: "0.1.0".into(),
        started: 1,
        config: settings.config.digest(),
        created: 0,
    }
}

pub(crate) fn container(id: &str, address: &str) -> Container {
    let key =
        EndpointKey { network: "causeway".into(), container_id: id.into(), ifname: "eth0".into() };
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let ips = vec![address.parse().unwrap()];
    let record = EndpointRecord { key, netns: None, ips, labels, created: 1 };
    Container { record, healthy: true }
}

pub(crate) fn service(name: &str, ip: &str) -> Stored {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "clusterIP": ip, "ports": [{ "port": 80 }] },
    });
    let mut objects = manifest::from_json(&document).expect("a service");
    Stored { object: objects.remove(0), origin: Origin::Api }
}

/// Of about so many bytes, without an address.
pub(crate) fn bulky(name: &str, size: usize) -> Stored {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "annotations": { "bulk": "x".repeat(size) } },
        "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] },
    });
    let mut objects = manifest::from_json(&document).expect("a service");
    Stored { object: objects.remove(0), origin: Origin::Api }
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

pub(crate) fn claims(stored: &Stored) -> Vec<String> {
    match &stored.object {
        Object::Service(service) => allocate::claims(service),
        Object::EndpointSlice(_) | Object::Node(_) => Vec::new(),
    }
}

impl Node {
    /// A task that was told nothing yet.
    pub(crate) fn bare(settings: ClusterSettings) -> Self {
        let (sender, reports) = mpsc::channel(4);
        let cluster = Some(Cluster::start(settings.clone(), sender));
        Self { settings, cluster, reports, seen: Seen::default(), writes: 0 }
    }

    /// A node with everything said but containers.
    pub(crate) fn start(settings: ClusterSettings) -> Self {
        let node = Self::bare(settings);
        node.say_all(record(&node.settings));
        node
    }

    pub(crate) fn say_all(&self, record: NodeRecord) {
        let ips = record.ips.clone();
        self.send(Command::Node(record));
        self.send(Command::Reach(self.reach(ips)));
        self.send(Command::Containers(Vec::new()));
    }

    pub(crate) fn reach(&self, ips: Vec<IpAddr>) -> Reach {
        let vtep = Some(MacAddress::of_vtep(&self.settings.identity.node, 1));
        Reach { ips, vtep, mtu: Some(1450) }
    }

    pub(crate) fn send(&self, command: Command) {
        self.cluster.as_ref().expect("it runs").send(command);
    }

    /// Takes reports until something holds.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a mut self,
        what: &'a str,
        holds: impl Fn(&Seen) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let waiting = async {
                while !holds(&self.seen) {
                    let report = self.reports.recv().await;
                    self.take(report.unwrap_or_else(|| panic!("{at}: {what}: the task ended")));
                }
            };
            let done = timeout(LIMIT, waiting).await.is_ok();
            let seen = &self.seen;
            let state = (&seen.connection, &seen.excluded, &seen.subnets, &seen.view);
            assert!(done, "{at}: {what}: not so at {}: {state:#?}", self.settings.identity.node);
        }
    }

    /// Takes reports for some time and fails if something holds then.
    pub(crate) async fn never(
        &mut self,
        time: Duration,
        what: &str,
        holds: impl Fn(&Seen) -> bool,
    ) {
        let waiting = async {
            loop {
                let report = self.reports.recv().await.expect("a report");
                self.take(report);
                assert!(!holds(&self.seen), "{what}");
            }
        };
        drop(timeout(time, waiting).await);
    }

    /// The subnets that it holds, once it does.
    pub(crate) async fn held(&mut self) -> Vec<IpNetwork> {
        self.until("subnets", |seen| matches!(seen.subnets, Some(Subnets::Held(_)))).await;
        match self.seen.subnets.clone() {
            Some(Subnets::Held(subnets)) => subnets,
            _ => unreachable!(),
        }
    }

    /// Asks for a write and returns its number.
    pub(crate) fn ask(&mut self, put: Vec<(Stored, Vec<String>)>, delete: &[Stored]) -> u64 {
        self.writes += 1;
        let delete = delete
            .iter()
            .map(|stored| (stored.object.kind(), stored.object.key().clone(), claims(stored)));
        let (id, seen) = (self.writes, self.seen.known.revision);
        self.send(Command::Write(Write {
            id,
            seen,
            put,
            delete: delete.collect(),
            ..Write::default()
        }));
        id
    }

    /// Asks for the end of a node and returns the number of the write.
    pub(crate) fn remove(&mut self, node: &str) -> u64 {
        self.writes += 1;
        let (id, seen, nodes) = (self.writes, self.seen.known.revision, vec![node.to_owned()]);
        self.send(Command::Write(Write { id, seen, nodes, ..Write::default() }));
        id
    }

    pub(crate) async fn answer(&mut self, id: u64) -> Result<i64, WriteError> {
        self.until("an answer", |seen| seen.written.contains_key(&id)).await;
        self.seen.written[&id].clone()
    }

    /// Writes and waits until it is seen.
    pub(crate) async fn apply(&mut self, put: &[Stored]) -> Result<i64, WriteError> {
        let put = put.iter().map(|stored| (stored.clone(), Vec::new())).collect();
        let id = self.ask(put, &[]);
        let revision = self.answer(id).await?;
        self.until("the revision", |seen| seen.known.revision >= revision).await;
        Ok(revision)
    }

    /// Ends the task like a daemon that is killed, and returns what it would have stored.
    pub(crate) fn end(mut self) -> ClusterSettings {
        self.cluster = None;
        let mut settings = self.settings;
        settings.known = self.seen.known;
        if let Some(Subnets::Held(subnets)) = self.seen.subnets {
            settings.previous = subnets;
        }
        settings
    }

    fn take(&mut self, report: Report) {
        let seen = &mut self.seen;
        match report {
            Report::Reset { view, known, same } => {
                let keyed = |(node, one): &(String, Container)| {
                    ((node.clone(), one.record.key.container_id.clone()), one.clone())
                };
                seen.containers = view.containers.iter().map(keyed).collect();
                seen.known = Known { lease: seen.known.lease.or(known.lease), ..known };
                (seen.view, seen.same) = (view, same);
                seen.resets += 1;
            }
            Report::Changed { changes, revision } => {
                assert!(revision > seen.known.revision, "{revision}");
                seen.known.revision = revision;
                changes.into_iter().for_each(|change| seen.change(change));
            }
            Report::Written { id, result } => {
                assert!(seen.written.insert(id, result).is_none(), "{id} is answered twice");
            }
            Report::Connection(state) => seen.connection = Some(state),
            Report::Lease(lease) => seen.known.lease = Some(lease),
            Report::Subnets(subnets) => seen.subnets = Some(subnets),
            Report::Excluded(why) => seen.excluded = why,
            Report::Denied(why) => seen.denied = why,
            Report::Unreadable(unreadable) => {
                seen.named += 1;
                seen.view.unreadable = unreadable;
            }
        }
    }
}

impl Seen {
    fn change(&mut self, change: Change) {
        let view = &mut self.view;
        match change {
            Change::Node(record) => {
                view.nodes.insert(record.identity.node.clone(), record);
            }
            Change::NodeGone(name) => drop(view.nodes.remove(&name)),
            Change::Subnet(record) => drop(view.subnets.insert(record.subnet, record)),
            Change::SubnetGone(subnet) => drop(view.subnets.remove(&subnet)),
            Change::Container(node, one) => {
                drop(self.containers.insert((node, one.record.key.container_id.clone()), one));
            }
            Change::ContainerGone(node, key) => {
                drop(self.containers.remove(&(node, key.container_id)));
            }
            Change::Object(stored) => {
                let same = |one: &Stored| one.object.key() == stored.object.key();
                view.objects.retain(|one| !same(one));
                view.objects.push(stored);
            }
            Change::ObjectGone(kind, key) => {
                assert_eq!(kind, ObjectKind::Service);
                view.objects.retain(|one| *one.object.key() != key);
            }
        }
    }

    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.view.nodes.contains_key(name)
    }

    pub(crate) fn has_container(&self, node: &str, id: &str) -> bool {
        self.containers.contains_key(&(node.to_owned(), id.to_owned()))
    }

    pub(crate) fn has_object(&self, name: &str) -> bool {
        self.view.objects.iter().any(|one| *one.object.key() == key(name))
    }

    pub(crate) fn subnet_of(&self, name: &str) -> Option<&SubnetRecord> {
        self.view.subnets.values().find(|record| record.owner.node == name)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection == Some(Ok(()))
    }
}
