//! `causeway-bridge` DEL, CHECK, GC and STATUS, and attachments that live beside each other.

use causeway_tests::{BridgeNet as Net, Cni, FakeIpam, Node, Snapshot};
use serde_json::{Value, json};

fn gateway() -> Value {
    json!({ "isDefaultGateway": true })
}

fn removed(fake: &FakeIpam, id: &str, ifname: &str) -> usize {
    let wanted = format!("DEL {id} {ifname}");
    fake.calls().iter().filter(|call| **call == wanted).count()
}

/// Rows: C63, C65, C66, F8, F9
#[test]
fn del_needs_no_namespace_and_no_previous_result() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.del(&attachment);
    net.add(&attachment);
    let bare = attachment.clone().netns("");
    net.del(&bare);
    assert_eq!(net.host_ends(), Vec::<String>::new());
    assert!(pod.link("eth0").is_none());
    let after = Snapshot::take(&node);
    for _ in 0..2 {
        net.del(&bare);
        net.del(&attachment);
    }
    node.ip("link del cw0\n");
    net.del(&attachment);
    assert_eq!(removed(&fake, &attachment.id, "eth0"), 7);
    let files = after.diff(&Snapshot::take(&node));
    assert!(!files.contains("files"), "{files}");
}

/// Rows: C64, F14, F15
#[test]
fn del_takes_any_namespace_for_gone() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let plain = fake.file("plain");
    std::fs::write(&plain, "").expect("write a plain file");
    for path in ["/run/netns/gone", &plain.display().to_string(), "/proc/self/ns/mnt"] {
        let pod = node.pod();
        let attachment = pod.attachment("eth0");
        let result = net.add(&attachment);
        let config = net.with(json!({ "prevResult": result }));
        config.del(&attachment.clone().netns(path));
        assert_eq!(net.host_ends(), Vec::<String>::new());
        assert_eq!(removed(&fake, &attachment.id, "eth0"), 1);
        // Without a record, the path is looked at.
        config.del(&attachment.netns(path));
    }
}

/// Rows: C69
#[test]
fn the_link_goes_before_the_lease() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let log = fake.file("links");
    // The kernel may not have finished with the link by then, but nothing passes it any more.
    let look = format!(
        "{{ ip -o link show type veth up; bridge link show | grep 'state forwarding'; \
         ping -n -c 1 -W 1 10.0.1.2 | grep 'bytes from'; }} > {}",
        log.display()
    );
    fake.script("CHECK", &format!("{look}; true"));
    fake.script("DEL", &format!("{look}; true"));
    let seen = || std::fs::read_to_string(&log).expect("the IPAM plugin was called");
    let result = net.add(&attachment);
    net.with(json!({ "prevResult": result })).run("CHECK", &attachment).silent();
    assert_eq!(seen().lines().count(), 3, "link, port and container are seen: {}", seen());
    net.del(&attachment);
    assert_eq!(seen(), "");
    assert_eq!(net.host_ends(), Vec::<String>::new());
    assert!(pod.link("eth0").is_none());
}

/// Rows: C69
#[test]
fn del_goes_on_after_a_failure_and_reports_it() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    fake.script("DEL", r#"echo '{"code":11,"msg":"store is busy"}'; exit 1"#);
    let error = net.run("DEL", &attachment).error();
    assert_eq!((error["code"].as_u64(), error["msg"].as_str()), (Some(11), Some("store is busy")));
    assert_eq!(net.host_ends(), Vec::<String>::new());
    fake.script("DEL", "true");
    net.del(&attachment);
}

