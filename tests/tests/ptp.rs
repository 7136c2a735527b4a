//! `causeway-bridge` with `"mode": "ptp"`: a container on a routed link of its own, no bridge.

use causeway_tests::traffic::Server;
use causeway_tests::{
    Attachment, BridgeNet, Cni, Daemon, FakeIpam, Lab, Node, Ns, Runtime, Snapshot,
};
use serde_json::{Value, json};

/// A network of `fake` without a bridge.
fn ptp<'a>(node: &'a Node, fake: &'a FakeIpam, more: Value) -> BridgeNet<'a> {
    let mut net = BridgeNet::new(node, fake, json!({ "mode": "ptp" }));
    net.config.as_object_mut().expect("an object").remove("bridge");
    net.with(more)
}

fn dual() -> FakeIpam {
    FakeIpam::new(&json!({ "ips": [
        { "address": "192.168.2.20/24", "gateway": "192.168.2.1" },
        { "address": "fd00:2::20/64", "gateway": "fd00:2::1" } ] }))
}

/// Host end, its addresses and routes, and a list of what `ip route` says.
fn routes(ns: &Ns, dev: &str) -> Vec<String> {
    let text =
        ns.sh(&format!("ip -4 route show dev {dev}; ip -6 route show dev {dev} | sed /^fe80/d"));
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn has(routes: &[String], start: &str) -> bool {
    routes.iter().any(|route| route.starts_with(start))
}

/// Rows: S-08, C47, C48
#[test]
fn a_container_has_a_link_and_a_route_of_its_own() {
    let node = Node::new("node");
    let fake = dual();
    let net = ptp(&node, &fake, json!({}));
    let pod = node.pod();
    pod.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
    let before = Snapshot::take(&node);
    let attachment = pod.attachment("eth0");
    let result = net.add(&attachment);

    let host = net.host_ends().pop().expect("a host end");
    let interfaces = result["interfaces"].as_array().expect("interfaces");
    let names: Vec<_> = interfaces.iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, [json!(host), json!("eth0")]);
    assert_eq!(interfaces[1]["sandbox"], attachment.netns);
    assert_eq!(
        result["ips"],
        json!([{ "interface": 1, "address": "192.168.2.20/32", "gateway": "192.168.2.1" },
               { "interface": 1, "address": "fd00:2::20/128", "gateway": "fd00:2::1" }])
    );
    assert_eq!(
        result["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "192.168.2.1" }, { "dst": "::/0", "gw": "fd00:2::1" }])
    );

    assert!(node.link("cni0").is_none() && node.link(&host).expect("it")["master"].is_null());
    assert_eq!(pod.addresses("eth0"), ["192.168.2.20/32", "fd00:2::20/128"]);
    assert_eq!(node.addresses(&host), ["192.168.2.1/32", "fd00:2::1/128"]);
    let inside = routes(&pod, "eth0");
    for route in [
        "default via 192.168.2.1 ",
        "192.168.2.1 scope link",
        "192.168.2.0/24 via 192.168.2.1 ",
        "default via fd00:2::1 ",
        "fd00:2::1 ",
        "fd00:2::/64 via fd00:2::1 ",
    ] {
        assert!(has(&inside, route), "{route}: {inside:?}");
    }
    let outside = routes(&node, &host);
    for route in ["192.168.2.20 proto static", "fd00:2::20 proto static"] {
        assert!(has(&outside, route), "{route}: {outside:?}");
    }
    assert_eq!(node.sysctl("ipv4/ip_forward"), "1");
    assert_eq!(node.sysctl("ipv6/conf/all/forwarding"), "1");
    for address in ["192.168.2.20", "fd00:2::20"] {
        node.assert_ping(address);
    }
    for address in ["192.168.2.1", "fd00:2::1"] {
        pod.assert_ping(address);
    }
    net.with(json!({ "prevResult": result })).run("CHECK", &attachment).silent();
    net.on_network("STATUS", json!({})).silent();
    net.del(&attachment.netns(""));
    assert!(pod.link("eth0").is_none());
    node.set_sysctl("ipv4/ip_forward", "0");
    node.set_sysctl("ipv6/conf/all/forwarding", "0");
    before.assert_same(&Snapshot::take(&node));
}

/// The second node of the chapter: its container has no bridge, the first node's have one.
///
/// Rows: S-08, S-19
#[test]
fn a_container_without_bridge_reaches_one_on_a_bridge_of_another_node() {
    let lab = Lab::two_nodes();
    let bridged = FakeIpam::new(&json!({ "ips": [
        { "address": "192.168.1.10/24", "gateway": "192.168.1.1" },
        { "address": "fd00:1::10/64", "gateway": "fd00:1::1" } ] }));
    let routed = dual();
    let more = json!({ "isDefaultGateway": true, "ipMasq": true,
                       "ipMasqExclude": ["192.168.0.0/16", "fd00::/16"] });
    let first = BridgeNet::new(&lab.nodes[0], &bridged, more.clone());
    let second = ptp(&lab.nodes[1], &routed, more);
    let (pod1, pod2) = (lab.nodes[0].pod(), lab.nodes[1].pod());
    first.add(&pod1.attachment("eth0"));
    second.add(&pod2.attachment("eth0"));
    for (node, net, peer) in
        [(0, "192.168.2.0/24", "172.18.0.3"), (1, "192.168.1.0/24", "172.18.0.2")]
    {
        lab.nodes[node].ip(&format!("route add {net} via {peer}\n"));
    }
    for (node, net, peer) in
        [(0, "fd00:2::/64", "fd00:172:18::3"), (1, "fd00:1::/64", "fd00:172:18::2")]
    {
        lab.nodes[node].ip(&format!("route add {net} via {peer}\n"));
    }
    let _web = Server::tcp(&pod1, "pod1a", "[::]:80");
    let answer = pod2.tcp("192.168.1.10:80").expect("an answer of pod1a");
    assert_eq!(
        answer.peer.ip().to_canonical().to_string(),
        "192.168.2.20",
        "the source is the container's own"
    );
    assert_eq!(
        pod2.tcp("[fd00:1::10]:80").expect("over IPv6").peer.ip().to_canonical().to_string(),
        "fd00:2::20"
    );
    let _back = Server::tcp(&pod2, "pod2", "[::]:80");
    assert_eq!(
        pod1.tcp("192.168.2.20:80").expect("pod2").peer.ip().to_canonical().to_string(),
        "192.168.1.10"
    );
    assert_eq!(
        pod1.tcp("[fd00:2::20]:80").expect("pod2").peer.ip().to_canonical().to_string(),
        "fd00:1::10"
    );
    // Masqueraded out of the cluster only: the internet host has no route to the container.
    pod2.assert_ping(Lab::INTERNET);
    pod2.assert_ping(Lab::INTERNET6);
}

/// Rows: S-14, O-10
#[test]
fn the_mtu_is_the_configurations_or_the_overlays() {
    let node = Node::new("node");
    std::fs::write(node.run_dir().join("node.json"), r#"{"overlayMTU":1430}"#).expect("write");
    for (more, mtu) in [(json!({}), 1430), (json!({ "mtu": 1300 }), 1300)] {
        let fake = FakeIpam::one("10.0.1.2");
        let net = ptp(&node, &fake, more);
        let pod = node.pod();
        let attachment = pod.attachment("eth0");
        let result = net.add(&attachment);
        assert_eq!(pod.link("eth0").expect("eth0")["mtu"], mtu);
        assert_eq!(node.link(&net.host_ends()[0]).expect("host end")["mtu"], mtu);
        assert!(result["interfaces"].as_array().expect("a list").iter().all(|i| i["mtu"] == mtu));
        net.del(&attachment);
    }
}

#[test]
fn is_default_gateway_false_leaves_the_ipams_routes_alone() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "ips": [{ "address": "10.0.1.2/24" }],
        "routes": [{ "dst": "10.9.0.0/16" }], "dns": { "nameservers": ["10.96.0.10"] } }));
    let net = ptp(&node, &fake, json!({ "isDefaultGateway": false }));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let result = net.add(&attachment);
    let inside = routes(&pod, "eth0");
    assert!(has(&inside, "10.9.0.0/16 via 10.0.1.1"), "{inside:?}");
    assert!(!has(&inside, "default"), "{inside:?}");
    assert_eq!(result["dns"]["nameservers"], json!(["10.96.0.10"]));
    net.with(json!({ "prevResult": result })).run("CHECK", &attachment).silent();
    let own = net.with(json!({ "dns": { "nameservers": ["192.0.2.53"] } }));
    let other = node.pod();
    fake.script("ADD", r#"echo '{"ips":[{"address":"10.0.1.3/24"}]}'"#);
    assert_eq!(own.add(&other.attachment("eth0"))["dns"]["nameservers"], json!(["192.0.2.53"]));
    // Both containers of one subnet meet through the host.
    pod.assert_ping("10.0.1.3");
    other.assert_ping("10.0.1.2");
}

