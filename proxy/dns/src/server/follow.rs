//! Follows the host's resolv.conf: looked at every second, read when it has changed (row D-31).

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::{ResolvConf, Upstream};

/// No resolv.conf is longer.
const LONGEST: u64 = 1 << 16;

/// Where the servers for names outside come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// `--dns-upstream`, at most [`crate::MAX_UPSTREAMS`].
    List(Vec<Upstream>),
    /// The host's files, as they are at any time.
    File {
        /// `/etc/resolv.conf`
        path: PathBuf,
        /// What is read instead if that names systemd's stub: `/run/systemd/resolve/resolv.conf`
        /// (row D-32). The stub is used if that names no server.
        behind_stub: PathBuf,
    },
}

impl Sources {
    /// The host's resolv.conf.
    pub fn host() -> Self {
        Self::File {
            path: "/etc/resolv.conf".into(),
            behind_stub: "/run/systemd/resolve/resolv.conf".into(),
        }
    }
}

/// What tells one state of a file from another: device, inode, length, time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// What was found at last.
#[derive(Debug)]
pub(super) struct Follow {
    sources: Sources,
    seen: Option<([Option<Stamp>; 2], BTreeSet<SocketAddr>)>,
    upstreams: Vec<Upstream>,
    warnings: Vec<String>,
}

impl Follow {
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources, seen: None, upstreams: Vec::new(), warnings: Vec::new() }
    }

    /// Other sources; whatever they are, they are read with the next look.
    pub(super) fn set(&mut self, sources: Sources) {
        *self = Self::new(sources);
    }

    /// What was skipped, or is missing.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The servers, if they may have changed since the last look. `own` are the listening addresses,
    /// which are left out.
    pub(super) fn look(&mut self, own: &BTreeSet<SocketAddr>) -> Option<Vec<Upstream>> {
        let (path, behind_stub) = match &self.sources {
            Sources::List(_) => (None, None),
            Sources::File { path, behind_stub } => (Some(path), Some(behind_stub)),
        };
        let stamps = [path, behind_stub].map(|path| path.and_then(|path| stamp(path).ok()));
        if self.seen.as_ref().is_some_and(|(seen, before)| *seen == stamps && before == own) {
            return None;
        }
        let (upstreams, mut warnings) = match &self.sources {
            Sources::List(list) => listed(list, own),
            Sources::File { path, behind_stub } => match read(path, own) {
                Ok(conf) => behind(conf, behind_stub, own),
                // What was known is better than nothing; a file is missing for moments only.
                Err(error) => {
                    let why =
                        format!("{}: {error}: the servers known before are used", path.display());
                    (self.upstreams.clone(), vec![why])
                }
            },
        };
        if upstreams.is_empty() {
            warnings.push(
                "no DNS server to forward to: names outside the cluster are answered SERVFAIL; give \
                 --dns-upstream ADDR"
                    .to_owned(),
            );
        }
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.seen = Some((stamps, own.clone()));
        (self.upstreams, self.warnings) = (upstreams.clone(), warnings);
        Some(upstreams)
    }
}

fn listed(list: &[Upstream], own: &BTreeSet<SocketAddr>) -> (Vec<Upstream>, Vec<String>) {
    let itself = |upstream: &&Upstream| {
        own.iter().any(|own| own.ip() == upstream.address && own.port() == upstream.port)
    };
    let (left_out, used): (Vec<_>, Vec<_>) = list.iter().partition(itself);
    let warn = |upstream: &Upstream| {
        format!("--dns-upstream {upstream} is this daemon's own address and is skipped")
    };
    (used.into_iter().cloned().collect(), left_out.into_iter().map(warn).collect())
}

fn behind(
    conf: ResolvConf,
    behind_stub: &Path,
    own: &BTreeSet<SocketAddr>,
) -> (Vec<Upstream>, Vec<String>) {
    if conf.stub
        && let Ok(systemd) = read(behind_stub, own)
        && !systemd.upstreams.is_empty()
        && !systemd.stub
    {
        let warnings = conf.warnings.into_iter().chain(systemd.warnings).collect();
        return (systemd.upstreams, warnings);
    }
    (conf.upstreams, conf.warnings)
}

fn read(path: &Path, own: &BTreeSet<SocketAddr>) -> io::Result<ResolvConf> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    let content = String::from_utf8_lossy(&bytes);
    Ok(ResolvConf::read(&path.display().to_string(), &content, own))
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let data = fs::metadata(path)?;
    Ok((data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}

#[cfg(test)]
mod tests;
