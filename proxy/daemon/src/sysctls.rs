//! Kernel settings that services need; their earlier values are kept for `cleanup`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_kernel::{FORWARD_V6, Netlink, Program, Sysctl, accept_ra_before_forwarding};
use serde::{Deserialize, Serialize};

use crate::files;

const HERE: Sysctl<'static> = Sysctl { netns: None };
/// Replies between two ports of one bridge pass conntrack, which alone knows what they answer.
const BRIDGE: [&str; 2] =
    ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
/// What containers need to reach anything beyond their node.
pub(crate) const FORWARDING: [&str; 2] = [FORWARD_V4, FORWARD_V6];
const FORWARD_V4: &str = "net/ipv4/ip_forward";
/// Connections from 127.0.0.1 may leave the node. Only behind the guard, which the rules hold.
const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

/// Kept connections a processor, and at least (kube-proxy's numbers, row 81).
const CONNECTIONS: (usize, usize) = (32_768, 131_072);
const CONNECTIONS_MAX: &str = "net/netfilter/nf_conntrack_max";
/// How long idle TCP connections are kept, in seconds: five days by the kernel's own choice, which
/// fills the table of a node; and one minute half closed, which cuts off slow ends.
const TIMEOUTS: [(&str, &str); 2] = [
    ("net/netfilter/nf_conntrack_tcp_timeout_established", "86400"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"),
];

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    before: String,
    set: String,
}

/// `sysctls.json` of the state directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// What a boot begins with is the administrator's, whatever we changed before it.
    boot_id: String,
    changed: BTreeMap<String, Changed>,
}

/// The settings.
#[derive(Debug)]
pub(crate) struct Sysctls {
    path: PathBuf,
    memory: Memory,
}

impl Sysctls {
    /// With what earlier runs remembered.
    ///
    /// # Errors
    /// The file cannot be read or does not decode.
    pub(crate) fn open(state_dir: &Path, boot_id: &str) -> io::Result<Self> {
        let path = state_dir.join("sysctls.json");
        let memory = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Memory>(&text).map_err(|error| {
                let text = format!("{} cannot be decoded; remove it: {error}", path.display());
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => return Err(error),
        };
        let memory = match memory.boot_id == boot_id {
            true => memory,
            false => Memory { boot_id: boot_id.to_owned(), ..Memory::default() },
        };
        Ok(Self { path, memory })
    }

    /// As [`Sysctls::open`]; a file that does not decode is moved aside, for what it told cannot be
    /// known any more, and services do not need it. Also returns what to warn of then.
    ///
    /// # Errors
    /// The file cannot be read or moved.
    pub(crate) fn open_or_begin(
        state_dir: &Path,
        boot_id: &str,
    ) -> io::Result<(Self, Option<String>)> {
        let path = state_dir.join("sysctls.json");
        match Self::open(state_dir, boot_id) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            opened => return Ok((opened?, None)),
        }
        let aside = state_dir.join("sysctls.json.damaged");
        std::fs::rename(path, &aside)?;
        let text = format!(
            "sysctls.json could not be decoded and was moved to {}: until the next boot, \
             `causewayd cleanup` restores the settings found at this start",
            aside.display()
        );
        Ok((Self::open(state_dir, boot_id)?, Some(text)))
    }

    /// Has replies between two ports of one bridge pass conntrack; loads the module that they need
    /// if this process may.
    ///
    /// # Errors
    /// What does not work without it, and the remedy.
    pub(crate) fn bridge(&mut self) -> Result<(), String> {
        load_br_netfilter();
        for key in BRIDGE {
            if !self.set(key, "1")? {
                return Err(format!(
                    "sysctl {key} does not exist, so connections to a service fail if the endpoint \
                     is on the client's own bridge; load the module: modprobe br_netfilter"
                ));
            }
        }
        Ok(())
    }

    /// Whether the kernel has the settings of bridges.
    pub(crate) fn has_bridge() -> bool {
        BRIDGE.iter().all(|key| Path::new("/proc/sys").join(key).exists())
    }

    /// Sets what forwarding needs. Returns what could not be set.
    pub(crate) fn before_rules(&mut self, ipv6: bool) -> Vec<String> {
        let mut problems = Vec::new();
        if ipv6 {
            problems.extend(self.keep_advertised_routes().err());
        }
        for (key, wanted) in [(FORWARD_V4, true), (FORWARD_V6, ipv6)] {
            if wanted {
                problems.extend(self.set(key, "1").err());
            }
        }
        problems.extend(self.conntrack());
        problems
    }

    /// A host that forwards drops the routes that routers advertised, unless told otherwise.
    fn keep_advertised_routes(&mut self) -> Result<(), String> {
        let keys = Netlink::open().and_then(|netlink| accept_ra_before_forwarding(&netlink));
        for key in keys.map_err(|error| described(&error))? {
            self.set(&key, "2")?;
        }
        Ok(())
    }

