use super::*;
use crate::etcd::request_op::Request;

fn item(ports: u32) -> Item {
    Item {
        object: "/c/v1/objects/service/default/rtp".into(),
        value: Some(b"{}".to_vec()),
        owner: "default/rtp".into(),
        new: (0..ports).map(|n| format!("/c/v1/claims/port/udp/{}", 30_000 + n)).collect(),
        kept: vec!["/c/v1/claims/address/10.96.0.7".into()],
        dropped: (0..9).map(|n| format!("/c/v1/claims/port/tcp/{n}")).collect(),
    }
}

fn pair(key: &str, value: &str, mod_revision: i64) -> KeyValue {
    KeyValue { key: key.into(), value: value.into(), mod_revision, ..KeyValue::default() }
}

/// As the server counts; the keys that are written.
fn check(txn: &TxnRequest, most: usize, written: &mut Vec<Vec<u8>>) {
    let widest = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    assert!(widest <= most, "{widest} of {most}");
    for operation in &txn.success {
        match operation.request.as_ref().unwrap() {
            Request::Txn(within) => check(within, most - widest, written),
            Request::Put(put) => written.push(put.key.clone()),
            Request::DeleteRange(delete) => written.push(delete.key.clone()),
            Request::Range(_) => panic!("nothing is read"),
        }
    }
}

/// Rows: RD3
#[test]
fn ten_thousand_claims_are_one_transaction_that_the_server_takes() {
    for ports in [60, 1_000, 10_000] {
        let item = item(ports);
        let stretches = stretches(&item);
        let puts: Vec<&str> = item.new.iter().map(String::as_str).collect();
        let mut written = Vec::new();
        check(&transaction(&item, (5, 9), &stretches, &puts), 128, &mut written);
        let once: BTreeSet<&Vec<u8>> = written.iter().collect();
        assert_eq!(once.len(), written.len());
        assert_eq!(written.len(), 1 + puts.len() + item.dropped.len());
    }
}

/// Rows: RD3
#[test]
fn stretches_hold_all_claims_and_a_lone_one_alone() {
    let item = item(1_000);
    let stretches = stretches(&item);
    assert!(stretches.len() <= 1 + STRETCHES);
    for claim in item.new.iter().chain(&item.kept) {
        let holds = |one: &&RangeRequest| {
            let key = claim.as_bytes();
            if one.range_end.is_empty() {
                key == one.key
            } else {
                key >= one.key.as_slice() && key < one.range_end.as_slice()
            }
        };
        assert_eq!(stretches.iter().filter(holds).count(), 1, "{claim}");
    }
    assert!(stretches[0].range_end.is_empty());
}

/// Rows: RD3
#[test]
fn what_changed_since_the_decision_is_a_conflict_and_what_stood_is_looked_at() {
    let item = item(3);
    let judged = |pairs: &[KeyValue]| {
        let found = pairs.iter().map(|pair| (pair.key.as_slice(), pair)).collect();
        match judge(&item, 10, &found) {
            Judged::Conflict(at) => Err(at),
            Judged::Puts { claims, others } => {
                let others: Vec<_> = others.iter().map(|(claim, _)| (*claim).to_owned()).collect();
                Ok((claims.len(), others))
            }
        }
    };
    let (port, address) = (item.new[1].as_str(), item.kept[0].as_str());
    let kept = pair(address, "default/rtp", 3);
    assert_eq!(judged(std::slice::from_ref(&kept)), Ok((3, vec![])));
    // Another writer removed the kept one: it is written again.
    assert_eq!(judged(&[]), Ok((4, vec![])));
    let others = [kept.clone(), pair(port, "default/old", 8)];
    assert_eq!(judged(&others), Ok((3, vec![port.to_owned()])));
    assert_eq!(judged(&[kept, pair(port, "default/old", 11)]), Err(11));
}
