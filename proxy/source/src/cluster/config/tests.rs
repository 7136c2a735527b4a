use super::*;

fn ours() -> ClusterConfig {
    ClusterConfig {
        schema: 1,
        cluster_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_subnet_len: 24,
        node_ports: (30000, 32767),
        overlay: "vxlan".into(),
        vxlan_id: 1,
        vxlan_port: 8472,
    }
}

fn judged(config: ClusterConfig) -> Agreed {
    let stored = StoredConfig { store: "id".into(), config };
    judge(&value::encode(&stored), &ours(), "/causeway/v1/config")
}

/// Rows: O-41
#[test]
fn each_setting_that_differs_is_named_with_the_remedy() {
    assert_eq!(judged(ours()), Agreed { store: "id".into(), excluded: None });
    let text = judged(ClusterConfig { vxlan_port: 4789, overlay: "host-gw".into(), ..ours() });
    let text = text.excluded.unwrap();
    for part in [
        "overlay: vxlan here, host-gw in the store",
        "vxlan-port: 8472 here, 4789 in the store",
        "delete the key /causeway/v1/config",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// Rows: C-14
#[test]
fn other_versions_are_named_even_where_nothing_else_can_be_read() {
    let newer = judge(br#"{"store":"id","schema":2,"new":true}"#, &ours(), "key");
    let text = newer.excluded.unwrap();
    assert!(text.contains("version 2") && text.contains("supports version 1"), "{text}");
    assert!(text.contains("install the newer causewayd"), "{text}");
    let older = judge(br#"{"store":"id","schema":0}"#, &ours(), "key").excluded.unwrap();
    assert!(older.contains("install the older causewayd"), "{older}");
    let damaged = judge(b"?", &ours(), "key").excluded.unwrap();
    assert!(damaged.contains("cannot be read"), "{damaged}");
}
