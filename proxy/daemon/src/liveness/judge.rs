//! Which attachments are dead, and what is done about it when. Facts and the time in, effects out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use causeway_host::RecordKey;
use causeway_kernel::NetnsLife;

use super::addresses;
use crate::clock;
use crate::schedule::{Backoff, Retry};

/// After an attempt that failed.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

/// Who made an attachment, which says what proves its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// causeway-bridge, which has a record of it.
    ByUs,
    /// Another main plugin: there is a record of causeway-service alone.
    ByOthers,
    /// That is not known: the records are lost. The engine knows of it.
    Lost,
}

/// What is seen of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenAttachment {
    /// Which.
    pub key: RecordKey,
    /// By whom.
    pub made: Made,
    /// A link with its mark is there.
    pub link: bool,
    /// Its namespace. A link that is there proves that it lives, whatever stands here.
    pub netns: NetnsLife,
    /// The chain of its ADD is known to have failed.
    pub failed: bool,
    /// An operation on it runs right now.
    pub busy: bool,
    /// `seq` of the event of its ADD; 0: not known.
    pub seq: u64,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

impl SeenAttachment {
    /// Its link or its namespace is gone: nobody answers there.
    fn is_gone(&self) -> bool {
        !self.busy
            && !self.link
            && match self.made {
                Made::ByUs => true,
                Made::ByOthers | Made::Lost => self.netns == NetnsLife::Gone,
            }
    }

    /// Nothing of it can come back without another ADD.
    fn is_dead(&self) -> bool {
        self.is_gone() && self.netns != NetnsLife::Lives
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LivenessEffect {
    /// It leaves its services.
    TakeOut {
        /// Which.
        key: RecordKey,
        /// `seq` of the event of its ADD.
        seq: u64,
    },
    /// These are gone and own something still.
    Name(Vec<String>),
    /// What it owns is to be freed.
    Free {
        /// Which.
        key: RecordKey,
        /// By whom it was made.
        made: Made,
    },
}

/// An attachment that is gone.
#[derive(Clone, Debug)]
struct GoneAttachment {
    /// When that was seen first.
    since: Instant,
    /// The ADD that is meant.
    seq: u64,
    /// When what it owns is to be freed; not due while it may come back.
    retry: Retry,
    /// Why the last attempt failed.
    why: String,
}

/// All that is remembered between two looks.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    grace: Duration,
    gone: BTreeMap<RecordKey, GoneAttachment>,
}

impl Judge {
    /// Nothing is known to be gone.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, gone: BTreeMap::new() }
    }

    /// What follows from a look at all attachments.
    pub(super) fn look(&mut self, seen: &[SeenAttachment], now: Instant) -> Vec<LivenessEffect> {
        let mut effects = Vec::new();
        let mut names = Vec::new();
        let mut before = std::mem::take(&mut self.gone);
        for one in seen {
            let known = before.remove(&one.key).filter(|known| known.seq == one.seq);
            if one.busy {
                self.gone.extend(known.map(|known| (one.key.clone(), known)));
                continue;
            }
            if !one.is_gone() {
                continue;
            }
            if known.is_none() {
                effects.push(LivenessEffect::TakeOut { key: one.key.clone(), seq: one.seq });
            }
            let mut gone = known.unwrap_or_else(|| GoneAttachment {
                since: now,
                seq: one.seq,
                retry: Retry::default(),
                why: String::new(),
            });
            let grace = if one.failed { Duration::ZERO } else { self.grace };
            if !one.is_dead() {
                gone.retry = Retry::after(gone.retry.failures());
            } else if gone.retry.failures() == 0 {
                gone.retry = Retry::at(gone.since + grace);
            } else if gone.retry.due().is_none() {
                gone.retry.again(now);
            }
            names.push(self.name(one, &gone));
            if gone.retry.due().is_some_and(|due| due <= now) {
                effects.push(LivenessEffect::Free { key: one.key.clone(), made: one.made });
            }
            self.gone.insert(one.key.clone(), gone);
        }
        effects.insert(0, LivenessEffect::Name(names));
        // Out of services first: nobody waits for the words.
        effects.sort_by_key(|effect| match effect {
            LivenessEffect::TakeOut { .. } => 0,
            LivenessEffect::Name(_) => 1,
            LivenessEffect::Free { .. } => 2,
        });
        effects
    }

    /// An attachment is freed.
    pub(super) fn freed(&mut self, key: &RecordKey) {
        self.gone.remove(key);
    }

    /// An attachment could not be freed.
    pub(super) fn failed(&mut self, key: &RecordKey, why: &str, now: Instant) {
        if let Some(gone) = self.gone.get_mut(key) {
            gone.retry.failed(BACKOFF, now);
            why.clone_into(&mut gone.why);
        }
    }

    /// When something is to be freed next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gone.values().filter_map(|gone| gone.retry.due()).min()
    }

    fn name(&self, one: &SeenAttachment, gone: &GoneAttachment) -> String {
        let RecordKey { network, container_id, ifname } = &one.key;
        let ips = match one.ips.is_empty() {
            true => String::new(),
            false => format!(", {}", addresses(&one.ips)),
        };
        let then = if !gone.why.is_empty() {
            format!("what it owns cannot be freed yet: {}", gone.why)
        } else if one.netns == NetnsLife::Lives {
            "its interface was removed, and its namespace lives; attach it anew, or have the \
             runtime remove it"
                .to_owned()
        } else if one.failed {
            "its ADD had failed, and what it owns is freed now".to_owned()
        } else {
            format!(
                "what it owns is freed {} after that was seen (--dead-grace)",
                clock::words(self.grace)
            )
        };
        format!(
            "container {container_id} ({ifname} of network {network}{ips}) is gone, and no DEL came; \
             it is out of its services; {then}"
        )
    }
}

#[cfg(test)]
mod tests;