    /// Room and time for connections. A limit that is higher already stays.
    fn conntrack(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in TIMEOUTS {
            problems.extend(self.set(key, value).err());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = (cores * CONNECTIONS.0).max(CONNECTIONS.1);
        let now = current(CONNECTIONS_MAX).ok().flatten().and_then(|now| now.parse::<usize>().ok());
        if now.is_some_and(|now| now < wanted) {
            // Of all namespaces together, so that only the host's own may be able to say it.
            drop(self.set(CONNECTIONS_MAX, &wanted.to_string()));
        }
        problems
    }

    /// Lets node ports answer at 127.0.0.1, or takes that back. Returns what could not be set.
    pub(crate) fn after_rules(&mut self, localhost: bool) -> Vec<String> {
        let done = match localhost {
            true => self.set(ROUTE_LOCALNET, "1").map(drop),
            false => self.restore_one(ROUTE_LOCALNET).map(drop),
        };
        done.err().into_iter().collect()
    }

    /// Puts back what still is as we set it, or only lists what would be. Returns their
    /// descriptions. Those of `keep` stay, and stay remembered.
    ///
    /// # Errors
    /// A setting cannot be written.
    pub(crate) fn restore(&mut self, keep: &[&str], dry_run: bool) -> Result<Vec<String>, String> {
        let mut restored = Vec::new();
        for (key, changed) in self.memory.changed.clone() {
            // A device that forwards needs it.
            let advertised = key.ends_with("/accept_ra") && keep.contains(&FORWARD_V6);
            if advertised || keep.contains(&key.as_str()) {
                continue;
            }
            if current(&key)?.as_deref() == Some(changed.set.as_str()) {
                restored.push(format!("sysctl {key}: {} -> {}", changed.set, changed.before));
            }
            if !dry_run {
                self.restore_one(&key)?;
            }
        }
        if !dry_run && self.memory.changed.is_empty() {
            drop(std::fs::remove_file(&self.path));
        }
        Ok(restored)
    }

    /// Those of `keys` that we changed and that still are as we set them.
    ///
    /// # Errors
    /// A setting cannot be read.
    pub(crate) fn changed<'a>(&self, keys: &[&'a str]) -> Result<Vec<&'a str>, String> {
        let mut found = Vec::new();
        for &key in keys {
            if let Some(changed) = self.memory.changed.get(key)
                && current(key)?.as_deref() == Some(changed.set.as_str())
            {
                found.push(key);
            }
        }
        Ok(found)
    }

    /// `false`: there is no such key.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let Some(before) = current(key)? else { return Ok(false) };
        if before == value {
            return Ok(true);
        }
        if !self.memory.changed.contains_key(key) {
            let changed = Changed { before, set: value.to_owned() };
            self.memory.changed.insert(key.to_owned(), changed);
            // Before the change: what is not remembered is never restored.
            self.save()?;
        }
        HERE.ensure(&[(key.to_owned(), value)]).map_err(|error| described(&error))?;
        Ok(true)
    }

    fn restore_one(&mut self, key: &str) -> Result<(), String> {
        let Some(changed) = self.memory.changed.get(key).cloned() else { return Ok(()) };
        // A value that another program has set is left alone.
        if current(key)?.as_deref() == Some(changed.set.as_str()) {
            HERE.ensure(&[(key.to_owned(), changed.before.as_str())])
                .map_err(|error| described(&error))?;
        }
        self.memory.changed.remove(key);
        self.save()
    }

    fn save(&self) -> Result<(), String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("write {}: {error}", self.path.display());
        let text = serde_json::to_vec(&self.memory).map_err(|error| failed(&error))?;
        files::replace(&self.path, &text, 0o600).map_err(|error| failed(&error))
    }
}

fn current(key: &str) -> Result<Option<String>, String> {
    HERE.read(key).map_err(|error| described(&error))
}

fn described(error: &causeway_kernel::Error) -> String {
    format!("{error}: {}", error.source)
}

/// Best effort: without it the keys are missing, which is reported. Under systemd the unit has loaded
/// it, since this process may not.
fn load_br_netfilter() {
    let modprobe = ["/usr/sbin/modprobe", "/sbin/modprobe"].map(PathBuf::from);
    let Some(path) = modprobe.into_iter().find(|path| path.is_file()) else { return };
    if Path::new("/proc/sys").join(BRIDGE[0]).exists() {
        return;
    }
    drop(causeway_kernel::run(&Program {
        path,
        args: vec!["br_netfilter".to_owned()],
        env: BTreeMap::new(),
        stdin: b"",
        timeout: Duration::from_secs(5),
    }));
}
