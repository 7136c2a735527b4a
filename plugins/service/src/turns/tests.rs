use super::{in_force, next};
use crate::mapping::{Binding, Protocol};
use crate::record::{Again, Masquerade, Record, RecordBackend};
use causeway_host::RecordKey;

fn key(network: &str) -> RecordKey {
    let (network, container_id, ifname) = (network.to_owned(), "c".to_owned(), "eth0".to_owned());
    RecordKey { network, container_id, ifname }
}

/// An attachment with `turn` that maps these host ports to container port 80.
fn attached(network: &str, turn: u32, ports: &[u16]) -> (RecordKey, Record) {
    let binding = |port: &u16| Binding {
        protocol: Protocol::Tcp,
        host: None,
        host_port: *port,
        target: "10.0.0.2:80".parse().expect("an address"),
    };
    let record = Record {
        backend: RecordBackend::Nftables,
        bindings: ports.iter().map(binding).collect(),
        masquerade: Masquerade::Needed,
        conditions_v4: None,
        conditions_v6: None,
        again: Again { turn, ..Again::default() },
    };
    (key(network), record)
}

fn ports(of: &(RecordKey, Record), all: &[(RecordKey, Record)]) -> Vec<u16> {
    in_force(&of.0, &of.1, all).bindings.iter().map(|one| one.host_port).collect()
}

/// Rows: RC2
#[test]
fn the_earliest_serves_and_the_next_one_takes_over() {
    let all =
        [attached("b", 0, &[80, 81]), attached("a", 1, &[80, 82]), attached("c", 2, &[80, 81])];
    assert_eq!(next(&all), 3);
    assert_eq!(ports(&all[0], &all), [80, 81]);
    assert_eq!(ports(&all[1], &all), [82]);
    assert_eq!(ports(&all[2], &all), [0; 0]);
    assert_eq!(ports(&all[1], &all[1..]), [80, 82]);
    assert_eq!(ports(&all[2], &all[1..]), [81]);
    // One whose DEL has begun counts no more.
    let mut leaving = all.clone();
    leaving[0].1.again.leaving = true;
    assert_eq!(ports(&all[1], &leaving), [80, 82]);
}

/// Rows: RC2
#[test]
fn only_the_same_packets_are_served() {
    let (first, second) = (attached("a", 0, &[80]), attached("b", 1, &[80]));
    let mut conditional = first.clone();
    conditional.1.conditions_v4 = Some("x".to_owned());
    assert_eq!(ports(&second, &[conditional.clone(), second.clone()]), [80]);
    let mut alike = second.clone();
    alike.1.conditions_v4 = Some("x".to_owned());
    assert_eq!(ports(&alike, &[conditional, alike.clone()]), [0; 0]);
    assert_eq!(ports(&alike, &[first.clone(), alike.clone()]), [0; 0]);
    let mut iptables = first;
    iptables.1.backend = RecordBackend::Iptables;
    assert_eq!(ports(&second, &[iptables, second.clone()]), [80]);
}
