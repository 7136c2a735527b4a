//! Names of services: what a resolver of a container is answered, from the same facts as the rules.
//!
//! Two halves. Pure (invariant I1): [`Zone`] holds what names lead to, `answer` computes what a
//! question is answered, `message` reads and writes DNS messages, `cache` and `resolv` decide with
//! time as an argument. The edge: `server` listens, `forward` asks the servers above; both in a
//! thread of their own, so that no burst of questions delays a rule, and no burst of rules an answer.
//!
//! Sources: Kubernetes DNS specification 1.1.0 (kubernetes/dns docs/specification.md), RFC 1035, 2308,
//! 6891 (EDNS), 7766 (TCP), 8482 (ANY), 8767 (stale answers).
#![forbid(unsafe_code)]

mod answer;
mod cache;
mod counters;
#[cfg(test)]
mod fixture;
mod forward;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod message;
mod random;
mod resolv;
mod server;
#[cfg(test)]
mod testing;
mod upstream;
mod zone;

pub use answer::{Answer, answer, answer_within};
pub use cache::Stale;
pub use counters::{Counter, Counters, LATENCY_ENDS, Latency, TYPES};
pub use hickory_proto::rr::{Name, RecordType};
pub use message::{
    Edns, Limit, Question, Refusal, Reply, Request, UDP_PAYLOAD, Written, read, write, write_into,
};
pub use resolv::{MAX_UPSTREAMS, ResolvConf, Upstream};
pub use server::{Asker, Change, Config, Lookup, Outside, Problems, Server, Sources};
pub use zone::{Host, PodRecords, ServiceNames, Zone, ZoneSettings};
