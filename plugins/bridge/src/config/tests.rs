use std::collections::BTreeMap;

use cni_plugin::{Attachment, CniArgs, Command};
use serde_json::{Value, json};

use super::*;

fn request(raw: &Value) -> Request {
    Request {
        command: Command::Add,
        network: "net".to_owned(),
        version: Version::V1_1_0,
        attachment: Attachment { container_id: "c1".to_owned(), ifname: "eth0".to_owned() },
        netns: Some("/run/netns/c1".to_owned()),
        args: CniArgs::default(),
        path: Vec::new(),
        prev_result: None,
        valid_attachments: Vec::new(),
        raw: raw.clone(),
        stdin: raw.to_string().into_bytes(),
        env: BTreeMap::new(),
    }
}

fn check(raw: &Value) -> Checked {
    Checked::of(&request(raw)).expect("the configuration is valid")
}

fn refuse(raw: &Value, code: Code, part: &str) {
    let error = Checked::of(&request(raw)).expect_err("the configuration is not valid");
    assert_eq!((error.code, error.msg.contains(part)), (code, true), "{raw}: {error}");
}

fn vlan(first: u16, last: u16, native: bool) -> VlanRange {
    VlanRange { first, last, pvid: native, untagged: native }
}

#[test]
fn defaults_are_upstreams() {
    let config = check(&json!({}));
    assert_eq!(config.bridge, "cni0");
    assert_eq!(
        config.gateway,
        Gateway { enabled: false, default_route: false, force_address: false }
    );
    assert!(!config.ip_masq && !config.promisc && !config.mac_spoof_check && !config.dad);
    assert_eq!((config.mtu, config.mac, config.ipam), (None, None, None));
    assert_eq!(config.run_dir, PathBuf::from("/run/causeway"));
    assert!(config.port.vlans.is_empty() && !config.port.hairpin && !config.port.isolated);
}

#[test]
fn empty_values_are_absent_ones() {
    let config = check(&json!({
        "bridge": "", "ipam": {}, "dns": {}, "vxlan": {}, "mtu": 0, "vlan": 0, "vlanTrunk": [],
        "args": {"cni": null}, "runtimeConfig": null, "ipMasqBackend": "", "runDir": "",
    }));
    assert_eq!((config.bridge.as_str(), config.ipam, config.mtu), ("cni0", None, None));
    assert!(config.vxlan.is_none());
}

#[test]
fn a_default_gateway_is_a_gateway() {
    let config = check(&json!({"isDefaultGateway": true}));
    assert!(config.gateway.enabled && config.gateway.default_route);
}

#[test]
fn keys_match_without_regard_to_case() {
    let config =
        check(&json!({"Bridge": "br7", "IsGateway": true, "MTU": 1400, "PromiscMode": true}));
    assert_eq!((config.bridge.as_str(), config.mtu), ("br7", Some(1400)));
    assert!(config.gateway.enabled && config.promisc);
}

#[test]
fn values_out_of_range_are_refused() {
    refuse(&json!({"vlan": 4095}), Code::InvalidConfig, "invalid VLAN ID 4095");
    refuse(&json!({"vlan": -1}), Code::InvalidConfig, "invalid VLAN ID -1");
    refuse(&json!({"mtu": 67}), Code::InvalidConfig, "mtu 67");
    refuse(&json!({"mtu": -1}), Code::InvalidConfig, "mtu -1");
    refuse(&json!({"bridge": "a/b"}), Code::InvalidConfig, "a/b");
    refuse(&json!({"bridge": "sixteen-bytes-xx"}), Code::InvalidConfig, "sixteen-bytes-xx");
    refuse(
        &json!({"bridge": "fourteen-bytes", "vlan": 7, "isGateway": true}),
        Code::InvalidConfig,
        "fourteen-bytes.7",
    );
    refuse(&json!({"ipMasqExclude": ["10.0.0.0/33"]}), Code::InvalidConfig, "ipMasqExclude");
    refuse(&json!({"mtu": "big"}), Code::Decode, "mtu");
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    refuse(&json!({"hairpinMode": true, "promiscMode": true}), Code::UnsupportedField, "hairpin");
    refuse(
        &json!({"disableContainerInterface": true, "ipam": {"type": "static"}}),
        Code::UnsupportedField,
        "disableContainerInterface",
    );
    refuse(&json!({"mode": "ring"}), Code::UnsupportedField, "ring");
}

#[test]
fn a_link_without_bridge_refuses_what_needs_one_by_name() {
    let config = |more: Value| {
        let mut config = json!({"mode": "ptp", "ipam": {"type": "static"}});
        config.as_object_mut().expect("an object").extend(
            more.as_object().expect("an object").iter().map(|(k, v)| (k.clone(), v.clone())),
        );
        config
    };
    for (key, value) in [
        ("bridge", json!("br0")),
        ("forceAddress", json!(true)),
        ("macspoofchk", json!(true)),
        ("portIsolation", json!(true)),
        ("preserveDefaultVlan", json!(true)),
        ("promiscMode", json!(true)),
        ("vlan", json!(7)),
        ("vlanTrunk", json!([{"id": 7}])),
        ("vxlan", json!({"id": 7})),
        ("disableContainerInterface", json!(true)),
    ] {
        refuse(&config(json!({ key: value })), Code::UnsupportedField, key);
    }
    refuse(&json!({"mode": "ptp"}), Code::InvalidConfig, "ipam");
    let plain = check(&config(json!({"hairpinMode": true, "isGateway": true, "vxlan": {}})));
    assert_eq!((plain.mode, plain.bridge.as_str()), (Mode::Ptp, ""));
    assert!(plain.gateway.enabled && plain.gateway.default_route);
    assert!(!check(&config(json!({"isDefaultGateway": false}))).gateway.default_route);
}

