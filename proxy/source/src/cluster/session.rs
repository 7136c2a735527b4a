//! One connection: its listing, its watch, commands and answers.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::config::Agreed;
use super::keys::{Key, Keys};
use super::listing::{Listing, Opened, OwnKey, own_key, watch};
use super::publish::Publisher;
use super::silence::{Duty, Silence};
use super::state::TaskState;
use super::store::{self, Failure, bounded};
use super::value::Reader;
use super::{Change, Command, Report, Write, WriteError, value, write};
use crate::etcd::{self, Client, EventType, KeyValue, RangeRequest, Watch, WatchResponse};

/// So many reports may wait for the receiver before the watch is left unread.
const BACKLOG: usize = 64;
/// After this time, what the store refused is tried again, and another configuration looked for.
const RETRY: Duration = Duration::from_secs(5);
/// How long keys that cannot be read are gathered before they are reported.
const GATHER: Duration = Duration::from_secs(1);
/// The least time between two such reports: whoever writes the keys does not decide how much work they
/// are.
const NAMED_AGAIN: Duration = Duration::from_secs(10);
/// For what is waiting at a planned end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a session is over.
pub(super) enum End {
    /// Planned, or nobody listens.
    Stopped,
    /// The store has to be looked at again.
    Again,
    /// Why.
    Lost(String),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Compacted => Self::Again,
            Failure::Away(_) | Failure::Refused(_) | Failure::NoLease => {
                Self::Lost(failure.into_text())
            }
        }
    }
}

/// See the module.
pub(super) struct Session<'a> {
    state: &'a mut TaskState,
    client: Client,
    agreed: Agreed,
    listing: Listing,
    watch: Option<Watch>,
    revision: i64,
    /// Revision of the last answer about progress: all until there is here when the next one comes.
    /// (One answer alone may overtake events in etcd before 3.4.25 and 3.5.8.)
    progress: i64,
    publisher: Publisher,
    /// Keys that cannot be read or do not count, with the reason.
    unreadable: BTreeMap<String, String>,
    writes: JoinSet<Answer>,
    /// Not answered yet, each with a key that it writes.
    pending: BTreeMap<u64, String>,
    timers: Timers,
}

struct Timers {
    /// Whether the watch lives.
    silence: Silence,
    /// What is wanted has to be brought about (again).
    publish: Option<Instant>,
    /// When keys that cannot be read are to be reported.
    name: Option<Instant>,
    /// They are not reported before.
    unnamed: Instant,
    /// The store is asked whether it takes what it refused.
    denied: Option<Instant>,
    renew: Instant,
}

/// To a write of this number.
type Answer = (u64, Result<i64, WriteError>);

enum Wake {
    Delivered,
    Command(Option<Command>),
    Watch(Result<Option<WatchResponse>, etcd::Error>),
    Written(Option<Result<Answer, JoinError>>),
    Due,
    Deaf,
}

impl<'a> Session<'a> {
    pub(super) fn new(state: &'a mut TaskState, opened: Opened) -> Self {
        let Opened { client, agreed, listing, watch } = opened;
        let now = Instant::now();
        Self {
            state,
            client,
            agreed,
            revision: listing.revision,
            listing,
            watch,
            progress: 0,
            publisher: Publisher::default(),
            unreadable: BTreeMap::new(),
            writes: JoinSet::new(),
            pending: BTreeMap::new(),
            timers: Timers {
                silence: Silence::new(now),
                publish: Some(now),
                name: None,
                unnamed: now,
                denied: Some(now),
                renew: now,
            },
        }
    }

    /// Serves until something ends it.
    pub(super) async fn run(mut self) -> End {
        self.state.say_connection(Ok(()));
        if let Some(why) = self.agreed.excluded.take() {
            return self.excluded(why).await;
        }
        self.reset();
        loop {
            if let Err(end) = self.turn().await {
                return self.close(end).await;
            }
        }
    }

    /// Looks for other settings of the cluster from time to time. A node that was in stays where
    /// others find it, so that no slip in the settings of the cluster takes all nodes down.
    async fn excluded(&mut self, why: String) -> End {
        self.state.say_excluded(Some(why));
        for lease in self.state.leases() {
            if let Err(failure) = store::keep_alive(&self.client, lease).await {
                return failure.into();
            }
        }
        let pause = RETRY.min(self.state.settings.endpoint_ttl / 3);
        self.state.meanwhile(sleep(pause)).await.map_or(End::Stopped, |()| End::Again)
    }