/// Rows: C56
#[test]
fn beside_another_network_the_first_default_route_stays() {
    let node = Node::new("node");
    let (one, two) = (FakeIpam::one("10.0.1.2"), dual());
    let first = BridgeNet::new(&node, &one, json!({ "isDefaultGateway": true }));
    let second = ptp(&node, &two, json!({ "name": "second" }));
    let pod = node.pod();
    let [eth0, eth1] = ["eth0", "eth1"].map(|name| pod.attachment(name));
    let before = first.add(&eth0);
    let result = second.with(json!({ "prevResult": before })).add(&eth1);
    assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(5));
    assert_eq!(result["ips"][1]["interface"], 4);
    assert!(pod.sh("ip -4 route show default").starts_with("default via 10.0.1.1 dev eth0"));
    assert!(pod.sh("ip -6 route show default").starts_with("default via fd00:2::1 dev eth1"));
    node.assert_ping("192.168.2.20");
    node.assert_ping("10.0.1.2");
}

/// Rows: C70
#[test]
fn check_finds_what_somebody_took_away() {
    let node = Node::new("node");
    let fake = dual();
    let net = ptp(&node, &fake, json!({ "ipMasq": true }));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let result = net.add(&attachment);
    let host = net.host_ends().pop().expect("a host end");
    let check = net.with(json!({ "prevResult": result }));
    check.run("CHECK", &attachment).silent();
    let spoil = |on_host: bool, off: &str, on: &str| {
        let ip = |line: &str| {
            if on_host { node.ip(&format!("{line}\n")) } else { pod.ip(&format!("{line}\n")) }
        };
        ip(off);
        let error = check.run("CHECK", &attachment).error();
        assert_eq!(error["code"], 999, "{off}: {error}");
        ip(on);
        check.run("CHECK", &attachment).silent();
    };
    spoil(
        true,
        "route del 192.168.2.20/32",
        &format!("route add 192.168.2.20/32 dev {host} proto static"),
    );
    spoil(
        true,
        &format!("route del fd00:2::20/128 dev {host}"),
        &format!("route add fd00:2::20/128 dev {host} proto static"),
    );
    spoil(
        true,
        &format!("addr del 192.168.2.1/32 dev {host}"),
        // Without any IPv4 address a link keeps no IPv4 routes either.
        &format!(
            "addr add 192.168.2.1/32 dev {host}\nroute add 192.168.2.20/32 dev {host} proto static"
        ),
    );
    spoil(
        false,
        "route del 192.168.2.0/24",
        "route add 192.168.2.0/24 via 192.168.2.1 dev eth0 onlink",
    );
    spoil(false, "route del default", "route add default via 192.168.2.1 dev eth0 onlink");
    node.sh("nft delete table inet causeway_masq");
    assert_eq!(check.run("CHECK", &attachment).error_code(), 999);
}

