//! Several nodes that share one etcd: a daemon on each, containers, services, and what may happen to
//! them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::traffic::{Answer, Server};
use crate::{Attachment, DEADLINE, Daemon, Etcd, Lab, Ns, Pod, Runtime};

/// How the nodes of a cluster are started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `--overlay`
    pub overlay: &'static str,
    /// `--endpoint-ttl`
    pub endpoint_ttl: Duration,
    /// `--subnet-ttl`
    pub subnet_ttl: Duration,
    /// Node number N counted from 0 asks for 10.0.N+1.0/24 (and fd00:10:0:N+1::/64), so that
    /// addresses are those of the tutorials; otherwise each takes what it gets.
    pub asked: bool,
    /// Containers have IPv4 addresses.
    pub v4: bool,
    /// Containers have IPv6 addresses.
    pub v6: bool,
    /// More flags for every node.
    pub flags: Vec<String>,
    /// More flags for single nodes, by number.
    pub own: BTreeMap<usize, Vec<String>>,
    /// `--etcd-endpoints`; `None`: [`Etcd::url`].
    pub url: Option<String>,
    /// So many of the lab's nodes are started; the others by [`Cluster::join`].
    pub nodes: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            overlay: "vxlan",
            endpoint_ttl: Duration::from_secs(5),
            subnet_ttl: Duration::from_secs(60),
            asked: true,
            v4: true,
            v6: false,
            flags: Vec::new(),
            own: BTreeMap::new(),
            url: None,
            nodes: usize::MAX,
        }
    }
}

impl Setup {
    /// The same with one more flag.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// The same with one more flag for one node.
    pub fn own(mut self, node: usize, name: &str, value: &str) -> Self {
        self.own.entry(node).or_default().extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// The same with these lifetimes in seconds.
    pub fn ttls(mut self, endpoint: u64, subnet: u64) -> Self {
        self.endpoint_ttl = Duration::from_secs(endpoint);
        self.subnet_ttl = Duration::from_secs(subnet);
        self
    }

    /// The same if nodes take the subnets they get.
    pub fn unasked(mut self) -> Self {
        self.asked = false;
        self
    }

    /// The same with both families.
    pub fn dual(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// The flags of node number `index` with a store at `url`.
    pub fn arguments(&self, index: usize, url: &str) -> Vec<String> {
        let seconds = |ttl: Duration| format!("{}s", ttl.as_secs());
        let both = |v4: String, v6: String| match (self.v4, self.v6) {
            (true, true) => format!("{v4},{v6}"),
            (false, true) => v6,
            _ => v4,
        };
        let number = index + 1;
        let mut flags = vec![
            ("--node-name", format!("node{number}")),
            ("--store", "etcd".to_owned()),
            ("--etcd-endpoints", self.url.clone().unwrap_or_else(|| url.to_owned())),
            ("--overlay", self.overlay.to_owned()),
            ("--endpoint-ttl", seconds(self.endpoint_ttl)),
            ("--subnet-ttl", seconds(self.subnet_ttl)),
            ("--cluster-cidr", both("10.0.0.0/16".to_owned(), "fd00:10::/48".to_owned())),
            ("--service-cidr", both("10.96.0.0/16".to_owned(), "fd00:96::/112".to_owned())),
        ];
        if self.asked {
            let asked = both(format!("10.0.{number}.0/24"), format!("fd00:10:0:{number}::/64"));
            flags.push(("--node-subnet", asked));
        }
        let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let own = self.own.get(&index).into_iter().flatten();
        flags.chain(self.flags.iter().chain(own).cloned()).collect()
    }
}

/// The nodes of a lab with etcd and a daemon each.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// The machines.
    pub lab: &'a Lab,
    /// The store.
    pub etcd: Etcd,
    /// The daemons, by node.
    pub daemons: Vec<Daemon<'a>>,
    /// How they were started.
    pub setup: Setup,
    runtimes: Vec<Runtime<'a>>,
}

/// A container that serves TCP and UDP on port 80 of each of its addresses. The name in its answers
/// is its container id.
#[derive(Debug)]
pub struct Placed {
    /// The namespace.
    pub pod: Pod,
    /// Number of its node.
    pub node: usize,
    /// What the runtime says of it.
    pub attachment: Attachment,
    /// Its addresses, IPv4 first.
    pub ips: Vec<String>,
    servers: Vec<Server>,
}

impl<'a> Cluster<'a> {
    /// etcd, then one daemon on each node, all at once; every node has its subnet and knows of all
    /// others when this returns.
    pub fn start(lab: &'a Lab, setup: Setup) -> Self {
        Self::with(lab, Etcd::start(lab), setup)
    }

