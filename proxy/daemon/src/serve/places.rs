//! Which untrusted clients of TCP listeners keep a connection: the newest. Pure.
//!
//! An honest request is answered within milliseconds, so the oldest connection is the one to end,
//! first of the address that has the most. No client is kept out by what another one holds.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Connections of one address at one listener. Many who probe may stand behind one address, all at
/// once: each of them has to be answered.
pub(super) const EACH: usize = 128;
/// Connections at all listeners together.
pub(super) const ALL: usize = 256;

/// Who holds a connection: number of the listener, address of the client.
pub(super) type Client = (u32, IpAddr);

/// The connections, by number in the order in which they came. `T` ends one.
#[derive(Debug)]
pub(super) struct Places<T> {
    next: u64,
    held: BTreeMap<u64, (Client, Option<T>)>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { next: 0, held: BTreeMap::new() }
    }
}

impl<T> Places<T> {
    /// Gives a client a connection: its number, and what ends the one that makes place.
    pub(super) fn admit(&mut self, (listener, address): Client) -> (u64, Option<T>) {
        // An IPv4 client is the same one at an IPv6 listener.
        let client = (listener, address.to_canonical());
        let mut mine = self.held.iter().filter(|(_, (other, _))| *other == client);
        let oldest = mine.next().map(|(number, _)| *number);
        let leaves = match oldest {
            Some(oldest) if mine.count() + 1 >= EACH => Some(oldest),
            _ if self.held.len() >= ALL => self.oldest_of_most(),
            _ => None,
        };
        let ended = leaves.and_then(|number| self.held.remove(&number)).and_then(|(_, end)| end);
        self.next += 1;
        self.held.insert(self.next, (client, None));
        (self.next, ended)
    }

    /// Notes what ends a connection, if it is still there.
    pub(super) fn ends_by(&mut self, number: u64, end: T) {
        if let Some((_, slot)) = self.held.get_mut(&number) {
            *slot = Some(end);
        }
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, number: u64) {
        self.held.remove(&number);
    }

    /// The oldest connection of the address with the most; among several such addresses the oldest.
    fn oldest_of_most(&self) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, ((_, address), _)) in &self.held {
            counts.entry(*address).or_insert((0, *number)).0 += 1;
        }
        let most = counts.into_values().max_by_key(|(count, oldest)| (*count, u64::MAX - oldest));
        most.map(|(_, oldest)| oldest)
    }
}

#[cfg(test)]
mod tests;
