//! Services of type LoadBalancer with addresses of pools.

use causeway_tests::{Daemon, Lab};

use super::world::{NODE, World};
use super::{on_both_backends_with, reaches, refused};

/// Two addresses on the nodes' own link, as such pools are.
const POOL: [&str; 2] = ["--lb-pool", "172.18.0.200-172.18.0.201"];

/// The tutorial's manifest, with the port that its containers listen on.
fn manifest(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  type: LoadBalancer
  selector:
    app: cs-pod
  ports:
  - protocol: TCP
    port: 80
    targetPort: 80
{more}"
    )
}

/// Applies one; the address that it gets, or `<pending>`.
#[track_caller]
fn applied(world: &World<'_>, name: &str, more: &str) -> String {
    world.ctl("apply -f -", &manifest(name, more)).ok();
    world.column(name, "EXTERNAL-IP")
}

/// Rows: L-20, L-21
#[test]
fn a_load_balancer_answers_at_an_address_of_the_pool() {
    on_both_backends_with(&POOL, |world| {
        world.apply(&manifest("lb-http-server", ""), &["service/lb-http-server created"]);
        assert_eq!(world.column("lb-http-server", "EXTERNAL-IP"), "172.18.0.200");
        world.apply(&manifest("lb-http-server", ""), &["service/lb-http-server unchanged"]);
        let bare = "  allocateLoadBalancerNodePorts: false\n";
        world.apply(&manifest("bare", bare), &["service/bare created"]);
        assert_eq!(world.column("bare", "EXTERNAL-IP"), "172.18.0.201");
        assert_eq!(world.column("bare", "PORT(S)"), "80/TCP");
        assert!(world.column("lb-http-server", "PORT(S)").starts_with("80:3"));
        let servers = ["pod1a", "pod1b"].map(|name| world.pod(name, "app:cs-pod"));
        let inside = world.pod("inside", "app:else");
        // What a router would have, until a node announces the addresses.
        world.lab.client.ip(&format!("route add 172.18.0.200/31 via {NODE}\n"));
        for at in ["172.18.0.200:80", "172.18.0.201:80"] {
            for from in [&*inside.ns, world.node(), &world.lab.client, &*servers[0].ns] {
                reaches(from, at, &["pod1a", "pod1b"]);
            }
        }
        world.ctl("delete service lb-http-server", "").ok();
        // Whoever has it next starts anew.
        assert_eq!(applied(world, "next", ""), "172.18.0.200");
        servers.into_iter().for_each(|server| world.remove(server));
        refused(&inside.ns, "172.18.0.200:80");
    });
}

/// Rows: L-04, L-06
#[test]
fn an_address_stays_until_it_is_freed_and_then_goes_to_whoever_waits_longest() {
    let lab = Lab::one_node();
    let mut world = World::start_with(&lab, 0, "nftables", &POOL);
    assert_eq!(applied(&world, "one", ""), "172.18.0.200");
    assert_eq!(applied(&world, "two", ""), "172.18.0.201");
    let waits = world.ctl("apply -f -", &manifest("zebra", ""));
    let why = "no load balancer address yet: all V4 addresses of pool default are in use; extend it, \
               or delete a service";
    assert!(String::from_utf8_lossy(&waits.stderr).contains(why), "{waits:?}");
    assert_eq!(world.column("zebra", "EXTERNAL-IP"), "<pending>");
    assert_eq!(applied(&world, "ant", ""), "<pending>");
    let described = world.ctl("describe service zebra", "").ok();
    assert!(described.contains(why), "{described}");
    let status = world.ctl("status", "").ok();
    assert!(status.contains("Pools:     default 2 used, 0 free"), "{status}");
    assert!(status.contains("service default/zebra: no load balancer address: all"), "{status}");
    let metrics = world.node().sh("curl -s http://127.0.0.1:10249/metrics");
    for metric in ["addresses_in_use_total", "addresses_total"] {
        let line = format!("\nmetallb_allocator_{metric}{{pool=\"default\"}} 2\n");
        assert!(metrics.contains(&line), "{metrics}");
    }

    // Nobody runs a command for it.
    world.ctl("delete service one", "").ok();
    assert_eq!(world.column("zebra", "EXTERNAL-IP"), "172.18.0.200");
    assert_eq!(world.column("ant", "EXTERNAL-IP"), "<pending>");
    world.daemon.stop();
    world.daemon.again();
    for (name, address) in [("zebra", "172.18.0.200"), ("two", "172.18.0.201")] {
        assert_eq!(world.column(name, "EXTERNAL-IP"), address, "after a restart");
        assert_eq!(applied(&world, name, "  sessionAffinity: ClientIP\n"), address);
    }
    assert_eq!(world.column("ant", "EXTERNAL-IP"), "<pending>");
    let other = manifest("two", "").replace("LoadBalancer", "ClusterIP");
    world.apply(&other, &["service/two configured"]);
    assert_eq!(world.column("two", "EXTERNAL-IP"), "<none>");
    assert_eq!(world.column("ant", "EXTERNAL-IP"), "172.18.0.201");
    // Killed without a word, all is the same again.
    world.daemon.kill();
    world.daemon.again();
    assert_eq!(world.column("zebra", "EXTERNAL-IP"), "172.18.0.200");
    assert_eq!(world.column("ant", "EXTERNAL-IP"), "172.18.0.201");
}

/// Rows: L-02
#[test]
fn pools_that_overlap_anything_are_refused_at_a_start() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let refused = |pool: &str, part: &str| {
        let refused = Daemon::refused(node, &["--lb-pool", pool]);
        let said = refused.describe();
        assert!(refused.code() != 0 && said.contains(part), "{said}");
    };
    refused("172.18.0.1-172.18.0.9", "overlaps 172.18.0.2, the address of this node: choose");
    refused("10.96.9.0/24", "overlaps 10.96.0.0/16, the service network");
    refused("10.0.7.0/24", "overlaps 10.0.0.0/16, the cluster network");
    refused("192.0.2.0/28,192.0.2.9", "overlaps 192.0.2.0-192.0.2.15 of pool default");
    // One that runs keeps what it has: settings are read at a start, and a second one is refused
    // before it touches anything.
    let world = World::start_with(&lab, 0, "nftables", &POOL);
    assert_eq!(applied(&world, "one", ""), "172.18.0.200");
    refused("172.18.0.1-172.18.0.9", "another causewayd");
    assert_eq!(applied(&world, "two", ""), "172.18.0.201");
}
