//! `GET /v1/describe/NAMESPACE/NAME`: a service, its endpoints, and what keeps it from working.

use std::net::IpAddr;

use causeway_api::{DescribedEndpoint, DescribedPort, Description};
use causeway_model::{
    Endpoint, IpFamily, ObjectKey, Resolved, ResolvedPort, Service, ServicePort, ServiceType,
    TargetPort, TrafficPolicy,
};
use causeway_ruleset::plan::{At, Decision, Pool, PortPlan};

use super::render;
use crate::conditions::Concern;
use crate::guard;
use crate::host_ports;
use crate::log;
use crate::request::Refused;
use crate::sharing;
use crate::state::State;

/// Describes a service.
pub(crate) fn describe(state: &State, key: &ObjectKey) -> Result<Description, Refused> {
    let resolved = state.index.resolve(key).ok_or_else(|| {
        Refused::new(404, format!("service {key} not found; see: causeway get services -A"))
    })?;
    // Addresses alone have no port.
    let ports = resolved.service.ports.iter().map(Some).chain(std::iter::repeat(None));
    let ports = ports.zip(&resolved.ports);
    Ok(Description {
        service: render::service(&resolved.service),
        ports: ports.map(|(port, found)| described(state, key, port, found)).collect(),
        remarks: remarks(state, &resolved),
    })
}

fn described(
    state: &State,
    key: &ObjectKey,
    port: Option<&ServicePort>,
    found: &ResolvedPort,
) -> DescribedPort {
    let at = |endpoint: &Endpoint| (endpoint.address, endpoint.port);
    let endpoint = |endpoint: &Endpoint| DescribedEndpoint {
        address: endpoint.address,
        port: endpoint.port,
        state: condition(endpoint).to_owned(),
        in_rotation: match port {
            Some(port) => in_rotation(state, key, port, at(endpoint)),
            None => endpoint.ready,
        },
        pod: endpoint.pod.as_ref().map(|pod| pod.to_string()),
        node: endpoint.node.as_ref().map(|node| node.to_string()),
        host_ports: host_ports::to(&state.plan, endpoint.address, endpoint.port),
    };
    DescribedPort {
        name: port.map(|port| port.name.to_string()).unwrap_or_default(),
        protocol: port.map(|port| port.protocol.name().to_owned()).unwrap_or_default(),
        endpoints: found.endpoints.iter().map(endpoint).collect(),
    }
}

/// Word for the conditions of an endpoint.
fn condition(endpoint: &Endpoint) -> &'static str {
    match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, _, _) => "ready",
        (false, true, _) => "serving",
        (false, false, true) => "terminating",
        (false, false, false) => "not ready",
    }
}

/// The plans of a service port, one per IP family.
pub(crate) fn plans<'a>(
    state: &'a State,
    key: &ObjectKey,
    port: &'a ServicePort,
) -> impl Iterator<Item = &'a PortPlan> {
    let service = state.plan.services.get(key).into_iter();
    service
        .flat_map(|service| service.ports.iter())
        .filter(|plan| *plan.name == *port.name && plan.protocol == port.protocol)
}

/// Whether a container of this node may be sent there.
fn in_rotation(state: &State, key: &ObjectKey, port: &ServicePort, to: (IpAddr, u16)) -> bool {
    let family = IpFamily::of(to.0);
    plans(state, key, port).filter(|plan| plan.family == family).any(|plan| {
        let cluster = plan.frontends.iter().find(|front| matches!(front.at, At::Cluster(..)));
        let pool = match cluster.map(|front| front.decision) {
            Some(Decision::Balance { pool: Pool::Local, .. }) => &plan.local,
            Some(Decision::Balance { pool: Pool::Cluster, .. } | Decision::ByOrigin) => {
                &plan.cluster
            }
            Some(Decision::Reject | Decision::Drop) | None => return false,
        };
        pool.iter().any(|target| (target.address, target.port) == to)
    })
}

/// Where this node announces the addresses of a service, or why it does not.
fn announced(state: &State, service: &Service) -> Vec<String> {
    let Some(announced) = &state.announced else { return Vec::new() };
    let ips = service.ingress.iter().filter_map(|ingress| ingress.ip);
    let held = ips.filter_map(|ip| Some((ip, announced.addresses.get(&ip)?)));
    held.map(|(ip, held)| match (&held.interface, &held.reason) {
        (Some(interface), None) => format!("{ip} is announced by this node on {interface}"),
        (Some(interface), Some(reason)) => {
            format!("{ip} is announced by this node on {interface}, but {reason}")
        }
        (None, Some(reason)) => format!("{ip} is not announced: {reason}"),
        (None, None) => format!("{ip} is about to be announced"),
    })
    .collect()
}

