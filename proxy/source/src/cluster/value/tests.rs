use causeway_model::{Object, ObjectKey, manifest};

use super::*;

/// What a key and its value say to a node.
fn decode(me: &str, key: &str, value: &[u8]) -> Result<Option<Change>, String> {
    let config = ClusterConfig {
        schema: ClusterConfig::SCHEMA,
        cluster_cidrs: vec!["10.0.0.0/16".parse().unwrap(), "fd00:10::/32".parse().unwrap()],
        service_cidrs: Vec::new(),
        node_subnet_len: 24,
        node_ports: (30000, 32767),
        overlay: "vxlan".into(),
        vxlan_id: 1,
        vxlan_port: 8472,
    };
    let keys = Keys::new("/c");
    let (key, value) = (key.into(), value.to_vec());
    let pair = KeyValue { key, value, create_revision: 7, ..KeyValue::default() };
    Reader { keys: &keys, me, config: &config }.decode(&pair)
}

fn stored(origin: Origin) -> Stored {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    let Ok([Object::Service(mut service)]) =
        <[Object; 1]>::try_from(manifest::from_json(&document).unwrap())
    else {
        unreachable!("one service");
    };
    assert_eq!(service.key, ObjectKey::new("default", "web"));
    service.created = 7;
    Stored { object: Object::Service(service), origin }
}

#[test]
fn an_object_says_whose_manifest_it_is_from() {
    let bytes = encode_stored(&stored(Origin::Manifest("web.yaml".into())), "n1");
    let read = |me: &str| decode(me, "/c/v1/objects/service/default/web", &bytes);
    let expected = stored(Origin::Manifest("web.yaml".into()));
    assert_eq!(read("n1"), Ok(Some(Change::Object(expected))));
    let elsewhere = Origin::Elsewhere { node: "n1".into(), file: "web.yaml".into() };
    assert_eq!(read("n2"), Ok(Some(Change::Object(stored(elsewhere)))));
    let bytes = encode_stored(&stored(Origin::Api), "n1");
    let read = decode("n2", "/c/v1/objects/service/default/web", &bytes);
    assert_eq!(read, Ok(Some(Change::Object(stored(Origin::Api)))));
}

/// Rows: C-14, RH1
#[test]
fn what_can_not_be_read_is_named() {
    let bytes = encode_stored(&stored(Origin::Api), "n1");
    let large = vec![b' '; LARGEST_CONTAINER + 1];
    for (key, value, why) in [
        ("/c/v1/containers/n2/net/id/eth0", large.as_slice(), "larger than 512 KiB"),
        ("/c/v1/objects/service/default/other", bytes.as_slice(), "another key"),
        ("/c/v1/objects/service/default/web", b"{}".as_slice(), "created"),
        ("/c/v1/nodes/n1", b"?", "expected value"),
        ("/c/v1/subnets/10.0.1.0-24", b"{}", "subnet"),
        ("/c/v1/leaders/n1", b"{}", "not a key that this version"),
    ] {
        let text = decode("n1", key, value).unwrap_err();
        assert!(text.contains(why), "{text}");
    }
    assert_eq!(decode("n1", "/c/v1/claims/address/10.96.0.1", b"a/b"), Ok(None));
}

/// Rows: RH7
#[test]
fn parts_of_another_length_count_for_nothing() {
    let subnet = |text: &str| {
        let owner = "\"node\":\"n2\",\"machineId\":\"m2\",\"ips\":[\"172.18.0.3\"]";
        format!("{{\"subnet\":\"{text}\",{owner}}}").into_bytes()
    };
    let good = decode("n1", "/c/v1/subnets/10.0.2.0-24", &subnet("10.0.2.0/24"));
    let Ok(Some(Change::Subnet(record))) = good else { panic!("{good:?}") };
    assert_eq!((record.owner.node.as_str(), record.created), ("n2", 7));
    for (key, text) in [
        ("10.0.128.0-17", "10.0.128.0/17"),
        ("10.0.2.0-25", "10.0.2.0/25"),
        ("10.9.2.0-24", "10.9.2.0/24"),
        ("0.0.0.0-0", "0.0.0.0/0"),
        ("fd00:10::-33", "fd00:10::/33"),
    ] {
        let why = decode("n1", &format!("/c/v1/subnets/{key}"), &subnet(text)).unwrap_err();
        assert!(why.contains("length 24 in 10.0.0.0/16, length 64 in"), "{why}");
        let why = decode("n1", &format!("/c/v1/reservations/{key}"), b"why").unwrap_err();
        assert!(why.contains("remove it"), "{why}");
    }
    assert_eq!(decode("n1", "/c/v1/reservations/10.0.2.0-24", b"why"), Ok(None));
}

/// Rows: RH7
#[test]
fn names_and_addresses_of_nodes_are_bounded() {
    let node = |name: &str, ips: &str| {
        let rest = "\"bootId\":\"b\",\"version\":\"1\",\"started\":1,\"config\":\"\",\"created\":3";
        let text = format!("{{\"node\":\"{name}\",\"machineId\":\"m\",\"ips\":[{ips}],{rest}}}");
        decode("n1", &format!("/c/v1/nodes/{name}"), text.as_bytes())
    };
    let good = node(&"n".repeat(253), "\"172.18.0.3\",\"fd00::3\"");
    let Ok(Some(Change::Node(record))) = good else { panic!("{good:?}") };
    assert_eq!(record.created, 7, "no node says it of itself");
    let why = node(&"n".repeat(254), "").unwrap_err();
    assert!(why.contains("at most 253 bytes"), "{why}");
    let why = node("n2", "\"172.18.0.3\",\"172.18.0.4\"").unwrap_err();
    assert!(why.contains("more than one address per IP family"), "{why}");
}
