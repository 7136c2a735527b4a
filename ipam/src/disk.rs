//! The store on disk: one sled database per network, so that a damaged one harms no other network.
//!
//! sled has one opener per path. Whoever opens takes [`crate::lock::NetworkLock`] first.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_host::sealed;

use crate::lock::{self, NetworkLock};
use crate::range::{Family, Span, number};
use crate::store::{Change, Damage, Error, Lease, Owner, State, Store, belongs};

use record::{Map, Slot, Slots};

/// Size of the log's segments. sled wipes the rest of the last segment at every open, so a small
/// one opens faster; a quarter is the largest entry that stays in the log.
const SEGMENT: usize = 128 * 1024;
/// How long the last opener may take to come to its end, if nobody is in a hurry.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of sled's page cache: an operation touches a dozen pages.
const CACHE: u64 = 4 * 1024 * 1024;

/// An open database.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    db: sled::Db,
    path: PathBuf,
    network: String,
    state: State,
    lock: &'a NetworkLock,
    dirty: bool,
}

/// An opened store, and whether it was made just now.
pub(crate) struct Opened<'a> {
    /// The store.
    pub(crate) disk: Disk<'a>,
    /// Nothing has ever been committed: the caller seeds it (row F24).
    pub(crate) fresh: bool,
    /// The files were made just now.
    pub(crate) wiped: bool,
}

