//! What is said and answered about held addresses, and when. Pure: frames and time come in, frames go
//! out.
//!
//! An address that is to be held is looked for first (row L-33): three questions 60 ms apart, and
//! 80 ms more for an answer, 200 ms in all, so that a take-over has 1.8 s of its two left. RFC 5227
//! would wait for seven seconds. Then it is armed: answered for, and announced at once and every 1.1 s
//! until 5 s are over (row L-08), and from then on every minute (row L-30). Whoever claims it later is
//! answered once, and has it if it goes on (RFC 5227, section 2.4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use causeway_kernel::{Frame, Mac};

use super::interfaces::{Interface, Interfaces, Unplaced};
use super::neighbours::Neighbours;
use crate::state::{HeldAddress, HeldCounts};

/// Questions before the first announcement. IPv6 takes one (RFC 4862).
const QUESTIONS: u32 = 3;
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(60);
const AFTER_QUESTIONS: Duration = Duration::from_millis(80);
/// The same where carrier came back within `SETTLING`: a switch that builds its tree again passes
/// nothing on at first, so that whoever took the address meanwhile is not heard at once.
const QUESTIONS_AFTER_CARRIER: u32 = 4;
const BETWEEN_AFTER_CARRIER: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_secs(30);
/// An address that a neighbour has is looked for again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Announcements after a gain: 0, 1.1, 2.2, 3.3 and 4.4 s.
const BURST: u32 = 5;
const BETWEEN_BURSTS: Duration = Duration::from_millis(1100);
/// Routers are asked with so many of them.
const TAUGHT: u32 = 2;
/// RFC 4861, section 7.2.6; row L-36.
const LEAST: Duration = Duration::from_secs(1);
/// So many addresses are announced in a row, and the next ones after a pause: 1,000 addresses within
/// 650 ms, without filling the queue of an interface.
const ROW: usize = 32;
const PAUSE: Duration = Duration::from_millis(20);
/// `DEFEND_INTERVAL` of RFC 5227: who claims an address again so soon after the answer has it.
const DEFENCE: Duration = Duration::from_secs(10);
/// A foreign claim is told of once in this time, and shown as long.
const CLAIM: Duration = Duration::from_secs(3600);

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// By this interface.
    pub link: u32,
    /// The frame.
    pub frame: Frame,
}

/// All that is held.
#[derive(Debug)]
pub(super) struct Speaker {
    /// Between two announcements while all is well; `None`: they are not repeated.
    refresh: Option<Duration>,
    interfaces: Interfaces,
    held: BTreeMap<IpAddr, Held>,
    neighbours: Neighbours,
    /// When links got carrier back, or came up.
    fit_since: BTreeMap<u32, Instant>,
    /// Not before this is anything announced: a row has just been.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    stage: HoldStage,
    counts: HeldCounts,
    /// Of the last announcement.
    announced: Option<Instant>,
    claim: Option<Claim>,
}

/// Another machine says that it has the address.
#[derive(Clone, Copy, Debug)]
struct Claim {
    mac: Mac,
    /// When it was heard last.
    heard: Instant,
    /// When it was told of.
    told: Instant,
    /// When it was answered.
    answered: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HoldStage {
    /// No interface announces it.
    Nowhere(Unplaced),
    /// Neighbours are asked whether one has it.
    Asking { link: u32, left: u32, slowly: bool, next: Instant },
    /// One has it.
    Taken { link: u32, mac: Mac, again: Instant },
    /// It is answered for. `left` announcements of the burst are to come.
    Armed { link: u32, left: u32, next: Option<Instant> },
}

impl Speaker {
    pub(super) fn new(refresh: Option<Duration>) -> Self {
        Self {
            refresh,
            interfaces: Interfaces::default(),
            held: BTreeMap::new(),
            neighbours: Neighbours::default(),
            fit_since: BTreeMap::new(),
            earliest: None,
        }
    }

    /// These addresses are to be held, and no other ones: those that are gone are not answered for
    /// from here on.
    pub(super) fn hold(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) {
        self.held.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if !self.held.contains_key(address) {
                let unplaced = Unplaced { reason: String::new(), broken: false };
                let stage = HoldStage::Nowhere(unplaced);
                let held =
                    Held { stage, counts: HeldCounts::default(), announced: None, claim: None };
                self.held.insert(*address, held);
            }
        }
        self.place(now);
        if self.is_idle() {
            self.note_armed(now);
        }
    }

