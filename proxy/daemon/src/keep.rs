//! Rules that attachments are owed: when to look for them, and what to do about what is missing. Pure;
//! [`crate::keeper`] carries it out.

use std::time::{Duration, Instant};

use crate::contest::Contest;
use crate::schedule::{Backoff, Gap, Pace, Retry, Schedule};

/// How often everything is compared though no change is known of: the older iptables does not tell.
const PERIOD: Duration = Duration::from_secs(10);
/// Not more often than this, however often the rules are changed.
const GAP: Duration = Duration::from_millis(200);
/// After a look the next one waits so many times as long as that took.
const PACE: Pace =
    Pace { period: Some(PERIOD), gap: Gap { times: 20, shortest: GAP, longest: PERIOD } };
/// Between attempts to put back what cannot be put back.
const RETRY: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff { first: RETRY, longest: Duration::from_secs(60) };

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeepEffect {
    /// These are missing; none are any more if it is empty.
    Report(Vec<String>),
    /// Put them back.
    Restore,
}

/// What is known of the rules.
#[derive(Debug)]
pub(crate) struct Keep {
    /// What was reported last.
    reported: Vec<String>,
    looks: Schedule,
    /// The pace of repairs if another process removes them again.
    contest: Contest,
    /// Attempts to put them back.
    repairs: Retry,
}

impl Keep {
    /// The first look is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            reported: Vec::new(),
            looks: Schedule::at_once(PACE, now),
            contest: Contest::default(),
            repairs: Retry::default(),
        }
    }

    /// How long it is until the next look.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.looks.wait(now)
    }

    /// Another process changed rules.
    pub(crate) fn told(&mut self, now: Instant) {
        self.looks.wanted(now);
    }

    /// A look that took `took` found this missing, or failed.
    pub(crate) fn looked(
        &mut self,
        missing: Result<Vec<String>, String>,
        took: Duration,
        now: Instant,
    ) -> Vec<KeepEffect> {
        self.looks.done(took, now);
        let (missing, restore) = match missing {
            Ok(missing) => {
                let restore = !missing.is_empty();
                (missing, restore)
            }
            Err(error) => (vec![error], false),
        };
        if missing.is_empty() {
            self.repairs = Retry::default();
        }
        let mut effects = self.report(missing);
        if restore {
            effects.push(KeepEffect::Restore);
        }
        effects
    }

    /// They were put back, or that failed. A look follows.
    pub(crate) fn restored(&mut self, result: Result<(), String>, now: Instant) -> Vec<KeepEffect> {
        if result.is_ok() {
            // The first look after a repair is at once, further ones as far apart as all looks.
            let again = self.contest.due().is_some_and(|end| now < end);
            self.contest.repaired(now);
            let next = self.contest.next(now);
            let next = if again { next.max(self.looks.earliest()) } else { next };
            self.looks.set_and_hold_off(next);
            self.repairs = Retry::default();
        } else {
            let pause = self.repairs.failed(BACKOFF, now);
            self.looks.set_and_hold_off(now + pause);
        }
        match result {
            Ok(()) => Vec::new(),
            Err(error) => {
                let missing = self.reported.iter().filter(|one| !one.starts_with(FAILED)).cloned();
                let all = std::iter::once(format!("{FAILED}{error}")).chain(missing).collect();
                self.report(all)
            }
        }
    }

    fn report(&mut self, missing: Vec<String>) -> Vec<KeepEffect> {
        if missing == self.reported {
            return Vec::new();
        }
        self.reported.clone_from(&missing);
        vec![KeepEffect::Report(missing)]
    }
}

const FAILED: &str = "they cannot be written again: ";

#[cfg(test)]
mod tests;