/// The networks with a store below `data_dir`, ascending.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn networks(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = data_dir
        .read_dir()?
        .flatten()
        .filter(|entry| sealed::exists(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Opens sled's files in `path`, creating them as needed. The last opener has `close` to end.
///
/// # Errors
/// sled's; [`Error::Locked`].
pub(crate) fn open_files(path: &Path, close: Duration) -> Result<sled::Db, Error> {
    // Whoever closed it last is on the way out, so this wait is short.
    drop(lock::foreign(&sealed::log(path), close)?);
    sealed::remove_unfinished(path)?;
    sled::Config::new()
        .path(path)
        .segment_size(SEGMENT)
        .cache_capacity(CACHE)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None)
        .open()
        .map_err(|source| convert(path, "open", source))
}

impl<'a> Disk<'a> {
    /// Opens the store of `lock`'s network, creating it as needed. The last opener has `close` to
    /// end.
    ///
    /// # Errors
    /// I/O errors; [`Error::Damaged`] when the files do not hold what the last commit wrote.
    pub(crate) fn open(lock: &'a NetworkLock, close: Duration) -> Result<Opened<'a>, Error> {
        let path = lock.store_path();
        let wiped = !sealed::log(&path).exists();
        if wiped && sealed::exists(&path) {
            return Err(damaged(&path, Damage("there is a snapshot without its log".into())));
        }
        let network = lock.network().to_owned();
        if sealed::put_damaged_snapshots_aside(&path)?.is_some() {
            verify(&path, &network, lock.seal(), lock.base().is_some())?;
        }
        let db = open_files(&path, close)?;
        let base = lock.base();
        let seal = lock.seal().filter(|_| !wiped);
        let state = read_state(&db, &path, &network, seal, base.is_some())?;
        let fresh = state.is_none() && base.is_none();
        let state = state.or(base).unwrap_or_else(|| following(lock));
        Ok(Opened { disk: Self { db, path, network, state, lock, dirty: false }, fresh, wiped })
    }

    /// Makes a store in the empty directory `path`, to take the place of `lock`'s.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn open_at(path: PathBuf, lock: &'a NetworkLock) -> Result<Self, Error> {
        let db = open_files(&path, CLOSE_WAIT)?;
        let network = lock.network().to_owned();
        Ok(Self { db, path, network, state: following(lock), lock, dirty: false })
    }

    /// Closes a store made by [`Disk::open_at`] and puts it into its place; what was there goes to
    /// `aside`.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn close_into(self, aside: &Path) -> Result<(), Error> {
        let (path, place, lock) = (self.path.clone(), self.lock.store_path(), self.lock);
        let generation = self.state.generation;
        self.close(true)?;
        for (from, to) in [(place.as_path(), aside), (&path, &place)] {
            std::fs::rename(from, to).map_err(|source| Error::Io {
                what: "rename",
                path: from.display().to_string(),
                source,
            })?;
        }
        lock.write_seal(generation);
        sync_folders(&place)
    }

    /// Whether nothing is leased and no address rests.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        if self.state.leases > 0 {
            return Ok(false);
        }
        // An address that rests has a record as a leased one has.
        let first = self.db.range(record::all_slots()).next().transpose();
        Ok(first.map_err(|e| convert(&self.path, "read", e))?.is_none())
    }

    /// Closes the store. What was committed survives a power cut from here on (row F27): sled's
    /// flush waits for the pages, but neither for the file's length nor for the disk's own cache,
    /// and the sync of its closing may happen in a thread that nobody waits for.
    ///
    /// # Errors
    /// The store could not be synced.
    pub(crate) fn close(self, fresh: bool) -> Result<(), Error> {
        let Self { db, path, state, lock, dirty, .. } = self;
        drop(db);
        if dirty {
            sync(&sealed::log(&path))?;
        }
        if fresh {
            sync_folders(&path)?;
        }
        if dirty && path == lock.store_path() {
            lock.write_seal(state.generation);
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        self.db.get(key).map_err(|e| convert(&self.path, "read", e))
    }

    fn slots(&self, family: Family, block: u128) -> Result<Slots, Error> {
        let key = record::slots_key(family, block);
        let Some(bytes) = self.get(&key)? else { return Ok(Slots::new()) };
        let (_, base) = record::slots_base(&key).map_err(|e| damaged(&self.path, e))?;
        record::decode_slots(family, base, &bytes).map_err(|e| damaged(&self.path, e))
    }

    fn map(&self, family: Family, block: u128) -> Result<Option<Map>, Error> {
        let Some(bytes) = self.get(&record::map_key(family, block))? else { return Ok(None) };
        Map::decode(&bytes).map(Some).map_err(|e| damaged(&self.path, e))
    }

    fn bucket(&self, key: &[u8]) -> Result<record::Bucket, Error> {
        let Some(bytes) = self.get(key)? else { return Ok(record::Bucket::new()) };
        record::decode_bucket(&bytes).map_err(|e| damaged(&self.path, e))
    }

    /// Calls `each` with every slot whose block lies in `keys`.
    fn each_slot(
        &self,
        keys: impl std::ops::RangeBounds<Vec<u8>>,
        mut each: impl FnMut(IpAddr, Slot),
    ) -> Result<(), Error> {
        for entry in self.db.range(keys) {
            let (key, value) = entry.map_err(|e| convert(&self.path, "read", e))?;
            let (family, base) = record::slots_base(&key).map_err(|e| damaged(&self.path, e))?;
            let slots =
                record::decode_slots(family, base, &value).map_err(|e| damaged(&self.path, e))?;
            for (offset, slot) in slots {
                each(family.address(base + u128::from(offset)), slot);
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: sled::Batch, state: State) -> Result<(), Error> {
        let failed = |e| convert(&self.path, "write", e);
        if !self.dirty && self.lock.emptied().is_some() {
            self.lock.mark_used()?;
        }
        self.db.apply_batch(batch).map_err(failed)?;
        self.db.flush().map_err(failed)?;
        self.dirty = true;
        self.state = state;
        Ok(())
    }
}

impl Store for Disk<'_> {
    fn state(&self) -> &State {
        &self.state
    }

    fn lease(&self, address: IpAddr) -> Result<Option<Lease>, Error> {
        let (block, offset) = record::slot_of(number(address));
        Ok(match self.slots(Family::of(address), block)?.remove(&offset) {
            Some(Slot::Leased(lease)) => Some(lease),
            Some(Slot::Cooling(_)) | None => None,
        })
    }

    fn owned(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let tag = record::owner_tag(&owner.container_id);
        let mut owned = Vec::new();
        for (entry, address) in self.bucket(&record::owner_key(&owner.container_id))? {
            if entry != tag {
                continue;
            }
            let lease = self.lease(address)?.ok_or_else(|| {
                damaged(&self.path, Damage(format!("{address} has an owner and no lease")))
            })?;
            if belongs(&lease.owner, owner) {
                owned.push(address);
            }
        }
        owned.sort_unstable();
        Ok(owned)
    }

    fn free_in(&self, span: Span) -> Result<Option<IpAddr>, Error> {
        let mut next = span.first;
        while next <= span.last {
            let free = match self.map(span.family, record::map_of(next))? {
                Some(map) => map.free(next, span.last),
                None => Some(next),
            };
            if let Some(free) = free {
                return Ok(Some(span.family.address(free)));
            }
            let Some(after) = Map::after(next) else { break };
            next = after;
        }
        Ok(None)
    }

    fn cooling_in(&self, span: Span) -> Result<Vec<(IpAddr, u64)>, Error> {
        let first = record::slots_key(span.family, record::slot_of(span.first).0);
        let last = record::slots_key(span.family, record::slot_of(span.last).0);
        let mut cooling = Vec::new();
        self.each_slot(first..=last, |address, slot| match slot {
            Slot::Cooling(since) if span.contains(address) => cooling.push((address, since)),
            Slot::Cooling(_) | Slot::Leased(_) => {}
        })?;
        Ok(cooling)
    }

    fn leases(&self) -> Result<Vec<Lease>, Error> {
        let mut leases = Vec::new();
        let all = record::all_slots();
        self.each_slot(all.start.to_vec()..all.end.to_vec(), |_, slot| match slot {
            Slot::Leased(lease) => leases.push(lease),
            Slot::Cooling(_) => {}
        })?;
        Ok(leases)
    }

    fn commit(&mut self, change: Change) -> Result<(), Error> {
        let mut state = self.state.clone();
        state.generation += 1;
        if let Some(boot) = change.boot {
            state.boot = boot;
        }
        let mut edit = Edit::new(self);
        let mut batch = sled::Batch::default();
        if change.forget {
            edit.forgotten = true;
            state.leases = 0;
            for key in self.db.iter().keys() {
                batch.remove(key.map_err(|e| convert(&self.path, "read", e))?);
            }
        }
        for address in change.free {
            edit.set(address, None, &mut state)?;
        }
        for (address, since) in change.cool {
            edit.set(address, Some(Slot::Cooling(since)), &mut state)?;
        }
        for lease in change.lease {
            edit.set(lease.address, Some(Slot::Leased(lease)), &mut state)?;
        }
        state.cursors.extend(change.cursors);
        edit.finish(&mut batch);
        batch.insert(record::META_KEY, record::encode_state(&self.network, &state));
        self.write(batch, state)
    }
}

/// The entries that a commit touches, read once each.
struct Edit<'a> {
    disk: &'a Disk<'a>,
    /// What is on disk counts no more.
    forgotten: bool,
    slots: BTreeMap<(Family, u128), Slots>,
    maps: BTreeMap<(Family, u128), Map>,
    buckets: BTreeMap<Vec<u8>, record::Bucket>,
}