    /// Reports everything.
    fn reset(&mut self) {
        let listing = std::mem::take(&mut self.listing);
        let known = &mut self.state.known;
        let same = known.store.as_ref().is_none_or(|store| *store == self.agreed.store)
            && known.revision <= listing.revision;
        self.revision = listing.revision;
        known.store = Some(self.agreed.store.clone());
        known.revision = listing.revision;
        let known = known.clone();
        self.publisher.reset(listing.own);
        self.unreadable.clone_from(&listing.view.unreadable);
        self.timers.name = None;
        self.state.say(Report::Reset { view: listing.view, known, same });
        self.timers.publish = Some(Instant::now());
    }

    async fn turn(&mut self) -> Result<(), End> {
        match self.wake().await {
            Wake::Delivered => {}
            Wake::Deaf => return Err(End::Stopped),
            Wake::Command(command) => {
                self.take(command)?;
                // A burst is one piece of work.
                while let Ok(command) = self.state.commands.try_recv() {
                    self.take(Some(command))?;
                }
            }
            Wake::Watch(Ok(Some(response))) => self.seen(&response).await?,
            Wake::Watch(Ok(None)) => return Err(End::Lost("the server ended the watch".into())),
            Wake::Watch(Err(error)) => return Err(Failure::from(error).into()),
            Wake::Written(Some(Ok((id, result)))) => {
                self.answer(id, result);
            }
            Wake::Written(Some(Err(_)) | None) | Wake::Due => {}
        }
        self.due().await
    }

    async fn wake(&mut self) -> Wake {
        let due = self.timers.next();
        let Self { state, watch, writes, timers, .. } = self;
        let TaskState { outbox, commands, .. } = &mut **state;
        let room = outbox.queue.len() < BACKLOG;
        if !room {
            // Not heard because not listened to.
            timers.silence.excuse(Instant::now());
        }
        let watch = watch.as_mut().filter(|_| room);
        let message = async {
            match watch {
                Some(watch) => watch.message().await,
                None => pending().await,
            }
        };
        let written = async {
            if writes.is_empty() {
                return pending().await;
            }
            writes.join_next().await
        };
        tokio::select! {
            delivered = outbox.deliver() => delivered.map_or(Wake::Deaf, |()| Wake::Delivered),
            command = commands.recv() => Wake::Command(command),
            message = message => Wake::Watch(message),
            written = written => Wake::Written(written),
            () = sleep_until(due) => Wake::Due,
        }
    }

    fn take(&mut self, command: Option<Command>) -> Result<(), End> {
        match command {
            None | Some(Command::Stop) => return Err(End::Stopped),
            Some(Command::Write(write)) => self.write(write),
            Some(other) => {
                if matches!(other, Command::TakeAnotherSubnet) {
                    self.publisher.unsettle();
                }
                self.state.want(other);
                self.timers.publish = Some(Instant::now());
            }
        }
        Ok(())
    }

    fn write(&mut self, write: Write) {
        let id = write.id;
        if let Some(why) = self.state.excluded() {
            let result = Err(WriteError::Refused(why.clone()));
            self.state.say(Report::Written { id, result });
            return;
        }
        if write.seen > self.revision {
            // Decided by what was there before the store was restored or wiped.
            self.state
                .say(Report::Written { id, result: Err(WriteError::Conflict(self.revision)) });
            return;
        }
        let (client, keys) = (self.client.clone(), Arc::clone(&self.state.keys));
        let me = self.state.settings.identity.node.clone();
        self.pending.insert(id, written_key(&keys, &write));
        self.writes.spawn(async move { (id, write::write(client, keys, me, write).await) });
    }

    /// Takes in what the watch says.
    async fn seen(&mut self, response: &WatchResponse) -> Result<(), End> {
        self.timers.silence.heard(Instant::now());
        if response.canceled {
            if response.compact_revision > 0 {
                return self.list_again().await;
            }
            let why = &response.cancel_reason;
            return Err(End::Lost(format!("the server ended the watch: {why}")));
        }
        if response.events.is_empty() {
            if !response.created {
                self.progressed(response.header.map_or(0, |header| header.revision));
            }
            return Ok(());
        }
        self.changed(response)
    }