/// Rows: C81
#[test]
fn a_failed_add_leaves_nothing() {
    let node = Node::new("node");
    let fake = dual();
    let net = ptp(&node, &fake, json!({ "ipMasq": true }));
    let (pod, other) = (node.pod(), node.pod());
    let before = Snapshot::take(&node);
    for (answer, code, part) in [
        (r#"{"ips":[{"address":"10.0.1.2/32"}]}"#, 7, "gateway"),
        (r#"{"ips":[{"address":"10.0.1.1/24"}]}"#, 7, "gateway"),
        (r#"{"ips":[]}"#, 6, "missing IP config"),
        (r#"{"code":11,"msg":"later"}"#, 11, "later"),
    ] {
        let exit = i32::from(answer.contains("code"));
        fake.script("ADD", &format!("echo '{answer}'; exit {exit}"));
        let error = net.run("ADD", &pod.attachment("eth0")).error();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().is_some_and(|msg| msg.contains(part)), "{error}");
        before.assert_same(&Snapshot::take(&node));
        assert!(pod.link("eth0").is_none());
    }
    // The host has a route to that address already: its owner keeps it.
    fake.script("ADD", r#"echo '{"ips":[{"address":"10.0.1.2/24"}]}'"#);
    net.add(&other.attachment("eth0"));
    let before = Snapshot::take(&node);
    let error = net.run("ADD", &pod.attachment("eth0")).error();
    assert!(error["msg"].as_str().is_some_and(|msg| msg.contains("10.0.1.2/32")), "{error}");
    before.assert_same(&Snapshot::take(&node));
    node.assert_ping("10.0.1.2");
    assert_eq!(fake.commands().iter().filter(|command| *command == "DEL").count(), 5);
}

/// Rows: F3, F7, C73
#[test]
fn a_killed_add_is_cleared_away() {
    for clear in ["DEL", "GC"] {
        let node = Node::new("node");
        let fake = FakeIpam::one("10.0.1.2");
        let net = ptp(&node, &fake, json!({ "ipMasq": true }));
        let pod = node.pod();
        let attachment = pod.attachment("eth0");
        fake.pause(&node, "ADD");
        let mut run = net.call("ADD", &attachment).spawn();
        fake.reached(&node);
        run.kill();
        assert!(!run.wait().status.success());
        fake.resume(&node);
        fake.ended(&node);
        if clear == "DEL" {
            net.del(&attachment.clone().netns(""));
        } else {
            net.on_network("GC", json!({ "cni.dev/valid-attachments": [] })).silent();
        }
        assert_eq!(net.host_ends(), Vec::<String>::new());
        assert_eq!(
            fake.commands(),
            ["ADD", "DEL"].into_iter().chain((clear == "GC").then_some("GC")).collect::<Vec<_>>()
        );
        fake.script("ADD", r#"echo '{"ips":[{"address":"10.0.1.2/24"}]}'"#);
        net.add(&attachment);
        node.assert_ping("10.0.1.2");
        // GC takes a living one that the runtime does not know, and its host end without a record.
        std::fs::remove_dir_all(node.run_dir().join("attachments")).expect("lose the records");
        net.on_network("GC", json!({ "cni.dev/valid-attachments": [] })).silent();
        assert!(pod.link("eth0").is_none());
        assert!(!node.nft().contains("causeway"), "{}", node.nft());
    }
}

/// Rows: F28
#[test]
fn an_attachment_of_upstreams_is_removed() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = ptp(
        &node,
        &fake,
        json!({ "cniVersion": "1.0.0", "ipMasq": true, "ipam": {
            "type": "host-local", "dataDir": node.data_dir(), "subnet": "10.9.0.0/24" } }),
    );
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let upstream = Cni::new(&node, "ptp", "ADD", &net.config).attachment(&attachment);
    let result = upstream.run().json();
    let bridged = json!({ "mode": "bridge", "bridge": "cw0", "prevResult": result });
    net.with(bridged).del(&attachment);
    assert!(pod.link("eth0").is_some(), "it is no port of that bridge");
    net.with(json!({ "prevResult": result })).del(&attachment);
    assert!(pod.link("eth0").is_none());
    assert_eq!(net.host_ends(), Vec::<String>::new());
    assert!(!node.rules().contains("10.9.0.2"), "{}", node.rules());
}

#[test]
fn several_addresses_and_a_gateway_of_the_link_alone() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "ips": [
        { "address": "10.0.1.2/24" }, { "address": "10.0.1.3/24" },
        { "address": "10.7.0.5/32", "gateway": "169.254.1.1" },
        { "address": "fd00:2::20/64", "gateway": "fe80::1" } ] }));
    let net = ptp(&node, &fake, json!({ "enabledad": true }));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let result = net.add(&attachment);
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(4));
    for address in ["10.0.1.2", "10.0.1.3", "10.7.0.5", "fd00:2::20"] {
        node.assert_ping(address);
    }
    for gateway in ["10.0.1.1", "169.254.1.1", "fe80::1%eth0"] {
        pod.assert_ping(gateway);
    }
    assert!(pod.sh("ip -6 route show default").starts_with("default via fe80::1 dev eth0"));
    node.ip("link add far0 type bridge\nlink set far0 up\naddr add 198.51.100.1/32 dev far0\naddr add 2001:db8::1/128 dev far0 nodad\n");
    pod.assert_ping("198.51.100.1");
    pod.assert_ping("2001:db8::1");
    net.with(json!({ "prevResult": result })).run("CHECK", &attachment).silent();
    net.del(&attachment);
    assert_eq!(net.host_ends(), Vec::<String>::new());
}

