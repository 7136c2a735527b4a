//! Objects as Kubernetes writes them. Pure: what is rendered was collected before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{
    EndpointRecord, EndpointSlice, Labels, Object, ObjectKey, Resolved, Service, ServiceType,
    manifest,
};
use serde_json::{Value, json};

use super::nodes::NodeView;
pub(crate) use crate::request::answer::Pod;

/// Annotation of a pod: id of its container.
const CONTAINER_ID: &str = "causeway.io/container-id";
/// Annotation of a node: address of its vxlan device.
const VTEP: &str = "causeway.io/vtep-mac";
/// Annotation of a node: MTU of its overlay in bytes.
const OVERLAY_MTU: &str = "causeway.io/overlay-mtu";

/// A `v1 List`.
pub(crate) fn list(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items })
}

/// `v1 Service`
pub(crate) fn service(service: &Service) -> Value {
    manifest::to_json(&Object::Service(service.clone()))
}

/// `discovery.k8s.io/v1 EndpointSlice`
pub(crate) fn slice(slice: &EndpointSlice) -> Value {
    manifest::to_json(&Object::EndpointSlice(slice.clone()))
}

/// `v1 Endpoints` of a service as they are now; `None` for `ExternalName`, which has none.
pub(crate) fn endpoints(resolved: &Resolved) -> Option<Value> {
    let service = &resolved.service;
    if service.service_type == ServiceType::ExternalName {
        return None;
    }
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata(&service.key, &service.labels.to_map(), service.created),
    });
    let subsets = subsets(resolved);
    if !subsets.is_empty() {
        object["subsets"] = subsets.into();
    }
    Some(object)
}

impl Pod {
    /// Namespace and name.
    pub(crate) fn key(&self) -> ObjectKey {
        self.records[0].pod()
    }

    /// Its addresses, at most one per IP family: those of the attachment that stands for it.
    pub(crate) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.records[0].ips_by_family()
    }
}

/// `v1 Pod`
pub(crate) fn pod(pod: &Pod) -> Value {
    let first = &pod.records[0];
    let mut labels = Labels::new();
    for record in &pod.records {
        labels.extend(record.labels.to_map());
    }
    let created = pod.records.iter().map(|record| record.created).min().unwrap_or_default();
    let mut metadata = metadata(&pod.key(), &labels, created);
    let networks: BTreeSet<&str> =
        pod.records.iter().map(|record| record.key.network.as_str()).collect();
    let networks: Vec<&str> = networks.into_iter().collect();
    metadata["annotations"] = json!({
        CONTAINER_ID: first.key.container_id,
        EndpointRecord::NETWORK: networks.join(","),
    });
    let ips: Vec<Value> = pod.ips().map(|ip| json!({ "ip": ip })).collect();
    let ready = if pod.healthy { "True" } else { "False" };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": { "nodeName": &*pod.node },
        "status": {
            "phase": "Running",
            "podIP": pod.ips().next(),
            "podIPs": ips,
            "conditions": [{ "type": "Ready", "status": ready }],
        },
    })
}

/// `v1 Node`
pub(crate) fn node(node: &NodeView) -> Value {
    let addresses = node.ips.iter().map(|ip| json!({ "type": "InternalIP", "address": ip }));
    let hostname = json!({ "type": "Hostname", "address": node.name });
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata(&ObjectKey::new("", node.name.as_str()), &node.labels, node.created),
        "status": {
            "addresses": addresses.chain([hostname]).collect::<Vec<_>>(),
            "conditions": node_conditions(node),
        },
    });
    if let Some(first) = node.subnets.first() {
        object["spec"] = json!({ "podCIDR": first, "podCIDRs": node.subnets });
    }
    let vtep = node.vtep.map(|vtep| (VTEP, vtep.to_string()));
    let mtu = node.mtu.map(|mtu| (OVERLAY_MTU, mtu.to_string()));
    let annotations: BTreeMap<_, _> = vtep.into_iter().chain(mtu).collect();
    if !annotations.is_empty() {
        object["metadata"]["annotations"] = json!(annotations);
    }
    let info = [
        ("causewaydVersion", &node.version),
        ("machineID", &node.machine_id),
        ("bootID", &node.boot_id),
    ];
    let info = info.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let info: BTreeMap<_, _> = info.collect();
    if !info.is_empty() {
        object["status"]["nodeInfo"] = json!(info);
    }
    object
}

/// Whether it lives, and whether it is reached. Without times: they would change all the time.
fn node_conditions(node: &NodeView) -> Vec<Value> {
    let ready = json!({
        "type": "Ready",
        "status": node.ready.condition(),
        "reason": node.reason,
        "message": node.message,
    });
    let unreachable = node.problem.as_ref().map(|problem| {
        json!({
            "type": "NetworkUnavailable",
            "status": "True",
            "reason": "Overlay",
            "message": problem,
        })
    });
    [ready].into_iter().chain(unreachable).collect()
}

fn metadata(key: &ObjectKey, labels: &Labels, created: impl Into<Option<u64>>) -> Value {
    let mut metadata = json!({ "name": &*key.name });
    if let Some(created) = created.into() {
        metadata["creationTimestamp"] = manifest::rfc3339(created).into();
    }
    if !key.namespace.is_empty() {
        metadata["namespace"] = (&*key.namespace).into();
    }
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    metadata
}

/// A port of an address: name, number, protocol.
type Port = (String, u16, &'static str);

/// Addresses with the same ports stand together, as Kubernetes' controller packs them.
fn subsets(resolved: &Resolved) -> Vec<Value> {
    let mut addresses: BTreeMap<IpAddr, (BTreeSet<Port>, bool, Value)> = BTreeMap::new();
    // Addresses alone have no port.
    let ports = resolved.service.ports.iter().map(Some).chain(std::iter::repeat(None));
    for (port, endpoints) in ports.zip(&resolved.ports) {
        for endpoint in &endpoints.endpoints {
            let entry = addresses.entry(endpoint.address).or_insert_with(|| {
                let mut address = json!({ "ip": endpoint.address });
                if let Some(node) = &endpoint.node {
                    address["nodeName"] = (&**node).into();
                }
                if let Some(hostname) = &endpoint.hostname {
                    address["hostname"] = (&**hostname).into();
                }
                if let Some(pod) = &endpoint.pod {
                    address["targetRef"] =
                        json!({ "kind": "Pod", "namespace": &*pod.namespace, "name": &*pod.name });
                }
                (BTreeSet::new(), true, address)
            });
            if let Some(port) = port {
                entry.0.insert((port.name.to_string(), endpoint.port, port.protocol.name()));
            }
            entry.1 &= endpoint.ready;
        }
    }
    let mut subsets: BTreeMap<BTreeSet<Port>, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for (ports, ready, address) in addresses.into_values() {
        let subset = subsets.entry(ports).or_default();
        if ready { subset.0.push(address) } else { subset.1.push(address) }
    }
    subsets.into_iter().map(|(ports, (ready, unready))| subset(&ports, ready, unready)).collect()
}

fn subset(ports: &BTreeSet<Port>, ready: Vec<Value>, unready: Vec<Value>) -> Value {
    let port = |(name, port, protocol): &Port| {
        let mut value = json!({ "port": port, "protocol": protocol });
        if !name.is_empty() {
            value["name"] = name.as_str().into();
        }
        value
    };
    let mut subset = json!({});
    if !ports.is_empty() {
        subset["ports"] = ports.iter().map(port).collect::<Vec<_>>().into();
    }
    for (name, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
        if !addresses.is_empty() {
            subset[name] = addresses.into();
        }
    }
    subset
}

#[cfg(test)]
mod tests;
