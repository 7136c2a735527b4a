//! The endpoint of an attachment: the events sent to the daemon at ADD and DEL.
//!
//! An event goes to the daemon's socket, and into the spool when nobody takes it there. Nothing is
//! lost: an event that is neither delivered nor spooled fails its operation. Nothing is left
//! without a daemon: DEL takes back what ADD spooled, and leaves an event of its own only if the
//! daemon may know the container, that is
//!
//! - a connection took the event of ADD, wherever that ended (`announced` in the record, written
//!   before it was sent), or
//! - the spooled event is there no longer and a daemon has read this spool before.
//!
//! All of it runs under the attachment's lock; `seq` is taken there, so that of two events the later
//! operation's is the higher.

use std::io;
use std::path::Path;
use std::time::Duration;

use causeway_api::{Client, EventAnswer, Spool};
use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records, boot_id, boot_time};
use causeway_kernel::Netns;
use causeway_model::{EndpointEvent, EndpointRecord};
use cni_plugin::{Code, Error};

use crate::config::Daemon;
use crate::failure::{self, warn};
use crate::record::{Announcement, endpoint_key, netns};

/// How long the daemon may take until its rules hold an event.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The endpoint of one attachment. Call all of it under the attachment's lock.
#[derive(Debug)]
pub(crate) struct Endpoint<'a> {
    daemon: &'a Daemon,
    records: Records,
    key: &'a RecordKey,
}

impl<'a> Endpoint<'a> {
    /// The endpoint of `key`; nothing is touched yet.
    pub(crate) fn new(run_dir: &Path, daemon: &'a Daemon, key: &'a RecordKey) -> Self {
        Self { daemon, records: Records::new(run_dir, kind::ENDPOINT), key }
    }

    /// Tells of the container, and returns when the daemon's rules have it or the spool has.
    ///
    /// # Errors
    /// Code 104 if the daemon is required and does not take it, 5 if nobody does.
    /// [`Endpoint::remove`] takes back what was done then.
    pub(crate) fn add(&self, record: EndpointRecord) -> Result<(), Error> {
        let event = event(self.key, Some(record))?;
        let spool = Spool::new(&self.daemon.spool);
        let known = self.read().is_some_and(|before| before.announced)
            // An event of DEL that waits is replaced below: whom it was for is to be told still.
            || matches!(spool.get(&event.key), Ok(Some(last)) if last.record.is_none());
        let id = |path: &str| Netns::open(path).and_then(|netns| netns.id()).ok();
        let mut note = Announcement {
            netns_id: netns(&event).and_then(id),
            socket: self.daemon.socket.clone(),
            spool: self.daemon.spool.clone(),
            announced: known || self.daemon.socket.exists(),
            event: Some(event.clone()),
        };
        self.write(&note)?;
        let why = match send(&note.socket, &event) {
            Ok(warnings) => {
                warnings.iter().for_each(|text| warn(text));
                // An older one, which would only be skipped.
                drop(spool.withdraw(&event.key));
                return Ok(());
            }
            Err(why) => why,
        };
        if self.daemon.required {
            let msg = format!(
                "requireDaemon is set, but causewayd cannot register the container at {}; start \
                 it, or unset requireDaemon",
                note.socket.display()
            );
            return Err(Error::caused(Code::DaemonUnreachable, msg, &why));
        }
        spool.put(&event).map_err(|error| unspooled(&note.spool, &why, &error))?;
        tell(&why);
        if is_unreachable(&why) && note.announced && !known {
            note.announced = false;
            self.write(&note)?;
        }
        Ok(())
    }

    /// Takes the container out of rotation, and returns when the daemon has done so or will find
    /// it in the spool. Any number of times, also for what was never told.
    ///
    /// # Errors
    /// Code 5 if the daemon may know the container and neither it nor the spool takes the event.
    /// The record stays then, so that the next attempt does all again.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let note = self.read();
        let (socket, folder) = match &note {
            Some(note) => (&note.socket, &note.spool),
            None => (&self.daemon.socket, &self.daemon.spool),
        };
        let spool = Spool::new(folder);
        let event = event(self.key, None)?;
        // First, so that no daemon finds it there after it was told otherwise.
        let withdrawn = spool.withdraw(&event.key).unwrap_or(false);
        if let Err(why) = send(socket, &event) {
            let announced = note.as_ref().is_some_and(|note| note.announced);
            if announced || (!withdrawn && spool.was_read()) {
                spool.put(&event).map_err(|error| unspooled(folder, &why, &error))?;
                tell(&why);
            }
        }
        let forgotten = self.records.remove(self.key);
        forgotten.map_err(|error| failure::kernel("remove the endpoint's record", &error))
    }

    /// Whether the container is proven to be gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.read().is_some_and(|note| note.is_dead())
    }

    /// A damaged record counts as none.
    fn read(&self) -> Option<Announcement> {
        self.records.read(self.key).unwrap_or_else(|error| {
            warn(&format!("{error}; continuing without it"));
            None
        })
    }

    fn write(&self, note: &Announcement) -> Result<(), Error> {
        let written = self.records.write(self.key, note);
        written.map_err(|error| failure::kernel("record the endpoint", &error))
    }
}

/// Whether a daemon takes connections.
pub(crate) fn answers(daemon: &Daemon) -> bool {
    Client::new(&daemon.socket).reach().is_ok()
}

fn event(key: &RecordKey, record: Option<EndpointRecord>) -> Result<EndpointEvent, Error> {
    let boot_id = boot_id().map_err(|error| Error::caused(Code::Io, "read the boot id", &error))?;
    let seq = u64::try_from(boot_time().as_nanos()).unwrap_or(u64::MAX);
    Ok(EndpointEvent { key: endpoint_key(key.clone()), seq, boot_id, record })
}

/// Tells the daemon. Returns what it wants to be known.
fn send(socket: &Path, event: &EndpointEvent) -> Result<Vec<String>, causeway_api::Error> {
    let body = serde_json::to_vec(event).expect("JSON of strings and numbers");
    let answer = Client::new(socket).request("PUT", "/v1/events", &body, ANSWER_WAIT)?;
    // Most answers are empty.
    let answer: EventAnswer = serde_json::from_slice(&answer).unwrap_or_default();
    Ok(answer.warnings)
}

fn is_unreachable(error: &causeway_api::Error) -> bool {
    matches!(error, causeway_api::Error::Unreachable { .. })
}

/// That there is no daemon is nothing to tell: host ports and networks need none.
fn tell(why: &causeway_api::Error) {
    if !is_unreachable(why) {
        let error =
            Error::caused(Code::Io, "causewayd does not accept an event; it is spooled", why);
        warn(&error.to_string());
    }
}

fn unspooled(folder: &Path, why: &causeway_api::Error, error: &io::Error) -> Error {
    let msg = format!(
        "spoolDir: {} cannot take an event for causewayd, which does not respond ({why}); free \
         some space or use another directory",
        folder.display()
    );
    Error::caused(Code::Io, msg, error)
}
