//! Objects as kubectl's users know them.

use causeway_model::manifest;
use serde_json::json;

use super::super::collect::{self, Kind};
use crate::testing::*;

fn rendered(facts: Vec<causeway_model::Event>, kind: Kind) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    commit(&mut state, facts);
    let items = collect::all(&state, kind, None);
    items.iter().filter_map(collect::Item::render).collect()
}

/// Rows: U-07
#[test]
fn a_container_is_a_pod() {
    let pods = rendered(vec![attach("web-1", "10.0.1.2", "web")], Kind::Pods);
    assert_eq!(
        pods,
        [json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-1", "namespace": "default",
                "creationTimestamp": "2026-11-22T15:04:00Z",
                "labels": { "app": "web", "causeway.io/network": "causeway",
                            "causeway.io/pod-name": "web-1", "causeway.io/pod-namespace": "default" },
                "annotations": { "causeway.io/container-id": "0123456789abcdef-web-1",
                                 "causeway.io/network": "causeway" } },
            "spec": { "nodeName": "n1" },
            "status": { "phase": "Running", "podIP": "10.0.1.2", "podIPs": [{ "ip": "10.0.1.2" }],
                        "conditions": [{ "type": "Ready", "status": "True" }] } })]
    );
}

#[test]
fn containers_of_other_nodes_say_where_they_are() {
    let mut there = attach("web-2", "10.0.2.2", "web");
    let causeway_model::Event::Attach { node, .. } = &mut there else { panic!("a record") };
    *node = "n2".into();
    let facts = || [objects(WEB), vec![attach("web-1", "10.0.1.2", "web"), there.clone()]].concat();
    let pods = rendered(facts(), Kind::Pods);
    let nodes: Vec<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].clone()).collect();
    assert_eq!(nodes, ["n1", "n2"]);
    let endpoints = rendered(facts(), Kind::Endpoints);
    let addresses = endpoints[0]["subsets"][0]["addresses"].as_array().expect("addresses");
    let nodes: Vec<_> = addresses.iter().map(|address| address["nodeName"].clone()).collect();
    assert_eq!(nodes, ["n1", "n2"]);
}

/// Addresses of a pod are one of each family, not one of each network.
///
/// Rows: RB3
#[test]
fn attachments_of_one_container_are_one_pod() {
    let mut other = attach("web-1", "10.9.0.2", "web");
    let causeway_model::Event::Attach { record, .. } = &mut other else { panic!("a record") };
    record.key.network = "storage".to_owned();
    let health = causeway_model::Event::Health {
        node: "n1".into(),
        key: record.key.clone(),
        healthy: false,
    };
    let facts = vec![attach("web-1", "10.0.1.2", "web"), other, health];
    let pods = rendered(facts, Kind::Pods);
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0]["status"]["podIPs"], json!([{ "ip": "10.0.1.2" }]));
    assert_eq!(pods[0]["status"]["conditions"][0]["status"], "False");
    assert_eq!(pods[0]["metadata"]["annotations"]["causeway.io/network"], "causeway,storage");
}

/// Rows: U-07
#[test]
fn endpoints_stand_with_those_of_the_same_ports() {
    let probed = r#""annotations": { "causeway.io/health-check": "tcp" }, "labels""#;
    let mut facts = objects(&WEB.replace(r#""labels""#, probed));
    facts.push(attach("a", "10.0.1.2", "web"));
    facts.push(attach("b", "10.0.1.3", "web"));
    facts.push(attach("c", "10.0.1.4", "other"));
    facts.push(health("b", false));
    let all = rendered(facts, Kind::Endpoints);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["kind"], "Endpoints");
    assert_eq!(all[0]["metadata"]["name"], "web");
    let pod = |name: &str| json!({ "kind": "Pod", "namespace": "default", "name": name });
    assert_eq!(
        all[0]["subsets"],
        json!([{
            "addresses": [{ "ip": "10.0.1.2", "nodeName": "n1", "hostname": "a", "targetRef": pod("a") }],
            "notReadyAddresses": [{ "ip": "10.0.1.3", "nodeName": "n1", "hostname": "b", "targetRef": pod("b") }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] }])
    );
}

#[test]
fn this_node_is_listed_with_those_of_documents() {
    let documents = r#"
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { "topology.kubernetes.io/zone": z9 } }
---
apiVersion: v1
kind: Node
metadata: { name: n0 }
"#;
    let nodes = rendered(objects(documents), Kind::Nodes);
    let names: Vec<_> = nodes.iter().map(|node| node["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["n0", "n1"]);
    let addresses = json!([{ "type": "InternalIP", "address": "192.0.2.1" },
                           { "type": "Hostname", "address": "n1" }]);
    assert_eq!(nodes[1]["status"]["addresses"], addresses);
    let labels = &nodes[1]["metadata"]["labels"];
    assert_eq!(labels["topology.kubernetes.io/zone"], "z9");
    assert_eq!((&labels["zone"], &labels["kubernetes.io/hostname"]), (&json!("z1"), &json!("n1")));
}

#[test]
fn services_and_slices_are_written_as_they_were_read() {
    let slice = r#"{ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "ext-1", "labels": { "kubernetes.io/service-name": "ext" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
        "endpoints": [{ "addresses": ["198.51.100.7"] }] }"#;
    let slices = rendered(objects(slice), Kind::EndpointSlices);
    assert_eq!(slices[0]["endpoints"][0]["addresses"], json!(["198.51.100.7"]));
    let services = rendered(objects(WEB), Kind::Services);
    assert_eq!(services[0]["spec"]["clusterIP"], "10.96.0.10");
    assert_eq!(services[0]["metadata"]["labels"], json!({ "team": "a" }));
}

#[test]
fn times_are_those_of_the_calendar() {
    assert_eq!(manifest::rfc3339(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(manifest::rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
}
