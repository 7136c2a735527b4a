//! All three plugins as one network, driven as libcni does it.

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Lab, Node, Outcome, Pod, Runtime, Snapshot, TempDir};
use serde_json::{Value, json};

fn ports(host_port: u16) -> Value {
    json!({ "portMappings": [
        { "hostPort": host_port, "containerPort": 80, "protocol": "tcp" } ] })
}

/// A lab whose node has had an attachment before, so that what stays by design is there already.
struct Chain {
    lab: Lab,
    list: Value,
    before: Snapshot,
}

impl Chain {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Value)) -> Self {
        let lab = Lab::one_node();
        let mut list = lab.nodes[0].conflist("causeway", "10.66.0.0/24");
        change(&mut list);
        let before = {
            let (node, first) = (&lab.nodes[0], lab.nodes[0].pod());
            let runtime = Runtime::new(node, list.clone());
            let attachment = first.attachment("eth0").runtime_config(ports(8000));
            runtime.add_ok(&attachment);
            runtime.del_ok(&attachment);
            Snapshot::take(node)
        };
        Self { lab, list, before }
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn runtime(&self) -> Runtime<'_> {
        Runtime::new(self.node(), self.list.clone())
    }

    fn assert_clean(&self) {
        self.before.assert_same(&Snapshot::take(self.node()));
    }
}

fn address(result: &Value) -> String {
    let text = result["ips"][0]["address"].as_str().expect("an address");
    text.split('/').next().expect("an address before the prefix").to_owned()
}

fn attach(runtime: &Runtime<'_>, pod: &Pod, port: u16) -> (Attachment, String) {
    let attachment = pod.attachment("eth0").runtime_config(ports(port));
    let ip = address(&runtime.add_ok(&attachment));
    (attachment, ip)
}

/// Rows: C20, C72
#[test]
fn a_container_is_reached_by_its_host_port_and_reaches_the_internet() {
    let chain = Chain::new();
    let (node, runtime) = (chain.node(), chain.runtime());
    let pod = node.pod();
    // The spelling of containerd, nerdctl and ctr.
    let go_cni = json!({ "portMappings": [
        { "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" } ] });
    let attachment = pod.attachment("eth0").runtime_config(go_cni);
    let ip = address(&runtime.add_ok(&attachment));
    let added = Snapshot::take(node);
    runtime.check(&attachment).expect("CHECK right after ADD");
    added.assert_same(&Snapshot::take(node));

    let _web = Server::tcp(&pod, "web", &format!("{ip}:80"));
    for from in [&chain.lab.client, &chain.lab.internet] {
        assert_eq!(from.tcp("172.18.0.2:8080").expect("an answer").hostname, "web");
    }
    let outside = Server::tcp(&chain.lab.internet, "inet", "203.0.113.10:80");
    let seen = pod.tcp(&outside.address().to_string()).expect("an answer from the internet");
    assert_eq!(seen.peer.ip().to_string(), Lab::node_address(0), "masqueraded");

    runtime.del_ok(&attachment);
    assert!(pod.link("eth0").is_none());
    chain.assert_clean();
}

/// Rows: C57, C63, C64, C66, C67, F8
#[test]
fn i7_del_cleans_up_whatever_the_runtime_still_knows() {
    let chain = Chain::new();
    let runtime = chain.runtime();
    let folder = TempDir::new("files");
    let file = folder.path().join("not-a-netns");
    std::fs::write(&file, "").expect("a plain file");
    let before = Snapshot::take(chain.node());
    let paths = ["", "/run/netns/gone", file.to_str().expect("text")];
    for (index, netns) in paths.into_iter().enumerate() {
        let pod = chain.node().pod();
        let port = 8081 + u16::try_from(index).expect("few");
        let (full, _) = attach(&runtime, &pod, port);
        runtime.forget(&full);
        let bare = full.clone().netns(netns).runtime_config(json!({}));
        for _ in 0..3 {
            runtime.del_ok(&bare);
        }
        before.assert_same(&Snapshot::take(chain.node()));
        runtime.del_ok(&full);
        assert!(pod.link("eth0").is_none(), "the veth is gone with its host end");
    }
}

/// Rows: C60, C66, F9, F14, F15
#[test]
fn i7_a_failed_add_leaves_nothing() {
    let chain = Chain::with(|list| {
        list["plugins"][0]["ipam"]["ranges"][0][0]["rangeEnd"] = json!("10.66.0.3");
    });
    let runtime = chain.runtime();
    let pod = chain.node().pod();
    let folder = TempDir::new("files");
    let plain = folder.path().join("not-a-netns");
    std::fs::write(&plain, "").expect("a plain file");
    for netns in ["/run/netns/gone", plain.to_str().expect("text")] {
        let failed = runtime.add(&pod.attachment("eth0").netns(netns)).expect_err("no netns");
        assert!([5, 8].contains(&failed.error_code()), "{}", failed.describe());
        chain.assert_clean();
    }

    pod.sh("ip link add eth0 type veth peer name other");
    let taken = Snapshot::of(&pod);
    runtime.add(&pod.attachment("eth0")).expect_err("the name is taken");
    taken.assert_same(&Snapshot::of(&pod));
    chain.assert_clean();

    // The last plugin refuses: the runtime calls DEL of all, with no result at hand.
    let holder = chain.node().pod();
    let (first, _) = attach(&runtime, &holder, 8090);
    let one = Snapshot::take(chain.node());
    let second = chain.node().pod();
    let clash = second.attachment("eth0").runtime_config(ports(8090));
    assert_eq!(runtime.add(&clash).expect_err("the port is taken").error_code(), 102);
    runtime.del_ok(&clash);
    one.assert_same(&Snapshot::take(chain.node()));
    runtime.del_ok(&first);
    chain.assert_clean();
}