    /// The same with an etcd that is there already.
    pub fn with(lab: &'a Lab, etcd: Etcd, setup: Setup) -> Self {
        let url = etcd.url();
        let start = |index: usize| daemon(lab, index, &setup.arguments(index, &url));
        let daemons = std::thread::scope(|scope| {
            let nodes = 0..lab.nodes.len().min(setup.nodes);
            let started: Vec<_> = nodes.map(|one| scope.spawn(move || start(one))).collect();
            let joined = started.into_iter().map(|thread| thread.join());
            joined.map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let runtimes = lab
            .nodes
            .iter()
            .map(|node| Runtime::new(node, node.conflist("pods", "auto")))
            .collect();
        let cluster = Self { lab, etcd, daemons, setup, runtimes };
        cluster.settled();
        cluster
    }

    /// Starts the daemon of the next node.
    pub fn join(&mut self) {
        let index = self.daemons.len();
        let arguments = self.setup.arguments(index, &self.etcd.url());
        self.daemons.push(daemon(self.lab, index, &arguments));
    }

    /// Waits until every node has its subnets and an overlay, and knows the subnets of all others.
    pub fn settled(&self) {
        for daemon in &self.daemons {
            daemon.until("it has a subnet and an overlay, and knows its peers", || {
                let status = daemon.status();
                let leased = status.subnets.iter().all(|subnet| subnet.lease == "leased");
                let known = status.peers.iter().filter(|peer| !peer.subnets.is_empty()).count();
                let overlay = status.overlay.is_some_and(|overlay| overlay.mtu.is_some());
                !status.subnets.is_empty()
                    && leased
                    && known + 1 == self.daemons.len()
                    && (overlay || self.setup.overlay == "none")
            });
        }
    }

    /// The runtime of a node.
    pub fn runtime(&self, node: usize) -> &Runtime<'a> {
        &self.runtimes[node]
    }

    /// Attaches a container that carries labels (`app:web,tier:db`).
    pub fn pod(&self, node: usize, labels: &str) -> Placed {
        let pod = self.lab.nodes[node].pod();
        let args = match labels {
            "" => String::new(),
            labels => format!("CAUSEWAY_LABELS={labels}"),
        };
        let attachment = pod.attachment("eth0").args(&args);
        let result = self.runtimes[node].add_ok(&attachment);
        let addresses = result["ips"].as_array().expect("addresses").iter();
        let plain = |one: &Value| one["address"].as_str()?.split('/').next().map(str::to_owned);
        let mut ips: Vec<String> = addresses.filter_map(plain).collect();
        ips.sort_by_key(|ip| ip.contains(':'));
        let serve = |ip: &String| {
            let at = socket(ip, 80);
            [Server::tcp(&pod, &pod.id, &at), Server::udp(&pod, &pod.id, &at)]
        };
        let servers = ips.iter().flat_map(serve).collect();
        Placed { pod, node, attachment, ips, servers }
    }

    /// Detaches a container.
    pub fn remove(&self, placed: &Placed) {
        self.runtimes[placed.node].del_ok(&placed.attachment);
    }

    /// Two containers on every node, in the tutorials' order of addresses.
    pub fn two_each(&self, labels: &str) -> Vec<Placed> {
        let nodes = 0..self.daemons.len();
        nodes.flat_map(|node| [self.pod(node, labels), self.pod(node, labels)]).collect()
    }

    /// Waits until every daemon has so many endpoints of a service in rotation.
    pub fn endpoints(&self, service: &str, count: usize) -> Duration {
        let each = self.daemons.iter();
        let took = each.map(|daemon| endpoints(daemon, service, count));
        took.max().unwrap_or_default()
    }

    /// Waits until `holds` on every node.
    pub fn everywhere(&self, what: &str, holds: impl Fn(&Daemon<'a>) -> bool) {
        for daemon in &self.daemons {
            daemon.until(what, || holds(daemon));
        }
    }

    /// The whole node dies: its daemon is killed and its cable is pulled.
    pub fn die(&mut self, node: usize) {
        self.lab.cable(&Lab::port(node), false);
        self.daemons[node].kill();
    }

    /// It comes back.
    pub fn revive(&mut self, node: usize) {
        self.lab.cable(&Lab::port(node), true);
        self.daemons[node].again();
    }
}

impl Placed {
    /// Its first address.
    pub fn ip(&self) -> &str {
        &self.ips[0]
    }

    /// Stops its servers, as a container whose program ended.
    pub fn silence(&mut self) {
        self.servers.clear();
    }
}

impl Deref for Placed {
    type Target = Ns;
    fn deref(&self) -> &Ns {
        &self.pod
    }
}

/// Waits until a daemon has so many endpoints of `default/SERVICE` in rotation.
pub fn endpoints(daemon: &Daemon<'_>, service: &str, count: usize) -> Duration {
    daemon
        .until(&format!("{count} endpoints of {service}"), || in_rotation(daemon, service) == count)
}

/// How many endpoints of `default/SERVICE` a daemon has in rotation; `usize::MAX`: no such service.
pub fn in_rotation(daemon: &Daemon<'_>, service: &str) -> usize {
    let path = format!("/v1/describe/default/{service}");
    let Ok(answer) = daemon.request("GET", &path, b"") else { return usize::MAX };
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let all = answer["ports"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|endpoint| endpoint["inRotation"] == true).count()
}

fn daemon<'a>(lab: &'a Lab, index: usize, arguments: &[String]) -> Daemon<'a> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Daemon::start_with(&lab.nodes[index], &arguments)
}

/// The tutorial's service: `http-server-svc` at `vip`:8080 to port 80 of `app: cs-pod`, node port
/// 30080, round robin; `more` goes over its `spec`.
pub fn service(vip: &str, more: &Value) -> Value {
    named("http-server-svc", vip, 30080, more)
}

/// The same by another name and with another node port.
pub fn named(name: &str, vip: &str, node_port: u16, more: &Value) -> Value {
    let mut service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name,
                      "annotations": { "causeway.io/balance": "round-robin" } },
        "spec": { "type": "NodePort", "clusterIP": vip, "selector": { "app": "cs-pod" },
                  "ports": [{ "port": 8080, "targetPort": 80, "nodePort": node_port }] } });
    for (key, value) in more.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    service
}

