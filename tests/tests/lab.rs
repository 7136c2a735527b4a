//! The lab itself, tried with upstream's plugins.

use std::io::Read;
use std::process::Stdio;

use causeway_tests::traffic::Server;
use causeway_tests::{Lab, Node, Runtime, Snapshot};
use serde_json::{Value, json};

fn upstream(node: &Node) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "up", "plugins": [
        { "type": "bridge", "bridge": "up0", "isDefaultGateway": true, "ipMasq": true,
          "ipam": { "type": "host-local", "dataDir": node.data_dir(),
                    "ranges": [[{ "subnet": "10.9.0.0/24" }]] } },
        { "type": "portmap", "capabilities": { "portMappings": true } } ] })
}

#[test]
fn upstream_chain_attaches_and_detaches() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, upstream(node));
    let before = Snapshot::take(node);
    let pod = node.pod();
    let ports = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" } ] });
    let attachment = pod.attachment("eth0").runtime_config(ports);

    let result = runtime.add_ok(&attachment);
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    assert_eq!(pod.addresses("eth0"), ["10.9.0.2/24"]);
    node.assert_ping("10.9.0.2");
    pod.assert_ping(Lab::INTERNET);
    let _server = Server::tcp(&pod, "web", "10.9.0.2:80");
    let answer = lab.client.tcp("172.18.0.2:8080").expect("an answer by the host port");
    assert_eq!(
        (answer.hostname.as_str(), answer.peer.ip().to_string().as_str()),
        ("web", Lab::CLIENT)
    );
    assert!(before.diff(&Snapshot::take(node)).contains("up0"));

    runtime.del_ok(&attachment);
    runtime.del_ok(&attachment);
    assert!(pod.link("eth0").is_none());
    assert!(!node.ping("10.9.0.2"));
}

#[test]
fn lab_is_wired() {
    let lab = Lab::two_nodes();
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    for to in ["172.18.0.3", "fd00:172:18::3", Lab::CLIENT, Lab::INTERNET, Lab::INTERNET6] {
        one.assert_ping(to);
    }
    let _server = Server::udp(two, "two", "[::]:53");
    let answer = one.udp("[fd00:172:18::3]:53").expect("an answer by UDP");
    assert_eq!(answer.peer.ip().to_string(), "fd00:172:18::2");
    assert!(one.tcp("172.18.0.3:9").is_err(), "nobody listens there");
}

/// Rows: S-43
#[test]
fn test_server_answers_http_lines_and_datagrams() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut command = node.command(causeway_tests::bins::ours("causeway-testserver"));
    let mut server = command.stdout(Stdio::piped()).spawn().expect("start the test server");
    let mut ready = [0; 6];
    server.stdout.take().expect("a pipe").read_exact(&mut ready).expect("the word ready");
    assert_eq!(&ready, b"ready\n");

    let text = lab.client.sh("curl -sS -m 2 http://172.18.0.2:8080/some/path");
    assert_eq!(text, "HTTP Server IP address: 172.18.0.2\nRequest path: /some/path\n");
    for answer in [lab.client.tcp("172.18.0.2:80"), lab.client.udp("172.18.0.2:80")] {
        let answer = answer.expect("an answer");
        assert_eq!((answer.ip.to_string(), answer.got.as_str()), (Lab::node_address(0), "hello"));
        assert_eq!(answer.peer.ip().to_string(), Lab::CLIENT);
    }
    node.sh(&format!("kill -TERM {}", server.id()));
    assert!(server.wait().expect("wait for the server").success(), "SIGTERM is a clean end");
}
