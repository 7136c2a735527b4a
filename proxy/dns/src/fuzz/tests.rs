use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{ZONE, query};

/// Names of every kind, with types and classes.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        "web.default.svc.cluster.local",
        "_http._tcp.web.default.svc.cluster.local",
        "db.default.svc.cluster.local",
        "db-0.db.default.svc.cluster.local",
        "10-244-0-2.db.default.svc.cluster.local",
        "a.b.pin._zone.db.default.svc.cluster.local",
        "in.default.svc.cluster.local",
        "out.default.svc.cluster.local",
        "loop.default.svc.cluster.local",
        "1-2-3-4.default.pod.cluster.local",
        "1.0.96.10.in-addr.arpa",
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa",
        "ns.dns.cluster.local",
        "cluster.local",
        "example.com",
    ];
    let types = select(vec![1_u8, 2, 5, 6, 12, 16, 28, 33, 255, 252, 41, 0]);
    (select(names.to_vec()), types, any::<bool>()).prop_map(|(name, kind, edns)| {
        let mut bytes = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).expect("a short label"));
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
        if edns {
            bytes.extend_from_slice(&[0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    })
}

#[test]
fn the_zone_has_all_services() {
    let there = ["web", "db", "out", "in", "loop"].map(|name| ZONE.service("default", name));
    assert!(there.iter().all(Option::is_some));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn queries_with_wrong_bytes_are_answered_or_refused(
        message in message(),
        wrong in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in proptest::option::weighted(0.1, any::<Index>()),
    ) {
        let mut bytes = message;
        for (place, byte) in wrong {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        query(&bytes);
    }
}