    /// Nothing is to be held: interfaces do not matter.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// These interfaces are there. An address that goes to another one is looked for there first: it
    /// may lead to another segment.
    pub(super) fn look(&mut self, interfaces: Interfaces, now: Instant) {
        let before = std::mem::replace(&mut self.interfaces, interfaces);
        self.fit_since.retain(|_, since| now < *since + SETTLING);
        for interface in self.interfaces.all.iter().filter(|found| found.unfit.is_none()) {
            if before.get(interface.index).is_some_and(|before| before.unfit.is_some()) {
                self.fit_since.insert(interface.index, now);
            }
        }
        for held in self.held.values_mut() {
            let HoldStage::Armed { link, .. } = held.stage else { continue };
            let mac = |of: &Interfaces| of.get(link).map(|interface| interface.mac);
            // A bond that fails over to a port with another address.
            if mac(&before) != mac(&self.interfaces) {
                held.stage = armed(link, now);
            }
        }
        self.place(now);
        self.note_armed(now);
    }

    fn note_armed(&mut self, now: Instant) {
        let armed = self.held.values().filter_map(|held| match held.stage {
            HoldStage::Armed { link, .. } => Some(link),
            HoldStage::Nowhere(_) | HoldStage::Asking { .. } | HoldStage::Taken { .. } => None,
        });
        self.neighbours.announced(&armed.collect(), now);
    }

    /// Frames of a family cannot be read from these interfaces (`true`: IPv6), with why: they announce
    /// nothing of it until the next [`Self::look`].
    pub(super) fn avoid(&mut self, failed: BTreeMap<(u32, bool), String>, now: Instant) {
        self.interfaces.deaf.extend(failed);
        self.place(now);
    }

    fn place(&mut self, now: Instant) {
        for (address, held) in &mut self.held {
            let current = held.stage.link();
            held.stage = match self.interfaces.choose(*address, current) {
                Err(unplaced) => HoldStage::Nowhere(unplaced),
                Ok(interface) if current == Some(interface.index) => continue,
                Ok(interface) => {
                    let since = self.fit_since.get(&interface.index);
                    let slowly = since.is_some_and(|since| now < *since + SETTLING);
                    asking(*address, interface.index, slowly, now)
                }
            };
        }
    }

    /// Interfaces whose frames matter, each with the family.
    pub(super) fn listens(&self) -> BTreeSet<(u32, bool)> {
        let links = self
            .held
            .iter()
            .filter_map(|(address, held)| held.stage.link().map(|link| (link, address.is_ipv6())));
        links.collect()
    }

    /// IPv6 addresses whose groups are to be joined, each with the interface.
    pub(super) fn groups(&self) -> BTreeSet<(u32, Ipv6Addr)> {
        let groups = self.held.iter().filter_map(|(address, held)| match address {
            IpAddr::V6(address) => held.stage.link().map(|link| (link, *address)),
            IpAddr::V4(_) => None,
        });
        groups.collect()
    }

    /// A frame came in by `link`. The answer, if it is asked for an address that is armed there.
    pub(super) fn hear(&mut self, link: u32, frame: &Frame, now: Instant) -> Option<Sending> {
        let own = |interface: &Interface| interface.mac == frame.sender().1;
        if self.interfaces.all.iter().any(own) {
            return None;
        }
        self.hear_claim(link, frame, now);
        if !frame.asks() {
            return None;
        }
        self.neighbours.asked(link, frame, now);
        let held = self.held.get_mut(&frame.target())?;
        let mac = self.interfaces.get(link)?.mac;
        let HoldStage::Armed { link: on, .. } = held.stage else { return None };
        if on != link {
            return None;
        }
        held.counts.requests += 1;
        held.counts.responses += 1;
        Some(Sending { link, frame: frame.answer(mac)? })
    }