fn remarks(state: &State, resolved: &Resolved) -> Vec<String> {
    let service = &resolved.service;
    let mut remarks = Vec::new();
    if service.labels.contains_key(Service::PROXY_NAME) {
        remarks
            .push(format!("label {} assigns it to another proxy: no rules", Service::PROXY_NAME));
    }
    if service.service_type == ServiceType::ExternalName {
        remarks.push("ExternalName: DNS name only, no address and no rules".to_owned());
        return remarks;
    }
    if service.headless {
        remarks.push("headless: DNS names only, no address and no rules".to_owned());
    }
    if service.service_type == ServiceType::LoadBalancer && service.ingress.is_empty() {
        remarks.push(match state.balancers.of_service(&service.key) {
            Some(why) => format!("no load balancer address yet: {why}"),
            None => "no load balancer address yet".to_owned(),
        });
    } else if let Some(why) = state.balancers.of_service(&service.key) {
        remarks.push(format!("a load balancer address is missing: {why}"));
    }
    remarks.extend(announced(state, service));
    let found = resolved.ports.iter().any(|port| !port.endpoints.is_empty());
    let away = out_of_reach(state, &service.key);
    if !found && away.is_none() {
        remarks.push(nothing_found(state, service));
    }
    remarks.extend(away);
    for (port, endpoints) in service.ports.iter().zip(&resolved.ports) {
        remarks.extend(port_remark(state, service, port, endpoints, found));
    }
    remarks.extend(guard::of_service(state, &service.key));
    remarks.extend(state.left_out.of_service(&service.key));
    remarks.extend(sharing::of_service(&state.plan, &service.key));
    remarks.extend(host_ports::of_service(&state.plan, &service.key));
    let health_check = Concern::HealthCheckPort(service.key.clone());
    remarks.extend(state.conditions.warnings_of(&health_check).iter().cloned());
    remarks
}

/// Containers that count on their own nodes only.
fn out_of_reach(state: &State, key: &ObjectKey) -> Option<String> {
    /// At most so many are named.
    const NAMED: usize = 5;
    let away = state.index.out_of_reach(key);
    let text = log::few(away.iter().map(|(node, ip)| format!("{ip} of node {node}")), NAMED);
    (!away.is_empty()).then(|| {
        format!(
            "usable on their own node only: {text}; outside --cluster-cidr or the subnet of their \
             node, so this node has no route to them"
        )
    })
}

/// Why a service has no endpoint at all.
fn nothing_found(state: &State, service: &Service) -> String {
    if service.selector.is_empty() {
        return "no selector, and no Endpoints or EndpointSlice for it: connections are refused; \
                apply one"
            .to_owned();
    }
    let selector: Vec<String> =
        service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selector = selector.join(",");
    let matches = |labels: &causeway_model::LabelSet| {
        let mut wanted = service.selector.iter();
        wanted.all(|(key, value)| labels.get(key).is_some_and(|has| has == value))
    };
    let pods = super::collect::pods(&state.index);
    let mut matching = pods.values().filter(|pod| matches(&pod.records[0].labels));
    let elsewhere = matching.find(|pod| pod.key().namespace != service.key.namespace);
    match elsewhere {
        Some(pod) => format!(
            "no attached container of namespace {} has the labels {selector}: connections are \
             refused; {} has them, but is in another namespace",
            service.key.namespace,
            pod.key()
        ),
        None => format!(
            "no attached container has the labels {selector}: connections are refused; start one, \
             or see: causeway get pods -A"
        ),
    }
}

/// What keeps a port of a service with endpoints from working.
fn port_remark(
    state: &State,
    service: &Service,
    port: &ServicePort,
    found: &ResolvedPort,
    any: bool,
) -> Option<String> {
    let named = match &*port.name {
        "" => format!("port {}", port.port),
        name => format!("port {name}"),
    };
    if found.endpoints.is_empty() {
        return match &port.target {
            TargetPort::Name(name) => Some(format!(
                "{named}: no container has a port named {name}; label one: \
                 port.causeway.io/{name}=NUMBER"
            )),
            TargetPort::Number(_) => {
                any.then(|| format!("{named}: no endpoints; connections are refused"))
            }
        };
    }
    let usable = |one: &&Endpoint| one.ready || one.serving;
    if !found.endpoints.iter().any(|one| usable(&one)) {
        return Some(format!("{named}: no endpoint is ready; connections are refused"));
    }
    let local = |one: &Endpoint| {
        usable(&one) && one.node.as_ref().is_some_and(|node| **node == *state.node.name)
    };
    if found.endpoints.iter().any(local) {
        return None;
    }
    let dropped = |field: &str, whose: &str| {
        format!("{named}: {field} is Local and this node has no endpoints: {whose} are dropped")
    };
    if service.internal_policy == TrafficPolicy::Local {
        return Some(dropped("internalTrafficPolicy", "connections to the cluster address"));
    }
    let external = service.external_policy == TrafficPolicy::Local
        && matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer);
    external.then(|| dropped("externalTrafficPolicy", "connections from outside"))
}
