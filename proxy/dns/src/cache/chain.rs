//! How long an answer may be kept: TTLs of the chain of CNAMEs, denials by their SOA (RFC 2308).

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::{Question, Reply};

/// Seconds that an answer is kept at most.
const MAX_ANSWER: u32 = 3600;

/// Seconds that a denial is kept at most.
const MAX_DENIAL: u32 = 1800;

/// CNAMEs that are followed at most; more are taken for a loop.
const MAX_CHAIN: usize = 16;

/// Of what use an answer is, with the seconds for which it may be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Records.
    Answer(u32),
    /// NXDOMAIN or NODATA, at the end of CNAMEs too.
    Denial(u32),
    /// SERVFAIL.
    Failure,
    /// It may be passed on and must not be kept: contradicting or looping CNAMEs, a denial without
    /// SOA, any other code.
    Nothing,
}

/// Judges an answer.
pub(super) fn worth(question: &Question, reply: &Reply) -> Worth {
    if reply.code == ResponseCode::ServFail {
        return Worth::Failure;
    }
    if !matches!(reply.code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Worth::Nothing;
    }
    let Some(end) = follow(question, &reply.answers) else { return Worth::Nothing };
    let shortest = reply.answers.iter().map(ttl).min().unwrap_or(MAX_ANSWER);
    if end.has_records && reply.code == ResponseCode::NoError {
        return Worth::Answer(shortest.min(MAX_ANSWER));
    }
    let soa = reply.authority.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        record.name.zone_of(end.name).then(|| ttl(record).min(soa.minimum))
    });
    soa.map_or(Worth::Nothing, |soa| Worth::Denial(soa.min(shortest).min(MAX_DENIAL)))
}

/// The answer as it is kept for `life` seconds: no TTL beyond what a client may keep.
pub(super) fn bounded(reply: &Reply, life: u32) -> Reply {
    let mut reply = reply.clone();
    let sections = [&mut reply.answers, &mut reply.authority, &mut reply.additional];
    for record in sections.into_iter().flatten() {
        let denial = matches!(record.data, RData::SOA(_));
        record.ttl = ttl(record).min(if denial { life } else { MAX_ANSWER });
    }
    reply
}

/// A TTL with the first bit set counts as 0 (RFC 2181 section 8).
fn ttl(record: &Record) -> u32 {
    if record.ttl > i32::MAX as u32 { 0 } else { record.ttl }
}

/// Where a chain of CNAMEs ends.
struct Tail<'a> {
    name: &'a Name,
    has_records: bool,
}

/// Follows CNAMEs from the question, in whatever order they stand. `None`: they contradict each other,
/// or loop.
fn follow<'a>(question: &'a Question, answers: &'a [Record]) -> Option<Tail<'a>> {
    let mut name = &question.name;
    let any = matches!(question.record_type, RecordType::ANY | RecordType::CNAME);
    for _ in 0..=MAX_CHAIN {
        let here = || answers.iter().filter(|record| record.name == *name);
        let has_records = here().any(|record| any || record.record_type() == question.record_type);
        let mut targets = here().filter_map(|record| {
            let RData::CNAME(target) = &record.data else { return None };
            Some(&target.0)
        });
        let Some(target) = targets.next() else { return Some(Tail { name, has_records }) };
        if targets.any(|other| other != target) {
            return None;
        }
        if any {
            return Some(Tail { name, has_records });
        }
        if has_records {
            return None;
        }
        name = target;
    }
    None
}