    /// Who else has an address, or is about to take one that is not armed yet.
    fn hear_claim(&mut self, link: u32, frame: &Frame, now: Instant) {
        for (claim, probed) in [(frame.claim(), false), (frame.probed(), true)] {
            let Some((address, mac)) = claim else { continue };
            let Some(held) = self.held.get_mut(&address) else { continue };
            match &mut held.stage {
                HoldStage::Asking { link: on, .. } if *on == link => {
                    held.stage = HoldStage::Taken { link, mac, again: now + AGAIN };
                }
                HoldStage::Armed { link: on, next, .. } if *on == link && !probed => {
                    let last = held.claim;
                    let told = last.filter(|claim| now < claim.told + CLAIM);
                    let told = told.map_or(now, |claim| claim.told);
                    let answered = last.map(|claim| claim.answered);
                    let answered = answered.filter(|answered| now < *answered + DEFENCE);
                    let claim = Claim { mac, heard: now, told, answered: answered.unwrap_or(now) };
                    held.claim = Some(claim);
                    match answered {
                        None => *next = Some(next.map_or(now, |next| next.min(now))),
                        // What says the same twice in a row is one claim.
                        Some(answered) if now < answered + LEAST => {}
                        Some(_) => held.stage = HoldStage::Taken { link, mac, again: now + AGAIN },
                    }
                }
                HoldStage::Nowhere(_)
                | HoldStage::Asking { .. }
                | HoldStage::Taken { .. }
                | HoldStage::Armed { .. } => {}
            }
        }
    }

    /// When something is to be said.
    pub(super) fn due(&self) -> Option<Instant> {
        let next = self.held.values().filter_map(Held::due).min()?;
        Some(self.earliest.map_or(next, |earliest| next.max(earliest)))
    }

    /// What is to be said at this time.
    pub(super) fn speak(&mut self, now: Instant) -> Vec<Sending> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let due = |held: &Held| held.due().filter(|due| *due <= now);
        let mut order: Vec<(Instant, IpAddr)> = self
            .held
            .iter()
            .filter_map(|(address, held)| due(held).map(|due| (due, *address)))
            .collect();
        order.sort();
        order.truncate(ROW);
        self.earliest = (order.len() == ROW).then_some(now + PAUSE);
        order.into_iter().flat_map(|(_, address)| self.say(address, now)).collect()
    }

    fn say(&mut self, address: IpAddr, now: Instant) -> Vec<Sending> {
        let refresh = self.refresh;
        let Some(held) = self.held.get_mut(&address) else { return Vec::new() };
        let interface = held.stage.link().and_then(|link| self.interfaces.get(link));
        let Some(Interface { index: link, mac, gateways, .. }) = interface else {
            return Vec::new();
        };
        match held.stage {
            HoldStage::Taken { again, .. } if again <= now => {
                held.stage = asking(address, *link, false, now)
            }
            HoldStage::Asking { left: 0, .. } => held.stage = armed(*link, now),
            HoldStage::Nowhere(_)
            | HoldStage::Taken { .. }
            | HoldStage::Asking { .. }
            | HoldStage::Armed { .. } => {}
        }
        let mut frames = Vec::new();
        match &mut held.stage {
            HoldStage::Nowhere(_) | HoldStage::Taken { .. } => {}
            HoldStage::Asking { left, slowly, next, .. } => {
                *left -= 1;
                *next = now
                    + match (*slowly, *left) {
                        (true, _) => BETWEEN_AFTER_CARRIER,
                        (false, 0) => AFTER_QUESTIONS,
                        (false, _) => BETWEEN_QUESTIONS,
                    };
                frames.push(Frame::probe(address, *mac));
            }
            HoldStage::Armed { left, next, .. } => {
                frames = Frame::gratuitous(address, *mac);
                if *left > BURST - TAUGHT {
                    let asked = self.neighbours.of(*link, address, now);
                    let gateways = gateways.iter().map(|gateway| (*gateway, None));
                    let known = gateways.chain(asked.map(|(asker, mac)| (asker, Some(mac))));
                    frames.extend(
                        known.filter_map(|(to, known)| Frame::question(address, *mac, to, known)),
                    );
                }
                held.counts.gratuitous += 1;
                held.announced = Some(now);
                let burst = *left > 0;
                *left = left.saturating_sub(1);
                *next = match (*left, refresh) {
                    (1.., _) => Some(now + BETWEEN_BURSTS),
                    (0, None) => None,
                    // After the burst each address goes to a place of its own.
                    (0, Some(refresh)) if burst => Some(now + spread(address, refresh)),
                    (0, Some(refresh)) => Some(now + refresh),
                };
            }
        }
        let link = *link;
        frames.into_iter().map(|frame| Sending { link, frame }).collect()
    }

    /// Foreign claims that are to be told of: those that were not within the last hour.
    pub(super) fn claims(&self, now: Instant) -> Vec<(IpAddr, Mac)> {
        let told = self.held.iter().filter_map(|(address, held)| {
            held.claim.filter(|claim| claim.told == now).map(|claim| (*address, claim.mac))
        });
        told.collect()
    }

    /// How it is with each address.
    pub(super) fn state(&self, now: Instant) -> BTreeMap<IpAddr, HeldAddress> {
        let state = |(address, held): (&IpAddr, &Held)| {
            let name = |link| {
                let found = self.interfaces.get(link);
                found.map_or_else(|| link.to_string(), |interface| interface.name.clone())
            };
            let claim = held.claim.filter(|claim| now < claim.heard + CLAIM);
            let (interface, reason) = match &held.stage {
                HoldStage::Nowhere(unplaced) => (None, Some(unplaced.reason.clone())),
                HoldStage::Asking { .. } => {
                    (None, Some("neighbours are asked whether one has it".to_owned()))
                }
                HoldStage::Taken { link, mac, .. } => {
                    (None, Some(format!("{mac} on {} has this address", name(*link))))
                }
                HoldStage::Armed { link, .. } => {
                    let told = claim.map(|claim| {
                        format!("{} on {} claims this address too", claim.mac, name(*link))
                    });
                    (Some(name(*link)), told)
                }
            };
            let broken = match &held.stage {
                HoldStage::Nowhere(unplaced) => unplaced.broken,
                HoldStage::Asking { .. } => false,
                HoldStage::Taken { .. } => true,
                HoldStage::Armed { .. } => reason.is_some(),
            };
            (*address, HeldAddress { interface, reason, broken, counts: held.counts })
        };
        self.held.iter().map(state).collect()
    }

    /// When something was asked last by each interface that addresses are armed on; none yet: `None`.
    pub(super) fn heard(&self) -> BTreeMap<String, Option<Instant>> {
        let links: BTreeSet<u32> = self.listens().into_iter().map(|(link, _)| link).collect();
        let named = links.into_iter().filter_map(|link| self.interfaces.get(link));
        named
            .map(|interface| (interface.name.clone(), self.neighbours.heard(interface.index)))
            .collect()
    }

    /// Names of interfaces that may be deaf (row L-44).
    pub(super) fn silent(&self, now: Instant) -> Vec<String> {
        let silent = self.neighbours.silent(now).filter_map(|link| self.interfaces.get(link));
        silent.map(|interface| interface.name.clone()).collect()
    }

    /// Names of interfaces that were given and are none. While nothing is held nobody looks.
    pub(super) fn missing(&self) -> Vec<&str> {
        if self.is_idle() { Vec::new() } else { self.interfaces.missing() }
    }
}

