//! What the task keeps from one connection to the next: what is wanted, known and reported.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use causeway_model::{EndpointKey, NodeRecord};
use tokio::sync::mpsc;

use super::keys::Keys;
use super::{ClusterSettings, Command, Container, Known, Reach, Report, Subnets, WriteError};

/// What does not depend on a connection.
pub(super) struct TaskState {
    pub(super) settings: Arc<ClusterSettings>,
    pub(super) keys: Arc<Keys>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) outbox: Outbox,
    pub(super) wanted: Wanted,
    pub(super) known: Known,
    /// The short lease is of this run, so nobody else uses it.
    pub(super) lease_is_ours: bool,
    /// The lease of the subnets, once this run has seen it.
    pub(super) long_lease: Option<i64>,
    /// A key that the store did not let this node write.
    pub(super) denied: Option<String>,
    /// What this node had, as long as it wants it back.
    pub(super) previous: Vec<ipnetwork::IpNetwork>,
    /// Subnets are lost, and nobody has said yet that others may be taken.
    pub(super) lost: bool,
    /// Said last.
    pub(super) said: Said,
}

/// What was reported last, so that only changes are.
#[derive(Default)]
pub(super) struct Said {
    connection: Option<Result<(), String>>,
    excluded: Option<String>,
    denied: Option<String>,
    subnets: Option<Subnets>,
}

/// What this node wants to be in the store.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) node: Option<NodeRecord>,
    pub(super) reach: Option<Reach>,
    pub(super) containers: BTreeMap<EndpointKey, Container>,
    /// All containers are known.
    pub(super) complete: bool,
}

/// Reports on their way: nothing is lost if the receiver is slow, and nothing waits for it.
pub(super) struct Outbox {
    reports: mpsc::Sender<Report>,
    pub(super) queue: VecDeque<Report>,
}

/// The other side is gone, or said to stop.
pub(super) struct Ended;

impl TaskState {
    /// Nothing is wanted and nothing reported yet.
    pub(super) fn new(
        settings: ClusterSettings,
        commands: mpsc::UnboundedReceiver<Command>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        Self {
            keys: Arc::new(Keys::new(&settings.prefix)),
            commands,
            outbox: Outbox { reports, queue: VecDeque::new() },
            wanted: Wanted::default(),
            known: settings.known.clone(),
            lease_is_ours: false,
            long_lease: None,
            denied: None,
            previous: settings.previous.clone(),
            lost: false,
            said: Said::default(),
            settings: Arc::new(settings),
        }
    }

    /// Waits for something while commands come and reports go.
    pub(super) async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Ended> {
        let mut what = pin!(what);
        loop {
            tokio::select! {
                delivered = self.outbox.deliver() => delivered?,
                command = self.commands.recv() => self.take_unconnected(command)?,
                done = &mut what => return Ok(done),
            }
        }
    }

    fn take_unconnected(&mut self, command: Option<Command>) -> Result<(), Ended> {
        match command {
            None | Some(Command::Stop) => Err(Ended),
            Some(Command::Write(write)) => {
                let why = match (&self.said.excluded, &self.said.connection) {
                    (Some(why), Some(Ok(()))) => WriteError::Refused(why.clone()),
                    (_, Some(Err(why))) => WriteError::Away(why.clone()),
                    (_, Some(Ok(())) | None) => WriteError::Away("not connected yet".into()),
                };
                self.outbox.queue.push_back(Report::Written { id: write.id, result: Err(why) });
                Ok(())
            }
            Some(other) => {
                self.want(other);
                Ok(())
            }
        }
    }

    /// Takes in a command that says what is wanted.
    pub(super) fn want(&mut self, command: Command) {
        match command {
            Command::Node(record) => self.wanted.node = Some(record),
            Command::Reach(reach) => self.wanted.reach = Some(reach),
            Command::Containers(all) => {
                let keyed = |one: Container| (one.record.key.clone(), one);
                self.wanted.containers = all.into_iter().map(keyed).collect();
                self.wanted.complete = true;
            }
            Command::Container(key, Some(container)) => {
                self.wanted.containers.insert(key, container);
            }
            Command::Container(key, None) => drop(self.wanted.containers.remove(&key)),
            Command::TakeAnotherSubnet => {
                if self.lost {
                    self.previous.clear();
                    self.lost = false;
                }
            }
            Command::Write(_) | Command::Stop => {}
        }
    }

    pub(super) fn say(&mut self, report: Report) {
        self.outbox.queue.push_back(report);
    }

    pub(super) fn say_connection(&mut self, state: Result<(), String>) {
        // Why it is away may read otherwise each time; that it is away is said once a reason.
        if self.said.connection.as_ref() != Some(&state) {
            self.said.connection = Some(state.clone());
            self.say(Report::Connection(state));
        }
    }

    pub(super) fn say_excluded(&mut self, state: Option<String>) {
        if self.said.excluded != state {
            self.said.excluded.clone_from(&state);
            self.say(Report::Excluded(state));
        }
    }

    pub(super) fn say_denied(&mut self, state: Option<String>) {
        if self.said.denied != state {
            self.said.denied.clone_from(&state);
            self.say(Report::Denied(state));
        }
    }

    pub(super) fn say_subnets(&mut self, state: Subnets) {
        if self.said.subnets.as_ref() != Some(&state) {
            self.said.subnets = Some(state.clone());
            self.say(Report::Subnets(state));
        }
    }

    /// What this run hangs on.
    pub(super) fn leases(&self) -> impl Iterator<Item = i64> + use<> {
        let short = self.known.lease.filter(|_| self.lease_is_ours);
        short.into_iter().chain(self.long_lease)
    }

    /// Why this node is kept out, as said last.
    pub(super) fn excluded(&self) -> Option<&String> {
        self.said.excluded.as_ref()
    }
}

impl Outbox {
    /// Hands over the first report, once there is one and room for it.
    pub(super) async fn deliver(&mut self) -> Result<(), Ended> {
        if self.queue.is_empty() {
            self.reports.closed().await;
            return Err(Ended);
        }
        let permit = self.reports.reserve().await.map_err(|_| Ended)?;
        if let Some(report) = self.queue.pop_front() {
            permit.send(report);
        }
        Ok(())
    }

    /// Hands over what is left, as long as the receiver is there.
    pub(super) async fn flush(&mut self) {
        while !self.queue.is_empty() && self.deliver().await.is_ok() {}
    }
}
