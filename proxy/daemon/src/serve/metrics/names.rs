//! Metrics of the name server: CoreDNS's names if they mean the same, `causeway_dns_` for the rest.

use causeway_dns::{Counters, TYPES};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::state::State;

/// Codes by number (RFC 1035, RFC 2136); what has none is the last.
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// Label of questions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQuestion {
    family: &'static str,
    proto: &'static str,
    r#type: &'static str,
}

/// Label of answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRcode {
    rcode: &'static str,
}

/// What is counted; nothing if the name server is off.
pub(super) fn register(registry: &mut Registry, state: &State) {
    let Some(names) = &state.names else { return };
    let counters = &*names.counters;
    coredns(registry.sub_registry_with_prefix("coredns"), counters);
    let registry = registry.sub_registry_with_prefix("causeway_dns");
    for (name, help, counter) in [
        ("malformed_udp", "Messages over UDP that are no question", &counters.malformed[0]),
        ("malformed_tcp", "Messages over TCP that are no question", &counters.malformed[1]),
        ("unsent", "Answers over UDP that could not be sent", &counters.unsent),
        ("forwarded", "Questions to upstreams", &counters.forwarded),
        ("connections", "Connections over TCP", &counters.connections[0]),
        ("connections_refused", "Connections beyond what is served", &counters.too_many),
        ("strangers", "Messages of clients that are not answered", &counters.strangers),
        ("truncated", "Answers that were cut for UDP", &counters.truncated),
        ("left_out", "Answers over TCP that were too long to be whole", &counters.left_out),
        ("stale", "Questions answered with something old", &counters.stale),
        ("unanswered", "Questions that no upstream answered", &counters.unanswered),
        ("stray", "Replies of upstreams to another question", &counters.stray),
        ("accept_errors", "Errors of accept", &counters.accept_errors),
        ("deaf", "Listeners that did not answer this process", &counters.deaf),
    ] {
        registry.register(name, help, ConstCounter::new(counter.get()));
    }
}

fn coredns(registry: &mut Registry, counters: &Counters) {
    let questions = Family::<ByQuestion, Counter>::default();
    for (proto, families) in ["udp", "tcp"].into_iter().zip(&counters.questions) {
        for (family, types) in ["1", "2"].into_iter().zip(families) {
            for (r#type, counter) in TYPES.into_iter().zip(types) {
                let of = ByQuestion { family, proto, r#type };
                if counter.get() > 0 {
                    questions.get_or_create(&of).inc_by(counter.get());
                }
            }
        }
    }
    registry.register("dns_requests", "Questions; family 1 is IPv4, 2 IPv6", questions);
    let responses = Family::<ByRcode, Counter>::default();
    for (code, counter) in counters.responses.iter().enumerate() {
        let rcode = CODES.get(code).copied().unwrap_or("other");
        responses.get_or_create(&ByRcode { rcode }).inc_by(counter.get());
    }
    registry.register("dns_responses", "Answers by code", responses);
    for (name, help, counter) in [
        ("cache_hits", "Questions answered from the cache", &counters.hits),
        ("cache_misses", "Questions that were not in the cache", &counters.misses),
        ("cache_prefetch", "Busy names asked before they ended", &counters.prefetched),
        ("cache_evictions", "Answers dropped to make room", &counters.evicted),
        ("forward_max_concurrent_rejects", "Questions beyond those that wait", &counters.overflow),
    ] {
        registry.register(name, help, ConstCounter::new(counter.get()));
    }
    registry.register("cache_entries", "Answers kept", ConstGauge::new(counters.entries.get()));
}