/// Rows: F11
#[test]
fn adds_and_dels_at_once_keep_to_themselves() {
    let node = Node::new("node");
    let fakes: Vec<_> = (0..10).map(|n| FakeIpam::one(&format!("10.0.1.{}", n + 2))).collect();
    let nets: Vec<_> =
        fakes.iter().map(|fake| ptp(&node, fake, json!({ "ipMasq": true }))).collect();
    let pods: Vec<_> = fakes.iter().map(|_| node.pod()).collect();
    let attachments: Vec<Attachment> = pods.iter().map(|pod| pod.attachment("eth0")).collect();
    let call = |command: &str, n: usize| nets[n].call(command, &attachments[n]).spawn();
    for add in (0..5).map(|n| call("ADD", n)).collect::<Vec<_>>() {
        add.wait().json();
    }
    let runs: Vec<_> = (0..5).map(|n| (call("DEL", n), call("ADD", n + 5))).collect();
    for (del, add) in runs {
        del.wait().silent();
        add.wait().json();
    }
    assert_eq!(nets[0].host_ends().len(), 5);
    for (n, pod) in pods.iter().enumerate().skip(5) {
        node.assert_ping(&format!("10.0.1.{}", n + 2));
        pod.assert_ping("10.0.1.1");
    }
    for del in (5..10).map(|n| call("DEL", n)).collect::<Vec<_>>() {
        del.wait().silent();
    }
    assert_eq!(nets[0].host_ends(), Vec::<String>::new());
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// A network of all three plugins without a bridge.
fn conflist(node: &Node) -> Value {
    let mut list = node.conflist("net", "10.0.1.0/24");
    let main = list["plugins"][0].as_object_mut().expect("a plugin");
    for key in ["bridge", "isDefaultGateway", "hairpinMode"] {
        main.remove(key);
    }
    main.insert("mode".to_owned(), json!("ptp"));
    main["ipam"]["ranges"] = json!([[{ "subnet": "10.0.1.0/24" }], [{ "subnet": "fd00:1::/64" }]]);
    list
}

#[test]
fn host_ports_lead_to_a_container_without_bridge() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, conflist(node));
    let (pod, other) = (node.pod(), node.pod());
    let ports =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    let attached = pod.attachment("eth0").runtime_config(ports);
    runtime.add_ok(&attached);
    runtime.add_ok(&other.attachment("eth0"));
    let _web = Server::tcp(&pod, "web", "[::]:80");
    let calls: [(&Ns, &str); 7] = [
        (&lab.client, "172.18.0.2:8080"),
        (&lab.client, "[fd00:172:18::2]:8080"),
        (node, "172.18.0.2:8080"),
        (node, "127.0.0.1:8080"),
        (&other, "172.18.0.2:8080"),
        // To itself: by way of the host, which no bridge has to turn around.
        (&pod, "172.18.0.2:8080"),
        (&pod, "[fd00:172:18::2]:8080"),
    ];
    for (from, to) in calls {
        let answer = from.tcp(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!(answer.hostname, "web", "{to}");
    }
    runtime.check(&attached).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    // What 127.0.0.1 needs on this link goes with it, while others keep theirs.
    let localnet = || {
        let entries = std::fs::read_dir(node.run_dir().join("route_localnet/nftables"));
        entries.map_or(0, Iterator::count)
    };
    let third = node.pod();
    let ports =
        json!({ "portMappings": [{ "hostPort": 8081, "containerPort": 80, "protocol": "tcp" }] });
    let beside = third.attachment("eth0").runtime_config(ports);
    runtime.add_ok(&beside);
    let _other = Server::tcp(&third, "third", "[::]:80");
    assert_eq!(localnet(), 2);
    runtime.del_ok(&attached);
    assert_eq!(localnet(), 1);
    assert!(lab.client.tcp("172.18.0.2:8080").is_err());
    assert_eq!(node.tcp("127.0.0.1:8081").expect("an answer").hostname, "third");
    runtime.del_ok(&beside);
    assert_eq!(localnet(), 0);
}

