//! Host ports beside the services: what a packet to one meets, and what is said of it.

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Daemon, Lab, Runtime};
use serde_json::{Value, json};

use super::stage::NODE;

const PORT: u16 = 30080;

/// Attaches a container; what its plugins say to stderr.
fn attach(runtime: &Runtime<'_>, attachment: &Attachment) -> (String, String) {
    let (mut previous, mut said) = (Value::Null, String::new());
    for plugin in runtime.plugins() {
        let config = runtime.config(plugin, attachment, &previous);
        let outcome = runtime.call(plugin, "ADD", &config, attachment).run();
        assert!(outcome.status.success(), "{}", outcome.describe());
        previous = outcome.json();
        said.push_str(&String::from_utf8_lossy(&outcome.stderr));
    }
    let address = previous["ips"][0]["address"].as_str().expect("an address").to_owned();
    runtime.remember(attachment, previous);
    (address.split_once('/').expect("a length").0.to_owned(), said)
}

fn service() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
            "spec": { "type": "NodePort", "clusterIP": "10.96.0.80", "selector": { "app": "web" },
                      "ports": [{ "port": 80, "targetPort": 8001, "nodePort": PORT }] } })
}

/// `trace` says that the container of the host port gets a connection, and why.
fn traced(daemon: &Daemon<'_>, to: &str, target: &str, case: &str) {
    let trace = daemon.causeway(&["trace", Lab::CLIENT, to]).ok();
    let step =
        format!("The host port takes precedence over node port {PORT}/TCP of service default/web");
    assert!(trace.contains(&step), "{case}: {trace}");
    assert!(trace.contains(&format!("delivered (host port) to\n  {target}")), "{case}: {trace}");
}

/// Both backends of the daemon with both of the plugin, the rules of either having come last.
///
/// Rows: RB5
#[test]
fn a_host_port_comes_before_a_node_port_and_that_is_said() {
    for (backend, plugin) in [
        ("nftables", "nftables"),
        ("nftables", "iptables"),
        ("iptables", "nftables"),
        ("iptables", "iptables"),
    ] {
        let case = format!("daemon {backend}, plugin {plugin}");
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let daemon = Daemon::start_with(node, &["--backend", backend]);
        let mut list = node.conflist("net", "10.0.1.0/24");
        list["plugins"][1]["backend"] = json!(plugin);
        list["plugins"][1]["socket"] = json!(daemon.socket());
        let runtime = Runtime::new(node, list);
        let pods = [node.pod(), node.pod()];
        let labelled = pods[0].attachment("eth0").args("CAUSEWAY_LABELS=app:web");
        let (web, said) = attach(&runtime, &labelled);
        assert_eq!(said, "", "{case}");
        daemon.apply(&[service()]);
        let to = format!("{NODE}:{PORT}");
        let _web = Server::tcp(&pods[0], "web", &format!("{web}:8001"));
        let who = || lab.client.tcp(&to).map(|answer| answer.hostname);
        assert_eq!(who().expect("an answer"), "web", "{case}");

        let mapping = json!({ "hostPort": PORT, "containerPort": 81, "protocol": "tcp" });
        let mapped =
            pods[1].attachment("eth0").runtime_config(json!({ "portMappings": [mapping] }));
        let (own, said) = attach(&runtime, &mapped);
        let _own = Server::tcp(&pods[1], "own", &format!("{own}:81"));
        let warning = format!(
            "node port {PORT}/TCP of service default/web is host port {PORT}/TCP of container \
             default/{} on this node: connections to it go to the container",
            pods[1].id
        );
        assert!(said.contains(&warning), "{case}: {said}");
        let all_say = || {
            let status = String::from_utf8_lossy(&daemon.causeway(&["status"]).stdout).into_owned();
            let described = daemon.causeway(&["describe", "service", "web"]).ok();
            let applied = daemon.apply(&[service()]).results.remove(0).warnings.join("\n");
            [status, described, applied].into_iter().all(|text| text.contains(&warning))
        };
        assert!(all_say(), "{case}");
        traced(&daemon, &to, &format!("{own}:81"), &case);
        let whole = || who().is_ok_and(|name| name == "own");
        assert!(whole(), "{case}");
        let here = node.tcp(&to).expect("an answer").hostname;
        assert_eq!(here, "own", "{case}: from the node");
        let cluster = pods[1].tcp("10.96.0.80:80").expect("an answer").hostname;
        assert_eq!(cluster, "web", "{case}");
        // Whichever table or chain was made last.
        node.sh(match backend {
            "nftables" => "nft delete table ip causeway_services",
            _ => "iptables -t nat -F PREROUTING",
        });
        daemon.until(&format!("{case}: the rules are back"), || {
            whole() && pods[1].tcp("10.96.0.80:80").is_ok()
        });
        runtime.del_ok(&mapped);
        assert_eq!(who().expect("an answer"), "web", "{case}: after DEL");
        assert!(!all_say(), "{case}");
        assert_eq!(daemon.status().warnings, Vec::<String>::new(), "{case}");
    }
}

/// Rows: RB5
#[test]
fn describe_shows_the_host_ports_of_endpoints() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    let mut list = node.conflist("net", "10.0.1.0/24");
    list["plugins"][1]["socket"] = json!(daemon.socket());
    let runtime = Runtime::new(node, list);
    let pod = node.pod();
    let mapping = json!({ "hostPort": 8080, "containerPort": 8001, "protocol": "tcp" });
    let mapped = pod.attachment("eth0").args("CAUSEWAY_LABELS=app:web");
    runtime.add_ok(&mapped.runtime_config(json!({ "portMappings": [mapping] })));
    daemon.apply(&[service()]);
    assert!(daemon_shows(&daemon));
    // By the attachment's record, so that a new daemon knows them too.
    daemon.stop();
    daemon.again();
    assert!(daemon_shows(&daemon));
}

fn daemon_shows(daemon: &Daemon<'_>) -> bool {
    let text = daemon.causeway(&["describe", "service", "web"]).ok();
    text.contains("HOST PORTS") && text.contains("8080/TCP")
}
