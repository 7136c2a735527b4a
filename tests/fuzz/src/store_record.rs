//! Records of the cluster store: lines of a key and, behind a tab, its value. What can be read goes
//! the whole way to rules of both backends.
#![no_main]

mod facts;

use std::collections::BTreeSet;

use causeway_model::{ClusterConfig, Event, Home, Index};
use causeway_ruleset::plan::Plan;
use causeway_ruleset::{iptables, services};
use causeway_source::cluster::{Change, fuzz};

use facts::facts;

const ME: &str = "n1";

fn index() -> Index {
    let networks = vec!["10.0.0.0/16".parse().unwrap()];
    Index::at(Home { node: ME.into(), networks, ..Home::default() })
}

fn config() -> ClusterConfig {
    ClusterConfig {
        schema: 1,
        cluster_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_subnet_len: 24,
        node_ports: (30000, 32767),
        overlay: "vxlan".to_owned(),
        vxlan_id: 1,
        vxlan_port: 8472,
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut index = index();
    let (mut plan, config) = (Plan::new(facts()), config());
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b'\t');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
        let key = [b"/causeway/v1/", key].concat();
        let changes = match fuzz::read(ME, &key, value, &config) {
            Some(Change::Object(stored)) => index.apply(Event::Apply(stored.object)),
            Some(Change::Container(node, container)) => {
                let (node, record) = (node.as_str().into(), container.record);
                index.apply(Event::Attach { node, record })
            }
            Some(Change::Node(record)) => {
                let (node, labels) = (record.identity.node, Some(record.labels));
                index.apply(Event::NodeLabels { node, labels })
            }
            _ => continue,
        };
        plan.update(&changes.services, &|key| index.resolve(key));
    }
    let all: BTreeSet<_> = index.services().keys().cloned().collect();
    let mut fresh = Plan::new(facts());
    fresh.update(&all, &|key| index.resolve(key));
    assert_eq!(fresh, plan, "one after the other as all at once");
    std::hint::black_box(services::compile(&plan));
    std::hint::black_box(iptables::ChainMirror::full(&plan, &[]));
});
