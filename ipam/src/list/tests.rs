//! The list of leases.

use super::*;

#[test]
fn times_are_those_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_795_359_840, "2026-11-22T15:04:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(seconds), text);
    }
}

#[test]
fn leases_are_listed_by_network_and_a_node_without_any_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("causeway");
    assert_eq!(list((&data, folder.path()), None, Duration::ZERO).expect("an empty list"), []);
    let now = facts::now();
    for (network, address) in [("b", "10.1.0.2"), ("a", "10.2.0.9"), ("a", "10.2.0.3")] {
        let place = Place { network: network.into(), data_dir: data.clone(), ..Place::default() };
        let lease = Lease {
            address: address.parse().expect("an address"),
            owner: Owner { container_id: format!("c-{address}"), ifname: "eth0".into() },
            since: 0,
            boot_ms: 0,
        };
        let change = store::Change { lease: vec![lease], ..store::Change::default() };
        let done: Result<(), store::Error> =
            session::with_store(&place, Patience::USUAL, &now, |store| store.commit(change));
        done.expect("a lease");
    }
    let all = list((&data, folder.path()), None, Duration::from_secs(1)).expect("a list");
    let shown: Vec<_> = all.iter().map(|one| format!("{} {}", one.network, one.address)).collect();
    assert_eq!(shown, ["a 10.2.0.3", "a 10.2.0.9", "b 10.1.0.2"]);
    assert_eq!(all[0].since, "1970-01-01T00:00:00Z");
    assert_eq!(
        list((&data, folder.path()), Some("b"), Duration::from_secs(1)).expect("a list").len(),
        1
    );
}
