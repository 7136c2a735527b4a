//! podman on a machine, with its CNI backend.

use super::{Foreground, Machine};
use crate::Finished;

/// What an administrator writes to have podman use CNI, and what it needs without systemd.
const CONFIG: &str = r#"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
network_config_dir = "/etc/cni/net.d"
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;
const STORAGE: &str = r#"
[storage]
driver = "vfs"
runroot = "/run/containerd/podman"
graphroot = "/var/lib/containers/storage"
"#;

/// podman as a user of a machine.
#[derive(Debug)]
pub struct Podman<'m> {
    machine: &'m Machine<'m>,
}

impl<'m> Podman<'m> {
    /// Configures podman and loads [`Machine::IMAGE`].
    pub fn on(machine: &'m Machine<'m>) -> Self {
        for (file, content) in [("containers.conf", CONFIG), ("storage.conf", STORAGE)] {
            let path = machine.path("/etc/containers").join(file);
            std::fs::write(&path, content)
                .unwrap_or_else(|e| panic!("write {}: {e}; run: make deps", path.display()));
        }
        let podman = Self { machine };
        let image = machine.folder.path().join("image.tar");
        podman.finish(&["load", "--input", image.to_str().expect("a plain path")]).ok();
        podman
    }

    /// Runs podman to its end.
    pub fn finish(&self, arguments: &[&str]) -> Finished {
        self.machine.finish("podman", arguments)
    }

    /// `podman run --rm --name NAME OPTIONS.. IMAGE`, back when the server in it listens.
    pub fn run(&self, name: &str, options: &[&str]) -> Foreground<'m> {
        // Its cgroups end with the machine's.
        let parent = format!("/{}", self.machine.namespace);
        let run = ["run", "--rm", "--cgroup-parent", &parent, "--name", name];
        let arguments = [&run[..], options, &[Machine::IMAGE]].concat();
        self.machine.foreground("podman".as_ref(), &arguments)
    }
}
