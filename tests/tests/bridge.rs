//! `causeway-bridge` ADD: what it makes, what it prints, and what it leaves after a failure.

use std::process::Stdio;

use causeway_tests::{BridgeNet as Net, FakeIpam, Node, Snapshot};
use serde_json::{Value, json};

fn gateway() -> Value {
    json!({ "isDefaultGateway": true })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// A snapshot of the node with the bridge already there: the one thing that a failed ADD may leave.
fn before(net: &Net<'_>) -> Snapshot {
    let pod = net.node.pod();
    let fake = FakeIpam::one("10.0.1.250");
    let first = Net { fake: &fake, ..net.with(json!({})) };
    let attachment = pod.attachment("eth0");
    first.add(&attachment);
    first.del(&attachment);
    Snapshot::take(net.node)
}

/// Rows: C47, C48, C49, S-04, S-05, S-06, S-07, S-15
#[test]
fn a_container_is_attached_and_reachable() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let result = net.add(&pod.attachment("eth0"));

    let interfaces = result["interfaces"].as_array().expect("interfaces");
    let host = net.host_ends().pop().expect("a host end");
    let names: Vec<_> = interfaces.iter().map(|one| text(&one["name"])).collect();
    assert_eq!(names, ["cw0", host.as_str(), "eth0"]);
    let sandboxes: Vec<_> = interfaces.iter().map(|one| one.get("sandbox").cloned()).collect();
    assert_eq!(sandboxes, [None, None, Some(json!(pod.path()))]);
    let macs = [node.link("cw0"), node.link(&host), pod.link("eth0")]
        .map(|link| link.expect("the link is there")["address"].clone());
    assert_eq!(interfaces.iter().map(|one| one["mac"].clone()).collect::<Vec<_>>(), macs);
    assert!(interfaces.iter().all(|one| one["mtu"] == 1500), "{result}");
    assert_eq!(
        result["ips"],
        json!([
        { "interface": 2, "address": "10.0.1.2/16", "gateway": "10.0.1.1" } ])
    );
    assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0", "gw": "10.0.1.1" }]));

    assert_eq!(node.addresses("cw0"), ["10.0.1.1/16"]);
    assert_eq!(pod.addresses("eth0"), ["10.0.1.2/16"]);
    assert_eq!(node.sysctl("ipv4/ip_forward"), "1");
    let default = pod.sh("ip route show default");
    assert!(default.starts_with("default via 10.0.1.1 dev eth0"), "{default}");
    node.assert_ping("10.0.1.2");
    pod.assert_ping("10.0.1.1");
    assert_eq!(node.link(&host).expect("host end")["master"], "cw0");
    assert_eq!(host.len(), "veth".len() + 8);
}

/// Rows: S-04
#[test]
fn ids_that_start_alike_get_different_host_ends() {
    let node = Node::new("node");
    let mut names = std::collections::BTreeSet::new();
    for n in 0..3 {
        let fake = FakeIpam::one(&format!("10.0.1.{}", n + 2));
        let net = Net::new(&node, &fake, json!({}));
        let pod = node.pod();
        let mut attachment = pod.attachment("eth0");
        attachment.id = format!("pod1-49fa4-{n}");
        names.insert(net.add(&attachment)["interfaces"][1]["name"].to_string());
        net.del(&attachment);
    }
    assert_eq!(names.len(), 3);
}

#[test]
fn ipv6_is_usable_at_once() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "cniVersion": "1.1.0", "ips": [
        { "address": "fd00:10::2/64" }, { "address": "10.0.1.2/16" } ] }));
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    pod.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
    pod.set_sysctl("ipv6/conf/lo/disable_ipv6", "1");
    let result = net.add(&pod.attachment("eth0"));
    assert_eq!(result["ips"][0]["gateway"], "fd00:10::1");
    assert_eq!(pod.addresses("eth0").len(), 2);
    assert_eq!(pod.sh("ip -6 addr show tentative"), "");
    // The bridge solicits neighbours for what is forwarded, by its link-local address.
    assert_eq!(node.sh("ip -6 addr show dev cw0 tentative"), "");
    node.assert_ping("fd00:10::2");
    pod.assert_ping("fd00:10::1");
    assert_eq!(node.sysctl("ipv6/conf/all/forwarding"), "1");
    for (key, value) in [("accept_dad", "0"), ("keep_addr_on_down", "1"), ("disable_ipv6", "0")] {
        assert_eq!(pod.sysctl(&format!("ipv6/conf/eth0/{key}")), value, "{key}");
    }
    assert_eq!(pod.sysctl("ipv4/conf/eth0/arp_notify"), "1");
    assert_eq!(node.sysctl("ipv6/conf/cw0/accept_ra"), "0");
}