impl<'a> Edit<'a> {
    fn new(disk: &'a Disk<'a>) -> Self {
        Self {
            disk,
            forgotten: false,
            slots: BTreeMap::new(),
            maps: BTreeMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    fn bucket(&mut self, container_id: &str) -> Result<&mut record::Bucket, Error> {
        let key = record::owner_key(container_id);
        if !self.buckets.contains_key(&key) {
            let bucket = if self.forgotten { Vec::new() } else { self.disk.bucket(&key)? };
            self.buckets.insert(key.clone(), bucket);
        }
        Ok(self.buckets.entry(key).or_default())
    }

    /// Replaces what is known of `address`.
    fn set(&mut self, address: IpAddr, slot: Option<Slot>, state: &mut State) -> Result<(), Error> {
        let family = Family::of(address);
        let (block, offset) = record::slot_of(number(address));
        if !self.slots.contains_key(&(family, block)) {
            let slots =
                if self.forgotten { Slots::new() } else { self.disk.slots(family, block)? };
            self.slots.insert((family, block), slots);
        }
        let slots = self.slots.entry((family, block)).or_default();
        let old = match &slot {
            Some(slot) => slots.insert(offset, slot.clone()),
            None => slots.remove(&offset),
        };
        self.set_bit(address, slot.is_some())?;
        if let Some(Slot::Leased(old)) = old {
            let tag = record::owner_tag(&old.owner.container_id);
            self.bucket(&old.owner.container_id)?.retain(|entry| *entry != (tag, address));
            state.leases = state.leases.saturating_sub(1);
        }
        if let Some(Slot::Leased(new)) = slot {
            let tag = record::owner_tag(&new.owner.container_id);
            self.bucket(&new.owner.container_id)?.push((tag, address));
            state.leases += 1;
        }
        Ok(())
    }

    fn set_bit(&mut self, address: IpAddr, taken: bool) -> Result<(), Error> {
        let family = Family::of(address);
        let block = record::map_of(number(address));
        if !self.maps.contains_key(&(family, block)) {
            let map = if self.forgotten { None } else { self.disk.map(family, block)? };
            self.maps.insert((family, block), map.unwrap_or_else(Map::new));
        }
        self.maps.entry((family, block)).or_insert_with(Map::new).set(number(address), taken);
        Ok(())
    }

    fn finish(self, batch: &mut sled::Batch) {
        let mut put = |key: Vec<u8>, value: Option<Vec<u8>>| match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        };
        for ((family, block), slots) in self.slots {
            put(record::slots_key(family, block), record::encode_slots(&slots));
        }
        for ((family, block), map) in self.maps {
            put(record::map_key(family, block), map.encode());
        }
        for (key, bucket) in self.buckets {
            put(key, record::encode_bucket(&bucket));
        }
    }
}

/// The state on disk; `None` when nothing was ever committed. `seal` is the number of the last
/// commit that is known to have been on disk; `anew`: the files may have been made after it.
fn read_state(
    db: &sled::Db,
    path: &Path,
    network: &str,
    seal: Option<u64>,
    anew: bool,
) -> Result<Option<State>, Error> {
    let found = db.get(record::META_KEY).map_err(|e| convert(path, "read", e))?;
    let state = match found {
        Some(bytes) => Some(record::decode_state(network, &bytes).map_err(|e| damaged(path, e))?),
        None if db.is_empty() && anew => return Ok(None),
        None if db.is_empty() => None,
        None => return Err(damaged(path, Damage("the format record is missing".into()))),
    };
    let lost = seal.unwrap_or(0).saturating_sub(state.as_ref().map_or(0, |s| s.generation));
    if lost > 0 {
        return Err(damaged(path, Damage(format!("the last {lost} changes are lost"))));
    }
    Ok(state)
}

/// The state of a new store: its commits are counted on from those of the one before.
fn following(lock: &NetworkLock) -> State {
    State { generation: lock.seal().unwrap_or(0), ..State::default() }
}

fn sync_folders(path: &Path) -> Result<(), Error> {
    sync(path)?;
    sync(path.parent().unwrap_or(path))
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| Error::Io {
        what: "sync",
        path: path.display().to_string(),
        source,
    })
}

