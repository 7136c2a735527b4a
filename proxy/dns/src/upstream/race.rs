//! One question to several servers: whom to ask next; pure, time is counted from its start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::judge::{Attempt, PATIENCE, SUSPECT_GAP};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this server, and come again.
    Ask(usize),
    /// Come again then, or with the next event.
    Wait(Duration),
    /// Nobody is left to wait for.
    Over,
}

/// The servers of one question.
#[derive(Clone, Debug)]
pub(crate) struct Race {
    plan: VecDeque<Attempt>,
    everyone: BTreeSet<usize>,
    /// When a server was asked first.
    asked: BTreeMap<usize, Duration>,
    /// Servers that have said no, or cannot be reached.
    out: BTreeSet<usize>,
    hurry: bool,
}

impl Race {
    /// Along a plan of [`super::Judge::plan`].
    pub(crate) fn new(plan: Vec<Attempt>) -> Self {
        Self {
            everyone: plan.iter().map(|attempt| attempt.server).collect(),
            plan: plan.into(),
            asked: BTreeMap::new(),
            out: BTreeSet::new(),
            hurry: false,
        }
    }

    /// There is nobody to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.everyone.is_empty()
    }

    /// What to do after `elapsed`.
    pub(crate) fn step(&mut self, elapsed: Duration) -> Step {
        if self.out.len() == self.everyone.len() || elapsed >= PATIENCE {
            return Step::Over;
        }
        self.plan.retain(|attempt| !self.out.contains(&attempt.server));
        match self.plan.front().copied() {
            Some(attempt) if self.hurry || attempt.at <= elapsed => {
                self.plan.pop_front();
                self.hurry = false;
                self.asked.entry(attempt.server).or_insert(elapsed);
                Step::Ask(attempt.server)
            }
            Some(attempt) => Step::Wait(attempt.at),
            None => Step::Wait(PATIENCE),
        }
    }

    /// A server said no or cannot be reached: the next one is asked at once.
    pub(crate) fn lost(&mut self, server: usize) {
        self.out.insert(server);
        self.hurry = true;
    }

    /// Servers that were asked a while ago and are silent, and since when. Less than what they were given
    /// counts: the clock of the plan and that of the answers differ by milliseconds.
    pub(crate) fn silent(&self, elapsed: Duration) -> Vec<(usize, Duration)> {
        let long = |since: &Duration| elapsed.saturating_sub(*since) >= SUSPECT_GAP;
        let all = self.asked.iter().filter(|(server, _)| !self.out.contains(server));
        all.filter(|(_, since)| long(since)).map(|(server, since)| (*server, *since)).collect()
    }
}

#[cfg(test)]
mod tests;
