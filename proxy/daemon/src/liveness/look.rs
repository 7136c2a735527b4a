//! What is seen of attachments: their records, links and namespaces, and what the engine says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_bridge::Owners;
use causeway_bridge::record::Record;
use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records};
use causeway_kernel::{Netlink, Netns, NetnsLife};
use causeway_service::record::Announcement;
use serde_json::Value;

use super::judge::{Made, SeenAttachment};

/// A container that the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownContainer {
    /// `seq` of its last event.
    pub seq: u64,
    /// Path of its namespace at ADD.
    pub netns: Option<String>,
    /// Addresses of the interface.
    pub ips: Vec<IpAddr>,
}

/// Where to look.
#[derive(Debug)]
pub(super) struct Look {
    run_dir: PathBuf,
    known: BTreeMap<RecordKey, KnownContainer>,
    /// Those of them whose records are lost and that were seen to be gone: the engine forgets them,
    /// and what they own is to be freed still.
    lost: BTreeMap<RecordKey, KnownContainer>,
}

impl Look {
    /// Looks at the records below `run_dir`.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), known: BTreeMap::new(), lost: BTreeMap::new() }
    }

    /// The engine says that a container is attached, or gone.
    pub(super) fn hear(&mut self, key: RecordKey, known: Option<KnownContainer>) {
        match known {
            Some(known) => {
                self.lost.remove(&key);
                self.known.insert(key, known);
            }
            None => drop(self.known.remove(&key)),
        }
    }

    /// What an attachment owned is free.
    pub(super) fn freed(&mut self, key: &RecordKey) {
        self.lost.remove(key);
    }

    /// All attachments, ascending by key.
    ///
    /// # Errors
    /// Links or records cannot be listed.
    pub(super) fn look(&mut self) -> causeway_kernel::Result<Vec<SeenAttachment>> {
        let records = |kind| Records::new(&self.run_dir, kind);
        // Before the links: an attachment that is made meanwhile has its link then.
        let ours: BTreeMap<RecordKey, Record> =
            records(kind::BRIDGE).readable()?.into_iter().collect();
        let told: BTreeMap<RecordKey, Announcement> =
            records(kind::ENDPOINT).readable()?.into_iter().collect();
        let keys_of = |kind| {
            let found = records(kind).readable::<Value>()?.into_iter();
            Ok::<_, causeway_kernel::Error>(found.map(|(key, _)| key).collect::<BTreeSet<_>>())
        };
        let (mapped, failed) = (keys_of(kind::SERVICE)?, keys_of(kind::FAILED)?);
        let owners = Owners::read(&Netlink::open()?)?;
        let recorded = ours.keys().chain(told.keys()).chain(&mapped);
        let keys: BTreeSet<&RecordKey> =
            recorded.chain(self.known.keys()).chain(self.lost.keys()).collect();
        let mut lost = BTreeMap::new();
        let mut all = Vec::new();
        for key in keys {
            let note = told.get(key);
            let known = self.known.get(key).or_else(|| self.lost.get(key));
            let failed = failed.contains(key);
            let seen = match ours.get(key) {
                Some(record) => self.ours(key, record, &owners),
                None if mapped.contains(key) || note.is_some() => {
                    Some(others(key, note, owners.have(key, None)))
                }
                None => known.map(|known| unrecorded(key, known, owners.have(key, None))),
            };
            let Some(mut seen) = seen else { continue };
            seen.failed = failed;
            // Of an earlier version's record: any ADD is meant.
            seen.seq = note.map_or(seen.seq, Announcement::seq);
            if let Some(known) = known.filter(|_| seen.ips.is_empty()) {
                seen.ips.clone_from(&known.ips);
            }
            if let (Made::Lost, NetnsLife::Gone, Some(known)) = (seen.made, seen.netns, known) {
                lost.insert(key.clone(), known.clone());
            }
            all.push(seen);
        }
        self.lost = lost;
        Ok(all)
    }

    /// An attachment of causeway-bridge; `None` if its record has gone meanwhile.
    fn ours(&self, key: &RecordKey, record: &Record, owners: &Owners) -> Option<SeenAttachment> {
        let link = owners.have(key, Some(record));
        let mut seen = SeenAttachment {
            key: key.clone(),
            made: Made::ByUs,
            link,
            netns: NetnsLife::Lives,
            failed: false,
            busy: false,
            seq: 0,
            ips: record.addresses.iter().map(ipnetwork::IpNetwork::ip).collect(),
        };
        if link {
            return Some(seen);
        }
        let records = Records::new(&self.run_dir, kind::BRIDGE);
        match records.lock(key, Duration::ZERO) {
            Err(_) => seen.busy = true,
            Ok(_lock) => {
                let now = records.read::<Record>(key);
                if matches!(now, Ok(None)) {
                    // What the lock left.
                    drop(records.remove(key));
                    return None;
                }
                // Attached anew since the links were listed, or being so.
                seen.busy = now.ok().as_ref() != Some(&Some(record.clone()));
            }
        }
        seen.netns = NetnsLife::at(&record.netns, record.netns_id.as_ref());
        Some(seen)
    }
}

/// An attachment of another main plugin.
fn others(key: &RecordKey, note: Option<&Announcement>, link: bool) -> SeenAttachment {
    let netns = match note {
        Some(note) if note.is_dead() => NetnsLife::Gone,
        Some(_) | None => NetnsLife::Unknown,
    };
    let (key, made) = (key.clone(), Made::ByOthers);
    SeenAttachment { key, made, link, netns, failed: false, busy: false, seq: 0, ips: Vec::new() }
}

/// A container that the engine knows and no record does: the run directory is another one.
fn unrecorded(key: &RecordKey, known: &KnownContainer, link: bool) -> SeenAttachment {
    let netns = match &known.netns {
        Some(path) if !link => {
            if holds(path, &key.ifname, &known.ips) {
                NetnsLife::Lives
            } else {
                NetnsLife::Gone
            }
        }
        Some(_) | None => NetnsLife::Unknown,
    };
    let (key, made, ips) = (key.clone(), Made::Lost, known.ips.clone());
    SeenAttachment { key, made, link, netns, failed: false, busy: false, seq: known.seq, ips }
}

/// Whether the namespace at `path` has one of the addresses on its interface. The path alone does not
/// tell: it may be another container's by now. What cannot be looked at does.
fn holds(path: &str, ifname: &str, ips: &[IpAddr]) -> bool {
    let netns = match Netns::open(path) {
        Ok(netns) => netns,
        Err(causeway_kernel::NetnsError::NotFound { .. }) => return false,
        Err(_) => return true,
    };
    let addresses = || -> causeway_kernel::Result<Vec<IpAddr>> {
        let inside = Netlink::open_in(&netns)?;
        let Some(link) = inside.link(ifname)? else { return Ok(Vec::new()) };
        Ok(inside.addresses(link.index)?.iter().map(|state| state.address.ip()).collect())
    };
    addresses().map_or(true, |addresses| ips.iter().any(|ip| addresses.contains(ip)))
}
