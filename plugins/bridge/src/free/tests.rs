use super::*;

fn key() -> RecordKey {
    RecordKey { network: "net".into(), container_id: "abc".into(), ifname: "eth0".into() }
}

/// A renamed link is known by its mark; an unmarked one by its name alone.
///
/// Rows: RB1
#[test]
fn a_link_is_known_by_its_mark_whatever_its_name() {
    let record = Record { host_ifname: "cw1".into(), ..Record::new(key()) };
    let mut owners = Owners::default();
    assert!(!owners.have(&key(), Some(&record)));
    owners.unmarked.insert("cw1".into());
    assert!(owners.have(&key(), Some(&record)));
    assert!(!owners.have(&key(), None));
    let marked = Owners { aliases: [rules::owner(&key())].into(), ..Owners::default() };
    assert!(marked.have(&key(), Some(&record)) && marked.have(&key(), None));
    let others = RecordKey { ifname: "eth1".into(), ..key() };
    assert!(!marked.have(&others, None));
}

/// Records of earlier versions are read, and prove less.
///
/// Rows: RB1
#[test]
fn a_record_of_an_earlier_version_is_read() {
    let old = serde_json::json!({
        "version": 1,
        "key": { "network": "net", "container_id": "abc", "ifname": "eth0" },
        "netns": "/no/such/namespace", "bridge": "cw0", "host_ifname": "cw1", "mac": "",
        "addresses": ["10.0.1.2/24"], "masq": true, "spoof": false, "ipam": "host-local",
    });
    let old: Record = serde_json::from_value(old).expect("a record");
    assert_eq!((old.netns_id, old.data_dir.as_str(), &old.delegate), (None, "", &None));
    assert!(!lives(&old));
    let refused = release_by_delegate(&key(), &old).expect_err("nothing to start");
    assert!(
        refused.msg.contains("does not contain the configuration of IPAM plugin host-local"),
        "{refused}"
    );
    let here = Record { netns: "/proc/self/ns/net".into(), ..old };
    assert!(lives(&here));
}
