//! Many things at once, in an order that is the same in every run; at its end everybody agrees.

use std::collections::BTreeSet;

use causeway_tests::cluster::{Cluster, Placed, Setup, asked, in_rotation, named, service};
use causeway_tests::{Lab, say};
use serde_json::json;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let high = usize::try_from(self.0 >> 33).expect("31 bits");
        high % limit
    }
}

#[derive(Default)]
struct World {
    pods: Vec<Placed>,
    split: Option<usize>,
    etcd_down: bool,
    paused: bool,
    done: Vec<String>,
}

fn step(cluster: &mut Cluster<'_>, world: &mut World, numbers: &mut Numbers) {
    let node = numbers.below(cluster.daemons.len());
    match numbers.below(12) {
        0..=2 => {
            let pod = cluster.pod(node, "app:cs-pod");
            world.done.push(format!("node {node} has {}", pod.ip()));
            world.pods.push(pod);
        }
        3..=4 if world.pods.len() > 2 => {
            let pod = world.pods.remove(numbers.below(world.pods.len()));
            cluster.remove(&pod);
            world.done.push(format!("{} is gone", pod.ip()));
        }
        5 => {
            cluster.daemons[node].kill();
            cluster.daemons[node].again();
            world.done.push(format!("the daemon of node {node} was killed"));
        }
        6 if !world.etcd_down && !world.paused => {
            cluster.etcd.kill();
            world.etcd_down = true;
            world.done.push("the store is down".to_owned());
        }
        7 if world.split.is_none() => {
            let others: Vec<String> = (0..3)
                .filter(|other| *other != node)
                .map(Lab::port)
                .chain(["etcd0".to_owned()])
                .collect();
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            cluster.lab.split(&[&Lab::port(node)], &others);
            world.split = Some(node);
            world.done.push(format!("node {node} is cut off"));
        }
        8 if !world.etcd_down && !world.paused => {
            cluster.etcd.pause();
            world.paused = true;
            world.done.push("the store stands still".to_owned());
        }
        9 => {
            // Whether it is possible now depends on the store.
            let wanted = named("extra", "10.96.1.101", 30081, &json!({}));
            let body =
                causeway_api::Apply { objects: vec![wanted], wait: true, ..Default::default() };
            let body = serde_json::to_vec(&body).expect("JSON");
            let done = cluster.daemons[node].request("POST", "/v1/apply", &body).is_ok();
            world.done.push(format!("apply on node {node}: {done}"));
        }
        10 => {
            let path = "/v1/services/default/extra";
            let done = cluster.daemons[node].request("DELETE", path, b"").is_ok();
            world.done.push(format!("delete on node {node}: {done}"));
        }
        _ => mend(cluster, world),
    }
}

fn mend(cluster: &mut Cluster<'_>, world: &mut World) {
    if world.split.take().is_some() {
        cluster.lab.heal();
    }
    if std::mem::take(&mut world.paused) {
        cluster.etcd.resume();
    }
    if std::mem::take(&mut world.etcd_down) {
        cluster.etcd.again();
    }
    world.done.push("mended".to_owned());
}

/// Rows: C-02, C-03, C-06, C-08, C-12
#[test]
fn after_everything_all_nodes_agree() {
    let lab = Lab::with_nodes(3);
    let mut cluster = Cluster::start(&lab, Setup::default().ttls(3, 60));
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    let mut world = World::default();
    let seed = option_env!("CAUSEWAY_CHAOS_SEED").and_then(|text| text.parse().ok());
    let mut numbers = Numbers(seed.unwrap_or(4));
    for round in 0..3 {
        for _ in 0..20 {
            step(&mut cluster, &mut world, &mut numbers);
        }
        mend(&mut cluster, &mut world);
        agree(&cluster, &world, round);
    }
}

fn agree(cluster: &Cluster<'_>, world: &World, round: usize) {
    let history = || say(&world.done.join("\n"));
    let real: BTreeSet<String> = world.pods.iter().map(|pod| pod.ip().to_owned()).collect();
    let count = real.len();
    cluster.settled();
    cluster.everywhere("all endpoints and nothing else", |daemon| {
        in_rotation(daemon, "http-server-svc") == count && daemon.status().degraded.is_empty()
    });
    // Whether there is the other service is the store's word.
    let extra =
        cluster.etcd.keys("/causeway/v1/objects/").iter().any(|key| key.ends_with("/extra"));
    cluster.everywhere("the store's services", |daemon| {
        in_rotation(daemon, "extra") == if extra { count } else { usize::MAX }
    });
    cluster.etcd.until("all are published and nothing else", |etcd| {
        etcd.keys("/causeway/v1/containers/").len() == count
    });
    for from in
        cluster.lab.nodes.iter().map(|node| &**node).chain(world.pods.iter().map(|pod| &**pod))
    {
        let got: BTreeSet<String> = asked(from, "10.96.1.100:8080", count).into_iter().collect();
        if got != real {
            history();
        }
        assert_eq!(got, real, "{} in round {round}", from.name());
    }
}
