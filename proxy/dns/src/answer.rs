//! What a question is answered, from the names of the cluster alone.
//!
//! Kubernetes DNS specification 1.1.0; RFC 1034 section 4.3.2, RFC 2308 (denials), RFC 6604 (codes of
//! chains), RFC 8482 (ANY).

mod names;
mod place;
mod records;
mod reverse;
mod shuffle;

#[cfg(test)]
mod tests;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::message::{Limit, Question, Reply, UDP_PAYLOAD};
use crate::zone::Zone;
use place::{Found, Place};
use records::Order;
use shuffle::Shuffle;

/// How many aliases are followed (row D-43).
const CHAIN: usize = 10;

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answered.
    Own(Reply),
    /// The name is not ours.
    Forward,
    /// An ExternalName leads outside. The reply has these records first, then those of the target, and
    /// AA (rows D-09, D-43).
    Chase {
        /// The aliases so far.
        answers: Vec<Record>,
        /// Where the last one leads.
        target: Name,
    },
}

/// Answers a question. Equal seeds give equal orders of addresses; a server counts its answers, from
/// wherever it begins, and takes the count, so that each address is first as often as the others
/// (row D-41).
///
/// Of class ANY it is answered what IN would be, without AA (RFC 1035 section 6.2); other classes are
/// refused, and so are transfers of zones (row D-21).
pub fn answer(zone: &Zone, question: &Question, seed: u64) -> Answer {
    answer_within(zone, question, seed, Limit::Tcp)
}

/// The same for what carries the answer. Of a service with very many endpoints it has as many records
/// as show that they do not fit, so that a query over UDP does not cost what an answer over TCP does.
pub fn answer_within(zone: &Zone, question: &Question, seed: u64, limit: Limit) -> Answer {
    if !matches!(question.class, DNSClass::IN | DNSClass::ANY)
        || matches!(question.record_type, RecordType::AXFR | RecordType::IXFR)
    {
        return Answer::Own(Reply::of(ResponseCode::Refused, false));
    }
    let authoritative = question.class == DNSClass::IN;
    let Some(mut found) = find(zone, &question.name) else { return Answer::Forward };
    let mut reply = Reply::of(ResponseCode::NoError, authoritative);
    if !zone.synced() {
        reply.code = ResponseCode::ServFail;
        return Answer::Own(reply);
    }
    let mut order = Order { shuffle: Shuffle::new(seed), most: most(limit) };
    let mut name = question.name.clone();
    while let Place::Alias(service) = found.place {
        let Some(target) = names::external(service) else {
            return Answer::Own(records::deny(zone, &found, &name, reply));
        };
        if reply.answers.len() == CHAIN || reply.answers.iter().any(|one| one.name == name) {
            return Answer::Own(reply);
        }
        let data = RData::CNAME(CNAME(target.clone()));
        reply.answers.push(Record::from_rdata(name, zone.settings().ttl, data));
        if matches!(question.record_type, RecordType::CNAME | RecordType::ANY) {
            return Answer::Own(reply);
        }
        name = target;
        match find(zone, &name) {
            Some(next) => found = next,
            None => return Answer::Chase { answers: reply.answers, target: name },
        }
    }
    if found.place == Place::Missing {
        reply.code = ResponseCode::NXDomain;
        return Answer::Own(records::deny(zone, &found, &name, reply));
    }
    let before = reply.answers.len();
    records::add(zone, &found, (&name, question.record_type), &mut order, &mut reply);
    if reply.answers.len() == before {
        reply = records::deny(zone, &found, &name, reply);
    }
    Answer::Own(reply)
}

/// More records than fit: each takes a pointer, ten bytes and an address at least.
fn most(limit: Limit) -> usize {
    let bytes = match limit {
        Limit::Udp => UDP_PAYLOAD,
        Limit::Tcp => u16::MAX,
    };
    usize::from(bytes) / 16 + 1
}

/// What stands at a name; `None` if it is not ours.
fn find<'a>(zone: &'a Zone, name: &Name) -> Option<Found<'a>> {
    if zone.settings().domain.zone_of(name) {
        return Some(place::find(zone, name));
    }
    reverse::find(zone, name)
}
