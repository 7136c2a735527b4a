//! containerd with `ctr` and `nerdctl` as users of the plugins, with real containers.

use causeway_tests::{Lab, Machine};
use serde_json::{Value, json};

/// A network as users write it, with every path at its default.
fn network(name: &str, types: [&str; 3], subnet: u8) -> Value {
    let [main, ipam, ports] = types;
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [
        { "type": main, "bridge": format!("br-{name}"), "isDefaultGateway": true, "ipMasq": true,
          "hairpinMode": true,
          "ipam": { "type": ipam, "ranges": [[{ "subnet": format!("10.{subnet}.0.0/24") }]] } },
        { "type": ports, "capabilities": { "portMappings": true } } ] })
}

const OURS: [&str; 3] = ["causeway-bridge", "causeway-ipam", "causeway-service"];
const UPSTREAM: [&str; 3] = ["bridge", "host-local", "portmap"];

#[test]
fn the_machine_works_with_upstream_plugins() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("upnet", UPSTREAM, 70));
    machine.run("web1", &["--net", "upnet", "-p", "8080:80"]);
    let answer = lab.client.tcp("172.18.0.2:8080").expect("an answer");
    assert_eq!(answer.ip.to_string(), "10.70.0.2");
    machine.nerdctl(&["rm", "-f", "web1"]).ok();
    let client = machine.ctr_run("ctr1");
    assert_eq!(answer.ip.to_string(), "10.70.0.3");
    machine.ctr(&["task", "kill", "ctr1"]).ok();
    client.wait();
}
