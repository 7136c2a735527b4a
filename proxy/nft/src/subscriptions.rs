//! Subscriptions that step aside while a large transaction is made.
//!
//! As long as any socket of the machine is in nf_tables' multicast group, in whatever network
//! namespace (`netlink_has_listeners` asks for the protocol alone), the kernel makes one message for each
//! object and element of a transaction, a page or more each, and keeps all of them until the
//! transaction ends, even if every subscriber's filter refuses them. For ten thousand elements
//! that is most of the work. So this helps if nobody else listens: programs that do are rare.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use netlink_sys::{Socket, SocketAddr};

use crate::uapi::{NFNLGRP_NFTABLES, NLMSG_NOOP};

/// Nothing was missed.
const HEARD: u8 = 0;
/// Another process may have committed while the subscription was aside.
const MISSED: u8 = 1;
/// The subscription could not come back.
const DEAF: u8 = 2;

/// The socket of one subscription.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) socket: Socket,
    state: AtomicU8,
}

/// What a subscription did not hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Everything is in its queue.
    All,
    /// Another process may have committed unnoticed.
    NotAll,
    /// It receives nothing.
    Nothing,
}

impl Slot {
    /// What was missed since the last call.
    pub(crate) fn take(&self) -> Heard {
        // A deaf one stays so.
        let taken = self.state.compare_exchange(MISSED, HEARD, Ordering::SeqCst, Ordering::SeqCst);
        match taken.unwrap_or_else(|other| other) {
            HEARD => Heard::All,
            MISSED => Heard::NotAll,
            _ => Heard::Nothing,
        }
    }

    fn join(&self) -> io::Result<()> {
        self.socket.add_membership(NFNLGRP_NFTABLES)
    }

    /// Makes the socket readable, whatever its filter keeps away.
    fn tell(&self, state: u8) {
        self.state.fetch_max(state, Ordering::SeqCst);
        let mut own = SocketAddr::new(0, 0);
        if self.socket.get_address(&mut own).is_ok() {
            let header = noop();
            // If its queue is full it is readable already.
            drop(self.socket.send_to(&header, &own, libc::MSG_DONTWAIT));
        }
    }
}

/// A message that says nothing, of no port.
fn noop() -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&16_u32.to_ne_bytes());
    header[4..6].copy_from_slice(&NLMSG_NOOP.to_ne_bytes());
    header
}

/// The subscriptions that a [`crate::Client`] knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriptions(Arc<Mutex<Slots>>);

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Weak<Slot>>,
    aside: bool,
}

impl Slots {
    fn alive(&mut self) -> Vec<Arc<Slot>> {
        self.slots.retain(|slot| slot.strong_count() > 0);
        self.slots.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Subscriptions {
    /// Subscribes a bound socket.
    pub(crate) fn add(&self, socket: Socket) -> io::Result<Arc<Slot>> {
        let slot = Arc::new(Slot { socket, state: AtomicU8::new(HEARD) });
        let mut all = self.lock();
        if !all.aside {
            slot.join()?;
        }
        all.slots.push(Arc::downgrade(&slot));
        Ok(slot)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().alive().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing in it can be half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All subscriptions of a [`crate::Client`] are aside until [`crate::Client::resume`]; dropping it
/// counts as an end at which another process may have committed.
#[derive(Debug)]
#[must_use = "the subscriptions hear nothing meanwhile"]
pub struct Pause {
    subscriptions: Subscriptions,
    /// The generation before; `None` if the kernel did not say.
    before: Option<u32>,
    ended: bool,
}

impl Pause {
    /// `before`: the generation. A commit between that and this is heard as well as counted.
    pub(crate) fn begin(subscriptions: Subscriptions, before: Option<u32>) -> Self {
        let mut all = subscriptions.lock();
        all.aside = true;
        for slot in all.alive() {
            // One that stays is told everything, at its price.
            drop(slot.socket.drop_membership(NFNLGRP_NFTABLES));
        }
        drop(all);
        Self { subscriptions, before, ended: false }
    }

    /// The subscriptions are back. If the generation, which `after` asks for then, says that there
    /// were other transactions than `own` ones, or if `own` is not known, each tells of a change.
    pub(crate) fn end(mut self, own: Option<u32>, after: impl FnOnce() -> Option<u32>) {
        self.back();
        let heard = own
            .zip(self.before)
            .is_some_and(|(own, before)| after().is_some_and(|after| after == later(before, own)));
        if !heard {
            self.tell();
        }
    }

    fn back(&mut self) {
        self.ended = true;
        let mut all = self.subscriptions.lock();
        all.aside = false;
        for slot in all.alive() {
            if slot.join().is_err() {
                slot.tell(DEAF);
            }
        }
    }

    fn tell(&self) {
        for slot in self.subscriptions.lock().alive() {
            slot.tell(MISSED);
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if !self.ended {
            self.back();
            self.tell();
        }
    }
}

/// The generation after `commits` more. The kernel leaves zero out.
fn later(before: u32, commits: u32) -> u32 {
    (0..commits).fold(before, |generation, _| match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_leaves_zero_out() {
        assert_eq!(later(5, 0), 5);
        assert_eq!(later(5, 2), 7);
        assert_eq!(later(u32::MAX, 1), 1);
    }
}