#[test]
fn the_nodes_subnet_is_known_by_its_word() {
    let auto = |ipam: Value| check(&json!({ "ipam": ipam })).auto_subnet;
    assert!(auto(json!({"type": "causeway-ipam", "subnet": "auto"})));
    assert!(auto(
        json!({"type": "causeway-ipam", "ranges": [[{"subnet": "10.0.0.0/24"}], [{"Subnet": "Auto"}]]})
    ));
    assert!(!auto(json!({"type": "causeway-ipam", "ranges": [[{"subnet": "10.0.0.0/24"}]]})));
    assert!(!auto(json!({"type": "host-local", "subnet": "auto"})));
    assert!(!auto(json!({"type": "whereabouts", "ranges": "auto"})));
    assert!(!auto(json!({"type": "causeway-ipam"})));
}

/// Rows: C40
#[test]
fn layer_two_is_refused_where_a_result_needs_an_address() {
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let request = Request { version, ..request(&json!({})) };
        let error = Checked::of(&request).expect_err("no address");
        assert_eq!(error.code, Code::InvalidConfig, "{error}");
    }
    let request = Request { version: Version::V0_3_0, ..request(&json!({})) };
    assert!(Checked::of(&request).is_ok());
}

#[test]
fn vlans_of_a_port() {
    assert_eq!(check(&json!({"vlan": 100})).port.vlans, [vlan(100, 100, true)]);
    let trunk = json!([{"minID": 10, "maxID": 12}, {"id": 13}, {"id": 20}, {"id": 12}]);
    assert_eq!(
        check(&json!({"vlanTrunk": trunk})).port.vlans,
        [vlan(1, 1, true), vlan(10, 13, false), vlan(20, 20, false)]
    );
    assert_eq!(
        check(&json!({"vlan": 11, "vlanTrunk": trunk})).port.vlans,
        [vlan(11, 11, true), vlan(10, 10, false), vlan(12, 13, false), vlan(20, 20, false)]
    );
}

#[test]
fn bad_trunks_are_refused() {
    for (item, part) in [
        (json!({"minID": 10}), "minID needs maxID"),
        (json!({"maxID": 10}), "maxID needs minID"),
        (json!({"minID": 10, "maxID": 9}), "minID 10 is greater than maxID 9"),
        (json!({"minID": 0, "maxID": 9}), "minID 0"),
        (json!({"minID": 1, "maxID": 4095}), "maxID 4095"),
        (json!({"id": 0}), "id 0"),
    ] {
        refuse(&json!({"vlanTrunk": [item]}), Code::InvalidConfig, part);
    }
    refuse(&json!({"vlanTrunk": [null]}), Code::Decode, "");
}

#[test]
fn the_nearest_source_of_the_address_wins() {
    let args = json!({"cni": {"mac": "02:00:00:00:00:02"}});
    let mut asked = request(&json!({"args": args, "runtimeConfig": {"mac": "02-00-00-00-00-03"}}));
    asked.args.pairs.insert("MAC".to_owned(), "02:00:00:00:00:01".to_owned());
    let mac = |request: &Request| Checked::of(request).expect("valid").mac.map(|mac| mac.0[5]);
    assert_eq!(mac(&asked), Some(3));
    asked.stdin = json!({"args": args}).to_string().into_bytes();
    assert_eq!(mac(&asked), Some(2));
    asked.stdin = b"{}".to_vec();
    assert_eq!(mac(&asked), Some(1));
    asked.args.pairs.insert("MAC".to_owned(), "02:00:00".to_owned());
    assert_eq!(Checked::of(&asked).expect_err("short").code, Code::InvalidEnvironment);
    refuse(&json!({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}), Code::InvalidConfig, "unicast");
}

#[test]
fn removal_asks_for_little() {
    let asked = request(&json!({
        "bridge": "br0", "ipam": {"type": "causeway-ipam"}, "vlan": 9999, "mtu": "big",
        "runDir": "/tmp/run",
    }));
    let removal = Removal::of(&asked).expect("what DEL needs is there");
    assert_eq!((removal.bridge.as_str(), removal.ipam.as_deref()), ("br0", Some("causeway-ipam")));
    assert_eq!(removal.run_dir, PathBuf::from("/tmp/run"));
    let bridge = |config: Value| Removal::of(&request(&config)).expect("valid").bridge;
    assert_eq!(bridge(json!({"mode": 7})), "cni0");
    assert_eq!(bridge(json!({"mode": "ptp", "bridge": "br0"})), "");
}
