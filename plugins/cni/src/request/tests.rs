//! Reading configurations: keys, unset values, prevResult, the list of GC.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::testing::{ABOUT, any_json, env, request, request_from};
use crate::{Dns, Route, lenient};

/// A configuration with a bit of everything that plugins read.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Config {
    mtu: u32,
    #[serde(deserialize_with = "lenient::option")]
    ipam: Option<Ipam>,
    #[serde(deserialize_with = "lenient::or_default")]
    dns: Dns,
    #[serde(deserialize_with = "lenient::or_default")]
    routes: Vec<Route>,
    #[serde(deserialize_with = "lenient::option")]
    gateway: Option<std::net::IpAddr>,
    #[serde(deserialize_with = "lenient::flag")]
    disablegc: bool,
    runtimeconfig: Runtime,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Runtime {
    portmappings: Vec<Mapping>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Mapping {
    hostport: u16,
    #[serde(default)]
    hostip: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Ipam {
    r#type: String,
}

/// Reads the members `text` of a configuration.
fn read(text: &str) -> Result<Config, Error> {
    let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"n",{text}}}"#);
    request_from("ADD", &stdin).and_then(|request| request.config())
}

/// Rows: C20
#[test]
fn keys_match_in_any_case_at_every_level() {
    let want = vec![Mapping { hostport: 80, hostip: "10.0.0.1".to_owned() }];
    for text in [
        r#""runtimeConfig":{"portMappings":[{"hostPort":80,"hostIP":"10.0.0.1"}]}"#,
        r#""RuntimeConfig":{"PORTMAPPINGS":[{"HostPort":80,"HostIP":"10.0.0.1","Protocol":"tcp"}]}"#,
    ] {
        assert_eq!(read(text).expect("valid").runtimeconfig.portmappings, want);
    }
    let request =
        request_from("ADD", r#"{"CNIVERSION":"1.1.0","Name":"n","PrevResult":{"IPs":[]}}"#);
    let request = request.expect("valid");
    assert_eq!((request.version, &*request.network), (Version::V1_1_0, "n"));
    assert!(request.prev_result.is_some());
}

/// Rows: C20
#[test]
fn of_two_spellings_the_later_counts() {
    for (text, mtu) in [
        (r#""mtu":1,"MTU":2"#, 2),
        (r#""MTU":2,"mtu":1"#, 1),
        (r#""Mtu":3,"mtu":null"#, 3),
        (r#""mtu":1,"mtu":2"#, 2),
    ] {
        assert_eq!(read(text).expect("valid").mtu, mtu, "{text}");
    }
}

/// Rows: C21
#[test]
fn unknown_keys_are_ignored() {
    let text = r#""capabilities":{"x":true},"resolveConf":"/etc/resolv.conf","dns":{"x":1},
        "routes":[{"dst":"10.0.0.0/8","ipRange":"x"}],"cni.dev/attachments":7"#;
    assert_eq!(read(text).expect("valid").routes, [route("10.0.0.0/8")]);
}

/// Rows: C22
#[test]
fn empty_values_are_unset() {
    for unset in ["null", "\"\"", "{}"] {
        let text = format!(
            r#""ipam":{unset},"dns":{unset},"routes":{unset},"gateway":{unset},"disableGC":{unset}"#
        );
        assert_eq!(read(&text).expect("valid"), Config::default(), "{unset}");
    }
    assert_eq!(
        read(r#""ipam":{"type":"x"}"#).expect("valid").ipam.map(|i| i.r#type).as_deref(),
        Some("x")
    );
}

/// Rows: C86
#[test]
fn flags_are_booleans_or_their_names() {
    for (text, want) in [("true", true), ("\"true\"", true), ("false", false), ("\"false\"", false)]
    {
        assert_eq!(read(&format!(r#""disableGC":{text}"#)).expect("valid").disablegc, want);
    }
    for text in ["1", "\"yes\"", "[]", "\"True\""] {
        assert!(read(&format!(r#""disableGC":{text}"#)).is_err(), "{text}");
    }
}

/// Rows: C31
#[test]
fn messages_name_the_field_as_the_user_wrote_it() {
    for (text, field, details) in [
        (r#""MTU":"big""#, "MTU", "invalid type: string \"big\", expected u32"),
        (
            r#""RuntimeConfig":{"PortMappings":[{"HostPort":1},{"HostPort":70000}]}"#,
            "RuntimeConfig.PortMappings[1].HostPort",
            "invalid value: integer `70000`, expected u16",
        ),
        (
            r#""runtimeConfig":{"portMappings":[null]}"#,
            "runtimeConfig.portMappings[0]",
            "invalid type: null, expected struct Mapping",
        ),
        (
            r#""Routes":[{"Dst":"10.0.0.0"}]"#,
            "Routes",
            "[0].dst: \"10.0.0.0\" is not an address with prefix length, such as 10.0.0.2/24",
        ),
        (r#""Routes":[null]"#, "Routes", "[0]: invalid type: null, expected a route object"),
        (r#""dns":{"search":[null]}"#, "dns", "search: [0]: invalid type: null, expected a string"),
    ] {
        let error = read(text).expect_err(text);
        let msg = format!("field \"{field}\" of the network configuration cannot be decoded");
        assert_eq!(error, Error::new(Code::Decode, msg).details(details));
    }
}

fn route(dst: &str) -> Route {
    Route::to(dst.parse().expect("a network"))
}

/// Rows: C41, C50
#[test]
fn routes_and_dns_of_a_configuration_are_typed() {
    let config = read(
        r#""routes":[{"dst":"10.1.2.3/8","gw":"10.0.0.1","MTU":1400,"advMSS":1360,"priority":5,
            "table":0,"scope":253},{"dst":"::/0","gw":"","mtu":0,"priority":0}],
            "dns":{"Nameservers":["1.1.1.1"],"Domain":"d","search":["s"],"options":["o"]}"#,
    );
    let config = config.expect("valid");
    let full = Route {
        gw: Some("10.0.0.1".parse().expect("an address")),
        mtu: Some(1400),
        advmss: Some(1360),
        priority: Some(5),
        table: Some(0),
        scope: Some(253),
        ..route("10.0.0.0/8")
    };
    assert_eq!(config.routes, [full, route("::/0")]);
    let list = |text: &str| vec![text.to_owned()];
    let dns = Dns {
        nameservers: list("1.1.1.1"),
        domain: "d".to_owned(),
        search: list("s"),
        options: list("o"),
    };
    assert_eq!(config.dns, dns);
}

#[test]
fn maps_whose_keys_are_data_keep_them() {
    let config = json!({
        "cniVersion": "1.1.0", "name": "n", "Args": {"CNI": {"Labels": {"App": "x", "app": null}}}
    });
    let request = request("ADD", &config).expect("valid");
    let labels = request.raw_get(&["args", "cni", "labels"]).expect("labels");
    assert_eq!(labels, &json!({"App": "x", "app": null}));
    assert_eq!(request.raw_get(&[]), Some(&config));
    for absent in [&["args", "x"][..], &["name", "x"], &["args", "cni", "labels", "other"]] {
        assert_eq!(request.raw_get(absent), None);
    }
}

/// Rows: C11, C26
#[test]
fn a_request_holds_what_was_sent() {
    let text = "{\"name\":\"n\",\n\"cniVersion\":\"0.4.0\"}\n";
    let env = env("ADD", "TRACEPARENT=t CNI_NETNS=/proc/7/ns/../ns/net CNI_ARGS=EXTRA=1;MAC=aa");
    let request = Request::parse(&ABOUT, env.clone(), || Ok(text.as_bytes().to_vec()));
    let request = request.expect("valid");
    assert_eq!((request.stdin.as_slice(), &request.env), (text.as_bytes(), &env));
    assert_eq!(request.netns.as_deref(), Some("/proc/7/ns/../ns/net"));
    let pairs = [("EXTRA", "1"), ("MAC", "aa")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(request.args.pairs, BTreeMap::from(pairs));
}

/// Rows: C22, C54, C57
#[test]
fn prev_result_may_be_absent_where_nobody_needs_it() {
    for prev in ["", r#","prevResult":null"#, r#","prevResult":{}"#, r#","prevResult":"""#] {
        for (command, version) in
            [("DEL", "0.3.1"), ("DEL", "1.1.0"), ("ADD", "0.1.0"), ("CHECK", "0.4.0")]
        {
            let stdin = format!(r#"{{"name":"n","cniVersion":"{version}"{prev}}}"#);
            let request = request_from(command, &stdin).expect("valid");
            assert_eq!(request.prev_result, None);
            let error = request.required_prev_result().expect_err("none there");
            assert_eq!(error.code, Code::InvalidConfig);
            assert_eq!(error.msg, format!("{command} needs a prevResult"));
        }
    }
}

/// Rows: C53
#[test]
fn prev_result_is_read_in_the_configurations_version() {
    let families = [&["0.1.0", "0.2.0"][..], &["0.3.0", "0.3.1", "0.4.0"], &["1.0.0", "1.1.0"]];
    for family in families {
        for config in family {
            for stated in families.concat().into_iter().chain([""]) {
                let fits = stated.is_empty() || family.contains(&stated);
                let prev = json!({
                    "cniVersion": stated,
                    "ip4": {"ip": "10.0.0.2/24"},
                    "ips": [{"version": "4", "address": "10.0.0.2/24"}],
                });
                let config = json!({"name": "n", "cniVersion": config, "prevResult": prev});
                match request("DEL", &config) {
                    Ok(request) => {
                        assert!(fits, "{config}");
                        let prev = request.required_prev_result().expect("there");
                        assert_eq!(prev.ips[0].address.to_string(), "10.0.0.2/24");
                    }
                    Err(error) => assert!(!fits && error.code == Code::Decode, "{error}"),
                }
            }
        }
    }
    for prev in [
        json!(5),
        json!([]),
        json!({"ips": [null]}),
        json!({"cniVersion": "7"}),
        json!({"cniVersion": 1}),
    ] {
        let config = json!({"name": "n", "cniVersion": "1.1.0", "prevResult": prev});
        let error = request("CHECK", &config).expect_err("garbage");
        assert_eq!(error.code, Code::Decode);
        assert_eq!(
            error.msg,
            "field \"prevResult\" of the network configuration cannot be decoded"
        );
    }
}

/// The kept attachments as `ID/IFNAME` lines, or `CODE MSG`.
fn kept(members: &str) -> String {
    let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"n"{members}}}"#);
    match request_from("GC", &stdin) {
        Ok(request) => {
            let kept = request.valid_attachments.into_iter();
            kept.map(|a| format!("{}/{}", a.container_id, a.ifname)).collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("{} {}", error.code.number(), error.msg),
    }
}

/// An absent list is refused; `null` is how Go writes an empty one.
///
/// Rows: C21, C74, RC13
#[test]
fn the_list_of_gc_is_read() {
    for empty in ["null", "[]"] {
        assert_eq!(kept(&format!(r#","cni.dev/valid-attachments":{empty}"#)), "");
        assert_eq!(kept(&format!(r#","cni.dev/attachments":{empty}"#)), "");
    }
    let absent = "7 GC needs \"cni.dev/valid-attachments\": the attachments to keep, or [] for \
                  none";
    assert_eq!(kept(""), absent);
    assert_eq!(kept(r#","valid-attachments":[]"#), absent);
    let list = r#"[{"containerID":"a","ifname":"eth0"},{"ContainerID":"b","IfName":"x","more":1}]"#;
    assert_eq!(kept(&format!(r#","cni.dev/valid-attachments":{list}"#)), "a/eth0 b/x");
    assert_eq!(kept(&format!(r#","CNI.dev/Valid-Attachments":{list}"#)), "a/eth0 b/x");
    // The older key counts only alone.
    assert_eq!(kept(&format!(r#","cni.dev/attachments":{list}"#)), "a/eth0 b/x");
    assert_eq!(
        kept(&format!(r#","cni.dev/attachments":{list},"cni.dev/valid-attachments":[]"#)),
        ""
    );
}

/// Rows: F47
#[test]
fn a_malformed_list_of_gc_is_refused() {
    for (list, want) in [
        ("5", "6 \"cni.dev/valid-attachments\" cannot be decoded"),
        ("{}", "6 \"cni.dev/valid-attachments\" cannot be decoded"),
        ("\"\"", "6 \"cni.dev/valid-attachments\" cannot be decoded"),
        (
            "[null]",
            "6 \"cni.dev/valid-attachments\"[0] must be an object with containerID and ifname",
        ),
        (
            r#"["a"]"#,
            "6 \"cni.dev/valid-attachments\"[0] must be an object with containerID and ifname",
        ),
        (
            r#"[{"containerID":"a","ifname":"e"},["a","e"]]"#,
            "6 \"cni.dev/valid-attachments\"[1] must be an object with containerID and ifname",
        ),
        (
            r#"[{"containerID":1,"ifname":"a"}]"#,
            "6 field \"[0].containerID\" of \"cni.dev/valid-attachments\" cannot be decoded",
        ),
        (
            r#"[{"containerID":"a","ifname":"e"},{"containerID":"a"}]"#,
            "7 \"cni.dev/valid-attachments\"[1] needs both containerID and ifname",
        ),
        ("[{}]", "7 \"cni.dev/valid-attachments\"[0] needs both containerID and ifname"),
    ] {
        assert_eq!(kept(&format!(r#","cni.dev/valid-attachments":{list}"#)), want);
    }
}

/// Rows: C10
#[test]
fn deep_nesting_is_refused() {
    let deep = format!(r#"{{"name":"n","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(request_from("ADD", &deep).expect_err("too deep").code, Code::Decode);
}

proptest! {
    /// Rows: C20, C21
    #[test]
    fn any_configuration_is_read_or_refused_with_code_6(mut config in any_json()) {
        if let Some(members) = config.as_object_mut() {
            members.insert("name".to_owned(), json!("n"));
            members.insert("cniVersion".to_owned(), json!("1.1.0"));
            members.retain(|key, _| key != "prevResult");
            let request = request("ADD", &config).expect("a request");
            if let Err(error) = request.config::<Config>() {
                prop_assert_eq!(error.code, Code::Decode);
            }
        }
    }

    #[test]
    fn folding_is_idempotent_and_alike_from_text_and_value(value in any_json()) {
        let folded = json::fold(&value);
        prop_assert_eq!(&json::fold(&folded), &folded);
        let text = folded.to_string();
        prop_assert_eq!(&json::parse_folded(text.as_bytes()).expect("valid"), &folded);
    }
}
