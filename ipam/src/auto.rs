//! Which network draws from the node's subnets (`"subnet": "auto"`). Each network has a store of its
//! own, so two of them would hand out the same address: the first one has the subnets until none of
//! their addresses is leased in it any more.
//!
//! `<dataDir>/.auto` names the owner and the subnets that it has drawn from. Its rules, which need no
//! order in which processes run or die:
//!
//! - A network draws only while it holds the lock of its own store and is named in the file.
//! - If an owner is named, the file is replaced only by who holds the lock of that one's store.
//! - If no owner is named, and for any change of the name, [`TURN`] is held. Who holds the lock of a
//!   store never waits for it.
//!
//! Nothing is synced: after a power cut the leases, which the file guards, are those of another boot.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use causeway_host::file::{self, Outlives};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::allocator::{self, Now, Refusal};
use crate::config::Place;
use crate::lock::NetworkLock;
use crate::session::{self, LOCK_WAIT, Patience};
use crate::store::{self, Error, Store};
use crate::{disk, facts};

/// Name of the file, and of the lock for changes of its owner: no network's name begins with a dot.
const TURN: &str = ".auto";
/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SubnetOwner {
    network: String,
    /// All that it has drawn from: the node's subnets may change under it.
    subnets: Vec<IpNetwork>,
}

/// Takes the lock of the store of `place`. With `subnets` of the node the network owns them as long
/// as the lock is held.
///
/// # Errors
/// [`Refusal::Shared`] while addresses of `subnets` are leased in another network; the store's.
pub(crate) fn lock(
    place: &Place,
    subnets: &[IpNetwork],
    now: &Now,
) -> Result<NetworkLock, Refusal> {
    let own = || NetworkLock::acquire(&place.data_dir, &place.network, LOCK_WAIT);
    if subnets.is_empty() {
        return Ok(own()?);
    }
    let file = SubnetOwner::file(&place.data_dir);
    let ours = |owner: &SubnetOwner| owner.network == place.network;
    if SubnetOwner::read(&file)?.as_ref().is_some_and(ours) {
        let lock = own()?;
        if let Some(owner) = SubnetOwner::read(&file)?.filter(ours) {
            owner.and(subnets, &file)?;
            return Ok(lock);
        }
    }
    let turn = NetworkLock::acquire(&place.data_dir, TURN, LOCK_WAIT)?;
    match SubnetOwner::read(&file)? {
        Some(owner) if ours(&owner) => {}
        Some(owner) => take_over(place, &owner.network, subnets, now)?,
        None => {
            unshared(place, subnets, Patience::USUAL, now)?;
            SubnetOwner::new(place, subnets).write(&file)?;
        }
    }
    let lock = own()?;
    if let Some(owner) = SubnetOwner::read(&file)? {
        owner.and(subnets, &file)?;
    }
    drop(turn);
    Ok(lock)
}

/// Whether [`lock`] would be refused. Changes nothing.
///
/// # Errors
/// As for [`lock`]; [`Error::Locked`] at once while another process works on a store that would
/// have to be looked at.
pub(crate) fn check(place: &Place, subnets: &[IpNetwork], now: &Now) -> Result<(), Refusal> {
    if subnets.is_empty() {
        return Ok(());
    }
    match SubnetOwner::read(&SubnetOwner::file(&place.data_dir))? {
        Some(owner) if owner.network == place.network => Ok(()),
        Some(owner) => {
            let wait = Patience::STATUS.lock;
            let lock = NetworkLock::acquire(&place.data_dir, &owner.network, wait)?;
            let SubnetOwner { network, subnets } = owner.with(subnets);
            let found = held(Arc::new(lock), &subnets, place, Patience::STATUS, now)?;
            refuse(place, &network, found)
        }
        None => unshared(place, subnets, Patience::STATUS, now),
    }
}

/// Makes the network of `place` the owner instead of `other`, whose leases are elsewhere.
fn take_over(place: &Place, other: &str, subnets: &[IpNetwork], now: &Now) -> Result<(), Refusal> {
    let lock = Arc::new(NetworkLock::acquire(&place.data_dir, other, LOCK_WAIT)?);
    let file = SubnetOwner::file(&place.data_dir);
    // It may have drawn from more until we got its lock.
    let all = match SubnetOwner::read(&file)? {
        Some(owner) => owner.with(subnets).subnets,
        None => subnets.to_vec(),
    };
    refuse(place, other, held(Arc::clone(&lock), &all, place, Patience::USUAL, now)?)?;
    SubnetOwner::new(place, subnets).write(&file)?;
    drop(lock);
    Ok(())
}

