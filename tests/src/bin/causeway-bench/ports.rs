//! Attaching a container that is an endpoint of a service of many ports.

use std::time::{Duration, Instant};

use causeway_tests::{Daemon, Node, Runtime};
use serde_json::{Value, json};

use crate::report::{median, ms};

const PORTS: [u32; 3] = [1, 1_000, 10_000];
/// Containers of the service, which come and go one after another.
const CONTAINERS: usize = 5;

/// Runs the section.
pub(crate) fn run() {
    println!(
        "A container that is an endpoint of a service of many ports (median of {CONTAINERS}):"
    );
    let mut one = None;
    for count in PORTS {
        let (mut add, mut del) = measure(count);
        let (add, del) = (median(&mut add), median(&mut del));
        let first = *one.get_or_insert(add);
        let each = add.saturating_sub(first) / count;
        println!(
            "  {count:>6} ports: ADD {}, DEL {}   ({:.4} ms a port beyond one's)",
            ms(add),
            ms(del),
            each.as_secs_f64() * 1e3
        );
    }
    println!();
}

/// Times of ADD and of DEL of the whole chain.
fn measure(ports: u32) -> (Vec<Duration>, Vec<Duration>) {
    let node = Node::new("ports");
    node.ip("link add eth0 type veth peer name far\naddr add 172.18.0.2/24 dev eth0\n\
             link set eth0 up\nlink set far up\nroute add default via 172.18.0.1\n");
    let daemon = Daemon::start(&node);
    daemon.apply(&[service(ports)]);
    let runtime = Runtime::new(&node, network(&node));
    let pods: Vec<_> = (0..CONTAINERS).map(|_| node.pod()).collect();
    let attachments: Vec<_> = pods.iter().map(|pod| pod.attachment("eth0")).collect();
    let timed = |work: &dyn Fn()| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    let add = attachments.iter().map(|one| timed(&|| drop(runtime.add_ok(one)))).collect();
    let del = attachments.iter().map(|one| timed(&|| runtime.del_ok(one))).collect();
    (add, del)
}

fn service(ports: u32) -> Value {
    let ports: Vec<_> = (1..=ports)
        .map(|port| json!({ "name": format!("p{port}"), "port": port, "protocol": "TCP" }))
        .collect();
    json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "many", "namespace": "default" },
            "spec": { "clusterIP": "10.96.1.1", "selector": { "app": "many" }, "ports": ports } })
}

fn network(node: &Node) -> Value {
    let run = node.run_dir();
    json!({ "cniVersion": "1.0.0", "name": "many", "plugins": [
        { "type": "causeway-bridge", "bridge": "cw0", "isDefaultGateway": true, "ipMasq": true,
          "hairpinMode": true, "runDir": run,
          "ipam": { "type": "causeway-ipam", "dataDir": node.data_dir(), "runDir": run,
                    "ranges": [[{ "subnet": "10.0.1.0/24" }]] } },
        { "type": "causeway-service", "runDir": run, "socket": run.join("causeway.sock"),
          "spoolDir": node.dir().join("spool"), "labels": { "app": "many" } } ] })
}