/// Rows: C68, F16
#[test]
fn a_namespace_of_another_container_is_left_alone() {
    let node = Node::new("node");
    let (fake_a, fake_b) = (FakeIpam::one("10.0.1.2"), FakeIpam::one("10.0.1.3"));
    let a = Net::new(&node, &fake_a, gateway());
    let b = Net::new(&node, &fake_b, gateway());
    let (pod_a, pod_b) = (node.pod(), node.pod());
    let (one, two) = (pod_a.attachment("eth0"), pod_b.attachment("eth0"));
    let result = a.add(&one);
    b.add(&two);
    let confused = one.clone().netns(&two.netns);
    a.with(json!({ "prevResult": result })).del(&confused);
    assert_eq!(removed(&fake_a, &one.id, "eth0"), 1);
    // The same without a record, even if the previous result seems to fit.
    let mac = pod_b.link("eth0").expect("eth0")["address"].clone();
    let forged = json!({ "cniVersion": "1.1.0",
        "interfaces": [{ "name": "eth0", "mac": mac, "sandbox": two.netns }] });
    a.with(json!({ "prevResult": forged })).del(&confused);
    assert!(pod_b.link("eth0").is_some() && pod_a.link("eth0").is_none());
    node.assert_ping("10.0.1.3");
}

/// Rows: F28
#[test]
fn an_attachment_of_upstreams_is_removed() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(
        &node,
        &fake,
        json!({ "cniVersion": "1.0.0", "ipam": {
        "type": "host-local", "dataDir": node.data_dir(), "subnet": "10.9.0.0/24" } }),
    );
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let upstream = Cni::new(&node, "bridge", "ADD", &net.config).attachment(&attachment);
    let result = upstream.run().json();
    let other = json!({ "cniVersion": "1.0.0", "interfaces": [
        { "name": "eth0", "mac": "02:00:00:00:00:09", "sandbox": attachment.netns }] });
    net.with(json!({ "prevResult": other })).del(&attachment);
    assert!(pod.link("eth0").is_some(), "another interface than the one attached stays");
    net.with(json!({ "prevResult": result })).del(&attachment);
    assert!(pod.link("eth0").is_none());
    assert!(!node.data_dir().join("net/10.9.0.2").exists());
}

/// Rows: F34
#[test]
fn del_works_with_another_configuration() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "isGateway": true, "ipMasq": true }));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    net.with(json!({ "bridge": "other", "vlan": 9999, "mtu": -1, "ipMasq": false, "ipam": {} }))
        .del(&attachment);
    assert_eq!(net.host_ends(), Vec::<String>::new());
    assert_eq!(removed(&fake, &attachment.id, "eth0"), 1, "the record names the IPAM plugin");
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: F24
#[test]
fn a_wiped_state_folder_is_no_obstacle() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "isGateway": true, "ipMasq": true }));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    std::fs::remove_dir_all(node.run_dir()).expect("wipe runDir");
    net.run("ADD", &attachment).error();
    let calls = fake.commands();
    assert_eq!(calls, ["ADD"], "the lease of the first attachment is untouched");
    net.del(&attachment);
    assert_eq!(net.host_ends(), Vec::<String>::new());
    net.add(&attachment);
    net.del(&attachment);
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: C62
#[test]
fn attachments_of_one_container_are_independent() {
    let node = Node::new("node");
    let fakes = ["10.0.1.2", "10.0.1.3", "10.0.1.4"].map(FakeIpam::one);
    let first = Net::new(&node, &fakes[0], gateway());
    let second = Net::new(&node, &fakes[1], json!({ "isGateway": true }));
    let other = Net::new(&node, &fakes[2], json!({ "name": "other" }));
    let pod = node.pod();
    let [eth0, eth1, eth2] = ["eth0", "eth1", "eth2"].map(|name| pod.attachment(name));
    first.add(&eth0);
    second.add(&eth1);
    other.add(&eth2);
    assert_eq!(first.host_ends().len(), 3);
    second.del(&eth1.netns(""));
    assert!(pod.link("eth0").is_some() && pod.link("eth1").is_none());
    other.del(&pod.attachment("eth0").netns(""));
    assert!(pod.link("eth0").is_some() && pod.link("eth2").is_some());
    other.del(&eth2);
    node.assert_ping("10.0.1.2");
}