    /// Two answers about progress in a row: until the first one's revision, nothing is missing.
    fn progressed(&mut self, revision: i64) {
        let until = std::mem::replace(&mut self.progress, revision).min(revision);
        if until > self.revision {
            self.report(Vec::new(), until);
        }
    }

    fn changed(&mut self, response: &WatchResponse) -> Result<(), End> {
        let settings = Arc::clone(&self.state.settings);
        let keys = Arc::clone(&self.state.keys);
        let (reader, me) = (Reader::new(&keys, &settings), settings.identity.node.as_str());
        let (mut changes, mut revision) = (Vec::new(), self.revision);
        for event in &response.events {
            let Some(pair) = &event.kv else { continue };
            revision = revision.max(pair.mod_revision);
            let put = event.r#type() == EventType::Put;
            if keys.parse(&pair.key) == Some(Key::Config) {
                // Another process cleared the store, or changed what all agreed on.
                return Err(End::Again);
            }
            let change = if put { reader.decode(pair) } else { Ok(value::gone(&keys, &pair.key)) };
            self.concerns_us(&keys, pair, put, change.as_ref().ok());
            match change {
                Ok(change) => {
                    self.readable(&pair.key);
                    changes.extend(change.filter(|change| !own_container(change, me)));
                }
                Err(why) => self.unreadable(&pair.key, why),
            }
        }
        self.report(changes, revision);
        Ok(())
    }

    /// A key cannot be read, or does not count. What was known of it before goes on.
    fn unreadable(&mut self, key: &[u8], why: String) {
        let key = String::from_utf8_lossy(key).into_owned();
        if self.unreadable.insert(key, why).is_none() {
            self.name_unreadable();
        }
    }

    fn readable(&mut self, key: &[u8]) {
        if self.unreadable.remove(&*String::from_utf8_lossy(key)).is_some() {
            self.name_unreadable();
        }
    }

    fn name_unreadable(&mut self) {
        let at = self.timers.unnamed.max(Instant::now() + GATHER);
        self.timers.name.get_or_insert(at);
    }

    /// Notes a change of what this node publishes.
    fn concerns_us(
        &mut self,
        keys: &Keys,
        pair: &KeyValue,
        put: bool,
        change: Option<&Option<Change>>,
    ) {
        let revision = pair.mod_revision;
        let mut concerns = false;
        if let Some(own) = own_key(keys, &self.state.settings.identity.node, &pair.key) {
            let held = if put { OwnKey::of(pair) } else { OwnKey::gone(revision) };
            concerns = self.publisher.saw(own, held);
        }
        if let Some(Key::Subnet(subnet) | Key::Reservation(subnet)) = keys.parse(&pair.key) {
            let owner = match change {
                Some(Some(Change::Subnet(record))) => Some(&record.owner),
                _ => None,
            };
            concerns |= self.publisher.saw_subnet(self.state, subnet, owner, revision);
        }
        if concerns {
            self.timers.publish = Some(Instant::now());
        }
    }

    fn report(&mut self, changes: Vec<Change>, revision: i64) {
        self.revision = revision;
        self.state.known.revision = revision;
        self.publisher.forget_until(revision);
        self.state.say(Report::Changed { changes, revision });
    }

    /// Reads everything again and watches on from there.
    async fn list_again(&mut self) -> Result<(), End> {
        let (settings, keys) = (Arc::clone(&self.state.settings), Arc::clone(&self.state.keys));
        self.listing = Listing::read(&self.client, &settings, &keys).await?;
        let watch = watch(&self.client, keys.root(), self.listing.revision).await?;
        self.watch = Some(watch);
        self.progress = 0;
        self.reset();
        Ok(())
    }

    /// Does what the time has come for.
    async fn due(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.listen(now).await?;
        if now >= self.timers.renew {
            self.timers.renew = now + self.publisher.renew(self.state, &self.client).await?;
            if self.publisher.needs_lease() {
                self.timers.publish = Some(now);
            }
        }
        if self.timers.name.take_if(|at| now >= *at).is_some() {
            self.timers.unnamed = now + NAMED_AGAIN;
            self.state.say(Report::Unreadable(self.unreadable.clone()));
        }
        if self.timers.denied.take_if(|at| now >= *at).is_some() {
            self.ask_to_write().await?;
        }
        if self.timers.publish.is_some_and(|at| now >= at) {
            self.timers.publish = None;
            self.publish().await?;
        }
        Ok(())
    }

