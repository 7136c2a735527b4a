//! A namespace that plays a host, and one that plays a container.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Ns, TempDir, bins, unique};

/// A host: a network namespace with state directories of its own.
#[derive(Debug)]
pub struct Node {
    ns: Ns,
    state: TempDir,
}

/// A container: a network namespace and an id.
#[derive(Debug)]
pub struct Pod {
    ns: Ns,
    /// The container id.
    pub id: String,
}

/// What a runtime says of one attachment.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`; may be empty.
    pub netns: String,
    /// `CNI_ARGS`; may be empty.
    pub args: String,
    /// Values by capability; each plugin gets those it declares.
    pub runtime_config: Value,
}

impl Node {
    /// A host without any link beside `lo`. Forwarding is off, as on a fresh machine.
    pub fn new(label: &str) -> Self {
        let ns = Ns::new(label);
        ns.set_sysctl("ipv4/ip_forward", "0");
        ns.set_sysctl("ipv6/conf/all/forwarding", "0");
        let state = TempDir::new(label);
        for folder in ["run", "data"] {
            let path = state.path().join(folder);
            std::fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        }
        Self { ns, state }
    }

    /// A new container on this host.
    pub fn pod(&self) -> Pod {
        let id = format!("pod{}", unique());
        Pod { ns: Ns::new(&id), id }
    }

    /// What the plugins' `runDir` is to be.
    pub fn run_dir(&self) -> PathBuf {
        self.state.path().join("run")
    }

    /// What the IPAM plugins' `dataDir` is to be.
    pub fn data_dir(&self) -> PathBuf {
        self.state.path().join("data")
    }

    /// A network of all three plugins with state in this host's directories: bridge `cw0` as
    /// default gateway with masquerade and hairpin, addresses from `subnet`, host ports, and the directories of a
    /// [`crate::Daemon`].
    pub fn conflist(&self, network: &str, subnet: &str) -> Value {
        let (run, data) = (self.run_dir(), self.data_dir());
        json!({ "cniVersion": "1.1.0", "name": network, "plugins": [
            { "type": "causeway-bridge", "bridge": "cw0", "isDefaultGateway": true, "ipMasq": true,
              "hairpinMode": true, "runDir": run,
              "ipam": { "type": "causeway-ipam", "dataDir": data, "runDir": run,
                        "ranges": [[{ "subnet": subnet }]] } },
            { "type": "causeway-service", "capabilities": { "portMappings": true }, "runDir": run,
              "spoolDir": self.dir().join("state/spool"), "socket": run.join("causeway.sock") } ] })
    }

    /// A directory for whatever else a test keeps about this host.
    pub fn dir(&self) -> &Path {
        self.state.path()
    }

    /// Saves all rules as this `nft` lists them and puts them back: into an empty kernel, once more on
    /// top of that, and into an empty kernel again, which is what stays.
    pub fn reload_rules(&self, nft: &Path) {
        let (nft, saved) = (nft.display(), self.dir().join("saved.nft"));
        let saved = saved.display();
        self.sh(&format!(
            "{nft} list ruleset >{saved}; {nft} flush ruleset; {nft} -f {saved}; {nft} -f {saved}
             {nft} flush ruleset; {nft} -f {saved}"
        ));
    }

    /// `CNI_PATH`: our plugins, then upstream's.
    pub fn cni_path(&self) -> String {
        format!("{}:{}", bins::dir().display(), bins::UPSTREAM)
    }
}

impl Deref for Node {
    type Target = Ns;
    fn deref(&self) -> &Ns {
        &self.ns
    }
}

impl Pod {
    /// An attachment of this container by an interface of this name.
    pub fn attachment(&self, ifname: &str) -> Attachment {
        Attachment {
            id: self.id.clone(),
            ifname: ifname.to_owned(),
            netns: self.path().display().to_string(),
            args: String::new(),
            runtime_config: json!({}),
        }
    }
}

impl Deref for Pod {
    type Target = Ns;
    fn deref(&self) -> &Ns {
        &self.ns
    }
}

impl Attachment {
    /// The same with `CNI_ARGS`.
    pub fn args(mut self, args: &str) -> Self {
        args.clone_into(&mut self.args);
        self
    }

    /// The same with capability values, `{"portMappings": [..]}`.
    pub fn runtime_config(mut self, values: Value) -> Self {
        self.runtime_config = values;
        self
    }

    /// The same with another `CNI_NETNS`, for example none.
    pub fn netns(mut self, path: &str) -> Self {
        path.clone_into(&mut self.netns);
        self
    }
}
