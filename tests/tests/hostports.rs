//! Host ports by nftables, with packets.

use causeway_tests::traffic::{IMPATIENCE, Server};
use causeway_tests::{Attachment, Lab, Node, Ns, Pod, Runtime};
use serde_json::{Value, json};

const NODE: &str = "172.18.0.2";
const NODE6: &str = "fd00:172:18::2";

/// A network of upstream's bridge and host-local with our host ports.
fn network(node: &Node, name: &str, number: u8, extra: &Value) -> Value {
    let mut service = json!({
        "type": "causeway-service", "runDir": node.run_dir(),
        "capabilities": { "portMappings": true } });
    let members = service.as_object_mut().expect("an object");
    members.extend(extra.as_object().cloned().unwrap_or_default());
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [
        { "type": "bridge", "bridge": format!("hp{number}"), "isDefaultGateway": true,
          "ipMasq": false, "hairpinMode": true,
          "ipam": { "type": "host-local", "dataDir": node.data_dir(),
                    "ranges": [[{ "subnet": format!("10.{number}.0.0/24") }],
                               [{ "subnet": format!("fd00:{number}::/64") }]] } },
        service ] })
}

fn ports(mappings: Value) -> Value {
    json!({ "portMappings": mappings })
}

fn tcp(host: u16, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": "tcp" })
}

fn address(result: &Value, index: usize) -> String {
    let text = result["ips"][index]["address"].as_str().expect("an address").to_owned();
    text.split_once('/').expect("a prefix").0.to_owned()
}

/// Waits until the addresses of a container are usable: upstream's bridge does not switch
/// duplicate address detection off for the gateway.
fn settle(ns: &Ns) {
    ns.sh(
        "for i in $(seq 50); do ip -6 addr show tentative | grep -q . || exit 0; sleep 0.1; done",
    );
}

/// Records and bookkeeping; lock files stay.
fn state_files(node: &Node) -> String {
    node.sh(&format!("find {} -type f ! -name '*.lock'", node.run_dir().display()))
}

struct World {
    lab: Lab,
}

impl World {
    fn new() -> Self {
        Self { lab: Lab::one_node() }
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn runtime(&self, name: &str, number: u8, extra: Value) -> Runtime<'_> {
        Runtime::new(self.node(), network(self.node(), name, number, &extra))
    }
}

fn attachment(pod: &Pod, mappings: Value) -> Attachment {
    pod.attachment("eth0").runtime_config(ports(mappings))
}

#[test]
fn host_ports_are_reached_from_outside_the_node_and_the_container() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let runtime = world.runtime("net", 20, json!({}));
    let pod = node.pod();
    let before = node.rules();
    let attached = attachment(&pod, json!([tcp(8080, 80)]));
    let result = runtime.add_ok(&attached);
    settle(&pod);
    settle(node);
    let (v4, v6) = (address(&result, 0), address(&result, 1));
    let _web = Server::tcp(&pod, "web", "[::]:80");

    for (from, to, seen) in [
        // Nobody else's source is changed.
        (&lab.client, format!("{NODE}:8080"), Some(Lab::CLIENT.to_owned())),
        (&lab.client, format!("[{NODE6}]:8080"), Some(Lab::CLIENT6.to_owned())),
        // Masqueraded: itself, and 127.0.0.1.
        (&pod, format!("{NODE}:8080"), None),
        (&pod, format!("[{NODE6}]:8080"), None),
        (node, "127.0.0.1:8080".to_owned(), None),
        (node, format!("{NODE}:8080"), None),
        (node, format!("[{NODE6}]:8080"), None),
    ] {
        let answer = from.tcp(&to).unwrap_or_else(|e| panic!("{to} from {}: {e}", from.name()));
        assert_eq!(answer.hostname, "web", "{to}");
        let peer = answer.peer.ip().to_canonical().to_string();
        if let Some(seen) = seen {
            assert_eq!(peer, seen, "{to}");
        } else {
            assert!(![&v4, &v6].contains(&&peer), "{to}: seen as itself");
        }
    }
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "1");
    runtime.check(&attached).expect("CHECK after ADD");

    runtime.del_ok(&attached);
    assert!(lab.client.tcp_within(&format!("{NODE}:8080"), IMPATIENCE).is_err());
    assert_eq!(node.rules(), before);
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "0");
    assert_eq!(state_files(node), "");
}