/// If no owner is named: no other network may have addresses of `subnets`, whatever its
/// configuration says.
fn unshared(
    place: &Place,
    subnets: &[IpNetwork],
    patience: Patience,
    now: &Now,
) -> Result<(), Refusal> {
    let mut others = facts::attached_networks(&place.run_dir);
    // A directory that is not there contains no store.
    others.extend(disk::networks(&place.data_dir).unwrap_or_default());
    others.remove(&place.network);
    for other in others {
        let lock = NetworkLock::acquire(&place.data_dir, &other, patience.lock)?;
        let found = match held(Arc::new(lock), subnets, place, patience, now) {
            // A damaged store stops its own network only.
            Err(Error::Damaged { .. }) => recorded(&other, subnets, place),
            found => found?,
        };
        refuse(place, &other, found)?;
    }
    Ok(())
}

/// An address of `subnets` that is leased in the network of `lock`.
fn held(
    lock: Arc<NetworkLock>,
    subnets: &[IpNetwork],
    place: &Place,
    patience: Patience,
    now: &Now,
) -> Result<Option<IpAddr>, Error> {
    let network = lock.network().to_owned();
    if lock.emptied().is_some() {
        // A record that is left is that of a DEL under way, which released its lease already.
        return Ok(None);
    }
    if !session::exists(&Place { network: network.clone(), ..place.clone() }) {
        return Ok(recorded(&network, subnets, place));
    }
    let (wanted, moment) = (subnets.to_vec(), now.clone());
    session::with_locked(lock, &place.run_dir, patience, now, move |store: &mut dyn Store| {
        if allocator::other_boot(store, &moment) {
            return Ok(None);
        }
        Ok::<_, Error>(first_in(&wanted, &store.leases()?))
    })
}

/// The same from the records of attachments: a store that was lost is made from them.
fn recorded(network: &str, subnets: &[IpNetwork], place: &Place) -> Option<IpAddr> {
    first_in(subnets, &facts::attached(&place.run_dir, network))
}

/// Whether a file of this name says who has the node's subnets.
pub(crate) fn is_file(name: &str) -> bool {
    name.strip_prefix(TURN).is_some_and(|rest| matches!(rest, "" | ".part"))
}

fn first_in(subnets: &[IpNetwork], leases: &[store::Lease]) -> Option<IpAddr> {
    let mut addresses = leases.iter().map(|lease| lease.address);
    addresses.find(|address| subnets.iter().any(|subnet| subnet.contains(*address)))
}

fn refuse(place: &Place, other: &str, found: Option<IpAddr>) -> Result<(), Refusal> {
    let Some(address) = found else { return Ok(()) };
    let (network, other) = (place.network.clone(), other.to_owned());
    Err(Refusal::Shared { network, other, address })
}

impl SubnetOwner {
    fn new(place: &Place, subnets: &[IpNetwork]) -> Self {
        Self { network: place.network.clone(), subnets: subnets.to_vec() }
    }

    fn file(data_dir: &Path) -> PathBuf {
        data_dir.join(TURN)
    }

    /// The content of `file`; a file that does not decode is what a power cut leaves, and names no
    /// owner.
    fn read(file: &Path) -> Result<Option<Self>, Error> {
        match std::fs::read(file) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", file, source)),
        }
    }

    /// Replaces the file. Only one process does so at a time, so the name of the part is fixed.
    fn write(&self, path: &Path) -> Result<(), Error> {
        let part = path.with_extension("part");
        let text = serde_json::json!(self).to_string();
        file::replace(path, &part, text.as_bytes(), 0o666, Outlives::Process)
            .map_err(|source| failed("write", path, source))
    }

    fn with(mut self, subnets: &[IpNetwork]) -> Self {
        self.subnets.extend(subnets);
        self.subnets.sort_unstable();
        self.subnets.dedup();
        self
    }

    /// Has `file` name `subnets` too. The caller holds the owner's lock.
    fn and(self, subnets: &[IpNetwork], file: &Path) -> Result<(), Error> {
        if subnets.iter().all(|subnet| self.subnets.contains(subnet)) {
            return Ok(());
        }
        self.with(subnets).write(file)
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { what, path: path.display().to_string(), source }
}