/// Rows: F10, C78
#[test]
fn many_first_adds_at_once() {
    let node = Node::new("node");
    let fakes: Vec<_> = (0..24).map(|n| FakeIpam::one(&format!("10.0.1.{}", n + 2))).collect();
    let pods: Vec<_> = fakes.iter().map(|_| node.pod()).collect();
    let nets: Vec<_> = fakes
        .iter()
        .map(|fake| Net::new(&node, fake, json!({ "isDefaultGateway": true, "ipMasq": true })))
        .collect();
    let runs: Vec<_> = nets
        .iter()
        .zip(&pods)
        .map(|(net, pod)| net.call("ADD", &pod.attachment("eth0")).spawn())
        .collect();
    for run in runs {
        assert_eq!(run.wait().json()["interfaces"][0]["name"], "cw0");
    }
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/16"]);
    assert_eq!(nets[0].host_ends().len(), 24);
    for n in [2, 13, 25] {
        node.assert_ping(&format!("10.0.1.{n}"));
    }
    let runs: Vec<_> = nets
        .iter()
        .zip(&pods)
        .map(|(net, pod)| net.call("DEL", &pod.attachment("eth0").netns("")).spawn())
        .collect();
    for run in runs {
        run.wait().silent();
    }
    assert_eq!(nets[0].host_ends(), Vec::<String>::new());
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: F18, F19
#[test]
fn the_next_add_repairs_the_bridge() {
    let node = Node::new("node");
    let fakes = ["10.0.1.2", "10.0.1.3", "10.0.1.4"].map(FakeIpam::one);
    let nets = [0, 1, 2].map(|n| Net::new(&node, &fakes[n], gateway()));
    let pods = [node.pod(), node.pod(), node.pod()];
    let [one, two, three] = [0, 1, 2].map(|n: usize| pods[n].attachment("eth0"));
    let result = nets[0].add(&one);
    node.ip("link set cw0 down\naddr flush dev cw0\n");
    nets[1].add(&two);
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/16"]);
    node.assert_ping("10.0.1.2");
    node.ip("link del cw0\n");
    let check = nets[0].with(json!({ "prevResult": result })).run("CHECK", &one);
    assert!(check.error()["msg"].as_str().is_some_and(|msg| msg.contains("cw0")));
    nets[2].add(&three);
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/16"]);
    node.assert_ping("10.0.1.4");
    nets[0].del(&one);
    nets[1].del(&two.netns(""));
    assert_eq!(nets[0].host_ends().len(), 1);
}

/// Rows: C70, C72, C58
#[test]
fn check_passes_after_add_and_sees_every_difference() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(
        &node,
        &fake,
        json!({ "isDefaultGateway": true, "ipMasq": true,
        "macspoofchk": true, "hairpinMode": true }),
    );
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    assert_eq!(net.run("CHECK", &attachment).error_code(), 7);
    let result = net.add(&attachment);
    let net = net.with(json!({ "prevResult": result }));
    let before = Snapshot::take(&node);
    net.run("CHECK", &attachment).silent();
    before.assert_same(&Snapshot::take(&node));
    let host = net.host_ends().pop().expect("a host end");
    let elsewhere = attachment.clone().netns(&node.pod().path().display().to_string());
    net.run("CHECK", &elsewhere).error();
    for (spoil, mend) in [
        ("ip route del default", "ip route add default via 10.0.1.1"),
        ("ip addr add 10.0.9.9/16 dev eth0; ip addr del 10.0.1.2/16 dev eth0", ""),
        ("ip addr add 10.0.1.2/16 dev eth0; ip route add default via 10.0.1.1", "true"),
    ] {
        pod.sh(spoil);
        if mend == "true" {
            net.run("CHECK", &attachment).silent();
        } else {
            net.run("CHECK", &attachment).error();
            pod.sh(mend);
        }
    }
    for (spoil, mend) in [
        (format!("ip link set {host} nomaster"), format!("ip link set {host} master cw0")),
        (String::new(), format!("bridge link set dev {host} hairpin on")),
        ("ip link set cw0 promisc on".to_owned(), "ip link set cw0 promisc off".to_owned()),
        ("nft delete table inet causeway_masq".to_owned(), String::new()),
    ] {
        node.sh(&spoil);
        net.run("CHECK", &attachment).error();
        node.sh(&mend);
    }
}

