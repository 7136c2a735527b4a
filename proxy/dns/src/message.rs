//! What is asked and what is answered, and both in bytes.

mod names;
mod read;
mod write;

#[cfg(test)]
mod tests;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

pub use read::{Refusal, read};
pub use write::{Limit, Written, write, write_into};

/// Bytes of UDP payload that we send and take at most: what fits into every path (row D-40).
pub const UDP_PAYLOAD: u16 = 1232;

/// A question. `Name` compares without regard to case and keeps the case that was asked (row D-19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, fully qualified.
    pub name: Name,
    /// QTYPE
    pub record_type: RecordType,
    /// QCLASS
    pub class: DNSClass,
}

/// The OPT record of a query (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Bytes of UDP payload that the client takes.
    pub payload: u16,
    /// EDNS version; other than 0 is answered BADVERS.
    pub version: u8,
    /// DO: DNSSEC records are wanted.
    pub dnssec_ok: bool,
}

/// A query with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// ID
    pub id: u16,
    /// The question.
    pub question: Question,
    /// RD
    pub recursion_desired: bool,
    /// CD
    pub checking_disabled: bool,
    /// OPT, if there is one.
    pub edns: Option<Edns>,
}

/// What is answered; id, RD and question come from the request, RA is always set (row D-44).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// RCODE
    pub code: ResponseCode,
    /// AA: the name is of our own zone.
    pub authoritative: bool,
    /// Answer section, in this order.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section, without OPT.
    pub additional: Vec<Record>,
}

impl Reply {
    /// A code and nothing else.
    pub fn of(code: ResponseCode, authoritative: bool) -> Self {
        Self {
            code,
            authoritative,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }
}
