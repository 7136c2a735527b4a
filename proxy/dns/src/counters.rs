//! What is counted; read by whoever shows metrics, at any time and from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// A number that only grows, or says how many there are at present.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many at present.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Types of questions that are told apart; the last stands for all others.
pub const TYPES: [&str; 12] =
    ["A", "AAAA", "CNAME", "SRV", "PTR", "TXT", "SOA", "NS", "MX", "HTTPS", "ANY", "other"];

/// Upper ends of [`Latency`], milliseconds; one more bucket holds what took longer.
pub const LATENCY_ENDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4000];

/// How long something took.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; LATENCY_ENDS.len() + 1],
    microseconds: AtomicU64,
}

impl Latency {
    pub(crate) fn add(&self, took: Duration) {
        let milliseconds = took.as_micros().div_ceil(1000);
        let bucket = LATENCY_ENDS.iter().take_while(|end| u128::from(**end) < milliseconds).count();
        self.buckets[bucket].add();
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// How often, up to each of [`LATENCY_ENDS`] and beyond; not cumulated.
    pub fn buckets(&self) -> [u64; LATENCY_ENDS.len() + 1] {
        std::array::from_fn(|index| self.buckets[index].get())
    }

    /// All of it together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.microseconds.load(Ordering::Relaxed))
    }
}

/// All counters. What the daemon shows them as is its own affair.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions by protocol (UDP, TCP), family of the client (IPv4, IPv6), and type ([`TYPES`]).
    pub questions: [[[Counter; TYPES.len()]; 2]; 2],
    /// Messages that were no question, by protocol.
    pub malformed: [Counter; 2],
    /// Messages of who is not answered.
    pub strangers: Counter,
    /// Answers by code, 0 to 15; the last counts all others.
    pub responses: [Counter; 17],
    /// Answers over UDP that could not be sent.
    pub unsent: Counter,
    /// Answers that were cut for UDP.
    pub truncated: Counter,
    /// Answers over TCP that were too long to be whole (row D-41).
    pub left_out: Counter,
    /// Outside names: all questions, and those of type AAAA (row D-61).
    pub outside: [Counter; 2],
    /// Answered from the cache.
    pub hits: Counter,
    /// Not in the cache.
    pub misses: Counter,
    /// Answered with something old.
    pub stale: Counter,
    /// Busy names that were asked before they ended.
    pub prefetched: Counter,
    /// Answers that are kept at present.
    pub entries: Counter,
    /// Answers that went to make room.
    pub evicted: Counter,
    /// Questions to upstreams.
    pub forwarded: Counter,
    /// Questions that no upstream answered.
    pub unanswered: Counter,
    /// Replies that were none of the question that was asked (row D-55).
    pub stray: Counter,
    /// Questions beyond the thousand that may wait (row D-53).
    pub overflow: Counter,
    /// Clients that wait for an upstream at present.
    pub waiting: Counter,
    /// How long upstreams took, the wait for silent ones before included.
    pub upstream_time: Latency,
    /// TCP connections, all and present.
    pub connections: [Counter; 2],
    /// TCP connections beyond what one address, or all, may have.
    pub too_many: Counter,
    /// Errors of accept.
    pub accept_errors: Counter,
    /// Own questions to own listeners that failed (row D-50).
    pub deaf: Counter,
}

impl Counters {
    /// Counts a question of `protocol` (0 UDP, 1 TCP).
    pub(crate) fn question(&self, protocol: usize, ipv6: bool, record_type: RecordType) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the last of TYPES is for all others")]
        let index = match record_type {
            RecordType::A => 0,
            RecordType::AAAA => 1,
            RecordType::CNAME => 2,
            RecordType::SRV => 3,
            RecordType::PTR => 4,
            RecordType::TXT => 5,
            RecordType::SOA => 6,
            RecordType::NS => 7,
            RecordType::MX => 8,
            RecordType::HTTPS => 9,
            RecordType::ANY => 10,
            _ => 11,
        };
        self.questions[protocol][usize::from(ipv6)][index].add();
    }

    /// Counts an answer.
    pub(crate) fn response(&self, code: ResponseCode) {
        self.responses[usize::from(u16::from(code)).min(16)].add();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_up_to_the_end_of_its_bucket() {
        let latency = Latency::default();
        for micros in [0, 1000, 1001, 4_000_000, 4_000_001] {
            latency.add(Duration::from_micros(micros));
        }
        let buckets = latency.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[11], buckets[12]), (2, 1, 1, 1));
        assert_eq!(latency.sum(), Duration::from_micros(8_002_002));
    }

    #[test]
    fn codes_beyond_the_header_are_counted_together() {
        let counters = Counters::default();
        counters.response(ResponseCode::BADVERS);
        counters.response(ResponseCode::NXDomain);
        assert_eq!((counters.responses[16].get(), counters.responses[3].get()), (1, 1));
        counters.question(1, true, RecordType::AAAA);
        counters.question(0, false, RecordType::CAA);
        assert_eq!(counters.questions[1][1][1].get(), 1);
        assert_eq!(counters.questions[0][0][11].get(), 1);
    }
}