/// `ADDRESS:PORT`, with brackets if it needs them.
pub fn socket(address: &str, port: u16) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

/// Asks by TCP so many times, one after the other; the addresses that answered.
pub fn asked(from: &Ns, to: &str, times: usize) -> Vec<String> {
    answers(from, to, times).into_iter().map(|answer| answer.ip.to_string()).collect()
}

/// The same with all that the servers said. Panics if nobody answers.
pub fn answers(from: &Ns, to: &str, times: usize) -> Vec<Answer> {
    let ask = |_| from.tcp(to).unwrap_or_else(|e| panic!("{} to {to}: {e}", from.name()));
    (0..times).map(ask).collect()
}

/// How often each of them answered.
pub fn shares(answers: &[String]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for one in answers {
        *shares.entry(one.clone()).or_default() += 1;
    }
    shares
}

/// Waits until something holds, for at most [`DEADLINE`].
pub fn until(what: &str, holds: impl FnMut() -> bool) -> Duration {
    within(DEADLINE, what, holds)
}

/// The same with a limit of its own.
pub fn within(limit: Duration, what: &str, holds: impl FnMut() -> bool) -> Duration {
    how_soon(limit, holds).unwrap_or_else(|| panic!("{what}: not so within {limit:?}"))
}

/// Whether something comes to hold within `limit`.
pub fn holds_within(limit: Duration, holds: impl FnMut() -> bool) -> bool {
    how_soon(limit, holds).is_some()
}

/// How long it takes until something holds; `None`: longer than `limit`.
pub fn how_soon(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(started.elapsed())
}

/// Panics unless something holds at every moment for so long, for what must not happen.
pub fn stays(length: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < length {
        assert!(holds(), "{what}: not so any more after {:?}", started.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Does something once and again for so long at least; how often, and how long it took.
pub fn over_and_over(length: Duration, mut round: impl FnMut()) -> (usize, Duration) {
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < length {
        round();
        rounds += 1;
    }
    (rounds, started.elapsed())
}

/// All pairs of these containers, by each family that both have: each must answer the other's ping.
pub fn all_ping(pods: &[Placed]) -> usize {
    let failed = Mutex::new(Vec::new());
    let mut count = 0;
    std::thread::scope(|scope| {
        for from in pods {
            let others: Vec<_> = pods.iter().filter(|to| to.pod.id != from.pod.id).collect();
            count += others.iter().map(|to| to.ips.len()).sum::<usize>();
            let failed = &failed;
            scope.spawn(move || {
                for ip in others.iter().flat_map(|to| &to.ips) {
                    if !from.ping(ip) {
                        failed.lock().expect("no panic under it").push((from.ip(), ip.as_str()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic under it");
    assert!(failed.is_empty(), "no answer: {failed:?}");
    count
}
