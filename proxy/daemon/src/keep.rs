//! Rules that attachments are owed: when to look for them, and what to do about what is missing. Pure;
//! [`crate::keeper`] carries it out.

use std::time::{Duration, Instant};

use crate::clock;
use crate::contest::Contest;

/// How often everything is compared though nobody is known to have changed anything: the older
/// iptables tells nobody.
const PERIOD: Duration = Duration::from_secs(10);
/// Not more often than this, however often the rules are changed.
const GAP: Duration = Duration::from_millis(200);
/// After a look the next one waits so many times as long as that took, [`PERIOD`] at most.
const REST: u32 = 20;
/// Between attempts to put back what cannot be put back, at first and at most.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// These are missing; none are any more where empty.
    Report(Vec<String>),
    /// Put them back.
    Restore,
}

/// What is known of the rules.
#[derive(Debug)]
pub(crate) struct Keep {
    /// What was reported last.
    reported: Vec<String>,
    /// Next look.
    due: Instant,
    /// Not before this.
    earliest: Instant,
    /// The pace of repairs if another process removes them again.
    contest: Contest,
    /// Attempts that failed, in a row.
    failed: u32,
}

impl Keep {
    /// The first look is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            reported: Vec::new(),
            due: now,
            earliest: now,
            contest: Contest::default(),
            failed: 0,
        }
    }

    /// When to look next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Another process changed rules.
    pub(crate) fn told(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.earliest));
    }

    /// A look that took `took` found this missing, or failed.
    pub(crate) fn looked(
        &mut self,
        missing: Result<Vec<String>, String>,
        took: Duration,
        now: Instant,
    ) -> Vec<Effect> {
        self.earliest = now + (took * REST).clamp(GAP, PERIOD);
        self.due = now + PERIOD;
        let (missing, restore) = match missing {
            Ok(missing) => {
                let restore = !missing.is_empty();
                (missing, restore)
            }
            Err(error) => (vec![error], false),
        };
        if missing.is_empty() {
            self.failed = 0;
        }
        let mut effects = self.report(missing);
        if restore {
            effects.push(Effect::Restore);
        }
        effects
    }

    /// They were put back, or that failed. A look follows.
    pub(crate) fn restored(&mut self, result: Result<(), String>, now: Instant) -> Vec<Effect> {
        if result.is_ok() {
            // The first look after a repair is at once, further ones as far apart as all looks.
            let again = self.contest.due().is_some_and(|end| now < end);
            self.contest.repaired(now);
            let next = self.contest.next(now);
            self.due = if again { next.max(self.earliest) } else { next };
            self.failed = 0;
        } else {
            self.failed = self.failed.saturating_add(1);
            self.due = now + clock::pause((RETRY, LONGEST_RETRY), self.failed);
        }
        self.earliest = self.due;
        match result {
            Ok(()) => Vec::new(),
            Err(error) => {
                let missing = self.reported.iter().filter(|one| !one.starts_with(FAILED)).cloned();
                let all = std::iter::once(format!("{FAILED}{error}")).chain(missing).collect();
                self.report(all)
            }
        }
    }

    fn report(&mut self, missing: Vec<String>) -> Vec<Effect> {
        if missing == self.reported {
            return Vec::new();
        }
        self.reported.clone_from(&missing);
        vec![Effect::Report(missing)]
    }
}

const FAILED: &str = "they cannot be written again: ";

#[cfg(test)]
mod tests;
