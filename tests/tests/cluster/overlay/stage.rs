//! Nodes with one peers file each, without any store.

use std::fmt::Write as _;
use std::path::PathBuf;

use causeway_tests::{Daemon, Lab, Node, Ns, Pod, Runtime};
use serde_json::Value;

/// Which families the nodes talk and the containers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V6,
    Dual,
}

/// How the nodes are started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `--overlay`
    pub overlay: &'static str,
    /// Addresses of the nodes in the file, the first one for the tunnel.
    pub nodes: Families,
    /// Subnets.
    pub pods: Families,
    /// More flags.
    pub flags: Vec<&'static str>,
    /// Nodes, counted from 0, whose only address is another one.
    pub addresses: Vec<(usize, &'static str)>,
}

/// The stage.
pub(crate) struct Stage<'a> {
    pub lab: &'a Lab,
    pub daemons: Vec<Daemon<'a>>,
    pub setup: Setup,
    runtimes: Vec<Runtime<'a>>,
}

impl Families {
    pub(crate) fn list(self, v4: &str, v6: &str) -> Vec<String> {
        match self {
            Self::V4 => vec![v4.to_owned()],
            Self::V6 => vec![v6.to_owned()],
            Self::Dual => vec![v4.to_owned(), v6.to_owned()],
        }
    }
}

impl Setup {
    pub(crate) fn new(overlay: &'static str) -> Self {
        let (nodes, pods) = (Families::V4, Families::V4);
        Self { overlay, nodes, pods, flags: Vec::new(), addresses: Vec::new() }
    }

    /// The entry of node number `index`, counted from 0.
    pub(crate) fn entry(&self, index: usize) -> String {
        let number = index + 1;
        let other = self.addresses.iter().find(|(of, _)| *of == index);
        let ips = match other {
            Some((_, address)) => vec![(*address).to_owned()],
            None => self.nodes.list(&Lab::node_address(index), &Lab::node_address6(index)),
        };
        let (v4, v6) = (format!("10.0.{number}.0/24"), format!("fd00:10:0:{number}::/64"));
        let subnets = self.pods.list(&v4, &v6);
        format!("[[node]]\nname = \"node{number}\"\nip = {ips:?}\nsubnet = {subnets:?}\n")
    }

    fn arguments(&self, index: usize, peers: &str) -> Vec<String> {
        let cluster = self.pods.list("10.0.0.0/16", "fd00:10::/48").join(",");
        let name = format!("node{}", index + 1);
        let flags = [
            ("--node-name", name.as_str()),
            ("--overlay", self.overlay),
            ("--peers-file", peers),
            ("--cluster-cidr", &cluster),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag, value]);
        flags.chain(self.flags.iter().copied()).map(str::to_owned).collect()
    }
}

impl<'a> Stage<'a> {
    /// All nodes know each other and have their overlay.
    pub(crate) fn new(lab: &'a Lab, setup: Setup) -> Self {
        let stage = Self::started(lab, setup);
        (0..lab.nodes.len()).for_each(|index| stage.until_whole(index));
        stage
    }

    /// The daemons say that they are ready, no more.
    pub(crate) fn started(lab: &'a Lab, setup: Setup) -> Self {
        let all: Vec<usize> = (0..lab.nodes.len()).collect();
        let mut daemons = Vec::new();
        for (index, node) in lab.nodes.iter().enumerate() {
            write_peers(node, &setup, &all);
            daemons.push(start(node, &setup, index));
        }
        let runtime = |node: &'a Node| Runtime::new(node, node.conflist("pods", "auto"));
        let runtimes = lab.nodes.iter().map(runtime).collect();
        Self { lab, daemons, setup, runtimes }
    }

    /// Ends a daemon and starts it with other settings.
    pub(crate) fn restart(&mut self, index: usize, setup: Setup) {
        self.daemons[index].stop();
        self.daemons[index] = start(self.node(index), &setup, index);
        self.setup = setup;
    }

    /// Writes the peers file of a node again with these nodes.
    pub(crate) fn peers(&self, index: usize, nodes: &[usize]) {
        write_peers(&self.lab.nodes[index], &self.setup, nodes);
    }

    /// Waits until a node's routes lead to all others.
    pub(crate) fn until_whole(&self, index: usize) {
        let per_peer = self.setup.pods.list("", "").len();
        let wanted = (self.lab.nodes.len() - 1) * per_peer;
        self.daemons[index]
            .until("a route to each peer", || routes(&self.lab.nodes[index]).len() == wanted);
    }