    /// Finds out whether a watch that says nothing lives.
    async fn listen(&mut self, now: Instant) -> Result<(), End> {
        match self.timers.silence.due(now) {
            Duty::Wait => return Ok(()),
            Duty::AskWatch => {}
            Duty::AskStore => {
                let config = self.state.keys.text(&Key::Config);
                let range = RangeRequest::one(config).keys_only();
                let answer = bounded(self.client.get(range)).await?;
                let store = answer.header.map_or(0, |header| header.revision);
                if store < self.revision {
                    // It is none that this session has read.
                    return Err(End::Again);
                }
                if !self.timers.silence.store_is_at(Instant::now(), store, self.revision) {
                    return Ok(());
                }
            }
            Duty::GiveUp(silent) => {
                return Err(End::Lost(format!("no data on the watch for {} s", silent.as_secs())));
            }
        }
        match &self.watch {
            Some(watch) => Ok(bounded(watch.request_progress()).await?),
            None => Ok(()),
        }
    }

    async fn publish(&mut self) -> Result<(), End> {
        match self.publisher.publish(self.state, &self.client).await {
            Ok(()) => {}
            Err(Failure::Refused(why)) => {
                let why = format!("the store refuses the record of this node: {why}");
                self.state.say_excluded(Some(why));
                self.timers.publish = Some(Instant::now() + RETRY);
            }
            Err(Failure::NoLease) => self.timers.publish = Some(Instant::now()),
            Err(other) => return Err(other.into()),
        }
        Ok(())
    }

    /// Asks whether the store takes what it refused. A node that asks for nothing more would never
    /// know.
    async fn ask_to_write(&mut self) -> Result<(), End> {
        let Some(key) = &self.state.denied else { return Ok(()) };
        match store::may_write(&self.client, key).await {
            Ok(()) => {
                self.state.denied = None;
                self.state.say_denied(None);
            }
            Err(Failure::Refused(why)) => self.deny(&why),
            Err(other) => return Err(other.into()),
        }
        Ok(())
    }

    fn deny(&mut self, why: &str) {
        self.timers.denied = Some(Instant::now() + RETRY);
        self.state.say_denied(Some(format!("the store refuses objects of this node: {why}")));
    }

    /// The end of the session. What is being written is answered.
    async fn close(mut self, end: End) -> End {
        if matches!(end, End::Stopped) {
            let last = async {
                drop(self.publisher.publish(self.state, &self.client).await);
                while let Some(done) = self.writes.join_next().await {
                    if let Ok((id, result)) = done {
                        self.answer(id, result);
                    }
                }
            };
            drop(timeout(FAREWELL, last).await);
        }
        let why = match &end {
            End::Lost(why) => why.as_str(),
            End::Stopped | End::Again => "the connection was dropped",
        };
        for id in std::mem::take(&mut self.pending).into_keys() {
            let result = Err(WriteError::Away(why.to_owned()));
            self.state.say(Report::Written { id, result });
        }
        end
    }

    fn answer(&mut self, id: u64, result: Result<i64, WriteError>) {
        let key = self.pending.remove(&id);
        if let Err(WriteError::Denied(why)) = &result {
            self.state.denied = key;
            self.deny(why);
        }
        self.state.say(Report::Written { id, result });
    }
}

impl Timers {
    fn next(&self) -> Instant {
        let work = [self.publish, self.name, self.denied].into_iter().flatten();
        work.chain([self.silence.next()]).fold(self.renew, Instant::min)
    }
}

/// One of the keys that a write puts or deletes.
fn written_key(keys: &Keys, write: &Write) -> String {
    let put = write.put.iter().map(|(stored, _)| (stored.object.kind(), stored.object.key()));
    let gone = write.delete.iter().map(|(kind, key, _)| (*kind, key));
    let object = put.chain(gone).next().map(|(kind, key)| Key::Object(kind, key.clone()));
    let node = write.nodes.first().map(|name| Key::Node(name.clone()));
    keys.text(&object.or(node).unwrap_or(Key::Config))
}

fn own_container(change: &Change, me: &str) -> bool {
    matches!(change, Change::Container(node, _) | Change::ContainerGone(node, _) if node == me)
}
