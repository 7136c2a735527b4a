//! What does not work, and what to know of: set and cleared here alone, read by `status`, `describe`
//! and the metrics. Pure: who sets a condition says so in the log, by what [`Change`] tells.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use causeway_model::ObjectKey;

/// What a condition is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Concern {
    /// Addresses of load balancers that are announced by this node.
    Announce,
    /// Rules of attachments, and attachments that are gone without DEL.
    Attachments,
    /// The kernel's settings of bridges.
    Bridge,
    /// This node is kept out of the cluster.
    Cluster,
    /// Keys of the cluster store that do not decode.
    ClusterKeys,
    /// The networks of all containers, as far as this node cannot have a part of them.
    ClusterNetwork,
    /// Records of the cluster store that do not count.
    ClusterRecords,
    /// The cluster store takes no objects of this node.
    ClusterWrites,
    /// A directory that is watched.
    Directory(PathBuf),
    /// Rules of other programs that drop what containers of several nodes send each other.
    Forward,
    /// The health check port of a service.
    HealthCheckPort(ObjectKey),
    /// Nodes that vanished together and are held for a while.
    HeldNodes,
    /// Services and endpoints without rules.
    LeftOut,
    /// The address of a flag that cannot be listened on.
    Listener(&'static str, SocketAddr),
    /// The guard of 127.0.0.0/8.
    Localhost,
    /// Objects that the cluster store has lost.
    LostObjects,
    /// The manifest directory.
    Manifests,
    /// The MTU of attachments.
    Mtu,
    /// The name server.
    Names,
    /// `node.json`
    NodeFile,
    /// What the other backend left.
    OtherBackend,
    /// The overlay.
    Overlay,
    /// The peers file.
    PeersFile,
    /// Another process that keeps changing the rules.
    Repairs,
    /// The rules are not in the kernel.
    Rules,
    /// The watch of the rules.
    RuleWatch,
    /// The settings of this run.
    Settings,
    /// The snapshot of the cluster on disk.
    Snapshot,
    /// The spool.
    Spool,
    /// The store: whether it answers, and that its files were damaged.
    Store,
    /// Objects of the store that do not decode.
    StoredObjects,
    /// This node's parts of the cluster network.
    Subnet,
    /// The kernel's settings.
    Sysctls,
}

impl Concern {
    /// As `status` has it. Two concerns may have one name.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Announce => "load balancer addresses",
            Self::Attachments => "attachments",
            Self::Bridge => "bridge",
            Self::Cluster => "cluster",
            Self::ClusterKeys => "cluster keys",
            Self::ClusterNetwork => "cluster network",
            Self::ClusterRecords => "cluster records",
            Self::ClusterWrites => "cluster writes",
            Self::Directory(path) => return Cow::Owned(format!("watch of {}", path.display())),
            Self::Forward => "forward",
            Self::HealthCheckPort(key) => {
                return Cow::Owned(format!("health check port of service {key}"));
            }
            Self::HeldNodes => "held nodes",
            Self::LeftOut => "left out",
            Self::Listener(flag, address) => return Cow::Owned(format!("--{flag} {address}")),
            Self::Localhost => "localhost",
            Self::LostObjects => "lost objects",
            Self::Manifests => "manifests",
            Self::Mtu => "mtu",
            Self::Names => "names",
            Self::NodeFile => "node.json",
            Self::OtherBackend => "other backend",
            Self::Overlay => "overlay",
            Self::PeersFile => "peers file",
            Self::Repairs => "repairs",
            Self::Rules => "rules",
            Self::RuleWatch => "watch of the rules",
            Self::Settings => "settings",
            Self::Snapshot => "snapshot",
            Self::Spool => "spool",
            Self::Store | Self::StoredObjects => "store",
            Self::Subnet => "subnet",
            Self::Sysctls => "sysctls",
        })
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What setting or clearing a condition changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There was none of this concern.
    Appeared,
    /// The text is a different one.
    Changed,
    /// The text is as it was.
    Same,
    /// It is no more.
    Cleared,
    /// There was none and there is none.
    Absent,
}

/// All conditions.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// What does not work, with the remedy.
    degraded: BTreeMap<Concern, String>,
    /// Things to know of.
    warnings: BTreeMap<Concern, Vec<String>>,
}

