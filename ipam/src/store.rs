//! What the allocator needs of a store, and a store in memory.
//!
//! A store contains the leases of ONE network. [`Store::commit`] is the only change: all of it is
//! done and on disk when it returns, or nothing is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::range::Span;

/// Who has an address within a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_IFNAME`; empty for leases of old host-local directories, which name the container
    /// alone. Such a lease belongs to every interface of its container.
    pub(crate) ifname: String,
}

/// A leased address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The address.
    pub(crate) address: IpAddr,
    /// Its holder.
    pub(crate) owner: Owner,
    /// Wall clock at allocation, seconds since 1970; for people only.
    pub(crate) since: u64,
    /// `CLOCK_BOOTTIME` at allocation, milliseconds; 0 for leases that were imported or rebuilt.
    pub(crate) boot_ms: u64,
}

/// What is known of the store as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Boot id under which the leases were given; empty when never set.
    pub(crate) boot: String,
    /// Last address given out, by the position of the pool in the configuration.
    pub(crate) cursors: BTreeMap<u16, IpAddr>,
    /// Number of commits so far.
    pub(crate) generation: u64,
    /// Number of leases.
    pub(crate) leases: u64,
}

/// A change, done as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Before anything else: every lease and cool-down ends, because the node has booted.
    pub(crate) forget: bool,
    /// The boot id from now on.
    pub(crate) boot: Option<String>,
    /// Addresses that are free at once (a lease or a cool-down ends).
    pub(crate) free: Vec<IpAddr>,
    /// Leases that end; their addresses cool down from this `CLOCK_BOOTTIME` (milliseconds) on.
    pub(crate) cool: Vec<(IpAddr, u64)>,
    /// New leases. An address that cools down may be among them, a leased one may not.
    pub(crate) lease: Vec<Lease>,
    /// New cursors.
    pub(crate) cursors: BTreeMap<u16, IpAddr>,
}

/// The leases of one network.
pub(crate) trait Store {
    /// The state of the whole.
    fn state(&self) -> &State;
    /// The lease of `address`.
    fn lease(&self, address: IpAddr) -> Result<Option<Lease>, Error>;
    /// The addresses of `owner`, ascending.
    fn owned(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error>;
    /// The lowest address of `span` that is neither leased nor cooling down.
    fn free_in(&self, span: Span) -> Result<Option<IpAddr>, Error>;
    /// The addresses of `span` that cool down, and since when (`CLOCK_BOOTTIME`, milliseconds).
    fn cooling_in(&self, span: Span) -> Result<Vec<(IpAddr, u64)>, Error>;
    /// Every lease, ascending.
    fn leases(&self) -> Result<Vec<Lease>, Error>;
    /// Does `change`; it is on disk afterwards, or nothing of it is.
    fn commit(&mut self, change: Change) -> Result<(), Error>;
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading or writing failed: no room, read-only, no permission.
    #[error("{what} {path}")]
    Io {
        /// What was tried, for instance `open`.
        what: &'static str,
        /// The file or directory.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The files do not hold what was written.
    #[error("lease store {path} is damaged")]
    Damaged {
        /// Directory of the store.
        path: String,
        /// What was found.
        #[source]
        source: Damage,
    },
    /// Another process has held the lock for the whole of the time we may wait.
    #[error("lease store {path} is locked{holder}")]
    Locked {
        /// Directory of the store.
        path: String,
        /// ` by process N`, or nothing.
        holder: String,
    },
    /// The operating system refuses a thread.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
}

impl From<causeway_host::sealed::Disorder> for Error {
    fn from(found: causeway_host::sealed::Disorder) -> Self {
        let path = found.path.display().to_string();
        Self::Io { what: found.action, path, source: found.source }
    }
}

/// What is wrong with a damaged store.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damage(pub(crate) String);

/// Which leases are those of `owner`; see [`Owner::ifname`].
pub(crate) fn belongs(lease: &Owner, owner: &Owner) -> bool {
    lease.container_id == owner.container_id
        && (lease.ifname == owner.ifname || lease.ifname.is_empty())
}

#[cfg(test)]
pub(crate) mod memory {
    //! A store without a disk.

    use super::*;
    use crate::range::{Family, number};

    /// What is known of an address that is not free.
    #[derive(Clone, Debug)]
    enum Slot {
        Leased(Lease),
        Cooling(u64),
    }

    /// The model that every other store must equal.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Memory {
        state: State,
        slots: BTreeMap<(Family, u128), Slot>,
    }

    fn key(address: IpAddr) -> (Family, u128) {
        (Family::of(address), number(address))
    }

    impl Store for Memory {
        fn state(&self) -> &State {
            &self.state
        }

        fn lease(&self, address: IpAddr) -> Result<Option<Lease>, Error> {
            Ok(match self.slots.get(&key(address)) {
                Some(Slot::Leased(lease)) => Some(lease.clone()),
                Some(Slot::Cooling(_)) | None => None,
            })
        }

        fn owned(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
            Ok(self
                .leases()?
                .into_iter()
                .filter(|lease| belongs(&lease.owner, owner))
                .map(|lease| lease.address)
                .collect())
        }

        fn free_in(&self, span: Span) -> Result<Option<IpAddr>, Error> {
            let mut next = span.first;
            for (_, taken) in
                self.slots.range((span.family, span.first)..=(span.family, span.last)).map(|e| e.0)
            {
                if *taken > next {
                    break;
                }
                if next == span.last {
                    return Ok(None);
                }
                next += 1;
            }
            Ok(Some(span.family.address(next)))
        }

        fn cooling_in(&self, span: Span) -> Result<Vec<(IpAddr, u64)>, Error> {
            Ok(self
                .slots
                .range((span.family, span.first)..=(span.family, span.last))
                .filter_map(|((family, number), slot)| match slot {
                    Slot::Cooling(since) => Some((family.address(*number), *since)),
                    Slot::Leased(_) => None,
                })
                .collect())
        }

        fn leases(&self) -> Result<Vec<Lease>, Error> {
            Ok(self
                .slots
                .values()
                .filter_map(|slot| match slot {
                    Slot::Leased(lease) => Some(lease.clone()),
                    Slot::Cooling(_) => None,
                })
                .collect())
        }

        fn commit(&mut self, change: Change) -> Result<(), Error> {
            if change.forget {
                self.slots.clear();
            }
            if let Some(boot) = change.boot {
                self.state.boot = boot;
            }
            for address in change.free {
                self.slots.remove(&key(address));
            }
            for (address, since) in change.cool {
                self.slots.insert(key(address), Slot::Cooling(since));
            }
            for lease in change.lease {
                self.slots.insert(key(lease.address), Slot::Leased(lease));
            }
            self.state.cursors.extend(change.cursors);
            self.state.generation += 1;
            self.state.leases = self.leases()?.len() as u64;
            Ok(())
        }
    }
}
