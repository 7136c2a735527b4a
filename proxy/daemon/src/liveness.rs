//! Containers that are gone without DEL: they leave their services at once, are named, and what they
//! own is freed after a grace.
//!
//! | module | charter |
//! |---|---|
//! | [`judge`] | what is seen of attachments and the time, to what is to be done; pure |
//! | [`look`] | what is seen: records, links, namespaces |
//! | [`free`] | frees one, by the plugins' own code |
//!
//! This file is the thread that brings them together. It is one because rtnetlink and programs block.

mod free;
mod judge;
mod look;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use causeway_bridge::Outcome;
use causeway_host::RecordKey;
use causeway_kernel::{Monitor, Netlink, wait_readable};
use causeway_model::{EndpointKey, EndpointRecord};
use causeway_service::record::{endpoint_key, record_key};

use self::free::Freer;
use self::judge::{Judge, LivenessEffect};
use self::look::{KnownContainer, Look};
use crate::clock;
use crate::config::Settings;
use crate::event::{Event, Events};
use crate::schedule::{Gap, Pace, Schedule};

/// How often all is looked at though no link is known to have gone.
const PERIOD: Duration = Duration::from_secs(5);
/// After a link went so long is waited for more of them: a DEL removes its record meanwhile.
const GATHER: Duration = Duration::from_millis(100);
/// After a look, the next one waits ten times as long as that took, for half a second at most.
const PACE: Pace = Pace {
    period: Some(PERIOD),
    gap: Gap { times: 10, shortest: Duration::ZERO, longest: Duration::from_millis(500) },
};

/// The engine's end. When it is dropped the thread ends.
#[derive(Debug)]
pub(crate) struct Liveness {
    known: Sender<Told>,
}

/// A container that the engine has heard of; `None`: that it is gone.
type Told = (RecordKey, Option<KnownContainer>);

/// The thread's end.
struct LivenessThread {
    look: Look,
    judge: Judge,
    freer: Freer,
    incoming: Receiver<Told>,
    events: Events,
    named: Vec<String>,
    looks: Schedule,
}

impl Liveness {
    /// Starts the thread. It answers with [`Event::Dead`] and [`Event::DeadAttachments`].
    ///
    /// # Errors
    /// No thread is left.
    pub(crate) fn start(settings: &Settings, events: Events) -> io::Result<Self> {
        let (known, incoming) = channel();
        let watcher = LivenessThread {
            look: Look::new(&settings.run_dir),
            judge: Judge::new(settings.dead_grace),
            freer: Freer::new(settings),
            incoming,
            events,
            named: Vec::new(),
            looks: Schedule::at_once(PACE, clock::now()),
        };
        std::thread::Builder::new().name("liveness".to_owned()).spawn(move || watcher.run())?;
        Ok(Self { known })
    }

    /// Tells of a container that is attached or, without a record, gone.
    pub(crate) fn tell(&self, key: &EndpointKey, seq: u64, record: Option<&EndpointRecord>) {
        let known = record.map(|record| KnownContainer {
            seq,
            netns: record.netns.clone(),
            ips: record.ips.clone(),
        });
        // Its end is the process's.
        drop(self.known.send((record_key(key.clone()), known)));
    }
}

impl LivenessThread {
    fn run(mut self) {
        let mut monitor = self.subscribe();
        loop {
            if !self.hear() {
                return;
            }
            let started = clock::now();
            match self.once(started) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(error = %error, "look whether containers live"),
            }
            let now = clock::now();
            self.looks.done(now - started, now);
            if let Some(due) = self.judge.due() {
                self.looks.wanted(due);
            }
            if let Err(error) = self.wait(monitor.as_mut()) {
                tracing::warn!(error = %error, "wait for links that go");
                monitor = self.subscribe();
            }
        }
    }

    fn subscribe(&self) -> Option<Monitor> {
        let monitor = Netlink::open().and_then(|netlink| Monitor::of_links(&netlink));
        monitor.inspect_err(|error| tracing::warn!(error = %error, "be told of links that go")).ok()
    }

    /// Takes in what the engine says. `false`: it is gone.
    fn hear(&mut self) -> bool {
        loop {
            match self.incoming.try_recv() {
                Ok((key, known)) => self.look.hear(key, known),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// One look and what follows from it. `false`: the engine is gone.
    fn once(&mut self, now: Instant) -> causeway_kernel::Result<bool> {
        let mut freed = false;
        let seen = self.look.look()?;
        for effect in self.judge.look(&seen, now) {
            let sent = match effect {
                LivenessEffect::TakeOut { key, seq } => {
                    self.events.blocking_send(Event::Dead { key: endpoint_key(key), seq })
                }
                LivenessEffect::Name(named) if named == self.named => Ok(()),
                LivenessEffect::Name(named) => {
                    self.named.clone_from(&named);
                    self.events.blocking_send(Event::DeadAttachments(named))
                }
                LivenessEffect::Free { key, made } => {
                    freed |= self.free(&key, made);
                    Ok(())
                }
            };
            if sent.is_err() {
                return Ok(false);
            }
        }
        // What is free is to be named no longer than it has to.
        if freed { self.once(clock::now()) } else { Ok(true) }
    }

    /// Frees what an attachment owns. Whether it is free now.
    fn free(&mut self, key: &RecordKey, made: judge::Made) -> bool {
        let RecordKey { network, container_id, ifname } = key;
        match self.freer.free(key, made) {
            Ok(Outcome::Freed) => {
                tracing::info!(
                    network,
                    container = container_id,
                    ifname,
                    "freed what a container owned that is gone without DEL"
                );
                self.judge.freed(key);
                self.look.freed(key);
                return true;
            }
            // The next look says what it is now.
            Ok(Outcome::Alive | Outcome::Busy | Outcome::Absent) => {}
            Err(error) => {
                tracing::warn!(network, container = container_id, ifname, error = %error,
                    "free what a container owned that is gone without DEL");
                self.judge.failed(key, &error.to_string(), clock::now());
            }
        }
        false
    }

    /// Until the next look is due.
    fn wait(&self, monitor: Option<&mut Monitor>) -> causeway_kernel::Result<()> {
        let Some(monitor) = monitor else {
            return wait_readable(&[], self.looks.wait(clock::now()));
        };
        loop {
            let left = self.looks.wait(clock::now());
            if left.is_zero() {
                return Ok(());
            }
            wait_readable(&[monitor.as_fd()], left)?;
            if monitor.removed()? {
                let rest = self.looks.earliest().saturating_duration_since(clock::now());
                wait_readable(&[], rest.max(GATHER))?;
                // Those that came meanwhile are seen by this look.
                monitor.removed()?;
                return Ok(());
            }
        }
    }
}

/// The addresses, for people.
fn addresses(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