/// Rows: F42
#[test]
fn enabledad_waits_for_the_address() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "ips": [{ "address": "fd00:10::2/64" }] }));
    let net = Net::new(&node, &fake, json!({ "enabledad": true }));
    let pod = node.pod();
    net.add(&pod.attachment("eth0"));
    assert_eq!(pod.sh("ip -6 addr show tentative scope global"), "");
    assert_eq!(pod.sysctl("ipv6/conf/eth0/accept_dad"), "1");
    assert_eq!(pod.sysctl("ipv6/conf/eth0/enhanced_dad"), "1");
}

/// Rows: S-14
#[test]
fn one_mtu_everywhere() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "mtu": 1400 }));
    let pod = node.pod();
    let result = net.add(&pod.attachment("eth0"));
    for place in 0..3 {
        assert_eq!(result["interfaces"][place]["mtu"], 1400);
    }
    assert_eq!(node.link("cw0").expect("bridge")["mtu"], 1400);
    assert_eq!(node.link(&net.host_ends()[0]).expect("host end")["mtu"], 1400);
    assert_eq!(pod.link("eth0").expect("eth0")["mtu"], 1400);
}

/// Rows: F21
#[test]
fn a_bridge_that_is_there_keeps_its_mtu_and_lends_it() {
    let node = Node::new("node");
    node.ip("link add cw0 type bridge\nlink set cw0 mtu 1300\n");
    let fake = FakeIpam::one("10.0.1.2");
    let pod = node.pod();
    Net::new(&node, &fake, json!({})).add(&pod.attachment("eth0"));
    assert_eq!(pod.link("eth0").expect("eth0")["mtu"], 1300);
    let other = node.pod();
    Net::new(&node, &fake, json!({ "mtu": 1200 })).add(&other.attachment("eth0"));
    assert_eq!(node.link("cw0").expect("bridge")["mtu"], 1300);
    assert_eq!(other.link("eth0").expect("eth0")["mtu"], 1200);
}

#[test]
fn port_settings_and_the_asked_for_address() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(
        &node,
        &fake,
        json!({ "hairpinMode": true, "portIsolation": true,
        "runtimeConfig": { "mac": "02:11:22:33:44:55" } }),
    );
    let pod = node.pod();
    let result = net.add(&pod.attachment("eth0").args("IgnoreUnknown=1;MAC=02:00:00:00:00:01"));
    assert_eq!(result["interfaces"][2]["mac"], "02:11:22:33:44:55");
    assert_eq!(pod.link("eth0").expect("eth0")["address"], "02:11:22:33:44:55");
    let port = node.sh(&format!("ip -d link show {}", net.host_ends()[0]));
    assert!(port.contains("hairpin on") && port.contains("isolated on"), "{port}");
}

#[test]
fn layer_two_has_no_addresses() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "ipam": {}, "promiscMode": true }));
    let pod = node.pod();
    let result = net.add(&pod.attachment("eth0"));
    assert!(result.get("ips").is_none() && result.get("routes").is_none(), "{result}");
    assert!(pod.sh("ip link show eth0").contains("state UP"));
    assert!(node.sh("ip link show cw0").contains("PROMISC"));
    assert_eq!(fake.calls(), Vec::<String>::new());
    let down = node.pod();
    let net = net.with(json!({ "disableContainerInterface": true }));
    net.add(&down.attachment("eth0"));
    assert!(down.sh("ip link show eth0").contains("state DOWN"));
}

/// Rows: C40
#[test]
fn layer_two_in_an_old_version_is_refused_before_anything_is_made() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "ipam": {}, "cniVersion": "0.2.0" }));
    let pod = node.pod();
    let before = Snapshot::take(&node);
    assert_eq!(net.run("ADD", &pod.attachment("eth0")).error_code(), 7);
    before.assert_same(&Snapshot::take(&node));
    assert!(pod.link("eth0").is_none());
}

