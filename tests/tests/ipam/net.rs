//! A network whose main plugin is the test: `causeway-ipam` is called as a main plugin would.

use std::path::Path;
use std::process::Command;

use causeway_tests::{Attachment, Cni, Finished, Node, bins, finish};
use serde_json::{Value, json};

/// The network `net` on a node of its own, or another one there.
pub(crate) struct Net {
    pub(crate) node: std::rc::Rc<Node>,
    pub(crate) config: Value,
}

/// One pool, 10.0.0.0/24.
pub(crate) fn plain() -> Net {
    Net::new(json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }]] }))
}

/// The first address of a result.
pub(crate) fn address(result: &Value) -> &str {
    result["ips"][0]["address"].as_str().unwrap_or_else(|| panic!("no address in {result}"))
}

impl Net {
    /// A new node; `ipam` gets the state directories, and `RESOLV` as `resolvConf` is a file there.
    pub(crate) fn new(ipam: Value) -> Self {
        let node = Node::new("ipam");
        let data = node.data_dir();
        Self::on(node, &data, ipam)
    }

    /// The same on `node` with the stores in `data`.
    pub(crate) fn on(node: Node, data: &Path, mut ipam: Value) -> Self {
        ipam["type"] = json!("causeway-ipam");
        ipam["dataDir"] = json!(data);
        ipam["runDir"] = json!(node.run_dir());
        if ipam["resolvConf"] == "RESOLV" {
            ipam["resolvConf"] = json!(node.dir().join("resolv.conf"));
        }
        let config =
            json!({ "cniVersion": "1.1.0", "name": "net", "type": "macvlan", "ipam": ipam });
        Self { node: node.into(), config }
    }

    /// The same network with another value of a key.
    pub(crate) fn with(&self, key: &str, value: Value) -> Self {
        let mut config = self.config.clone();
        config[key] = value;
        Self { node: self.node.clone(), config }
    }

    pub(crate) fn attachment(&self, id: &str) -> Attachment {
        let (ifname, netns) = ("eth0".to_owned(), "/run/netns/none".to_owned());
        let args = String::new();
        Attachment { id: id.to_owned(), ifname, netns, args, runtime_config: json!({}) }
    }

    /// A call for the container `id`; GC and STATUS have none.
    pub(crate) fn call(&self, command: &str, id: &str) -> Cni<'_> {
        let call = Cni::new(&self.node, "causeway-ipam", command, &self.config);
        if id.is_empty() { call } else { call.attachment(&self.attachment(id)) }
    }

    pub(crate) fn add(&self, id: &str) -> Value {
        self.call("ADD", id).run().json()
    }

    pub(crate) fn del(&self, id: &str) {
        self.call("DEL", id).run().silent();
    }

    /// The program's own command line, on this network's stores.
    pub(crate) fn tool(&self, args: &[&str]) -> Finished {
        let mut command = self.node.command(bins::ours("causeway-ipam"));
        command.args(args);
        if !args.is_empty() {
            command
                .arg("--data-dir")
                .arg(self.config["ipam"]["dataDir"].as_str().expect("set by new"));
        }
        finish(command, b"")
    }

    /// Every lease of every network as `ADDRESS NETWORK CONTAINER INTERFACE`.
    pub(crate) fn leases(&self) -> Vec<String> {
        lines(&self.tool(&["show"]).ok())
    }

    /// The same as the boot of the file `boot` has them.
    pub(crate) fn leases_of_boot(&self, boot: &Path) -> Vec<String> {
        let data = self.config["ipam"]["dataDir"].as_str().expect("set by new");
        let mut show = self.node.command(bins::ours("causeway-ipam"));
        show.args(["show", "--data-dir", data]);
        lines(&finish(self.as_boot(boot, &show), b"").ok())
    }

    /// How long an ADD takes here and now, at least 1.
    #[expect(clippy::disallowed_methods, reason = "kills are to be spread over the time of an ADD")]
    pub(crate) fn microseconds_of_an_add(&self) -> u32 {
        let start = std::time::Instant::now();
        self.add("timed");
        let took = u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX / 1000);
        self.del("timed");
        took.clamp(1, 1_000_000)
    }

    /// Runs `command` and kills it with SIGKILL after this time, if it is still there.
    pub(crate) fn killed_after_microseconds(&self, command: &str, id: &str, microseconds: u32) {
        let call = self.call(command, id).command();
        let mut killer = self.node.command("timeout");
        killer.args(["-s", "KILL", &format!("{:.6}", f64::from(microseconds) / 1e6)]);
        let ended = finish(wrapped(killer, &call), self.config.to_string().as_bytes());
        assert!([0, 128 + 9].contains(&ended.code()), "{}", ended.describe());
    }

    /// Runs `command` and returns its calls of the kernel that open, read, write and sync, in order.
    pub(crate) fn traced(&self, command: &str, id: &str) -> Vec<String> {
        let trace = self.node.dir().join("trace");
        let mut tracer = self.node.command("strace");
        tracer
            .args([
                "-f",
                "-y",
                "-s",
                "200",
                "-e",
                "trace=write,pwrite64,fsync,pread64,openat",
                "-o",
            ])
            .arg(&trace);
        let call = self.call(command, id).command();
        finish(wrapped(tracer, &call), self.config.to_string().as_bytes()).ok();
        let text = std::fs::read_to_string(&trace).expect("strace wrote its file");
        text.lines().map(str::to_owned).collect()
    }

    /// Runs `call` in a mount namespace where the kernel shows `boot` as its boot id.
    pub(crate) fn after_boot(&self, boot: &Path, call: Cni<'_>) -> Finished {
        finish(self.as_boot(boot, &call.command()), self.config.to_string().as_bytes())
    }

    fn as_boot(&self, boot: &Path, command: &Command) -> Command {
        let script = format!(
            "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"",
            boot.display()
        );
        let mut shell = self.node.command("unshare");
        shell.args(["--mount", "sh", "-c", &script]);
        wrapped(shell, command)
    }
}

/// `outer` with program, arguments and environment of `inner` behind its own arguments.
fn wrapped(mut outer: Command, inner: &Command) -> Command {
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer.arg(inner.get_program()).args(inner.get_args());
    outer
}

/// What `causeway-ipam show` prints, a line for each lease.
fn lines(shown: &str) -> Vec<String> {
    let shown: Value = serde_json::from_str(shown).expect("show prints JSON");
    let text = |lease: &Value, key: &str| lease[key].as_str().expect("a text").to_owned();
    let line = |lease: &Value| {
        ["address", "network", "containerID", "ifname"].map(|key| text(lease, key)).join(" ")
    };
    let mut lines: Vec<String> = shown.as_array().expect("a list").iter().map(line).collect();
    lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
    lines
}