/// Rows: C59, C61, F13
#[test]
fn a_second_add_fails_and_leaves_the_first_attachment_working() {
    let chain = Chain::new();
    let runtime = chain.runtime();
    let pod = chain.node().pod();
    let (attachment, ip) = attach(&runtime, &pod, 8080);
    let _web = Server::tcp(&pod, "web", &format!("{ip}:80"));
    let (node_before, pod_before) = (Snapshot::take(chain.node()), Snapshot::of(&pod));
    let kept = runtime.result(&attachment);
    let again = runtime.add(&attachment).expect_err("attached already");
    assert!(again.error_code() > 0, "{}", again.describe());
    node_before.assert_same(&Snapshot::take(chain.node()));
    pod_before.assert_same(&Snapshot::of(&pod));
    assert_eq!(chain.lab.client.tcp("172.18.0.2:8080").expect("an answer").hostname, "web");
    runtime.remember(&attachment, kept.expect("the result of the first ADD"));
    runtime.check(&attachment).expect("the first attachment is whole");
    runtime.del_ok(&attachment);
    chain.assert_clean();
}

/// Rows: C62
#[test]
fn attachments_of_one_container_are_independent() {
    let chain = Chain::new();
    let runtime = chain.runtime();
    let mut other_list = chain.node().conflist("other", "10.67.0.0/24");
    other_list["plugins"][0]["bridge"] = json!("cw1");
    other_list["plugins"][0]["isDefaultGateway"] = json!(false);
    other_list["plugins"][0]["isGateway"] = json!(true);
    let other = Runtime::new(chain.node(), other_list);
    let pod = chain.node().pod();
    let first = pod.attachment("eth0").runtime_config(ports(8080));
    let ip = address(&runtime.add_ok(&first));
    let second = pod.attachment("eth1").runtime_config(ports(8081));
    other.add_ok(&second);
    other.del_ok(&second);
    let alone = Snapshot::take(chain.node());
    other.add_ok(&second);
    let _web = Server::tcp(&pod, "web", "[::]:80");

    other.del_ok(&second);
    alone.assert_same(&Snapshot::take(chain.node()));
    assert_eq!(chain.lab.client.tcp("172.18.0.2:8080").expect("an answer").hostname, "web");
    chain.node().assert_ping(&ip);
    assert!(pod.addresses("eth0").iter().any(|one| one.starts_with(&ip)));
    assert!(pod.link("eth1").is_none());
    runtime.check(&first).expect("the first attachment is whole");
    runtime.del_ok(&first);
}

/// Rows: C65, F38
#[test]
fn del_succeeds_when_someone_else_removed_everything() {
    let chain = Chain::new();
    let runtime = chain.runtime();
    let pod = chain.node().pod();
    let (attachment, _) = attach(&runtime, &pod, 8080);
    chain.node().sh("nft flush ruleset; ip link del cw0");
    pod.sh("ip link del eth0");
    runtime.del_ok(&attachment);
    runtime.del_ok(&attachment);
    // The next container finds a network as good as new.
    let next = chain.node().pod();
    let (attachment, ip) = attach(&runtime, &next, 8080);
    let _web = Server::tcp(&next, "next", &format!("{ip}:80"));
    assert_eq!(chain.lab.client.tcp("172.18.0.2:8080").expect("an answer").hostname, "next");
    runtime.del_ok(&attachment);
}

/// Rows: C73, C74, C83
#[test]
fn gc_removes_what_has_no_valid_attachment_and_nothing_else() {
    let chain = Chain::with(|list| {
        list["plugins"][0]["ipam"]["ranges"][0][0]["rangeEnd"] = json!("10.66.0.4");
    });
    let runtime = chain.runtime();
    let pods = [(); 3].map(|()| chain.node().pod());
    let (kept, kept_ip) = attach(&runtime, &pods[0], 8080);
    let one = Snapshot::take(chain.node());
    let (_lost, _) = attach(&runtime, &pods[1], 8081);

    runtime.gc(&[&kept]).expect("GC");
    one.assert_same(&Snapshot::take(chain.node()));
    runtime.check(&kept).expect("the valid attachment is whole");
    chain.node().assert_ping(&kept_ip);
    // 10.66.0.2 to .4 hold three containers only if the lost lease was freed.
    let (second, _) = attach(&runtime, &pods[1], 8081);
    let (third, _) = attach(&runtime, &pods[2], 8082);
    for attachment in [second, third] {
        runtime.del_ok(&attachment);
    }
    runtime.gc(&[]).expect("GC of everything");
    chain.assert_clean();
}

/// Rows: F31
#[test]
fn an_exhausted_pool_fails_add_cleanly() {
    let chain = Chain::with(|list| {
        list["plugins"][0]["ipam"]["ranges"][0][0]["rangeEnd"] = json!("10.66.0.3");
    });
    let runtime = chain.runtime();
    let pods = [(); 3].map(|()| chain.node().pod());
    let first = attach(&runtime, &pods[0], 8080).0;
    let second = attach(&runtime, &pods[1], 8081).0;
    let full = Snapshot::take(chain.node());
    let failed: Outcome = runtime.add(&pods[2].attachment("eth0")).expect_err("no address left");
    assert_eq!(failed.error_code(), 100, "{}", failed.describe());
    let msg = failed.error()["msg"].to_string();
    assert!(msg.contains("no IP addresses available in range set: 10.66.0."), "{msg}");
    full.assert_same(&Snapshot::take(chain.node()));
    runtime.del_ok(&first);
    let third = attach(&runtime, &pods[2], 8080).0;
    runtime.del_ok(&second);
    runtime.del_ok(&third);
    chain.assert_clean();
}
