use causeway_model::{EndpointRecord, Event};
use serde_json::json;

use super::*;

fn key(id: &str) -> EndpointKey {
    EndpointKey { network: "n".to_owned(), container_id: id.to_owned(), ifname: "eth0".to_owned() }
}

fn record(target: &str, turn: u32, more: serde_json::Value) -> Record {
    let mut record = json!({ "backend": "nftables", "masquerade": "needed", "again": { "turn": turn },
        "bindings": [{ "protocol": "tcp", "host_port": 30080, "target": target }] });
    for (name, value) in more.as_object().expect("an object") {
        record[name] = value.clone();
    }
    serde_json::from_value(record).expect("a record")
}

/// Rows: RB5
#[test]
fn the_earliest_attachment_of_a_port_is_the_one_in_force() {
    let mut index = Index::default();
    let attached = EndpointRecord {
        key: key("b"),
        netns: None,
        ips: Vec::new(),
        labels: [(EndpointRecord::POD_NAME.to_owned(), "web".to_owned())].into(),
        created: 1,
    };
    index.apply(Event::Attach { node: "n1".into(), record: attached });
    let records = Records::from([
        (key("a"), record("10.0.1.2:80", 1, json!({}))),
        (key("b"), record("10.0.1.3:80", 0, json!({ "conditions_v4": "x", "masquerade": "all" }))),
        (key("c"), record("10.0.1.4:80", 0, json!({ "again": { "leaving": true } }))),
    ]);
    let planned = planned(&records, &index, "n1");
    let shown: Vec<_> = planned
        .iter()
        .map(|one| (one.owner.to_string(), one.target.to_string(), one.hides, one.conditional))
        .collect();
    assert_eq!(
        shown,
        [
            ("default/web".to_owned(), "10.0.1.3:80".to_owned(), Hides::Everybody, true),
            ("default/a".to_owned(), "10.0.1.2:80".to_owned(), Hides::Needed, false),
        ]
    );
}
