//! The server: one thread, which listens, forwards, and holds the zone; told of changes by commands.

mod ask;
mod bind;
mod check;
mod desk;
mod follow;
mod listeners;
mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem, thread};

use causeway_model::ObjectKey;
use ipnetwork::IpNetwork;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};

use crate::counters::Counters;
use crate::forward::Forwarder;
use crate::{ServiceNames, Stale, Upstream, Zone, ZoneSettings};

use ask::Ask;
pub use ask::{Asker, Lookup};
use desk::Desk;
pub use desk::Outside;
use follow::Follow;
pub use follow::Sources;
use listeners::Listeners;

/// Questions have their turn after so many changes.
const SLICE: usize = 1000;

/// What a server begins with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The zone.
    pub zone: ZoneSettings,
    /// Where it listens, and what is done there with AAAA questions for names outside. Each address
    /// has sockets of its own, from which answers leave; `0.0.0.0` and `::` are for hosts with one
    /// address only (row D-59).
    pub listen: BTreeMap<SocketAddr, Outside>,
    /// Who is asked for names outside.
    pub sources: Sources,
    /// Networks whose addresses are answered: containers, nodes. This node itself always is. Others
    /// get REFUSED over UDP, which is no longer than what they sent, and no connection.
    pub clients: Vec<IpNetwork>,
    /// Old answers while upstreams are away.
    pub stale: Stale,
}

/// A change of the zone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A service is new, changed, or gone.
    Service(ObjectKey, Option<ServiceNames>),
    /// A pod of this namespace has this address, or has it no more.
    Pod(Arc<str>, IpAddr, bool),
}

/// What does not work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Listening addresses, with the reason.
    pub listeners: BTreeMap<SocketAddr, String>,
    /// All upstreams, with what is wrong, if something is.
    pub upstreams: Vec<(Upstream, Option<String>)>,
    /// What was skipped of a resolv.conf, with file and line.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
enum Command {
    Update(Vec<Change>),
    Synced,
    Listen(BTreeMap<SocketAddr, Outside>),
    Sources(Sources),
    Clients(Vec<IpNetwork>),
    Ask(Ask),
    Stop,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    problems: watch::Receiver<Problems>,
}

impl Server {
    /// Starts the thread `dns` and returns once it listens. Addresses that cannot be bound are no error:
    /// they are tried again every second, and reported.
    ///
    /// # Errors
    /// No thread or no epoll instance.
    pub fn start(config: Config) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, problems) = watch::channel(Problems::default());
        let counters = Arc::new(Counters::default());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let own = Arc::clone(&counters);
        let (listens, ready) = std::sync::mpsc::channel::<()>();
        let thread = thread::Builder::new().name("dns".to_owned()).spawn(move || {
            let serve = async {
                let mut serving = Serving::new(config, own, sender);
                serving.begin();
                if listens.send(()).is_ok() {
                    serving.run(receiver).await;
                }
            };
            LocalSet::new().block_on(&runtime, serve);
        })?;
        ready.recv().map_err(|_| io::Error::other("the DNS thread has ended at its start"))?;
        Ok(Self { commands: Some(commands), thread: Some(thread), counters, problems })
    }

    /// The zone changes. Questions are answered between slices of a large batch.
    pub fn update(&self, changes: Vec<Change>) {
        self.send(Command::Update(changes));
    }

    /// All services there are have been told of (row D-22).
    pub fn synced(&self) {
        self.send(Command::Synced);
    }

    /// Listens at these addresses and at no others.
    pub fn listen(&self, addresses: BTreeMap<SocketAddr, Outside>) {
        self.send(Command::Listen(addresses));
    }

    /// Others are asked for names outside.
    pub fn sources(&self, sources: Sources) {
        self.send(Command::Sources(sources));
    }

    /// Others are answered.
    pub fn clients(&self, networks: Vec<IpNetwork>) {
        self.send(Command::Clients(networks));
    }

    /// Asks as a client would. `None` after the end of the server.
    pub fn asker(&self) -> Option<Asker> {
        self.commands.clone().map(Asker)
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Whether the thread has ended although this handle is there.
    pub fn has_ended(&self) -> bool {
        self.problems.has_changed().is_err()
    }

    /// What does not work; changes can be waited for.
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }

    fn send(&self, command: Command) {
        // The thread ends with this handle, not before.
        drop(self.commands.as_ref().map(|commands| commands.send(command)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Others may hold a way to ask it.
        self.send(Command::Stop);
        drop(self.commands.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the DNS thread has panicked");
        }
    }
}

/// The state of the thread.
struct Serving {
    desk: Rc<Desk>,
    listeners: Rc<Listeners>,
    follow: Follow,
    addresses: BTreeMap<SocketAddr, Outside>,
    problems: watch::Sender<Problems>,
}

impl Serving {
    fn new(config: Config, counters: Arc<Counters>, problems: watch::Sender<Problems>) -> Self {
        let forwarder = Forwarder::new(config.stale, Arc::clone(&counters));
        let desk = Rc::new(Desk::new(Zone::new(config.zone), forwarder, counters));
        *desk.clients.borrow_mut() = config.clients;
        let listeners = Listeners::new(Rc::clone(&desk));
        let follow = Follow::new(config.sources);
        Self { desk, listeners, follow, addresses: config.listen, problems }
    }

    fn begin(&mut self) {
        self.listeners.set(&self.addresses);
        self.tend();
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => return,
                    Some(command) => self.take(command).await,
                },
                _ = second.tick() => self.tend(),
            }
        }
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Update(changes) => self.update(changes).await,
            Command::Synced => self.desk.zone.borrow_mut().set_synced(),
            Command::Clients(networks) => *self.desk.clients.borrow_mut() = networks,
            Command::Ask(ask) => ask::answer(&self.desk, ask),
            Command::Stop => {}
            Command::Listen(addresses) => {
                self.addresses = addresses;
                self.listeners.set(&self.addresses);
                // A server that is asked may forward to an address that is new.
                self.desk.forwarder.probe_loops();
                self.tend();
            }
            Command::Sources(sources) => {
                self.follow.set(sources);
                self.tend();
            }
        }
    }

    async fn update(&self, mut changes: Vec<Change>) {
        while !changes.is_empty() {
            let rest = changes.split_off(SLICE.min(changes.len()));
            for change in mem::replace(&mut changes, rest) {
                let zone = &mut *self.desk.zone.borrow_mut();
                match change {
                    Change::Service(key, names) => zone.put(key, names),
                    Change::Pod(namespace, address, true) => zone.put_pod(&namespace, address),
                    Change::Pod(namespace, address, false) => zone.remove_pod(&namespace, address),
                }
            }
            yield_now().await;
        }
    }

    /// What is due every second.
    fn tend(&mut self) {
        let own: BTreeSet<_> = self.addresses.keys().copied().collect();
        if let Some(upstreams) = self.follow.look(&own) {
            self.desk.forwarder.set_upstreams(upstreams);
        }
        self.desk.forwarder.tend();
        self.listeners.tend();
        let problems = Problems {
            listeners: self.listeners.problems(),
            upstreams: self.desk.forwarder.upstreams(),
            warnings: self.follow.warnings().to_vec(),
        };
        self.problems.send_if_modified(|before| {
            let changed = *before != problems;
            *before = problems;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
