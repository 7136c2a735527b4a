use std::collections::BTreeMap;

use cni_plugin::{About, Version};
use serde_json::json;

use super::*;

const ABOUT: About =
    About { name: "test", version: "0", supported: &Version::ALL, known_args: &[] };

fn request(config: Value, args: &str) -> Request {
    let env: BTreeMap<String, String> = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", args),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let mut whole = json!({ "cniVersion": "1.1.0", "name": "net", "type": "causeway-service" });
    whole.as_object_mut().expect("a map").extend(config.as_object().expect("a map").clone());
    Request::parse(&ABOUT, env, || Ok(whole.to_string().into_bytes())).expect("a request")
}

/// `key=value` without what is always set.
fn shown(labels: &Labels) -> String {
    let own = labels.iter().filter(|(key, _)| !key.starts_with("causeway.io/"));
    own.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(config: Value, args: &str, expected: &str) {
    assert_eq!(shown(&of(&request(config, args)).expect("labels")), expected);
}

#[track_caller]
fn refused(config: Value, args: &str, field: &str) {
    let error = of(&request(config, args)).expect_err("refused");
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(error.msg.starts_with(&format!("{field}: ")), "{error}");
}

#[test]
fn each_source_is_read() {
    check(json!({}), "", "");
    check(
        json!({ "Labels": { "App": "Web", "example.com/tier": "" } }),
        "",
        "App=Web example.com/tier=",
    );
    check(
        json!({ "args": { "cni": { "labels": [
        { "key": "app", "value": "web" }, { "Key": "tier", "Value": "db" } ] } } }),
        "",
        "app=web tier=db",
    );
    check(json!({ "args": { "cni": { "labels": { "app": "web" } } } }), "", "app=web");
    check(
        json!({}),
        "CAUSEWAY_LABELS=app:web,tier:db,port.causeway.io/http:8080,",
        "app=web port.causeway.io/http=8080 tier=db",
    );
    let annotations = json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": {
        "app": "web", "note": "{\"not\": \"a label\"}", "a b": "c", "number": 1 } } });
    check(annotations, "", "app=web");
}

#[test]
fn later_sources_win() {
    let annotations = json!({ "io.kubernetes.cri.pod-annotations": { "d": "4" } });
    let config = json!({
        "labels": { "a": "1", "b": "1", "c": "1", "d": "1" },
        "args": { "cni": { "labels": { "b": "2", "c": "2", "d": "2" } } },
        "runtimeConfig": annotations,
    });
    check(config, "CAUSEWAY_LABELS=c:3,d:3", "a=1 b=2 c=3 d=4");
}

#[test]
fn some_are_always_set() {
    let own = |config, args| {
        let labels = of(&request(config, args)).expect("labels");
        ["pod-name", "pod-namespace", "network"]
            .map(|name| labels[&format!("causeway.io/{name}")].clone())
    };
    assert_eq!(own(json!({}), ""), ["c1", "default", "net"]);
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns-1";
    assert_eq!(own(json!({}), args), ["dns-1", "kube-system", "net"]);
    let config =
        json!({ "labels": { "causeway.io/pod-name": "mine", "causeway.io/network": "x" } });
    assert_eq!(own(config, ""), ["c1", "default", "net"]);
}

#[test]
fn what_is_no_label_is_refused_with_its_field() {
    for labels in [
        json!({ "a": 1 }),
        json!({ "a b": "c" }),
        json!({ "": "c" }),
        json!({ "a": "b c" }),
        json!({ "a": "x".repeat(64) }),
        json!("a=b"),
        json!([{ "key": "a", "value": "b" }]),
    ] {
        refused(json!({ "labels": labels }), "", "labels");
    }
    for labels in [
        json!([{ "key": "a" }]),
        json!(["a=b"]),
        json!([{ "key": "a", "value": 1 }]),
        json!({ "-": "b" }),
    ] {
        refused(json!({ "args": { "cni": { "labels": labels } } }), "", "args.cni.labels");
    }
    for labels in ["app", "app:a b", ":web", "a/b/c:d"] {
        let args = format!("CAUSEWAY_LABELS={labels}");
        refused(json!({}), &args, "CNI_ARGS: CAUSEWAY_LABELS");
    }
    let annotations = json!({ "io.kubernetes.cri.pod-annotations": ["a"] });
    let field = "runtimeConfig.io.kubernetes.cri.pod-annotations";
    refused(json!({ "runtimeConfig": annotations }), "", field);
}
