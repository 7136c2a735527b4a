//! Odd surroundings and odd input: nobody reads stderr, names that the kernel takes for patterns,
//! directories that move, programs that are not there. Nothing stays of an ADD that these refuse.

use std::fs::{File, OpenOptions};
use std::process::Stdio;

use causeway_tests::{Attachment, BridgeNet as Net, Cni, FakeIpam, Node};
use serde_json::{Value, json};

/// Files and directories of the attachments.
fn left(node: &Node) -> String {
    node.sh(&format!("find {} -type f ! -name rules.lock", node.run_dir().display()))
}

/// A stderr that takes nothing.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full")
}

/// Runs `call` with nobody to read its stderr, and returns what it prints.
fn deaf(call: &Cni<'_>) -> (bool, Value) {
    let input = call.input().to_vec();
    let mut command = call.command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(full());
    let mut child = command.spawn().expect("start the plugin");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), &input).expect("write");
    let output = child.wait_with_output().expect("wait");
    let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.success(), value)
}

/// Rows: C15, C18, C60
#[test]
fn a_stderr_that_can_not_be_written_ends_no_operation() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    fake.script("ADD", "echo loud >&2; echo '{\"code\":7,\"msg\":\"no\"}'; exit 1");
    fake.script("DEL", "echo loud >&2");
    let net = Net::new(&node, &fake, json!({}));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let (success, error) = deaf(&net.call("ADD", &attachment));
    assert!(!success);
    assert_eq!(error["msg"], "no");
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    assert_eq!(net.host_ends(), Vec::<String>::new());
    assert_eq!(left(&node), "");
    assert_eq!(deaf(&net.call("DEL", &attachment)), (true, Value::Null));
}

/// Rows: C59, C60
#[test]
fn a_refused_add_leaves_no_file() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({}));
    let pod = node.pod();
    pod.ip("link add eth0 type veth peer name other\n");
    net.run("ADD", &pod.attachment("eth0")).error();
    assert_eq!(left(&node), "");
    let other = node.pod();
    let free = other.attachment("eth0");
    for plugin in ["nowhere", "../fake-ipam"] {
        net.with(json!({ "ipam": { "type": plugin } })).run("ADD", &free).error();
        assert_eq!(left(&node), "", "{plugin}");
    }
    assert_eq!(net.host_ends(), Vec::<String>::new());
}

/// Rows: C8, C31
#[test]
fn names_are_taken_as_they_are() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({}));
    let pod = node.pod();
    for bridge in ["cw%d", "cw\u{0}0", "cw\u{7}"] {
        let odd = net.with(json!({ "bridge": bridge }));
        assert_eq!(odd.run("ADD", &pod.attachment("eth0")).error_code(), 7, "{bridge:?}");
    }
    assert_eq!(net.run("ADD", &pod.attachment("eth%d")).error_code(), 4);
    assert_eq!(node.link_names().into_iter().collect::<Vec<_>>(), ["lo"]);
    assert_eq!(left(&node), "");
}

/// Rows: C67, F34
#[test]
fn state_is_where_any_working_directory_finds_it() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "runDir": "run" }));
    let attachment = node.pod().attachment("eth0");
    let error = net.run("ADD", &attachment).error();
    assert_eq!(error["code"], 7);
    assert!(error["msg"].to_string().contains("runDir"), "{error}");
    let error = service(&node, "ADD", "run".into(), &attachment).run().error();
    assert_eq!(error["code"], 7);
    assert!(error["msg"].to_string().contains("runDir"), "{error}");
}

/// Rows: C7
#[test]
fn the_longest_id_and_any_letter_in_a_name_work() {
    for backend in ["nftables", "iptables"] {
        let node = Node::new("node");
        let fake = FakeIpam::one("10.0.1.2");
        let more = json!({ "ipMasq": true, "ipMasqBackend": backend, "macspoofchk": true });
        let net = Net::new(&node, &fake, more);
        let pod = node.pod();
        let attachment = Attachment { id: "Z".repeat(300), ..pod.attachment("éthernet\"") };
        let result = net.add(&attachment);
        net.with(json!({ "prevResult": result })).run("CHECK", &attachment).silent();
        let ports = |command| {
            let place = json!(node.run_dir());
            let mut call = service(&node, command, place, &attachment);
            let mut config: Value = serde_json::from_slice(call.input()).expect("JSON");
            config["backend"] = json!(backend);
            call = call.stdin(config.to_string().as_bytes());
            call.run()
        };
        ports("ADD").json();
        ports("CHECK").silent();
        ports("DEL").silent();
        net.del(&attachment);
        let rules = node.rules();
        assert!(!rules.contains("ZZZ") && !rules.contains("causeway"), "{backend}: {rules}");
        assert_eq!(left(&node), "", "{backend}");
    }
}

fn service<'a>(node: &'a Node, command: &str, run: Value, attachment: &Attachment) -> Cni<'a> {
    let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "causeway-service",
        "runDir": run,
        "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] },
        "prevResult": { "cniVersion": "1.1.0",
            "interfaces": [{ "name": attachment.ifname, "sandbox": attachment.netns }],
            "ips": [{ "address": "10.99.0.2/24", "interface": 0 }] } });
    Cni::new(node, "causeway-service", command, &config).attachment(attachment)
}

/// Rows: F49
#[test]
fn an_ipam_plugin_that_prints_without_end_is_garbage() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    fake.script("ADD", "exec yes");
    let net = Net::new(&node, &fake, json!({}));
    let pod = node.pod();
    assert_eq!(net.run("ADD", &pod.attachment("eth0")).error_code(), 6);
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    assert_eq!(left(&node), "");
}

/// Rows: F34
#[test]
fn the_ipam_plugin_of_add_is_told_too_where_the_configuration_names_another() {
    let node = Node::new("node");
    let (fake, other) = (FakeIpam::one("10.0.1.2"), FakeIpam::one("10.0.1.2"));
    let net = Net::new(&node, &fake, json!({}));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    let path = format!("{}:{}", other.file("").display(), fake.path(&node));
    std::fs::remove_file(other.file("fake-ipam")).expect("the other is not called so");
    let changed = net.with(json!({ "ipam": { "type": "static" } }));
    changed.call("DEL", &attachment).env("CNI_PATH", &path).run().silent();
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    assert_eq!(other.commands(), ["DEL"]);
}

/// Rows: F25
#[test]
fn damaged_records_keep_neither_rules_nor_themselves() {
    for (backend, command) in
        [("nftables", "DEL"), ("iptables", "DEL"), ("nftables", "GC"), ("iptables", "GC")]
    {
        let node = Node::new("node");
        let fake = FakeIpam::one("10.0.1.2");
        let net = Net::new(&node, &fake, json!({ "ipMasq": true, "ipMasqBackend": backend }));
        let pod = node.pod();
        let attachment = pod.attachment("eth0");
        net.add(&attachment);
        let records = left(&node);
        let records: Vec<_> = records.lines().filter(|name| name.ends_with(".json")).collect();
        assert!(!records.is_empty());
        for record in records {
            std::fs::write(record, "{").expect("damage a record");
        }
        match command {
            "DEL" => net.del(&attachment),
            _ => net.on_network("GC", json!({ "cni.dev/valid-attachments": [] })).silent(),
        }
        assert_eq!(net.host_ends(), Vec::<String>::new(), "{backend} {command}");
        let rules = node.rules();
        assert!(!rules.contains(&attachment.id), "{backend} {command}: {rules}");
        assert_eq!(left(&node), "", "{backend} {command}");
    }
}