/// Rows: C50, C51
#[test]
fn routes_are_applied_in_full() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "cniVersion": "1.1.0",
        "ips": [{ "address": "10.0.1.2/16", "gateway": "10.0.1.1" }],
        "routes": [
            { "dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200, "priority": 50 },
            { "dst": "198.51.100.0/24", "gw": "10.0.1.8" },
            { "dst": "198.51.100.0/24", "gw": "10.0.1.9" },
            { "dst": "203.0.113.0/24", "table": 100 },
            { "dst": "203.0.114.0/24", "scope": 253 } ] }));
    let net = Net::new(&node, &fake, json!({}));
    let pod = node.pod();
    let result = net.add(&pod.attachment("eth0"));
    assert_eq!(result["routes"].as_array().map(Vec::len), Some(5), "{result}");
    let first = pod.sh("ip route show 192.0.2.0/24");
    for part in ["via 10.0.1.1", "metric 50", "mtu 1300", "advmss 1200"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let multipath = pod.sh("ip route show 198.51.100.0/24");
    assert!(multipath.contains("nexthop via 10.0.1.8") && multipath.contains("10.0.1.9"));
    assert!(pod.sh("ip route show table 100").contains("203.0.113.0/24 via 10.0.1.1"));
    assert!(pod.sh("ip route show 203.0.114.0/24").contains("dev eth0 scope link"));
}

#[test]
fn a_default_route_of_the_ipams_is_no_conflict() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "ips": [{ "address": "10.0.1.2/16" }],
        "routes": [{ "dst": "0.0.0.0/0" }] }));
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    net.add(&pod.attachment("eth0"));
    let default = pod.sh("ip route show default");
    assert_eq!(default.lines().count(), 1, "{default}");
}

/// Rows: C52
#[test]
fn dns_of_the_network_replaces_the_ipams() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "ips": [{ "address": "10.0.1.2/16" }],
        "dns": { "nameservers": ["10.0.0.53"], "search": ["ipam"] } }));
    let pod = node.pod();
    let net = Net::new(&node, &fake, json!({}));
    let dns = net.add(&pod.attachment("eth0"))["dns"].clone();
    assert_eq!(dns, json!({ "nameservers": ["10.0.0.53"], "search": ["ipam"] }));
    let net = net.with(json!({ "dns": { "domain": "own" } }));
    assert_eq!(net.add(&pod.attachment("eth1"))["dns"], json!({ "domain": "own" }));
}

/// Rows: C56
#[test]
fn a_previous_result_is_passed_on() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let before = json!({ "cniVersion": "1.1.0",
        "interfaces": [{ "name": "net0", "mac": "02:00:00:00:00:01", "sandbox": "/some/netns" }],
        "ips": [{ "interface": 0, "address": "192.0.2.2/24" }] });
    let net = Net::new(&node, &fake, json!({ "prevResult": before }));
    let result = net.add(&node.pod().attachment("eth0"));
    assert_eq!(result["interfaces"][0], before["interfaces"][0]);
    assert_eq!(result["ips"][0], before["ips"][0]);
    assert_eq!(result["ips"][1]["interface"], 3);
}

/// Rows: C59, C61, F13
#[test]
fn a_second_add_is_refused_and_touches_nothing() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let (pod, other) = (node.pod(), node.pod());
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    let before = Snapshot::take(&node);
    net.run("ADD", &attachment).error();
    let elsewhere = attachment.clone().netns(&other.path().display().to_string());
    net.run("ADD", &elsewhere).error();
    before.assert_same(&Snapshot::take(&node));
    assert_eq!(fake.commands(), ["ADD"]);
    node.assert_ping("10.0.1.2");
    assert!(other.link("eth0").is_none());
}

/// Rows: C59
#[test]
fn an_interface_of_another_maker_is_left_alone() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    pod.ip("link add eth0 type veth peer name other\naddr add 192.0.2.1/24 dev eth0\n");
    net.run("ADD", &pod.attachment("eth0")).error();
    assert_eq!(pod.addresses("eth0"), ["192.0.2.1/24"]);
    assert_eq!(fake.calls(), Vec::<String>::new());
    assert_eq!(net.host_ends(), Vec::<String>::new());
}

