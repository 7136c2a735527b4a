//! Names outside: from the cache, or from the upstreams, one question to them for all who ask the same.
//!
//! A question of (name, type, class, DO, CD) that is on its way is shared by clients, refresh and
//! prefetch (row D-53). A thousand clients may wait; who comes then gets SERVFAIL, which is kept by
//! nobody. Codes other than NOERROR and NXDOMAIN reach a client as SERVFAIL: to musl and glibc REFUSED
//! is no answer at all, and they wait five seconds for another (row D-45).

mod flight;
mod loops;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::cache::{Cache, CacheKey, Kept, failure};
use crate::counters::Counters;
use crate::upstream::{Judge, PATIENCE, PROBE_PAUSE};
use crate::{Question, Reply, Stale, Upstream};

/// So many clients wait for upstreams at most, about 2 MB (row D-53).
const MAX_WAITING: usize = 1000;

/// Who has something old in reserve waits so long for something fresh (RFC 8767 section 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Who is suspect for so long has not replied to a probe either, and is told of.
const SHOWN: Duration = Duration::from_secs(5);

/// Seats beyond the thousand, for clients that wait for fewer than [`FEW`] answers: names of a dead
/// server that one container asks for by the thousand leave room for the others.
const RESERVE: usize = 200;

const FEW: usize = 8;

/// What is asked of other servers: the key of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// What is asked.
    pub(crate) question: Question,
    /// DO
    pub(crate) dnssec_ok: bool,
    /// CD
    pub(crate) checking_disabled: bool,
}

/// What there is for a question.
pub(crate) enum Looked {
    /// The answer.
    Reply(Reply),
    /// It will come.
    Pending(Pending),
}

/// An answer that will come, within 4 s.
pub(crate) struct Pending {
    receiver: oneshot::Receiver<Rc<Reply>>,
    old: Option<Reply>,
    seat: Seat,
}

/// One of the thousand seats of those who wait.
struct Seat {
    forwarder: Rc<Forwarder>,
    client: IpAddr,
}

/// Asks upstreams and keeps what they said. Lives on one thread.
pub(crate) struct Forwarder {
    state: RefCell<State>,
    counters: Arc<Counters>,
    begin: Instant,
}

struct State {
    cache: Cache,
    upstreams: Vec<Upstream>,
    judge: Judge,
    /// Counts the lists: what concerns an older one is not noted.
    generation: u64,
    flights: BTreeMap<CacheKey, Vec<oneshot::Sender<Rc<Reply>>>>,
    waiting: usize,
    clients: BTreeMap<IpAddr, usize>,
    next_probe: Duration,
    /// Names that were sent to see whether they come back, by the place of the server.
    loop_probes: BTreeMap<usize, Name>,
    /// Of these, those that came back.
    came_back: BTreeSet<usize>,
    next_loop_probe: Duration,
}