    pub(crate) fn node(&self, index: usize) -> &'a Node {
        &self.lab.nodes[index]
    }

    /// A new container with an address of each family.
    pub(crate) fn pod(&self, node: usize) -> (Pod, Vec<String>) {
        let pod = self.lab.nodes[node].pod();
        let result = self.runtimes[node].add_ok(&pod.attachment("eth0"));
        let ips = result["ips"].as_array().expect("addresses").iter();
        let plain = |one: &Value| one["address"].as_str()?.split('/').next().map(str::to_owned);
        (pod, ips.filter_map(plain).collect())
    }
}

fn start<'a>(node: &'a Node, setup: &Setup, index: usize) -> Daemon<'a> {
    let arguments = setup.arguments(index, &peers_path(node).display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Daemon::start_with(node, &arguments)
}

pub(crate) fn peers_path(node: &Node) -> PathBuf {
    node.dir().join("peers/peers.toml")
}

fn write_peers(node: &Node, setup: &Setup, nodes: &[usize]) {
    let mut text = String::new();
    for index in nodes {
        write!(text, "{}", setup.entry(*index)).expect("writing to a String");
    }
    write_file(node, &text);
}

/// Replaces the peers file of a node, by a rename.
pub(crate) fn write_file(node: &Node, text: &str) {
    let path = peers_path(node);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("make its folder");
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("write the peers file");
    std::fs::rename(&new, &path).expect("rename the peers file");
}

/// Routes of our protocol, both families, as `DESTINATION via GATEWAY dev DEVICE [onlink]`.
pub(crate) fn routes(ns: &Ns) -> Vec<String> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        for route in ns.ip_json(&format!("{family} route show table all proto 197")) {
            let [dst, gateway, dev] = ["dst", "gateway", "dev"].map(|key| text(&route, key));
            let onlink =
                route["flags"].as_array().is_some_and(|all| all.contains(&"onlink".into()));
            let onlink = if onlink { " onlink" } else { "" };
            found.push(format!("{dst} via {gateway} dev {dev}{onlink}"));
        }
    }
    found
}

/// Neighbours of the device, as `ADDRESS MAC STATE`.
pub(crate) fn neighbours(ns: &Ns) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in shown(ns, "ip -j neigh show dev cwov1 nud all") {
        let [dst, mac] = ["dst", "lladdr"].map(|key| text(&entry, key));
        lines.push(format!("{dst} {mac} {}", entry["state"][0].as_str().unwrap_or_default()));
    }
    // The kernel's own, for its multicast.
    lines.retain(|line| !line.contains("NOARP"));
    lines.sort();
    lines
}

/// FDB of the device, as `MAC dst ADDRESS STATE`.
pub(crate) fn fdb(ns: &Ns) -> Vec<String> {
    let line = |entry: &Value| {
        let [mac, dst, state] = ["mac", "dst", "state"].map(|key| text(entry, key));
        format!("{mac} dst {dst} {state}")
    };
    let mut lines: Vec<String> =
        shown(ns, "bridge -j fdb show dev cwov1").iter().map(line).collect();
    lines.sort();
    lines
}

/// Global addresses of the device.
pub(crate) fn addresses(ns: &Ns) -> Vec<String> {
    let links = shown(ns, "ip -j addr show dev cwov1 scope global");
    let infos = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    infos
        .filter_map(|one| Some(format!("{}/{}", one["local"].as_str()?, one["prefixlen"])))
        .collect()
}

/// A list in JSON; none while there is no such device.
fn shown(ns: &Ns, command: &str) -> Vec<Value> {
    let done = ns.try_sh(command);
    if !done.status.success() || done.stdout.is_empty() {
        return Vec::new();
    }
    let all: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    all.as_array().expect("a list").clone()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The address of a node's vxlan device, as everybody computes it.
pub(crate) fn vtep(node: &str) -> String {
    causeway_model::MacAddress::of_vtep(node, 1).to_string()
}

/// The device.
pub(crate) fn device(ns: &Ns) -> Option<Value> {
    ns.link("cwov1")
}

/// Both containers reach each other by each family, up to exactly `mtu` bytes of packet.
pub(crate) fn assert_connected(one: (&Ns, &[String]), two: (&Ns, &[String]), mtu: u32) {
    for ((from, _), (_, to)) in [(one, two), (two, one)] {
        for to in to {
            from.assert_ping(to);
            let headers = if to.contains(':') { 48 } else { 28 };
            let fits = mtu - headers;
            from.sh(&format!("ping -c 1 -W 2 -M do -s {fits} {to}"));
            let more = from.try_sh(&format!("ping -c 1 -W 2 -M do -s {} {to}", fits + 1));
            assert!(!more.status.success(), "{more:?}");
        }
    }
}
