//! Load balancer addresses on the nodes' segment: who answers for them, seen by a machine beside the
//! nodes, with real ARP and neighbour discovery.

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Daemon, Lab, Node, Ns, Pod, Runtime};
use serde_json::{Value, json};

const POOL: &str = "--lb-pool=172.18.0.240-172.18.0.249,fd00:172:18::f0-fd00:172:18::ff";
/// The first address of the pool of each family.
const V4: &str = "172.18.0.240";
const V6: &str = "fd00:172:18::f0";

/// A node with both families, a container that serves, and the pool.
struct Site<'a> {
    daemon: Daemon<'a>,
    runtime: Runtime<'a>,
    pod: Pod,
    attachment: Attachment,
    _server: Server,
}

impl<'a> Site<'a> {
    fn new(node: &'a Node, more: &[&str]) -> Self {
        let both = [
            "--service-cidr=10.96.0.0/16,fd00:96::/112",
            "--cluster-cidr=10.0.0.0/16,fd00:10::/48",
            POOL,
        ];
        let daemon = Daemon::start_with(node, &[&both, more].concat());
        let mut list = node.conflist("causeway", "10.0.1.0/24");
        list["plugins"][0]["ipam"]["ranges"] =
            json!([[{ "subnet": "10.0.1.0/24" }], [{ "subnet": "fd00:10::/64" }]]);
        let runtime = Runtime::new(node, list);
        let pod = node.pod();
        let attachment = pod.attachment("eth0").args("CAUSEWAY_LABELS=app:cs-pod");
        runtime.add_ok(&attachment);
        // Of both families.
        let _server = Server::tcp(&pod, "one", "[::]:80");
        Self { daemon, runtime, pod, attachment, _server }
    }

    fn apply(&self, more: &Value) {
        let mut spec = json!({ "type": "LoadBalancer", "selector": { "app": "cs-pod" },
                               "ipFamilyPolicy": "RequireDualStack",
                               "ports": [{ "port": 80 }] });
        for (key, value) in more.as_object().expect("fields") {
            spec[key] = value.clone();
        }
        self.daemon.apply(&[json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "lb-http-server" }, "spec": spec })]);
    }

    /// What `describe` says of the address.
    fn said(&self, part: &str) -> bool {
        let described = self.daemon.causeway(&["describe", "service", "lb-http-server"]);
        String::from_utf8_lossy(&described.stdout).contains(part)
    }

    fn until_announced(&self) {
        for address in [V4, V6] {
            let text = format!("{address} is announced by this node on eth0");
            self.daemon.until(&text, || self.said(&text));
        }
    }
}

/// The link address that a machine of the segment finds for an address, after it has forgotten it.
fn resolved(from: &Ns, address: &str) -> Option<String> {
    from.try_sh(&format!("ip neigh del {address} dev eth0"));
    // The answer to the packet does not matter, only that the address is looked for.
    from.try_sh(&format!("ping -c 1 -W 1 {address}"));
    let text = from.sh(&format!("ip neigh show {address} dev eth0"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "lladdr")?;
    words.get(place + 1).map(|mac| (*mac).to_owned())
}

fn mac(node: &Ns) -> String {
    node.sh("ip -j link show eth0 | jq -r .[0].address").trim().to_owned()
}

/// The address is answered for while the service has an endpoint, by a machine that has it on no link;
/// nobody answers ping there.
///
/// Rows: L-07, L-12, L-18, L-19
#[test]
fn an_address_of_the_pool_is_answered_for_on_the_segment() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let site = Site::new(node, &[]);
    site.apply(&json!({}));
    site.until_announced();
    for (address, to) in [(V4, format!("{V4}:80")), (V6, format!("[{V6}]:80"))] {
        assert_eq!(resolved(&lab.client, address), Some(mac(node)), "{address}");
        assert_eq!(lab.client.tcp(&to).expect("an answer").hostname, "one");
        assert!(!lab.client.ping(address), "{address} answers ping");
    }
    let links = node.sh("ip addr");
    assert!(!links.contains(V4) && !links.contains(V6), "{links}");
    // Without an endpoint nobody answers for it.
    site.runtime.del_ok(&site.attachment);
    for address in [V4, V6] {
        site.daemon.until("it is silent", || resolved(&lab.client, address).is_none());
    }
    site.runtime.add_ok(&site.attachment);
    site.until_announced();
    site.daemon.request("DELETE", "/v1/services/default/lb-http-server", b"").expect("deleted");
    for address in [V4, V6] {
        site.daemon.until("it is silent", || resolved(&lab.client, address).is_none());
    }
    drop(site.pod);
}

/// What a document says of an address is another machine's affair: it is not announced.
#[test]
fn an_address_that_a_document_gives_is_not_announced() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let site = Site::new(node, &[]);
    site.daemon.apply(&[json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "given" },
        "spec": { "type": "LoadBalancer", "selector": { "app": "cs-pod" },
                  "ports": [{ "port": 80 }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "172.18.0.222" }] } } })]);
    // Ours is announced after it, so the other one had its turn.
    site.apply(&json!({}));
    site.until_announced();
    assert_eq!(resolved(&lab.client, "172.18.0.222"), None);
}
