//! A node with containers, a second machine, an outside client; and the pure pipeline from
//! Kubernetes JSON to rules in that node, without the daemon.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use causeway_model::{Event, Index, IpFamily, ObjectKey, Protocol, manifest};
use causeway_ruleset::plan::{Delta, NodePortAddresses, Plan, PlanContext, SourceHash};
use causeway_ruleset::{iptables, services};
use causeway_tests::traffic::{Answer, Server};
use causeway_tests::{Lab, Ns, Pod, Runtime};
use serde_json::{Value, json};

/// How long a client waits if nothing is to come.
const NOTHING: Duration = Duration::from_millis(300);
/// How long it waits if an answer is to come.
const SOMETHING: Duration = Duration::from_secs(5);

/// IPv4 addresses of the containers.
pub(crate) const PODS: [&str; 4] = ["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5"];
/// IPv6 addresses of the containers.
pub(crate) const PODS6: [&str; 4] = ["fd00:10::2", "fd00:10::3", "fd00:10::4", "fd00:10::5"];
/// The second machine: an endpoint elsewhere.
pub(crate) const REMOTE: &str = "172.18.0.3";
/// Its IPv6 address.
pub(crate) const REMOTE6: &str = "fd00:172:18::3";
/// The node.
pub(crate) const NODE: &str = "172.18.0.2";
/// Its IPv6 address.
pub(crate) const NODE6: &str = "fd00:172:18::2";
/// Ports on which every endpoint serves TCP and UDP.
pub(crate) const PORTS: [u16; 2] = [8001, 8002];

/// What carries the rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// nf_tables
    Nftables,
    /// iptables and ip6tables
    Iptables,
}

enum Mirror {
    Nftables(services::TableMirror),
    Iptables(Box<iptables::ChainMirror>),
}

/// The machines, the facts and the rules.
pub(crate) struct Stage {
    /// The machines: node 0 has the rules, node 1 is elsewhere.
    pub(crate) lab: Lab,
    /// The containers of node 0.
    pub(crate) pods: Vec<Pod>,
    /// The decisions in force.
    pub(crate) plan: Plan,
    /// The facts.
    pub(crate) index: Index,
    mirror: Mirror,
    _servers: Vec<Server>,
}

/// The outcome of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// An endpoint answered and saw this source.
    Answer {
        /// The endpoint.
        endpoint: SocketAddr,
        /// The source as it saw it.
        seen: IpAddr,
    },
    /// Refused at once.
    Refused,
    /// Nothing came.
    Silence,
    /// The kernel refused to send: what a process of the node sends is rejected or dropped under
    /// its eyes.
    Denied,
}

/// Where a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Container of this number.
    Pod(usize),
    /// A process of the node.
    Node,
    /// The outside client.
    Client,
}

pub(crate) fn facts() -> PlanContext {
    let net = |text: &str| text.parse().expect("a network");
    let address = |text: &str| text.parse().expect("an address");
    PlanContext {
        node: "node1".to_owned(),
        zone: None,
        cluster_cidrs: vec![net("10.0.0.0/16"), net("fd00:10::/64")],
        service_cidrs: vec![net("10.96.0.0/16"), net("fd00:96::/112")],
        node_port_addresses: NodePortAddresses::All,
        masquerade_all: false,
        node_ips: vec![address(NODE), address(NODE6)],
        source_hash: SourceHash::Nftables,
    }
}

impl Stage {
    /// Four containers on node 0, servers everywhere, no service.
    pub(crate) fn new(backend: Backend) -> Self {
        Self::with(backend, facts())
    }