impl Forwarder {
    /// Without upstreams: everything is SERVFAIL.
    pub(crate) fn new(stale: Stale, counters: Arc<Counters>) -> Rc<Self> {
        let state = State {
            cache: Cache::new(stale),
            upstreams: Vec::new(),
            judge: Judge::default(),
            generation: 0,
            flights: BTreeMap::new(),
            waiting: 0,
            clients: BTreeMap::new(),
            next_probe: Duration::ZERO,
            loop_probes: BTreeMap::new(),
            came_back: BTreeSet::new(),
            next_loop_probe: Duration::ZERO,
        };
        Rc::new(Self { state: RefCell::new(state), counters, begin: Instant::now() })
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Other servers, in the order in which they are asked; what is known of those that stay is kept.
    /// What other servers said is old from now on: those of another network may know better.
    pub(crate) fn set_upstreams(self: &Rc<Self>, upstreams: Vec<Upstream>) {
        let now = self.now();
        {
            let state = &mut *self.state.borrow_mut();
            if state.upstreams == upstreams {
                return;
            }
            let mut judge = Judge::new(upstreams.len());
            for (place, upstream) in upstreams.iter().enumerate() {
                let before = state.upstreams.iter().position(|before| before == upstream);
                if let Some(since) = before.and_then(|before| state.judge.suspect_since(before)) {
                    judge.failed(place, since);
                }
            }
            state.judge = judge;
            state.upstreams = upstreams;
            state.generation += 1;
            state.cache.expire(now);
        }
        self.probe_loops();
    }

    /// What there is for a question; if nothing, it is on its way from here on.
    pub(crate) fn look(self: &Rc<Self>, wanted: &Wanted, client: IpAddr) -> Looked {
        let key = wanted.key();
        let found = self.state.borrow_mut().cache.look(&key, self.now());
        let old = match found {
            Kept::Fresh { reply, refresh } => {
                self.counters.hits.add();
                if refresh && self.state.borrow().flights.len() < MAX_WAITING {
                    self.counters.prefetched.add();
                    self.depart(key, wanted, None);
                }
                return Looked::Reply(reply);
            }
            Kept::Stale { reply, at_once: true } => {
                self.counters.stale.add();
                return Looked::Reply(reply);
            }
            Kept::Stale { reply, at_once: false } => Some(reply),
            Kept::Nothing => None,
        };
        self.counters.misses.add();
        let full = self.state.borrow().is_full(client);
        if full {
            self.counters.overflow.add();
            return Looked::Reply(old.unwrap_or_else(failure));
        }
        let (sender, receiver) = oneshot::channel();
        self.depart(key, wanted, Some(sender));
        Looked::Pending(Pending { receiver, old, seat: Seat::take(self, client) })
    }

    /// The question is on its way after this, and `sender` hears of it.
    fn depart(
        self: &Rc<Self>,
        key: CacheKey,
        wanted: &Wanted,
        sender: Option<oneshot::Sender<Rc<Reply>>>,
    ) {
        let flights = &mut self.state.borrow_mut().flights;
        if let Some(flight) = flights.get_mut(&key) {
            flight.extend(sender);
            return;
        }
        flights.insert(key.clone(), sender.into_iter().collect());
        let flight = flight::fly(Rc::clone(self), key, wanted.clone());
        tokio::task::spawn_local(flight);
    }

    /// What is due every second: suspect servers are probed, those that loop are tried again.
    pub(crate) fn tend(self: &Rc<Self>) {
        let now = self.now();
        let (suspects, loops) = {
            let state = &mut *self.state.borrow_mut();
            let suspects =
                if now >= state.next_probe { state.judge.suspects() } else { Vec::new() };
            if !suspects.is_empty() {
                state.next_probe = now + PROBE_PAUSE;
            }
            let any = (0..state.upstreams.len()).any(|server| state.judge.loops(server));
            self.counters.entries.set(state.cache.len() as u64);
            self.counters.evicted.set(state.cache.evicted());
            (suspects, any && now >= state.next_loop_probe)
        };
        for server in suspects {
            tokio::task::spawn_local(flight::probe(Rc::clone(self), server));
        }
        if loops {
            self.probe_loops();
        }
    }

    /// Each upstream with what is wrong with it.
    pub(crate) fn upstreams(&self) -> Vec<(Upstream, Option<String>)> {
        let state = self.state.borrow();
        let now = self.now();
        let wrong = |place| {
            if state.judge.loops(place) {
                Some("leads back to this server; it is not asked".to_owned())
            } else {
                let since = state.judge.suspect_since(place)?;
                (now.saturating_sub(since) >= SHOWN).then(|| "does not answer".to_owned())
            }
        };
        let all = state.upstreams.iter().enumerate();
        all.map(|(place, upstream)| (upstream.clone(), wrong(place))).collect()
    }
}

impl Wanted {
    fn key(&self) -> CacheKey {
        CacheKey::new(&self.question, self.dnssec_ok, self.checking_disabled)
    }
}

impl Pending {
    /// The answer: fresh, or old after 1.8 s or a failure, or SERVFAIL.
    pub(crate) async fn reply(self) -> Reply {
        let patience = if self.old.is_some() { STALE_AFTER } else { PATIENCE * 2 };
        let fresh = timeout(patience, self.receiver).await;
        let counters = &self.seat.forwarder.counters;
        match (fresh, self.old) {
            (Ok(Ok(reply)), None) => Rc::unwrap_or_clone(reply),
            (Ok(Ok(reply)), Some(_)) if reply.code != failure().code => Rc::unwrap_or_clone(reply),
            (_, Some(old)) => {
                counters.stale.add();
                old
            }
            (_, None) => failure(),
        }
    }
}

impl State {
    fn is_full(&self, client: IpAddr) -> bool {
        let few = self.clients.get(&client).is_none_or(|own| *own < FEW);
        let seats = if few { MAX_WAITING + RESERVE } else { MAX_WAITING };
        self.waiting.max(self.flights.len()) >= seats
    }
}

impl Seat {
    fn take(forwarder: &Rc<Forwarder>, client: IpAddr) -> Self {
        let state = &mut *forwarder.state.borrow_mut();
        state.waiting += 1;
        *state.clients.entry(client).or_default() += 1;
        forwarder.counters.waiting.set(state.waiting as u64);
        Self { forwarder: Rc::clone(forwarder), client }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let state = &mut *self.forwarder.state.borrow_mut();
        state.waiting -= 1;
        if let Some(own) = state.clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                state.clients.remove(&self.client);
            }
        }
        self.forwarder.counters.waiting.set(state.waiting as u64);
    }
}

#[cfg(test)]
mod tests;
