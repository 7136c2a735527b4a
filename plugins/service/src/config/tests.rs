use std::path::Path;

use serde_json::{Value, json};

use super::{Backend, IptablesOptions, Raw, Settings};
use crate::mapping::{HostSide, Protocol};
use crate::record::{Mark, Masquerade};

/// Keys in lower case, as `Request::config` hands them over.
fn check(config: Value) -> Result<Settings, cni_plugin::Error> {
    Settings::check(serde_json::from_value::<Raw>(config).unwrap())
}

fn iptables(config: Value) -> IptablesOptions {
    match check(config).unwrap().backend {
        Backend::Iptables(options) => options,
        Backend::Nftables { .. } => panic!("nftables was chosen"),
    }
}

#[test]
fn defaults() {
    let settings = check(json!({})).unwrap();
    assert_eq!(settings.run_dir, Path::new("/run/causeway"));
    assert_eq!(settings.daemon.socket, Path::new("/run/causeway/causeway.sock"));
    assert!(!settings.daemon.required);
    assert_eq!(settings.masquerade, Masquerade::Needed);
    assert!(matches!(settings.backend, Backend::Nftables { v4: None, v6: None }));
    assert!(settings.mappings.is_empty());
}

#[test]
fn empty_text_and_lists_are_unset() {
    let settings = check(json!({
        "rundir": "", "socket": "", "backend": "", "externalsetmarkchain": "",
        "conditionsv4": [""], "conditionsv6": [], "labels": {}, "runtimeconfig": {} }));
    let settings = settings.unwrap();
    assert_eq!(settings.run_dir, Path::new("/run/causeway"));
    assert!(matches!(settings.backend, Backend::Nftables { v4: None, v6: None }));
}

#[test]
fn masquerading_needs_snat() {
    let of = |snat, all| check(json!({ "snat": snat, "masqall": all })).unwrap().masquerade;
    assert_eq!(of(true, true), Masquerade::All);
    assert_eq!(of(true, false), Masquerade::Needed);
    assert_eq!(of(false, true), Masquerade::Nothing);
}

#[test]
fn the_backend_follows_its_options() {
    let nft = check(json!({ "conditionsv4": ["ip", "saddr", "10.0.0.1"] })).unwrap().backend;
    assert!(matches!(nft, Backend::Nftables { v4: Some(_), v6: None }));
    let options = iptables(json!({ "conditionsv4": ["-s", "10.0.0.1"] }));
    assert_eq!(options.conditions_v4, ["-s", "10.0.0.1"]);
    assert_eq!(options.mark, Mark::Bit(13));
    let options = iptables(json!({ "externalsetmarkchain": "KUBE-MARK-MASQ" }));
    assert_eq!(options.mark, Mark::External("KUBE-MARK-MASQ".into()));
    let options = iptables(json!({ "backend": "iptables", "markmasqbit": 0 }));
    assert_eq!(options.mark, Mark::Bit(0));
    // A mark bit is of no meaning to nftables, as with upstream.
    let nft = check(json!({ "markmasqbit": 5 })).unwrap().backend;
    assert!(matches!(nft, Backend::Nftables { .. }));
}

#[test]
fn mappings_are_checked() {
    let one = |mapping: Value| check(json!({ "runtimeconfig": { "portmappings": [mapping] } }));
    let settings = one(json!({ "hostport": 65535, "containerport": 1, "protocol": "UDP",
                               "hostip": "::" }));
    let mapping = settings.unwrap().mappings[0];
    assert_eq!(mapping.protocol, Protocol::Udp);
    assert_eq!(mapping.host, HostSide::AnyOf { ipv6: true });
    let without_protocol = one(json!({ "hostport": 1, "containerport": 1 })).unwrap();
    assert_eq!(without_protocol.mappings[0].protocol, Protocol::Tcp);
    for (mapping, code) in [
        (json!({ "hostport": 65536, "containerport": 1 }), 7),
        (json!({ "hostport": 1, "containerport": 0 }), 7),
        (json!({ "hostport": 1 }), 7),
        (json!({ "hostport": 1, "containerport": 1, "hostip": "10.0.0.256" }), 7),
        (json!({ "hostport": 1, "containerport": 1, "protocol": "dccp" }), 2),
    ] {
        assert_eq!(one(mapping.clone()).unwrap_err().code.number(), code, "{mapping}");
    }
}

#[test]
fn what_would_leave_its_line_is_refused() {
    for config in [
        json!({ "conditionsv4": ["-m", "comment", "--comment", "a\n-F"] }),
        json!({ "externalsetmarkchain": "X\nY" }),
        json!({ "externalsetmarkchain": "a b" }),
    ] {
        assert_eq!(check(config.clone()).unwrap_err().code.number(), 7, "{config}");
    }
}
