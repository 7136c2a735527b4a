//! A node with containers and the daemon.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use causeway_tests::traffic::Server;
use causeway_tests::{
    Attachment, DEADLINE, Daemon, Finished, Lab, Node, Pod, Runtime, bins, finish,
};
use serde_json::json;

/// The node's address.
pub(crate) const NODE: &str = "172.18.0.2";

/// The machines, and the network and the daemon on one of them.
pub(crate) struct World<'a> {
    pub(crate) lab: &'a Lab,
    index: usize,
    pub(crate) daemon: Daemon<'a>,
    runtime: Runtime<'a>,
    backend: &'static str,
}

/// A container with servers at TCP ports 80 and 81 and UDP port 53 that answer with the
/// container's name.
pub(crate) struct Container {
    pub(crate) ns: Pod,
    /// Its IPv4 address.
    pub(crate) address: String,
    attachment: Attachment,
    _servers: Vec<Server>,
}

/// Runs a test on either backend, each on a machine of its own.
pub(crate) fn on_both_backends(test: impl Fn(&World<'_>)) {
    for backend in ["nftables", "iptables"] {
        with_backend(backend, &test);
    }
}

/// Runs a test on either backend, the daemon with more flags.
pub(crate) fn on_both_backends_with(more: &[&'static str], test: impl Fn(&World<'_>)) {
    for backend in ["nftables", "iptables"] {
        eprintln!("backend {backend}");
        let lab = Lab::one_node();
        test(&World::start_with(&lab, 0, backend, more));
    }
}

/// Runs a test on a machine of its own.
pub(crate) fn with_backend(backend: &'static str, test: impl Fn(&World<'_>)) {
    eprintln!("backend {backend}");
    let lab = Lab::one_node();
    test(&World::start(&lab, 0, backend));
}

