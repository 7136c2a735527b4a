//! Objects as Kubernetes writes them.

use serde_json::{Map, Value, json};

use crate::{
    Balance, EndpointSlice, Ingress, IpFamily, IpFamilyPolicy, LabelSet, Misplaced, Node, Object,
    ObjectKey, Service, ServicePort, ServiceType, SliceEndpoint, TargetPort, TrafficDistribution,
    TrafficPolicy,
};

use super::service::is_external;
use super::time;

/// The object as Kubernetes writes it; [`super::from_json`] of it gives the object again.
pub fn to_json(object: &Object) -> Value {
    match object {
        Object::Service(service) => service_json(service),
        Object::EndpointSlice(slice) => slice_json(slice),
        Object::Node(node) => node_json(node),
    }
}

/// Puts a field if there is something to say.
fn put(map: &mut Map<String, Value>, name: &str, value: impl Into<Option<Value>>) {
    if let Some(value) = value.into() {
        map.insert(name.to_owned(), value);
    }
}

fn list<T>(items: &[T], each: impl FnMut(&T) -> Value) -> Option<Value> {
    (!items.is_empty()).then(|| Value::Array(items.iter().map(each).collect()))
}

fn labels_json(labels: &LabelSet) -> Option<Value> {
    let map = || labels.iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    (!labels.is_empty()).then(|| Value::Object(map()))
}

fn metadata(key: &ObjectKey, created: u64, labels: &LabelSet) -> Map<String, Value> {
    let mut map = Map::new();
    put(&mut map, "name", json!(*key.name));
    put(&mut map, "namespace", (!key.namespace.is_empty()).then(|| json!(*key.namespace)));
    put(&mut map, "creationTimestamp", (created > 0).then(|| json!(time::format(created))));
    put(&mut map, "labels", labels_json(labels));
    map
}

fn service_json(service: &Service) -> Value {
    let mut meta = metadata(&service.key, service.created, &service.labels);
    put(&mut meta, "annotations", annotations(service));
    let mut spec = Map::new();
    put(&mut spec, "type", json!(type_name(service.service_type)));
    addresses(service, &mut spec);
    put(&mut spec, "ports", list(&service.ports, port_json));
    put(&mut spec, "selector", labels_json(&service.selector));
    put(&mut spec, "externalIPs", list(&service.external_ips, |ip| json!(ip)));
    put(&mut spec, "externalName", service.external_name.as_ref().map(|name| json!(name)));
    put(
        &mut spec,
        "sessionAffinity",
        json!(if service.affinity.is_some() { "ClientIP" } else { "None" }),
    );
    put(
        &mut spec,
        "sessionAffinityConfig",
        service.affinity.map(|seconds| json!({ "clientIP": { "timeoutSeconds": seconds } })),
    );
    policies(service, &mut spec);
    load_balancer(service, &mut spec);
    let mut load_balancer = status(service);
    if let Some(fields) = &service.misplaced {
        misplaced(fields, &mut spec);
        put(&mut load_balancer, "ingress", fields.ingress.then(|| json!([{}])));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": spec,
        "status": { "loadBalancer": load_balancer },
    })
}

/// What was written, and what fields of ours say without having been written.
fn annotations(service: &Service) -> Option<Value> {
    let mut map = service.annotations.to_map();
    let balance = match service.balance {
        Balance::Random => None,
        Balance::RoundRobin => Some("round-robin"),
        Balance::SourceHash => Some("source-hash"),
    };
    for (key, value) in [
        (Service::BALANCE, balance),
        (Service::HEALTH_CHECK, service.health_check.then_some("tcp")),
    ] {
        if let Some(value) = value {
            map.insert(key.to_owned(), value.to_owned());
        }
    }
    labels_json(&map.into_iter().collect())
}

fn addresses(service: &Service, spec: &mut Map<String, Value>) {
    if service.service_type == ServiceType::ExternalName {
        return;
    }
    if service.headless {
        put(spec, "clusterIP", json!("None"));
        put(spec, "clusterIPs", json!(["None"]));
    } else {
        put(spec, "clusterIP", service.cluster_ips.first().map(|ip| json!(ip)));
        put(spec, "clusterIPs", list(&service.cluster_ips, |ip| json!(ip)));
    }
    put(spec, "ipFamilies", list(service.ip_families, |family| json!(family_name(*family))));
    put(spec, "ipFamilyPolicy", family_policy_name(service.ip_family_policy));
}

fn port_json(port: &ServicePort) -> Value {
    let mut map = Map::new();
    put(&mut map, "name", (!port.name.is_empty()).then(|| json!(port.name)));
    put(&mut map, "protocol", json!(port.protocol.name()));
    put(&mut map, "port", json!(port.port));
    let target = match &port.target {
        TargetPort::Number(number) => json!(number),
        TargetPort::Name(name) => json!(name),
    };
    put(&mut map, "targetPort", target);
    put(&mut map, "nodePort", port.node_port.map(|number| json!(number)));
    put(&mut map, "appProtocol", port.app_protocol.as_ref().map(|name| json!(name)));
    Value::Object(map)
}

fn policies(service: &Service, spec: &mut Map<String, Value>) {
    put(spec, "internalTrafficPolicy", policy_name(service.internal_policy));
    let external = is_external(service).then(|| policy_name(service.external_policy));
    put(spec, "externalTrafficPolicy", external);
    let distribution = service.traffic_distribution.map(|one| match one {
        TrafficDistribution::PreferSameZone => json!("PreferSameZone"),
        TrafficDistribution::PreferClose => json!("PreferClose"),
        TrafficDistribution::PreferSameNode => json!("PreferSameNode"),
    });
    put(spec, "trafficDistribution", distribution);
    let publish = service.publish_not_ready.then_some(json!(true));
    put(spec, "publishNotReadyAddresses", publish);
}

