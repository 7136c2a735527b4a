//! Frees what an attachment owns whose container is gone without DEL: proof first, then rules, then
//! the lease, then the record; so nobody gets an address that rules still name.
//!
//! A veth pair ends with either of its namespaces. So an attachment is dead if its link is gone
//! and no namespace, or another one, is at its path: then no interface has its addresses.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records};
use causeway_kernel::{Link, LinkKind, Netlink, NetnsLife};
use cni_plugin::{Code, Command, Error, Request};

use crate::ipam::Ipam;
use crate::record::Record;
use crate::{del, fault, rules};

/// The outcome for an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that it owned is free.
    Freed,
    /// It is not proven to be dead. Nothing was touched.
    Alive,
    /// An operation on it runs right now. Nothing was touched.
    Busy,
    /// There is none.
    Absent,
}

/// What other modules do for an attachment that is being freed.
pub trait Release {
    /// Removes what the other plugins of the chain made.
    ///
    /// # Errors
    /// Something is left: the addresses stay leased then.
    fn rules(&mut self, key: &RecordKey) -> Result<(), Error>;

    /// Ends the leases; `record` is `None` if it is lost.
    ///
    /// # Errors
    /// The addresses may be leased still.
    fn lease(&mut self, key: &RecordKey, record: Option<&Record>) -> Result<(), Error>;
}

/// The links of this node by which attachments are known to live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    aliases: BTreeSet<String>,
    /// Names of veth links that nobody has put a mark on.
    unmarked: BTreeSet<String>,
}

impl Owners {
    /// Those in the namespace of `host`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn read(host: &Netlink) -> causeway_kernel::Result<Self> {
        Ok(host.links()?.into_iter().collect())
    }

    /// Whether the attachment's link is there: by its mark, whatever its name; a link without one by
    /// the name that the record has.
    pub fn have(&self, key: &RecordKey, record: Option<&Record>) -> bool {
        self.aliases.contains(&rules::owner(key))
            || record.is_some_and(|record| self.unmarked.contains(&record.host_ifname))
    }
}

impl FromIterator<Link> for Owners {
    fn from_iter<T: IntoIterator<Item = Link>>(links: T) -> Self {
        let mut owners = Self::default();
        for link in links {
            match link.alias {
                Some(alias) => drop(owners.aliases.insert(alias)),
                None if link.kind == LinkKind::Veth => drop(owners.unmarked.insert(link.name)),
                None => {}
            }
        }
        owners
    }
}

/// Frees the attachment of `key` if it is dead. Never while a namespace of its identity or a link
/// with its mark lives.
///
/// # Errors
/// What failed; the record stays, so that all of it can be tried again.
pub fn free(run_dir: &Path, key: &RecordKey, release: &mut dyn Release) -> Result<Outcome, Error> {
    let records = Records::new(run_dir, kind::BRIDGE);
    let _lock = match records.lock(key, Duration::ZERO) {
        Ok(lock) => lock,
        Err(error) if error.is_transient() => return Ok(Outcome::Busy),
        Err(error) => return Err(fault::kernel(error)),
    };
    let Some(record) = records.read::<Record>(key).map_err(fault::kernel)? else {
        // What the lock left, and a note of what is gone by now.
        fault::collected(del::forget(run_dir, key, None))?;
        return Ok(Outcome::Absent);
    };
    let host = Netlink::open().map_err(fault::kernel)?;
    if Owners::read(&host).map_err(fault::kernel)?.have(key, Some(&record)) || lives(&record) {
        return Ok(Outcome::Alive);
    }
    release.rules(key)?;
    fault::collected(del::remove_recorded_rules(run_dir, key, &record))?;
    release.lease(key, Some(&record))?;
    fault::collected(del::forget(run_dir, key, Some(&record)))?;
    Ok(Outcome::Freed)
}

/// Frees an attachment of causeway-bridge whose record is lost: whoever knows of it, by a lease for
/// instance, knows that it was made by this plugin, or that its namespace is gone. An attachment
/// without its link is not an attachment; one that is being made has its record before its lease.
///
/// # Errors
/// What failed.
pub fn free_unrecorded(
    run_dir: &Path,
    key: &RecordKey,
    release: &mut dyn Release,
) -> Result<Outcome, Error> {
    let records = Records::new(run_dir, kind::BRIDGE);
    let _lock = match records.lock(key, Duration::ZERO) {
        Ok(lock) => lock,
        Err(error) if error.is_transient() => return Ok(Outcome::Busy),
        Err(error) => return Err(fault::kernel(error)),
    };
    if !matches!(records.read::<Record>(key), Ok(None)) {
        return Ok(Outcome::Alive);
    }
    let host = Netlink::open().map_err(fault::kernel)?;
    let alive = Owners::read(&host).map_err(fault::kernel)?.have(key, None);
    let freed = match alive {
        true => Ok(Outcome::Alive),
        false => release
            .rules(key)
            .and_then(|()| fault::collected(del::remove_rules_by_owner(run_dir, key)))
            .and_then(|()| release.lease(key, None))
            .map(|()| Outcome::Freed),
    };
    // What the lock left.
    records.remove(key).map_err(fault::kernel)?;
    freed
}

/// Has the IPAM plugin that `record` names end the leases, by DEL with the configuration that the
/// record keeps.
///
/// # Errors
/// The plugin's own; code 5 if the record does not tell how to start it.
pub fn release_by_delegate(key: &RecordKey, record: &Record) -> Result<(), Error> {
    let plugin = &record.ipam;
    let delegate = record.delegate.as_ref().ok_or_else(|| {
        let msg = format!(
            "the record does not contain the configuration of IPAM plugin {plugin}; its lease is \
             released by DEL, or by the next ADD that finds no free address"
        );
        Error::new(Code::Io, msg)
    })?;
    let env = [
        ("CNI_COMMAND", Command::Del.as_str()),
        ("CNI_CONTAINERID", key.container_id.as_str()),
        ("CNI_IFNAME", key.ifname.as_str()),
        ("CNI_PATH", delegate.path.as_str()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let request = Request::parse(&crate::ABOUT, env, || Ok(delegate.config.to_string().into()))?;
    Ipam { plugin, request: &request }.del()
}

/// Whether the namespace of a recorded attachment lives: it is at its place, or a process is in it.
fn lives(record: &Record) -> bool {
    let id = record.netns_id.as_ref();
    NetnsLife::at(&record.netns, id) == NetnsLife::Lives
        || id.is_some_and(causeway_kernel::NetnsId::has_process)
}

#[cfg(test)]
mod tests;
