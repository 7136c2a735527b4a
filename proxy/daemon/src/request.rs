//! Requests of clients to the engine, with the channel for the answer.

pub(crate) mod answer;

use std::fmt;
use std::net::IpAddr;

use causeway_api::{
    Applied, Apply, Description, DnsRequest, Problem, Status, SvcTest, TraceAnswer, TraceRequest,
};
use causeway_model::{EndpointEvent, Labels, ObjectKey, ObjectKind};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use self::answer::{Health, Item, Kind, Lines, Prepared, Questions};

/// A request. Changes are answered when they are committed, queries after the changes before them.
#[derive(Debug)]
pub(crate) enum Request {
    /// `PUT /v1/events`
    Event {
        /// The event.
        event: EndpointEvent,
        /// What containerd knows of the container, merged over the labels of the record.
        labels: Labels,
        /// Answered when the rules are in the kernel, with what whoever attaches should know.
        reply: Reply<Vec<String>>,
    },
    /// `POST /v1/apply`
    Apply {
        /// The objects, each read when its turn comes: as values they take many times the room.
        apply: Apply<Box<RawValue>>,
        /// Answered when stored, or with [`Apply::wait`] when the rules are in the kernel.
        reply: Reply<Applied>,
    },
    /// `DELETE /v1/KIND/NAMESPACE/NAME`, `POST /v1/delete`
    Delete {
        /// What is to go.
        targets: Vec<Target>,
        /// Answered when the rules are in the kernel.
        reply: Reply<Applied>,
    },
    /// Reads the state: [`crate::serve::Front::answer`].
    Query(Query),
}

/// A question about the state, with the place for the answer.
#[derive(Debug)]
pub(crate) enum Query {
    /// All objects of a kind.
    List { kind: Kind, namespace: Option<String>, reply: Reply<Vec<Item>> },
    /// One object.
    Get { kind: Kind, key: ObjectKey, reply: Reply<Item> },
    /// Changes of a list.
    Watch { kind: Kind, namespace: Option<String>, reply: Reply<Lines> },
    /// A service with its endpoints.
    Describe { key: ObjectKey, reply: Reply<Description> },
    /// State of the daemon.
    Status { reply: Reply<Status> },
    /// What happens to a packet; `local` are the addresses of this node.
    Trace { request: TraceRequest, local: Vec<IpAddr>, reply: Reply<TraceAnswer> },
    /// The questions of a resolver, and who answers them.
    Dns { request: DnsRequest, reply: Reply<Questions> },
    /// Names of a test resolved.
    SvcTest { request: SvcTest, reply: Reply<Prepared> },
    /// Whether services are kept up to date.
    Health { reply: Reply<Health> },
    /// The exposition text.
    Metrics { reply: Reply<String> },
}

/// An object to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An object.
    Object(ObjectKind, ObjectKey),
    /// The slices that a `v1 Endpoints` document of this name became.
    Endpoints(ObjectKey),
}

/// Where the answer goes. Nobody may be waiting any more.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Why.
    pub problem: Problem,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)?;
        self.problem.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Refused {
    /// A refusal of one sentence.
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, problem: Problem { message: message.into(), causes: Vec::new() } }
    }

    /// A refusal with the causes of `error`, which is said first.
    pub(crate) fn caused(status: u16, message: &str, error: &dyn std::error::Error) -> Self {
        let mut causes = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            causes.push(error.to_string());
            source = error.source();
        }
        Self { status, problem: Problem { message: message.to_owned(), causes } }
    }
}