#[test]
fn services_lead_to_a_container_without_bridge() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start(node);
    daemon.manifest(
        "web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  clusterIP: 10.96.1.100\n  \
         selector: {app: web}\n  ports: [{port: 8080, targetPort: 80, nodePort: 30080}]\n",
    );
    let runtime = Runtime::new(node, conflist(node));
    let (pod, other) = (node.pod(), node.pod());
    runtime.add_ok(&pod.attachment("eth0").args("CAUSEWAY_LABELS=app:web"));
    runtime.add_ok(&other.attachment("eth0"));
    let _web = Server::tcp(&pod, "web", "0.0.0.0:80");
    daemon.until("the service has its endpoint", || node.nft().contains(": 10.0.1.2"));
    let calls: [(&Ns, &str); 5] = [
        (&lab.client, "172.18.0.2:30080"),
        (node, "10.96.1.100:8080"),
        (node, "127.0.0.1:30080"),
        (&other, "10.96.1.100:8080"),
        (&pod, "10.96.1.100:8080"),
    ];
    for (from, to) in calls {
        let answer = from.tcp(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!(answer.hostname, "web", "{to}");
    }
    let seen =
        other.tcp("10.96.1.100:8080").expect("an answer").peer.ip().to_canonical().to_string();
    assert_eq!(seen, "10.0.1.3", "pod to pod keeps its source");
}

#[test]
fn addresses_come_from_a_real_pool() {
    let node = Node::new("node");
    let list = conflist(&node);
    let mut config = list["plugins"][0].clone();
    config["name"] = json!("net");
    config["cniVersion"] = json!("0.3.1");
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let call = |command: &str| {
        Cni::new(&node, "causeway-bridge", command, &config).attachment(&attachment)
    };
    let result = call("ADD").run().json();
    assert_eq!(result["ips"][0]["address"], "10.0.1.2/32");
    assert_eq!(result["ips"][0]["gateway"], "10.0.1.1");
    assert_eq!(node.leases().len(), 2);
    call("DEL").run().silent();
    assert_eq!(node.leases().len(), 0);
}