fn load_balancer(service: &Service, spec: &mut Map<String, Value>) {
    put(spec, "loadBalancerIP", service.load_balancer_ip.map(|ip| json!(ip)));
    if service.service_type != ServiceType::LoadBalancer {
        return;
    }
    put(spec, "allocateLoadBalancerNodePorts", json!(service.allocate_node_ports));
    put(spec, "loadBalancerClass", service.load_balancer_class.as_ref().map(|name| json!(name)));
    let ranges = list(&service.source_ranges, |network| json!(network.to_string()));
    put(spec, "loadBalancerSourceRanges", ranges);
    put(spec, "healthCheckNodePort", service.health_check_node_port.map(|port| json!(port)));
}

/// Of a service that is on its way to who knows the earlier version.
fn misplaced(fields: &Misplaced, spec: &mut Map<String, Value>) {
    put(spec, "externalTrafficPolicy", fields.external_policy.map(policy_name));
    put(spec, "allocateLoadBalancerNodePorts", fields.allocate_node_ports.map(Value::from));
    put(spec, "loadBalancerClass", fields.load_balancer_class.as_ref().map(|name| json!(name)));
    put(spec, "healthCheckNodePort", fields.health_check_node_port.map(Value::from));
    put(spec, "clusterIPs", list(&fields.cluster_ips, |ip| json!(ip)));
    put(spec, "clusterIP", fields.headless.then(|| json!("None")));
    put(spec, "ipFamilies", list(fields.ip_families, |family| json!(family_name(*family))));
    put(spec, "ipFamilyPolicy", fields.ip_family_policy.map(family_policy_name));
}

fn status(service: &Service) -> Map<String, Value> {
    let mut map = Map::new();
    put(&mut map, "ingress", list(&service.ingress, ingress_json));
    map
}

fn policy_name(policy: TrafficPolicy) -> Value {
    match policy {
        TrafficPolicy::Cluster => json!("Cluster"),
        TrafficPolicy::Local => json!("Local"),
    }
}

fn family_policy_name(policy: IpFamilyPolicy) -> Value {
    match policy {
        IpFamilyPolicy::SingleStack => json!("SingleStack"),
        IpFamilyPolicy::PreferDualStack => json!("PreferDualStack"),
        IpFamilyPolicy::RequireDualStack => json!("RequireDualStack"),
    }
}

fn ingress_json(ingress: &Ingress) -> Value {
    let mut map = Map::new();
    put(&mut map, "ip", ingress.ip.map(|ip| json!(ip)));
    put(&mut map, "hostname", ingress.hostname.as_ref().map(|name| json!(name)));
    let mode = if ingress.proxy { "Proxy" } else { "VIP" };
    put(&mut map, "ipMode", ingress.ip.map(|_| json!(mode)));
    Value::Object(map)
}

fn slice_json(slice: &EndpointSlice) -> Value {
    let mut map = Map::new();
    put(&mut map, "apiVersion", json!("discovery.k8s.io/v1"));
    put(&mut map, "kind", json!("EndpointSlice"));
    put(&mut map, "metadata", json!(metadata(&slice.key, slice.created, &slice.labels)));
    put(&mut map, "addressType", json!(family_name(slice.family)));
    let ports = slice.ports.iter().map(|port| {
        let mut map = Map::new();
        put(&mut map, "name", json!(port.name));
        put(&mut map, "protocol", json!(port.protocol.name()));
        put(&mut map, "port", port.port.map(|port| json!(port)));
        Value::Object(map)
    });
    put(&mut map, "ports", Value::Array(ports.collect()));
    put(&mut map, "endpoints", Value::Array(slice.endpoints.iter().map(endpoint_json).collect()));
    Value::Object(map)
}

fn endpoint_json(endpoint: &SliceEndpoint) -> Value {
    let mut map = Map::new();
    put(&mut map, "addresses", json!(endpoint.addresses));
    put(
        &mut map,
        "conditions",
        json!({
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
        }),
    );
    put(&mut map, "hostname", endpoint.hostname.as_ref().map(|name| json!(**name)));
    put(&mut map, "nodeName", endpoint.node.as_ref().map(|name| json!(**name)));
    put(&mut map, "zone", endpoint.zone.as_ref().map(|name| json!(**name)));
    if let Some(hints) = &endpoint.hints {
        let names = |names: &[Box<str>]| list(names, |name| json!({ "name": name }));
        let mut both = Map::new();
        put(&mut both, "forNodes", names(&hints.for_nodes));
        put(&mut both, "forZones", names(&hints.for_zones));
        put(&mut map, "hints", Value::Object(both));
    }
    if let Some(pod) = &endpoint.target {
        let target = json!({ "kind": "Pod", "namespace": *pod.namespace, "name": *pod.name });
        put(&mut map, "targetRef", target);
    }
    Value::Object(map)
}

fn node_json(node: &Node) -> Value {
    let addresses: Vec<_> = node
        .addresses
        .iter()
        .map(|address| json!({ "type": "InternalIP", "address": address }))
        .collect();
    let mut json = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata(&node.key, node.created, &node.labels),
        "status": { "addresses": addresses },
    });
    if node.deleted {
        let taint = json!({ "key": Node::TO_BE_DELETED, "effect": "NoSchedule" });
        json["spec"] = json!({ "taints": [taint] });
    }
    json
}

fn family_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    }
}

fn type_name(service_type: ServiceType) -> &'static str {
    match service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName => "ExternalName",
    }
}