impl HoldStage {
    fn link(&self) -> Option<u32> {
        match self {
            Self::Nowhere { .. } => None,
            Self::Asking { link, .. } | Self::Taken { link, .. } | Self::Armed { link, .. } => {
                Some(*link)
            }
        }
    }
}

impl Held {
    fn due(&self) -> Option<Instant> {
        match self.stage {
            HoldStage::Nowhere(_) => None,
            HoldStage::Asking { next, .. } => Some(next),
            HoldStage::Taken { again, .. } => Some(again),
            HoldStage::Armed { next, .. } => {
                let least = self.announced.map(|announced| announced + LEAST);
                next.map(|next| least.map_or(next, |least| next.max(least)))
            }
        }
    }
}

fn asking(address: IpAddr, link: u32, slowly: bool, now: Instant) -> HoldStage {
    let left = match (slowly, address) {
        (true, _) => QUESTIONS_AFTER_CARRIER,
        (false, IpAddr::V4(_)) => QUESTIONS,
        (false, IpAddr::V6(_)) => 1,
    };
    HoldStage::Asking { link, left, slowly, next: now }
}

fn armed(link: u32, now: Instant) -> HoldStage {
    HoldStage::Armed { link, left: BURST, next: Some(now) }
}

/// A part of `period`, not nothing, by the address alone: neighbouring addresses are far apart.
fn spread(address: IpAddr, period: Duration) -> Duration {
    let bits = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let [.., a, b, c, d, e, f, g, h] = address.octets();
            u64::from_be_bytes([a, b, c, d, e, f, g, h])
        }
    };
    // 2^64 over the golden ratio: multiples of it fill the range evenly.
    let part = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    let part = u32::try_from(part).unwrap_or_default();
    LEAST + period.saturating_sub(LEAST) * part / (1 << 16)
}

#[cfg(test)]
mod tests;