/// Rows: C60, C81
#[test]
fn a_refusing_ipam_is_asked_to_release() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    fake.script(
        "ADD",
        r#"echo '{"cniVersion":"1.1.0","code":100,"msg":"no address left"}'; exit 1"#,
    );
    let net = Net::new(&node, &fake, gateway());
    let before = before(&net);
    let pod = node.pod();
    let error = net.run("ADD", &pod.attachment("eth0")).error();
    assert_eq!((error["code"].as_u64(), text(&error["msg"])), (Some(100), "no address left"));
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    before.assert_same(&Snapshot::take(&node));
    assert!(pod.link("eth0").is_none());
}

/// Rows: F6, F49
#[test]
fn an_ipam_without_a_usable_answer_is_an_error() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let before = before(&net);
    let pod = node.pod();
    for (script, code) in [
        ("echo garbage", 6),
        ("true", 6),
        ("echo null", 6),
        ("echo '{}'", 6),
        (r#"echo '{"ips":[{"address":"10.0.1.2/16"}]}'; kill -9 $$"#, 5),
    ] {
        fake.script("ADD", script);
        let error = net.run("ADD", &pod.attachment("eth0")).error();
        assert_eq!(error["code"].as_u64(), Some(code), "{script}: {error}");
        assert_ne!(text(&error["msg"]), "");
        assert_eq!(fake.commands().pop().as_deref(), Some("DEL"), "{script}");
        before.assert_same(&Snapshot::take(&node));
    }
}

/// Rows: C60, C82, F19
#[test]
fn an_address_in_the_way_fails_and_leaves_nothing() {
    let node = Node::new("node");
    // With an address of its own, which does not follow that of its ports, and one port.
    node.ip("link add cw0 address 02:00:00:00:00:01 type bridge\naddr add 192.0.2.1/24 dev cw0\n\
         link set cw0 up\nlink add port type veth peer name wire\n\
         link set port master cw0 up\nlink set wire up\n");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "isGateway": true, "ipMasq": true }));
    let before = Snapshot::take(&node);
    let pod = node.pod();
    let error = net.run("ADD", &pod.attachment("eth0")).error();
    assert!(text(&error["msg"]).contains("already has an IP address different from"), "{error}");
    assert_eq!(error["code"], 7);
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    before.assert_same(&Snapshot::take(&node));
    net.with(json!({ "forceAddress": true })).add(&pod.attachment("eth0"));
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/16"]);
}

/// Rows: F14, F15
#[test]
fn a_namespace_that_is_none_is_refused() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let file = fake.file("plain");
    std::fs::write(&file, "").expect("write a plain file");
    let before = Snapshot::take(&node);
    for path in ["/run/netns/gone", &file.display().to_string()] {
        let attachment = node.pod().attachment("eth0").netns(path);
        assert_eq!(net.run("ADD", &attachment).error_code(), 8);
    }
    before.assert_same(&Snapshot::take(&node));
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// Rows: F17
#[test]
fn a_namespace_that_goes_away_meanwhile_fails_the_add() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let before = before(&net);
    // A second name, so that the harness still finds its own.
    let pod = node.pod();
    let path = fake.file("netns");
    std::fs::write(&path, "").expect("make a mount point");
    let shown = path.display();
    node.sh(&format!("mount --bind {} {shown}", pod.path().display()));
    let answer = std::fs::read_to_string(fake.file("ADD.sh")).expect("the answer");
    fake.script("ADD", &format!("umount -l {shown}\n{answer}"));
    let attachment = pod.attachment("eth0").netns(&shown.to_string());
    net.run("ADD", &attachment).error();
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    before.assert_same(&Snapshot::take(&node));
}

/// Rows: F20
#[test]
fn another_link_of_the_bridges_name_is_left_alone() {
    let node = Node::new("node");
    node.ip("link add cw0 type veth peer name other\n");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let before = Snapshot::take(&node);
    let error = net.run("ADD", &node.pod().attachment("eth0")).error();
    assert_eq!(error["code"], 7, "{error}");
    before.assert_same(&Snapshot::take(&node));
}

/// Rows: F48
#[test]
fn a_result_that_nobody_gets_is_taken_back() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let before = before(&net);
    let pod = node.pod();
    let stdin = fake.file("config");
    std::fs::write(&stdin, net.config.to_string()).expect("write the configuration");
    let mut command = net.call("ADD", &pod.attachment("eth0")).command();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let read = std::fs::File::open(&stdin).expect("the configuration");
    let status = command.stdin(read).stdout(Stdio::from(full)).status().expect("run the plugin");
    assert_eq!(status.code(), Some(1));
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    before.assert_same(&Snapshot::take(&node));
}