impl<'a> World<'a> {
    /// Starts the daemon on a node of the lab, counted from 0, whose containers get addresses of
    /// 10.0.1.0/24 and fd00:10::/64, 10.0.2.0/24 and fd00:10:0:1::/64, ...
    pub(crate) fn start(lab: &'a Lab, index: usize, backend: &'static str) -> Self {
        Self::start_with(lab, index, backend, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(
        lab: &'a Lab,
        index: usize,
        backend: &'static str,
        more: &[&'static str],
    ) -> Self {
        let node = &lab.nodes[index];
        let flags = [
            ("--backend", backend),
            ("--service-cidr", "10.96.0.0/16,fd00:96::/112"),
            ("--cluster-cidr", "10.0.0.0/16,fd00:10::/48"),
        ];
        let flags = flags.iter().flat_map(|(name, value)| [*name, *value]);
        let flags: Vec<&str> = flags.chain(more.iter().copied()).collect();
        let daemon = Daemon::start_with(node, &flags);
        let mut list = node.conflist("causeway", "10.0.0.0/16");
        let ipv6 =
            if index == 0 { "fd00:10::/64".into() } else { format!("fd00:10:0:{index}::/64") };
        list["plugins"][0]["ipMasqExclude"] = json!(["10.0.0.0/16", "fd00:10::/48"]);
        list["plugins"][0]["ipam"]["ranges"] = json!([
            [{ "subnet": format!("10.0.{}.0/24", index + 1) }],
            [{ "subnet": ipv6 }]
        ]);
        list["plugins"][1]["socket"] = json!(daemon.socket());
        list["plugins"][1]["spoolDir"] = json!(node.dir().join("state/spool"));
        let runtime = Runtime::new(node, list);
        Self { lab, index, daemon, runtime, backend }
    }
}

impl World<'_> {
    pub(crate) fn node(&self) -> &Node {
        &self.lab.nodes[self.index]
    }

    /// Runs `causeway` with words split at spaces.
    pub(crate) fn ctl(&self, words: &str, stdin: &str) -> Finished {
        let mut command = self.node().command(bins::ours("causeway"));
        command.arg("--socket").arg(self.daemon.socket()).args(words.split_whitespace());
        finish(command, stdin.as_bytes())
    }

    /// Applies documents and compares what is said of each.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str, wanted: &[&str]) {
        let finished = self.ctl("apply -f -", yaml);
        assert!(finished.stderr.is_empty(), "{finished:?}");
        assert_eq!(finished.ok().lines().collect::<Vec<_>>(), wanted);
    }

    /// Attaches a container with these labels.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str, labels: &str) -> Container {
        let ns = self.node().pod();
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAME={name};K8S_POD_NAMESPACE=default;CAUSEWAY_LABELS={labels}"
        );
        let attachment = ns.attachment("eth0").args(&args);
        let result = self.runtime.add_ok(&attachment);
        let address = |family: usize| {
            let address = result["ips"][family]["address"].as_str().expect("an address");
            address.split_once('/').expect("a length").0.to_owned()
        };
        let (address, address6) = (address(0), address(1));
        let mut servers = Vec::new();
        for address in [&address, &format!("[{address6}]")] {
            servers.push(Server::tcp(&ns, name, &format!("{address}:80")));
            servers.push(Server::tcp(&ns, name, &format!("{address}:81")));
            servers.push(Server::udp(&ns, name, &format!("{address}:53")));
        }
        Container { ns, address, attachment, _servers: servers }
    }

    /// Detaches a container.
    pub(crate) fn remove(&self, container: Container) {
        self.runtime.del_ok(&container.attachment);
    }

    /// The address of a service.
    pub(crate) fn cluster_ip(&self, service: &str) -> String {
        self.column(service, "CLUSTER-IP")
    }

    /// A cell of `causeway get services`.
    #[track_caller]
    pub(crate) fn column(&self, service: &str, title: &str) -> String {
        let table = self.ctl(&format!("get service {service}"), "").ok();
        let mut lines = table.lines().map(|line| line.split_whitespace());
        let at = lines.next().and_then(|mut titles| titles.position(|one| one == title));
        let cell = lines.next().zip(at).and_then(|(mut row, at)| row.nth(at));
        cell.unwrap_or_else(|| panic!("no {title} in {table}")).to_owned()
    }

    /// `causeway svc test` of the tutorial's service: containers of these names answer, and the
    /// shares add up.
    #[track_caller]
    pub(crate) fn svc_test(&self, containers: &[&Container]) {
        let shown = self.ctl("svc test http-server-svc --count 48", "").ok();
        let (answers, shares) = shown.split_once("\n\n").unwrap_or_else(|| panic!("{shown}"));
        let answers: Vec<&str> =
            answers.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
        assert_eq!(answers.len(), 48, "{shown}");
        let mut wanted = vec!["ENDPOINT CONNECTIONS SHARE".to_owned()];
        for container in containers {
            let count = answers.iter().filter(|one| **one == container.address).count();
            wanted.push(format!("{} {count}", container.address));
        }
        let shares: Vec<String> = shares
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(shares.len(), wanted.len(), "{shown}");
        for (share, wanted) in shares.iter().zip(&wanted) {
            assert!(share.starts_with(wanted), "{shown}");
        }
    }

    /// Starts `causeway`; what it prints comes line by line until it is dropped.
    pub(crate) fn follow(&self, words: &str) -> Following {
        let mut command = self.node().command(bins::ours("causeway"));
        command.arg("--socket").arg(self.daemon.socket()).args(words.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start causeway {words}: {e}"));
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Following { child, lines }
    }

    /// All rules of the node, without counters.
    pub(crate) fn rules(&self) -> String {
        match self.backend {
            "iptables" => self.node().iptables(),
            _ => self.node().nft(),
        }
    }
}

/// A `causeway` that runs. Killed on drop.
pub(crate) struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    /// The words of its next line.
    #[track_caller]
    pub(crate) fn next(&self) -> Vec<String> {
        let line = self.lines.recv_timeout(DEADLINE).expect("a line within the deadline");
        line.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It has not been waited for, so the number is its.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