/// Reads every record of the store in `path` and compares them with each other. The number of its
/// leases.
///
/// # Errors
/// [`Error::Damaged`] naming the first record that is wrong.
pub(crate) fn verify(
    path: &Path,
    network: &str,
    seal: Option<u64>,
    anew: bool,
) -> Result<u64, Error> {
    let wrong = |what: String| Err(damaged(path, Damage(what)));
    let db = open_files(path, CLOSE_WAIT)?;
    let state = read_state(&db, path, network, seal, anew)?.unwrap_or_default();
    let (mut taken, mut owned) = (BTreeMap::new(), BTreeSet::new());
    let (mut bits, mut leases) = (BTreeSet::new(), 0_u64);
    for entry in db.iter() {
        let (key, value) = entry.map_err(|e| convert(path, "read", e))?;
        let read = match key.first() {
            Some(b'l') => read_slots(&key, &value).map(|slots| taken.extend(slots)),
            Some(b'u') => record::map_addresses(&key, &value).map(|found| bits.extend(found)),
            Some(b'o') => record::decode_bucket(&value).map(|found| owned.extend(found)),
            _ => Ok(()),
        };
        read.map_err(|e| damaged(path, e))?;
    }
    for (address, slot) in &taken {
        if !bits.remove(address) {
            return wrong(format!("{address} is taken but not marked so"));
        }
        if let Slot::Leased(lease) = slot {
            leases += 1;
            if !owned.remove(&(record::owner_tag(&lease.owner.container_id), *address)) {
                return wrong(format!("{address} is leased but not listed for its owner"));
            }
        }
    }
    match (bits.first(), owned.first()) {
        (Some(address), _) => wrong(format!("{address} is marked as taken without a record")),
        (_, Some((_, address))) => wrong(format!("{address} is listed for an owner without lease")),
        _ if leases != state.leases => wrong(format!("{} of {} leases", leases, state.leases)),
        _ => Ok(leases),
    }
}

fn read_slots(key: &[u8], value: &[u8]) -> Result<Vec<(IpAddr, Slot)>, Damage> {
    let (family, base) = record::slots_base(key)?;
    let slots = record::decode_slots(family, base, value)?;
    Ok(slots.into_iter().map(|(o, slot)| (family.address(base + u128::from(o)), slot)).collect())
}

/// The leases that can be read of the store in `path`, from both ends up to a page that cannot.
///
/// # Errors
/// sled does not open the files at all.
pub(crate) fn salvage(path: &Path) -> Result<Vec<Lease>, Error> {
    let db = open_files(path, CLOSE_WAIT)?;
    let range = || db.range(record::all_slots());
    let forward = range().map_while(Result::ok);
    let backward = range().rev().map_while(Result::ok);
    let mut leases = BTreeMap::new();
    for (key, value) in forward.chain(backward) {
        for (address, slot) in read_slots(&key, &value).unwrap_or_default() {
            if let Slot::Leased(lease) = slot {
                leases.insert(address, lease);
            }
        }
    }
    Ok(leases.into_values().collect())
}

/// Removes sled's snapshots in `path`: it reads its log from the start then.
pub(crate) fn remove_snapshots(path: &Path) {
    for snapshot in sealed::snapshots(path) {
        // What stays is read again, and fails as before.
        drop(std::fs::remove_file(snapshot));
    }
}

pub(crate) fn damaged(path: &Path, source: Damage) -> Error {
    Error::Damaged { path: path.display().to_string(), source }
}

fn convert(path: &Path, what: &'static str, error: sled::Error) -> Error {
    use sled::Error as E;
    match error {
        // A file that ends before what it must hold was cut.
        E::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Error::Io { what, path: path.display().to_string(), source }
        }
        other @ (E::Io(_)
        | E::Corruption { .. }
        | E::Unsupported(_)
        | E::ReportableBug(_)
        | E::CollectionNotFound(_)) => damaged(path, Damage(other.to_string())),
    }
}