    /// The same under other facts.
    pub(crate) fn with(backend: Backend, mut facts: PlanContext) -> Self {
        if backend == Backend::Iptables {
            facts.source_hash = SourceHash::Iptables;
        }
        let lab = Lab::two_nodes();
        let node = &lab.nodes[0];
        let runtime = Runtime::new(node, network(&lab));
        let pods: Vec<Pod> = PODS.iter().map(|_| node.pod()).collect();
        for (pod, address) in pods.iter().zip(PODS) {
            let result = runtime.add_ok(&pod.attachment("eth0"));
            let got = result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
            assert_eq!(got, format!("{address}/16"));
        }
        // What the daemon sees to.
        for (key, value) in [
            ("bridge/bridge-nf-call-iptables", "1"),
            ("bridge/bridge-nf-call-ip6tables", "1"),
            ("ipv4/conf/all/route_localnet", "1"),
            // A node says so much to one host in a second, and these tests ask more.
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            node.set_sysctl(key, value);
        }
        // The network masquerades nothing here, so that what is seen is the services' doing.
        lab.nodes[1]
            .ip(&format!("route add 10.0.0.0/16 via {NODE}\nroute add fd00:10::/64 via {NODE6}\n"));
        for destination in ["10.96.0.0/16", "192.0.2.0/24"] {
            lab.client.ip(&format!("route add {destination} via {NODE}\n"));
        }
        for destination in ["fd00:96::/112", "2001:db8:2::/64"] {
            lab.client.ip(&format!("route add {destination} via {NODE6}\n"));
        }
        let servers = servers(&lab, &pods);
        let plan = Plan::new(facts);
        let mirror = match backend {
            Backend::Nftables => {
                let (mirror, batch) = services::TableMirror::full(&plan);
                commit(node, &batch);
                Mirror::Nftables(mirror)
            }
            Backend::Iptables => {
                let (mirror, scripts) = iptables::ChainMirror::full(&plan, &[]);
                restore(node, &scripts);
                Mirror::Iptables(Box::new(mirror))
            }
        };
        Self { lab, pods, plan, index: Index::default(), mirror, _servers: servers }
    }

    /// Takes Kubernetes objects in and puts the change into the kernel.
    pub(crate) fn apply(&mut self, objects: &[Value]) {
        let mut changed = BTreeSet::new();
        for object in objects {
            let checked = manifest::from_json(object)
                .unwrap_or_else(|refusal| panic!("{object}: {refusal:?}"));
            for one in checked {
                changed.extend(self.index.apply(Event::Apply(one)).services);
            }
        }
        self.change(&changed);
    }

    /// Forgets objects and takes their rules out.
    pub(crate) fn delete(&mut self, keys: &[(causeway_model::ObjectKind, &str)]) {
        let mut changed = BTreeSet::new();
        for (kind, name) in keys {
            let changes = self.index.apply(Event::Delete(*kind, key(name)));
            changed.extend(changes.services);
        }
        self.change(&changed);
    }

    fn change(&mut self, changed: &BTreeSet<ObjectKey>) {
        let index = &self.index;
        let delta = self.plan.update(changed, &|key| index.resolve(key));
        self.carry_out(&delta);
    }

    fn carry_out(&mut self, delta: &Delta) {
        let node = &self.lab.nodes[0];
        match &mut self.mirror {
            Mirror::Nftables(mirror) => commit(node, &mirror.change(delta)),
            Mirror::Iptables(mirror) => restore(node, &mirror.change(&self.plan, delta)),
        }
    }

    /// The namespace of a source.
    pub(crate) fn ns(&self, from: From) -> &Ns {
        match from {
            From::Pod(number) => &self.pods[number],
            From::Node => &self.lab.nodes[0],
            From::Client => &self.lab.client,
        }
    }

    /// The address a source has of itself on the way to `to`.
    pub(crate) fn source(from: From, to: IpAddr) -> IpAddr {
        let text = match (from, to) {
            (From::Pod(number), IpAddr::V4(_)) => PODS[number],
            (From::Pod(number), IpAddr::V6(_)) => PODS6[number],
            (From::Node, to) if to.is_loopback() => return to,
            (From::Node, IpAddr::V4(_)) => NODE,
            (From::Node, IpAddr::V6(_)) => NODE6,
            (From::Client, IpAddr::V4(_)) => Lab::CLIENT,
            (From::Client, IpAddr::V6(_)) => Lab::CLIENT6,
        };
        text.parse().expect("an address")
    }