/// Rows: C71
#[test]
fn check_of_layer_two_asks_no_ipam() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, json!({ "ipam": {} }));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let result = net.add(&attachment);
    net.with(json!({ "prevResult": result })).run("CHECK", &attachment).silent();
    assert_eq!(fake.calls(), Vec::<String>::new());
}

/// Rows: C73, C74, C83
#[test]
fn gc_removes_what_is_not_valid_and_nothing_else() {
    let node = Node::new("node");
    let fakes = ["10.0.1.2", "10.0.1.3", "10.0.1.4"].map(FakeIpam::one);
    let masq = json!({ "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true });
    let nets = [0, 1].map(|n| Net::new(&node, &fakes[n], masq.clone()));
    let other = Net::new(&node, &fakes[2], masq.clone()).with(json!({ "name": "other" }));
    let pods = [node.pod(), node.pod(), node.pod()];
    let [keep, stale, foreign] = [0, 1, 2].map(|n: usize| pods[n].attachment("eth0"));
    nets[0].add(&keep);
    nets[1].add(&stale);
    other.add(&foreign);
    let valid = json!([{ "containerID": keep.id, "ifname": "eth0" }]);
    nets[1].on_network("GC", json!({ "cni.dev/valid-attachments": valid })).silent();
    assert!(pods[1].link("eth0").is_none());
    assert_eq!(removed(&fakes[1], &stale.id, "eth0"), 1);
    assert_eq!(fakes[1].commands().pop().as_deref(), Some("GC"));
    let sent = std::fs::read(fakes[1].file("stdin.GC")).expect("stdin of the IPAM plugin");
    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
    assert_eq!(sent["cni.dev/valid-attachments"], valid);
    for (pod, address) in [(&pods[0], "10.0.1.2"), (&pods[2], "10.0.1.4")] {
        assert!(pod.link("eth0").is_some());
        node.assert_ping(address);
        assert!(node.nft().contains(address), "{}", node.nft());
    }
    assert!(!node.nft().contains("10.0.1.3"), "{}", node.nft());
    // A lost record does not hide a link or a rule.
    std::fs::remove_dir_all(node.run_dir().join("attachments/bridge/net")).expect("lose records");
    nets[0].on_network("GC", json!({ "cni.dev/valid-attachments": [] })).silent();
    assert!(pods[0].link("eth0").is_none() && pods[2].link("eth0").is_some());
    assert!(!node.nft().contains("10.0.1.2"), "{}", node.nft());
    assert!(node.nft().contains("10.0.1.4"), "{}", node.nft());
}

/// Rows: C76, C83
#[test]
fn status_says_whether_add_can_work() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    net.on_network("STATUS", json!({})).silent();
    assert_eq!(fake.commands(), ["STATUS"]);
    fake.script("STATUS", r#"echo '{"code":50,"msg":"pool exhausted"}'; exit 1"#);
    let error = net.on_network("STATUS", json!({})).error();
    assert_eq!((error["code"].as_u64(), error["msg"].as_str()), (Some(50), Some("pool exhausted")));
    fake.script("STATUS", "true");
    let missing = json!({ "ipam": { "type": "no-such-plugin" } });
    assert_eq!(net.on_network("STATUS", missing).error_code(), 50);
    node.ip("link add cw0 type veth peer name other\n");
    assert_eq!(net.on_network("STATUS", json!({})).error_code(), 50);
    assert_eq!(net.on_network("STATUS", json!({ "vlan": 9999 })).error_code(), 7);
}
