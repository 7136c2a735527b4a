//! Who asked for which address lately: they are taught a new holder by a question (row L-45), and an
//! interface on which nobody asks may be deaf (row L-44). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use causeway_kernel::{Frame, Mac};

/// Who asked within this time is taught.
const LATELY: Duration = Duration::from_secs(600);
/// So many are remembered in all, and taught at a time: whoever fills the list costs others nothing but
/// the lesson, which the announcements give as well.
const REMEMBERED: usize = 1024;
const TAUGHT: usize = 32;

/// Askers, by interface, address and their own address.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    askers: BTreeMap<(u32, IpAddr, IpAddr), (Mac, Instant)>,
    heard: BTreeMap<u32, Instant>,
    /// Since when addresses are announced on an interface.
    since: BTreeMap<u32, Instant>,
}

impl Neighbours {
    /// A question came in by `link`.
    pub(super) fn asked(&mut self, link: u32, frame: &Frame, now: Instant) {
        self.heard.insert(link, now);
        let (Some(asker), mac) = frame.sender() else { return };
        let key = (link, frame.target(), asker);
        if self.askers.len() >= REMEMBERED && !self.askers.contains_key(&key) {
            self.askers.retain(|_, (_, at)| now < *at + LATELY);
            if self.askers.len() >= REMEMBERED {
                return;
            }
        }
        self.askers.insert(key, (mac, now));
    }

    /// Who asked for `address` by `link` lately.
    pub(super) fn of(
        &self,
        link: u32,
        address: IpAddr,
        now: Instant,
    ) -> impl Iterator<Item = (IpAddr, Mac)> {
        let of = self.askers.iter().filter(move |((on, target, _), (_, at))| {
            *on == link && *target == address && now < *at + LATELY
        });
        of.map(|((.., asker), (mac, _))| (*asker, *mac)).take(TAUGHT)
    }

    /// Addresses are announced on these interfaces, and no others.
    pub(super) fn announced(&mut self, links: &BTreeSet<u32>, now: Instant) {
        self.since.retain(|link, _| links.contains(link));
        for link in links {
            self.since.entry(*link).or_insert(now);
        }
    }

    /// Interfaces on which nobody has asked for anything lately while addresses are announced.
    pub(super) fn silent(&self, now: Instant) -> impl Iterator<Item = u32> {
        let lately = move |at: &Instant| now < *at + LATELY;
        let silent = self.since.iter().filter(move |(link, since)| {
            !lately(since) && !self.heard.get(link).is_some_and(lately)
        });
        silent.map(|(link, _)| *link)
    }

    /// When anything was asked for last on `link`.
    pub(super) fn heard(&self, link: u32) -> Option<Instant> {
        self.heard.get(&link).copied()
    }
}
