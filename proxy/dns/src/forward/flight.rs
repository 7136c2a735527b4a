//! A question on its way: the race of the upstreams, and what comes of it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::cache::{CacheKey, Given, failure};
use crate::upstream::{Asked, Judge, Outgoing, PROBE_PAUSE, Race, Step, alive, ask};
use crate::{Reply, Upstream};

use super::{Forwarder, Wanted};

/// How a race ended.
enum Outcome {
    /// With an answer of so many bytes.
    Reply(Reply, usize),
    /// All servers failed, or were silent until the end.
    Failed,
    /// There is no server to ask.
    Nobody,
}

/// Asks, notes, and tells all who wait.
pub(super) async fn fly(forwarder: Rc<Forwarder>, key: CacheKey, wanted: Wanted) {
    let start = Instant::now();
    let end = race(&forwarder, &wanted).await;
    let now = forwarder.now();
    let state = &mut *forwarder.state.borrow_mut();
    let waiting = state.flights.remove(&key).unwrap_or_default();
    let reply = match end {
        Outcome::Reply(reply, bytes) => {
            forwarder.counters.upstream_time.add(start.elapsed());
            state.cache.put(key, &wanted.question, Given { reply: &reply, bytes, now });
            reply
        }
        Outcome::Failed => {
            forwarder.counters.unanswered.add();
            state.cache.failed(key, &wanted.question, now);
            failure()
        }
        Outcome::Nobody => {
            forwarder.counters.unanswered.add();
            failure()
        }
    };
    let reply = Rc::new(reply);
    for client in waiting {
        // Who does not wait any more needs no answer.
        drop(client.send(Rc::clone(&reply)));
    }
}

async fn race(forwarder: &Rc<Forwarder>, wanted: &Wanted) -> Outcome {
    let (mut race, generation, upstreams) = {
        let state = forwarder.state.borrow();
        (Race::new(state.judge.plan()), state.generation, state.upstreams.clone())
    };
    if race.is_empty() {
        return Outcome::Nobody;
    }
    let start = Instant::now();
    let mut running = JoinSet::new();
    let mut unasked = false;
    loop {
        let until = match race.step(start.elapsed()) {
            Step::Over => break,
            Step::Wait(until) => start + until,
            Step::Ask(server) => {
                forwarder.counters.forwarded.add();
                let one = one(Rc::clone(forwarder), upstreams[server].clone(), wanted.outgoing());
                running.spawn_local(async move { (server, one.await) });
                continue;
            }
        };
        if running.is_empty() {
            sleep_until(until).await;
        }
        let Ok(Some(Ok((server, asked)))) = timeout_at(until, running.join_next()).await else {
            continue;
        };
        match &asked {
            Asked::Gone(error) => {
                tracing::debug!(upstream = %upstreams[server], %error, "not asked");
                note(forwarder, generation, |judge, now| judge.failed(server, now));
            }
            Asked::Unasked(error) => {
                tracing::warn!(%error, "no question can be asked of name servers");
                unasked = true;
            }
            Asked::Reply { .. } | Asked::Useless => {
                note(forwarder, generation, |judge, now| judge.replied(server, now));
            }
        }
        match asked {
            Asked::Reply { reply, bytes } if is_answer(reply.code) => {
                note_silent(forwarder, generation, &race, start.elapsed());
                return Outcome::Reply(reply, bytes);
            }
            Asked::Reply { .. } | Asked::Useless | Asked::Gone(_) | Asked::Unasked(_) => {
                race.lost(server);
            }
        }
    }
    note_silent(forwarder, generation, &race, start.elapsed());
    // What is this process's fault is kept by nobody.
    if unasked { Outcome::Nobody } else { Outcome::Failed }
}

/// Others are a server's own inability, or unwillingness; another one may be better.
fn is_answer(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn one(forwarder: Rc<Forwarder>, upstream: Upstream, outgoing: Outgoing) -> Asked {
    match socket_address(&upstream) {
        Ok(address) => ask(address, &outgoing, &forwarder.counters.stray).await,
        Err(error) => Asked::Gone(error),
    }
}

/// Tells the judge, unless the servers are others meanwhile.
fn note(forwarder: &Forwarder, generation: u64, tell: impl FnOnce(&mut Judge, Duration)) {
    let now = forwarder.now();
    let state = &mut *forwarder.state.borrow_mut();
    if state.generation == generation {
        tell(&mut state.judge, now);
    }
}

/// Who was silent until now, in a race that began so long ago.
fn note_silent(forwarder: &Forwarder, generation: u64, race: &Race, elapsed: Duration) {
    note(forwarder, generation, |judge, now| {
        for (server, since) in race.silent(elapsed) {
            judge.silent(server, (now + since).saturating_sub(elapsed), now);
        }
    });
}

/// Whether a suspect server lives: any reply says so.
pub(super) async fn probe(forwarder: Rc<Forwarder>, server: usize) {
    let wanted = Wanted { question: alive(), dnssec_ok: false, checking_disabled: false };
    let found = {
        let state = forwarder.state.borrow();
        state.upstreams.get(server).cloned().map(|upstream| (upstream, state.generation))
    };
    let Some((upstream, generation)) = found else { return };
    let asked = one(Rc::clone(&forwarder), upstream, wanted.outgoing());
    if let Ok(Asked::Reply { .. } | Asked::Useless) = timeout(PROBE_PAUSE, asked).await {
        note(&forwarder, generation, |judge, now| judge.replied(server, now));
    }
}

/// The index of a link changes when it is made anew, so it is looked up for each question.
pub(super) fn socket_address(upstream: &Upstream) -> io::Result<SocketAddr> {
    let index = match upstream.zone.as_deref().map(|zone| (zone, zone.parse())) {
        None => 0,
        Some((_, Ok(number))) => number,
        Some((name, Err(_))) => {
            name_to_index(socket(AddressFamily::INET6, SocketType::DGRAM, None)?, name)?
        }
    };
    Ok(upstream.socket_address(index))
}

impl Wanted {
    pub(super) fn outgoing(&self) -> Outgoing {
        Outgoing {
            question: self.question.clone(),
            dnssec_ok: self.dnssec_ok,
            checking_disabled: self.checking_disabled,
            edns: true,
        }
    }
}