    /// Makes a new connection. `expected`: whether to wait for an answer.
    pub(crate) fn connect(
        &self,
        from: From,
        protocol: Protocol,
        to: SocketAddr,
        expected: bool,
    ) -> Got {
        let patience = if expected { SOMETHING } else { NOTHING };
        let text = self.ns(from).run(|| match protocol {
            Protocol::Tcp => ask_tcp(to, patience),
            Protocol::Udp => ask_udp(to, patience),
            Protocol::Sctp => panic!("no SCTP sockets here"),
        });
        match text {
            Ok(text) => {
                let answer = Answer::parse(&text).expect("a server's line");
                let port = answer.hostname.rsplit('-').next().and_then(|port| port.parse().ok());
                let endpoint = SocketAddr::new(answer.ip, port.expect("the port is in the name"));
                Got::Answer { endpoint, seen: answer.peer.ip() }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Got::Refused,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Got::Denied,
            Err(error)
                if [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind()) =>
            {
                Got::Silence
            }
            Err(error) => panic!("{from:?} to {to}: {error}"),
        }
    }
}

/// `default/NAME`.
pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// A slice `NAME-FAMILY` of service NAME: one unnamed port or named ones, endpoints
/// `(address, node)`.
pub(crate) fn slice(service: &str, ports: &Value, endpoints: &[(&str, &str)]) -> Value {
    let ipv6 = endpoints.iter().any(|(address, _)| address.contains(':'));
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node)| json!({ "addresses": [address], "nodeName": node }))
        .collect();
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": { "name": format!("{service}-{}", family.to_lowercase()), "namespace": "default",
                      "labels": { "kubernetes.io/service-name": service } },
        "ports": ports, "endpoints": endpoints })
}

fn network(lab: &Lab) -> Value {
    let node = &lab.nodes[0];
    let (run, data) = (node.run_dir(), node.data_dir());
    json!({ "cniVersion": "1.1.0", "name": "net", "plugins": [
        { "type": "causeway-bridge", "bridge": "cw0", "isDefaultGateway": true, "ipMasq": true,
          "ipMasqExclude": ["10.0.0.0/16", "10.96.0.0/16", "172.18.0.0/24",
                            "fd00:10::/64", "fd00:96::/112", "fd00:172:18::/64"],
          "hairpinMode": true, "runDir": run,
          "ipam": { "type": "causeway-ipam", "dataDir": data, "runDir": run, "ranges": [
            [{ "subnet": "10.0.0.0/16", "rangeStart": "10.0.1.2", "gateway": "10.0.1.1" }],
            [{ "subnet": "fd00:10::/64", "rangeStart": "fd00:10::2", "gateway": "fd00:10::1" }] ] } } ] })
}

fn servers(lab: &Lab, pods: &[Pod]) -> Vec<Server> {
    let mut servers = Vec::new();
    let mut start = |ns: &Ns, name: &str, address: &str| {
        for port in PORTS {
            let address: IpAddr = address.parse().expect("an address");
            let at = SocketAddr::new(address, port).to_string();
            let name = format!("{name}-{port}");
            servers.push(Server::tcp(ns, &name, &at));
            servers.push(Server::udp(ns, &name, &at));
        }
    };
    for (number, pod) in pods.iter().enumerate() {
        for address in [PODS[number], PODS6[number]] {
            start(pod, &format!("pod{number}"), address);
        }
    }
    for address in [REMOTE, REMOTE6] {
        start(&lab.nodes[1], "remote", address);
    }
    servers
}

fn commit(node: &Ns, batch: &causeway_ruleset::Batch) {
    node.run(|| causeway_nft::Client::open().and_then(|mut client| client.commit(batch)))
        .unwrap_or_else(|error| panic!("{error}: {}", error.source));
}

fn restore(node: &Ns, scripts: &[iptables::Script]) {
    for script in scripts.iter().filter(|script| !script.text.is_empty()) {
        let program = match script.family {
            IpFamily::V4 => "iptables-restore",
            IpFamily::V6 => "ip6tables-restore",
        };
        let mut command = node.command(program);
        command.args(["--noflush", "-w"]);
        let done = causeway_tests::finish(command, script.text.as_bytes());
        assert!(done.status.success(), "{}\n{}", done.describe(), script.text);
    }
}

fn ask_tcp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"hello\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A connected socket, so that an ICMP error comes back as one.
fn ask_udp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"hello\n")?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
