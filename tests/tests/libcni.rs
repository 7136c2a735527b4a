//! The real libcni, by its `cnitool`, drives the three plugins.

use std::path::{Path, PathBuf};

use causeway_tests::{Finished, Lab, Node, Ns, Snapshot, TempDir, bins, executable, finish};
use serde_json::{Value, json};

/// Where libcni keeps results; the directory belongs to this test binary alone.
const CACHE: &str = "/var/lib/cni/results";

/// A network's configuration in a directory, and plugins that note their calls in a file.
struct Libcni<'a> {
    node: &'a Node,
    folder: TempDir,
}

impl<'a> Libcni<'a> {
    fn new(node: &'a Node, list: &Value) -> Self {
        let libcni = Self { node, folder: TempDir::new("libcni") };
        let list = list.to_string();
        std::fs::write(libcni.path("net.conflist"), list).expect("write the network");
        for plugin in ["causeway-bridge", "causeway-service"] {
            let script = format!(
                "echo \"$CNI_COMMAND {plugin}\" >> {}\nexec {}",
                libcni.path("calls").display(),
                bins::ours(plugin).display()
            );
            executable::script(&libcni.path(plugin), &script);
        }
        bins::ours("causeway-ipam");
        libcni
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `cnitool VERB libcni NETNS` and returns what it printed.
    fn run(&self, verb: &str, netns: &Path, capabilities: &Value) -> String {
        self.finish(verb, netns, capabilities).ok()
    }

    /// Runs `cnitool gc`, which sends no list of attachments; all of what it says.
    fn refused_gc(&self) -> String {
        let gc = self.finish("gc", Path::new("/run/netns/gone"), &json!({}));
        assert!(!gc.status.success(), "{}", gc.describe());
        gc.describe()
    }

    fn finish(&self, verb: &str, netns: &Path, capabilities: &Value) -> Finished {
        let tool = bins::workspace().join("target/tools/bin/cnitool");
        assert!(tool.exists(), "{} is missing; run: make deps", tool.display());
        let mut command = self.node.command(tool);
        command.args([verb, "libcni"]).arg(netns);
        command.env("NETCONFPATH", self.folder.path());
        command.env("CAP_ARGS", capabilities.to_string());
        let path = format!("{}:{}", self.folder.path().display(), self.node.cni_path());
        command.env("CNI_PATH", path);
        finish(command, b"")
    }

    /// The calls since the last question.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        std::fs::write(self.path("calls"), "").expect("empty the list of calls");
        text.lines().map(str::to_owned).collect()
    }
}

fn cached() -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(CACHE) else { return Vec::new() };
    let text = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read(entry.expect("an entry").path()).expect("a cached result")
    };
    entries.map(text).map(|text| serde_json::from_slice(&text).expect("JSON")).collect()
}

/// Rows: C38, C57, C72, C74, C85, C87, C88, RC13
#[test]
fn libcni_adds_checks_and_deletes_in_its_order() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut list = node.conflist("libcni", "10.66.0.0/24");
    list["cniVersions"] = json!(["0.4.0", "1.0.0", "1.1.0"]);
    list["cniVersion"] = json!("0.4.0");
    let libcni = Libcni::new(node, &list);
    let ports = |host_port: u16| {
        json!({ "portMappings": [
            { "hostPort": host_port, "containerPort": 80, "protocol": "tcp" } ] })
    };
    let pods = [(); 2].map(|()| Ns::new("pod"));
    let gone = Path::new("/run/netns/gone");

    let printed = libcni.run("add", pods[0].path(), &ports(8080));
    let result: Value = serde_json::from_str(&printed).expect("a result");
    assert_eq!(result["cniVersion"], "1.1.0", "the highest version of the list");
    assert_eq!(libcni.calls(), ["ADD causeway-bridge", "ADD causeway-service"]);
    let cache = cached();
    assert_eq!((cache.len(), &cache[0]["kind"]), (1, &json!("cniCacheV1")));
    assert_eq!(cache[0]["result"], result, "the final result is kept");
    libcni.run("check", pods[0].path(), &ports(8080));
    assert_eq!(libcni.calls(), ["CHECK causeway-bridge", "CHECK causeway-service"]);
    libcni.run("status", gone, &json!({}));
    assert_eq!(libcni.calls(), ["STATUS causeway-bridge", "STATUS causeway-service"]);
    libcni.run("del", pods[0].path(), &ports(8080));
    assert_eq!(libcni.calls(), ["DEL causeway-service", "DEL causeway-bridge"]);
    assert!(cached().is_empty());
    // Nothing is attached any more: no error that a runtime would have to forgive.
    libcni.run("del", pods[0].path(), &ports(8080));
    libcni.run("del", gone, &json!({}));
    libcni.calls();

    let before = Snapshot::take(node);
    for (pod, host_port) in pods.iter().zip(8080..) {
        libcni.run("add", pod.path(), &ports(host_port));
    }
    libcni.calls();
    let said = libcni.refused_gc();
    assert!(said.contains("GC needs") && said.contains("cni.dev/valid-attachments"), "{said}");
    let calls = libcni.calls();
    let del = ["DEL causeway-service", "DEL causeway-bridge"];
    assert_eq!(calls[..4], [del, del].concat(), "DEL of what was cached comes first");
    assert_eq!(calls[4..], ["GC causeway-bridge", "GC causeway-service"]);
    before.assert_same(&Snapshot::take(node));
    assert!(cached().is_empty());

    // What is not in its cache runs on: another runtime's, or its own from before the cache was lost.
    libcni.run("add", pods[0].path(), &ports(8080));
    let attached = Snapshot::take(node);
    std::fs::remove_dir_all(CACHE).expect("remove the cache");
    libcni.refused_gc();
    attached.assert_same(&Snapshot::take(node));
    libcni.run("del", pods[0].path(), &ports(8080));
    before.assert_same(&Snapshot::take(node));
}
