//! A node with containers and the daemon.

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Daemon, Finished, Lab, Node, Pod, Runtime, bins, finish};
use serde_json::json;

/// The node's address.
pub(crate) const NODE: &str = "172.18.0.2";

/// The machines, the network and the daemon on the first one.
pub(crate) struct World<'a> {
    pub(crate) lab: &'a Lab,
    daemon: Daemon<'a>,
    runtime: Runtime<'a>,
    backend: &'static str,
}

/// A container with a server at port 80 that answers with the container's name.
pub(crate) struct Container {
    pub(crate) ns: Pod,
    pub(crate) address: String,
    attachment: Attachment,
    _server: Server,
}

/// Runs a test on either backend, each on a machine of its own.
pub(crate) fn on_both_backends(test: impl Fn(&World<'_>)) {
    for backend in ["nftables", "iptables"] {
        eprintln!("backend {backend}");
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let daemon = Daemon::start_with(node, &["--backend", backend]);
        let mut list = node.conflist("causeway", "10.0.1.0/24");
        list["plugins"][1]["socket"] = json!(daemon.socket());
        list["plugins"][1]["spoolDir"] = json!(node.dir().join("state/spool"));
        let runtime = Runtime::new(node, list);
        test(&World { lab: &lab, daemon, runtime, backend });
    }
}

impl World<'_> {
    pub(crate) fn node(&self) -> &Node {
        &self.lab.nodes[0]
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
        let address = result["ips"][0]["address"].as_str().expect("an address");
        let address = address.split_once('/').expect("a length").0.to_owned();
        let server = Server::tcp(&ns, name, &format!("{address}:80"));
        Container { ns, address, attachment, _server: server }
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
        let shown = self.ctl("svc test http-server-svc -n 48", "").ok();
        let (answers, shares) = shown.split_once("\n\n").unwrap_or_else(|| panic!("{shown}"));
        let answers: Vec<&str> =
            answers.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
        assert_eq!(answers.len(), 48, "{shown}");
        let mut wanted = vec!["ENDPOINT ANSWERS SHARE".to_owned()];
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

    /// All rules of the node, without counters.
    pub(crate) fn rules(&self) -> String {
        match self.backend {
            "iptables" => self.node().iptables(),
            _ => self.node().nft(),
        }
    }
}
