//! An IPAM plugin whose answers a test writes, and which tells how it was called.

use std::path::PathBuf;

use crate::{Attachment, Cni, Node, Outcome, TempDir, executable};
use serde_json::{Value, json};

/// The plugin `fake-ipam` in a directory of its own.
#[derive(Debug)]
pub struct FakeIpam {
    dir: TempDir,
}

impl FakeIpam {
    /// A plugin that answers ADD with `answer` and everything else with success.
    pub fn new(answer: &Value) -> Self {
        let fake = Self { dir: TempDir::new("fake-ipam") };
        fake.script("ADD", &format!("cat <<'END'\n{answer}\nEND"));
        let log = fake.file("calls");
        let dir = fake.dir.path().display();
        let script = format!(
            "cat > {dir}/stdin.$CNI_COMMAND\n\
             echo \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME\" >> {}\n\
             [ ! -f {dir}/$CNI_COMMAND.sh ] || . {dir}/$CNI_COMMAND.sh\n",
            log.display()
        );
        // Under the second name the bridge plugin runs it beside its own work.
        for name in ["fake-ipam", "static"] {
            executable::script(&fake.file(name), &script);
        }
        fake
    }

    /// One IPv4 address of 10.0.0.0/16.
    pub fn one(address: &str) -> Self {
        Self::new(&json!({ "cniVersion": "1.1.0",
            "ips": [{ "address": format!("{address}/16"), "gateway": "10.0.1.1" }] }))
    }

    /// What the plugin does on `command`, in shell.
    pub fn script(&self, command: &str, script: &str) {
        std::fs::write(self.file(&format!("{command}.sh")), script).expect("write a script");
    }

    /// Has `command` wait between [`FakeIpam::reached`] and [`FakeIpam::resume`], then do what it
    /// did before.
    pub fn pause(&self, node: &Node, command: &str) {
        let path = self.file(&format!("{command}.sh"));
        let then = std::fs::read_to_string(path).unwrap_or_default();
        let dir = self.dir.path().display();
        node.sh(&format!("mkfifo {dir}/reached {dir}/resume"));
        let wait = format!(
            "exec 9> {dir}/running; flock 9; echo > {dir}/reached; read none < {dir}/resume"
        );
        self.script(command, &format!("{wait}\n{then}\necho $CNI_COMMAND >> {dir}/done\n"));
    }

    /// Returns when the paused command has begun.
    pub fn reached(&self, node: &Node) {
        node.sh(&format!("read none < {}", self.file("reached").display()));
    }

    /// Lets the paused command go on.
    pub fn resume(&self, node: &Node) {
        node.sh(&format!("echo > {}", self.file("resume").display()));
    }

    /// Returns when the command that was paused has ended, whoever waits for it.
    pub fn ended(&self, node: &Node) {
        node.sh(&format!("flock {} true", self.file("running").display()));
    }

    /// The calls so far: `COMMAND ID IFNAME`.
    pub fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The commands so far.
    pub fn commands(&self) -> Vec<String> {
        let first = |call: String| call.split(' ').next().unwrap_or_default().to_owned();
        self.calls().into_iter().map(first).collect()
    }

    /// A file of the plugin's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `CNI_PATH` with this plugin first.
    pub fn path(&self, node: &Node) -> String {
        format!("{}:{}", self.dir.path().display(), node.cni_path())
    }
}

/// A network of `causeway-bridge` over a [`FakeIpam`] on one node.
#[derive(Debug)]
pub struct BridgeNet<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its IPAM plugin.
    pub fake: &'a FakeIpam,
    /// What the plugin reads on stdin.
    pub config: Value,
}

impl<'a> BridgeNet<'a> {
    /// The network `net` on bridge `cw0`, with `more` on top.
    pub fn new(node: &'a Node, fake: &'a FakeIpam, more: Value) -> Self {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "causeway-bridge",
            "bridge": "cw0", "runDir": node.run_dir(), "ipam": { "type": "fake-ipam" } });
        merge(&mut config, more);
        Self { node, fake, config }
    }

    /// The same with other keys.
    pub fn with(&self, more: Value) -> Self {
        let mut config = self.config.clone();
        merge(&mut config, more);
        Self { config, ..*self }
    }

    /// The call, not yet run.
    pub fn call(&self, command: &str, attachment: &Attachment) -> Cni<'a> {
        Cni::new(self.node, "causeway-bridge", command, &self.config)
            .attachment(attachment)
            .env("CNI_PATH", &self.fake.path(self.node))
    }

    /// Runs a command.
    pub fn run(&self, command: &str, attachment: &Attachment) -> Outcome {
        self.call(command, attachment).run()
    }

    /// ADD, which has to succeed.
    pub fn add(&self, attachment: &Attachment) -> Value {
        self.run("ADD", attachment).json()
    }

    /// DEL, which has to succeed.
    pub fn del(&self, attachment: &Attachment) {
        self.run("DEL", attachment).silent();
    }

    /// GC or STATUS, with the environment that libcni gives.
    pub fn on_network(&self, command: &str, more: Value) -> Outcome {
        let none = Attachment {
            id: String::new(),
            ifname: String::new(),
            netns: String::new(),
            args: String::new(),
            runtime_config: Value::Null,
        };
        self.with(more).run(command, &none)
    }

    /// Names of the host ends on the node.
    pub fn host_ends(&self) -> Vec<String> {
        self.node.link_names().into_iter().filter(|name| name.starts_with("veth")).collect()
    }
}

fn merge(config: &mut Value, more: Value) {
    let (Value::Object(config), Value::Object(more)) = (config, more) else {
        panic!("a configuration is an object");
    };
    config.extend(more);
}