/// Rows: C84
#[test]
fn upstreams_ipam_plugins_work_under_it() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    std::fs::remove_file(fake.file("static")).expect("the fake of upstream's name");
    let base = Net::new(&node, &fake, json!({ "cniVersion": "1.0.0", "isDefaultGateway": true }));
    let host_local = base.with(json!({ "ipam": { "type": "host-local",
        "dataDir": node.data_dir(), "subnet": "10.9.0.0/24" } }));
    let fixed = base.with(json!({ "name": "fixed", "bridge": "cw1", "ipam": { "type": "static",
        "addresses": [{ "address": "10.8.0.5/24", "gateway": "10.8.0.1" }] } }));
    let pod = node.pod();
    let (eth0, eth1) = (pod.attachment("eth0"), pod.attachment("eth1"));
    let result = host_local.add(&eth0);
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    assert_eq!(result["cniVersion"], "1.0.0");
    assert!(node.data_dir().join("net/10.9.0.2").exists());
    host_local.del(&eth0);
    assert!(!node.data_dir().join("net/10.9.0.2").exists());
    assert_eq!(fixed.add(&eth1)["ips"][0]["address"], "10.8.0.5/24");
    node.assert_ping("10.8.0.5");
}

/// Rows: F22
#[test]
fn a_taken_name_of_the_host_end_is_passed_over() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({}));
    let attachment = node.pod().attachment("eth0");
    let pod = node.pod();
    let attachment = attachment.netns(&pod.path().display().to_string());
    net.add(&attachment);
    let taken = net.host_ends().pop().expect("a host end");
    net.del(&attachment);
    node.ip(&format!("link add {taken} type veth peer name other\n"));
    net.add(&attachment);
    let both = net.host_ends();
    assert_eq!(both.len(), 2, "{both:?}");
    net.del(&attachment);
    assert_eq!(net.host_ends(), [taken]);
}

#[test]
fn a_bridge_keeps_its_address_when_its_last_port_goes() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let mac = || node.link("cw0").expect("the bridge")["address"].clone();
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    let first = mac();
    net.del(&attachment);
    assert_eq!(mac(), first);
    net.add(&attachment);
    assert_eq!(mac(), first);
    net.del(&attachment);
    // A bridge of another maker, whose last port took its address along.
    let other = net.with(json!({ "bridge": "cw1", "name": "other" }));
    node.ip("link add cw1 type bridge\nlink set cw1 up\n");
    let layer2 = other.with(json!({ "ipam": {} }));
    layer2.add(&attachment);
    layer2.del(&attachment);
    assert_eq!(node.link("cw1").expect("the bridge")["address"], "00:00:00:00:00:00");
    let result = other.add(&attachment);
    assert_ne!(result["interfaces"][0]["mac"], "00:00:00:00:00:00");
    other.del(&attachment);
    other.add(&attachment);
}

/// Rows: C47, C60
#[test]
fn vlans_work_or_are_refused_with_the_reason() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let more =
        json!({ "isGateway": true, "vlan": 100, "vlanTrunk": [{ "minID": 200, "maxID": 201 }] });
    let net = Net::new(&node, &fake, more);
    let pod = node.pod();
    let capable = node.try_sh("ip link add probe type bridge vlan_filtering 1").status.success();
    let before = Snapshot::take(&node);
    let outcome = net.run("ADD", &pod.attachment("eth0"));
    if !capable {
        let error = outcome.error();
        assert!(text(&error["msg"]).contains("VLAN filtering"), "{error}");
        before.assert_same(&Snapshot::take(&node));
        return;
    }
    let result = outcome.json();
    assert_eq!(result["interfaces"][3]["name"], "cw0.100");
    assert_eq!(node.addresses("cw0.100"), ["10.0.1.1/16"]);
    let vlans =
        node.sh(&format!("bridge vlan show dev {}", text(&result["interfaces"][1]["name"])));
    assert!(vlans.contains("100 PVID Egress Untagged") && vlans.contains("201"), "{vlans}");
    node.assert_ping("10.0.1.2");
}