impl Conditions {
    /// Something does not work: `text` says what, with the remedy, a line each.
    pub(crate) fn set(&mut self, concern: Concern, text: String) -> Change {
        match self.degraded.get_mut(&concern) {
            None => {
                self.degraded.insert(concern, text);
                Change::Appeared
            }
            Some(before) if *before == text => Change::Same,
            Some(before) => {
                *before = text;
                Change::Changed
            }
        }
    }

    /// Whether something of a concern does not work.
    pub(crate) fn has(&self, concern: &Concern) -> bool {
        self.degraded.contains_key(concern)
    }

    /// Something works. Whether it did not.
    pub(crate) fn clear(&mut self, concern: &Concern) -> Change {
        match self.degraded.remove(concern) {
            Some(_) => Change::Cleared,
            None => Change::Absent,
        }
    }

    /// Something does not work, or does if there is no text.
    pub(crate) fn update(&mut self, concern: Concern, text: Option<String>) -> Change {
        match text {
            Some(text) => self.set(concern, text),
            None => self.clear(&concern),
        }
    }

    /// All that does not work of a concern; it works if there is nothing. Returns what is new of it.
    pub(crate) fn set_lines(&mut self, concern: Concern, lines: Vec<String>) -> Vec<String> {
        let before = self.degraded.get(&concern).map_or("", String::as_str);
        let new = lines.iter().filter(|line| !before.contains(line.as_str())).cloned().collect();
        self.update(concern, (!lines.is_empty()).then(|| lines.join("\n")));
        new
    }

    /// Something more to know of.
    pub(crate) fn warn(&mut self, concern: Concern, warnings: Vec<String>) {
        if !warnings.is_empty() {
            self.warnings.entry(concern).or_default().extend(warnings);
        }
    }

    /// All that is to know of a concern, or that there was something. Returns what is new of it.
    pub(crate) fn set_warnings(&mut self, concern: Concern, warnings: Vec<String>) -> Vec<String> {
        let before = self.warnings.get(&concern).map_or(&[][..], Vec::as_slice);
        let new = warnings.iter().filter(|one| !before.contains(one)).cloned().collect();
        self.warnings.insert(concern, warnings);
        new
    }

    /// All that is to know of a concern; that there was something is forgotten if there is nothing.
    /// Returns what is new of it.
    pub(crate) fn update_warnings(
        &mut self,
        concern: Concern,
        warnings: Vec<String>,
    ) -> Vec<String> {
        if warnings.is_empty() {
            self.take_warnings(&concern);
            return warnings;
        }
        self.set_warnings(concern, warnings)
    }

    /// Nothing is to know of a concern any more. Returns what was.
    pub(crate) fn take_warnings(&mut self, concern: &Concern) -> Vec<String> {
        self.warnings.remove(concern).unwrap_or_default()
    }

    /// Whether there was something to know of a concern, though it may be over.
    pub(crate) fn has_warned(&self, concern: &Concern) -> bool {
        self.warnings.contains_key(concern)
    }

    /// What is to know of a concern.
    pub(crate) fn warnings_of(&self, concern: &Concern) -> &[String] {
        self.warnings.get(concern).map_or(&[], Vec::as_slice)
    }

    /// What does not work, a line each, by name of the concern.
    pub(crate) fn degraded(&self) -> impl Iterator<Item = String> {
        let all = by_name(&self.degraded).into_iter();
        all.flat_map(|(name, text)| text.lines().map(move |line| format!("{name}: {line}")))
    }

    /// What is to know of, a line each, by name of the concern.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        let all = by_name(&self.warnings).into_iter();
        all.flat_map(|(name, all)| all.iter().map(move |one| format!("{name}: {one}")))
    }

    /// How many concerns do not work.
    pub(crate) fn count(&self) -> usize {
        self.degraded.len()
    }

    /// Whether something that does not work is told in these words already.
    pub(crate) fn mentions(&self, words: &str) -> bool {
        self.degraded.values().any(|text| text.contains(words))
    }
}

/// In the order of `status`. Of two concerns with one name the order of [`Concern`] counts.
fn by_name<T>(all: &BTreeMap<Concern, T>) -> Vec<(Cow<'static, str>, &T)> {
    let mut all: Vec<_> = all.iter().map(|(concern, one)| (concern.name(), one)).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

#[cfg(test)]
mod tests;
