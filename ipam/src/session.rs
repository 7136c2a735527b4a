//! One operation on a network's store: lock, open, work, close, all in bounded time.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use causeway_host::sealed;
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::allocator::Now;
use crate::config::Place;
use crate::disk::{self, Disk, Opened};
use crate::facts;
use crate::leftover;
use crate::lock::NetworkLock;
use crate::store::{Change, Damage, Error, Store};

/// How long an operation waits for the lock before it asks the runtime to try again (row F26).
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How long an operation waits, for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the network's lock.
    pub(crate) lock: Duration,
    /// For the last opener's threads, which have sled's own lock a moment longer.
    pub(crate) close: Duration,
    /// For the work on the store. Damaged files can make sled panic in a thread of its own, and its
    /// other threads then wait for ever.
    pub(crate) work: Duration,
}

impl Patience {
    /// Of whoever changes leases.
    pub(crate) const USUAL: Self =
        Self { lock: LOCK_WAIT, close: disk::CLOSE_WAIT, work: Duration::from_secs(12) };
    /// Of STATUS: the kubelet's runtime asks every five seconds and waits for the answer.
    pub(crate) const STATUS: Self = Self {
        lock: Duration::ZERO,
        close: Duration::from_millis(300),
        work: Duration::from_millis(1200),
    };
}

/// Runs `work` on the store of `place`. A store that is made by this is seeded with the addresses
/// of the attachments that are on record (row F24).
///
/// # Errors
/// The store's; `work`'s, converted by the caller.
pub(crate) fn with_store<T, E>(
    place: &Place,
    patience: Patience,
    now: &Now,
    work: impl FnOnce(&mut dyn Store) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let lock = NetworkLock::acquire(&place.data_dir, &place.network, patience.lock)?;
    with_locked(Arc::new(lock), &place.run_dir, patience, now, work)
}

/// Runs `work` on the store of `lock`'s network, as [`with_store`] does.
///
/// # Errors
/// The store's; `work`'s, converted by the caller.
pub(crate) fn with_locked<T, E>(
    lock: Arc<NetworkLock>,
    run_dir: &Path,
    patience: Patience,
    now: &Now,
    work: impl FnOnce(&mut dyn Store) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (run_dir, now) = (run_dir.to_owned(), now.clone());
    bounded(lock.store_path(), patience.work, move || {
        let Opened { mut disk, fresh, wiped } = Disk::open(&lock, patience.close)?;
        work_as_usual();
        if fresh {
            let lease = facts::attached(&run_dir, lock.network());
            disk.commit(Change { boot: Some(now.boot.clone()), lease, ..Change::default() })?;
        }
        let had_leases = disk.state().leases > 0;
        let worked = work(&mut disk);
        let emptied = had_leases && worked.is_ok() && disk.is_empty()?;
        let state = emptied.then(|| disk.state().clone());
        let closed = disk.close(wiped);
        let value = worked?;
        closed?;
        if let Some(state) = state {
            // The last lease went, and its network maybe with it.
            leftover::note(&lock, &state, now.unix);
        }
        Ok(value)
    })
}

/// Whether the network has a store at all.
pub(crate) fn exists(place: &Place) -> bool {
    sealed::exists(&place.data_dir.join(&place.network))
}

/// Runs `work`, which uses the sled files in `path`, in a thread: a panic is damage, and so is
/// no answer within `time`.
pub(crate) fn bounded<T, E>(
    path: PathBuf,
    time: Duration,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let damaged = |what: String| E::from(disk::damaged(&path, Damage(what)));
    let (send, receive) = mpsc::channel();
    let worker = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            start_threads_gently();
            // Nobody listens after the time is over.
            drop(send.send(work()));
        })
        .map_err(Error::Thread)?;
    match receive.recv_timeout(time) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(damaged(format!("sled did not respond for {time:?}")))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let why = worker.join().err().map_or_else(String::new, |panic| text(&*panic));
            Err(damaged(format!("sled gave up: {why}")))
        }
    }
}

/// Puts this thread before those that it starts. sled starts seven threads, which spin until the
/// last of them is started: on other processors they would burn those meanwhile, and on this one
/// the time of the one that starts them (measured: 8 ms instead of 2 ms of processor time per ADD).
/// So all stay on this processor, and this thread runs before them; the flag gives the others the
/// usual urgency. Without the right to that the work takes longer and nothing else.
fn start_threads_gently() {
    let cpu = sched_getcpu();
    if cpu < CpuSet::MAX_CPU {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).ok();
    }
    if !schedule(libc::SCHED_FIFO, 1) {
        schedule(libc::SCHED_OTHER, 0);
        setpriority_process(None, -20).ok();
    }
}

/// Ends what [`start_threads_gently`] began, once sled's threads are there: damaged files may keep
/// sled busy for long.
fn work_as_usual() {
    schedule(libc::SCHED_OTHER, 0);
}

fn schedule(policy: libc::c_int, priority: libc::c_int) -> bool {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter lives through the call.
    let done = unsafe {
        libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const param)
    };
    done == 0
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
