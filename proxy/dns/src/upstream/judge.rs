//! Which server is asked, and when the next one; pure, time is an argument.
//!
//! Servers are asked in the order in which they are listed, the suspect ones last. Who does not answer
//! within [`GAP`] is not given up: the next one is asked beside it, and the first good answer counts
//! (row D-48). A server is suspect once another one answered while it was silent, or when its host
//! refuses. Suspect servers are asked something small every three seconds, and are trusted again with
//! the first reply, whatever it says.

use std::time::Duration;

/// A trusted server has so long before the next one is asked beside it.
const GAP: Duration = Duration::from_millis(300);

/// A suspect one.
pub(super) const SUSPECT_GAP: Duration = Duration::from_millis(50);

/// All servers are asked within this, however many there are.
const ROUND: Duration = Duration::from_millis(1500);

/// Each is asked again after so long: one lost datagram is not a dead server.
const AGAIN: Duration = Duration::from_millis(1200);

/// A question to upstreams ends after so long; the client hears SERVFAIL within 4 s.
pub(crate) const PATIENCE: Duration = Duration::from_millis(3500);

/// Suspect servers are probed so often.
pub(crate) const PROBE_PAUSE: Duration = Duration::from_secs(3);

/// What is known of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Health {
    /// Since when it is suspect.
    suspect: Option<Duration>,
    /// When it replied last.
    replied: Option<Duration>,
    /// Its questions come back to us (row D-32): it is not asked at all.
    loops: bool,
}

/// One question to one server: when, counted from the start, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// After the start. Earlier if all that were asked before it have failed.
    pub(crate) at: Duration,
    /// Its place in the list.
    pub(crate) server: usize,
}

/// The health of all servers, by their place in the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    servers: Vec<Health>,
}

impl Judge {
    /// Of so many servers, all trusted.
    pub(crate) fn new(count: usize) -> Self {
        Self { servers: vec![Health::default(); count] }
    }

    /// Whom to ask and when: rounds over all servers that do not loop, until [`PATIENCE`] ends.
    pub(crate) fn plan(&self) -> Vec<Attempt> {
        let mut order: Vec<_> =
            (0..self.servers.len()).filter(|server| !self.servers[*server].loops).collect();
        order.sort_by_key(|server| self.servers[*server].suspect.is_some());
        let Some(shortest) = u32::try_from(order.len()).ok().and_then(|n| ROUND.checked_div(n))
        else {
            return Vec::new();
        };
        let mut plan = Vec::new();
        let mut start = Duration::ZERO;
        while start < PATIENCE {
            let mut at = start;
            for server in &order {
                plan.push(Attempt { at, server: *server });
                let suspect = self.servers[*server].suspect.is_some();
                at += if suspect { SUSPECT_GAP } else { GAP }.min(shortest);
            }
            start = at.max(start + AGAIN);
        }
        plan.retain(|attempt| attempt.at < PATIENCE);
        plan
    }

    /// It replied; whatever the reply says, the server lives.
    pub(crate) fn replied(&mut self, server: usize, now: Duration) {
        if let Some(health) = self.servers.get_mut(server) {
            (health.suspect, health.replied) = (None, Some(now));
        }
    }

    /// It was silent since then, to one question, while another server answered. If it replied to another
    /// one meanwhile, it is the question that is difficult.
    pub(crate) fn silent(&mut self, server: usize, since: Duration, now: Duration) {
        let health = self.servers.get(server);
        if health.is_some_and(|health| health.replied.is_none_or(|replied| replied < since)) {
            self.failed(server, now);
        }
    }

    /// It refused, or cannot be reached.
    pub(crate) fn failed(&mut self, server: usize, now: Duration) {
        if let Some(health) = self.servers.get_mut(server) {
            health.suspect.get_or_insert(now);
        }
    }

    /// Its questions come back to us, or do no more.
    pub(crate) fn set_loops(&mut self, server: usize, loops: bool) {
        if let Some(health) = self.servers.get_mut(server) {
            health.loops = loops;
        }
    }

    /// Servers that are to be probed.
    pub(crate) fn suspects(&self) -> Vec<usize> {
        let suspect = |server: &usize| self.servers[*server].suspect.is_some();
        (0..self.servers.len()).filter(suspect).collect()
    }

    /// Since when a server is suspect.
    pub(crate) fn suspect_since(&self, server: usize) -> Option<Duration> {
        self.servers.get(server)?.suspect
    }

    /// Whether its questions come back to us.
    pub(crate) fn loops(&self, server: usize) -> bool {
        self.servers.get(server).is_some_and(|health| health.loops)
    }
}

#[cfg(test)]
mod tests;
