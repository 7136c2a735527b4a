//! Host ports of this node's containers beside services that ask for the same port: what the plan is
//! to know, and the words for whoever attaches, applies or looks. Pure.

use std::collections::BTreeMap;

use causeway_api::Applied;
use causeway_model::{EndpointKey, Index, ObjectKey, Protocol};
use causeway_ruleset::plan::{Hides, HostPort, Plan, Yield};
use causeway_service::record::{self, Binding, Masquerade, Record};

use crate::log;

/// What each attachment of this node has of host ports, by what its plugin recorded.
pub(crate) type Records = BTreeMap<EndpointKey, Record>;

/// So many stand in `status`.
const SHOWN: usize = 20;

/// For [`Plan::set_host_ports`]. Of several attachments with one port the earliest serves.
pub(crate) fn planned(records: &Records, index: &Index, node: &str) -> Vec<HostPort> {
    let mut all: Vec<_> = records.iter().filter(|(_, record)| !record.again.leaving).collect();
    all.sort_by_key(|(key, record)| (record.again.turn, *key));
    let of_record = |(key, record): (&EndpointKey, &Record)| {
        let pod = index.container(node, key).map(|(one, _)| (*one.pod).clone());
        let owner = pod.unwrap_or_else(|| ObjectKey::new("default", key.container_id.as_str()));
        let one = |binding: &Binding| host_port(record, binding, owner.clone());
        record.bindings.iter().map(one).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(of_record).collect()
}

fn host_port(record: &Record, binding: &Binding, owner: ObjectKey) -> HostPort {
    let again = &record.again;
    let conditional = match binding.target.is_ipv6() {
        false => record.conditions_v4.is_some() || !again.conditions_v4.is_empty(),
        true => record.conditions_v6.is_some() || !again.conditions_v6.is_empty(),
    };
    HostPort {
        protocol: match binding.protocol {
            record::Protocol::Tcp => Protocol::Tcp,
            record::Protocol::Udp => Protocol::Udp,
            record::Protocol::Sctp => Protocol::Sctp,
        },
        host: binding.host,
        port: binding.host_port,
        target: binding.target,
        owner,
        hides: match record.masquerade {
            Masquerade::Nothing => Hides::Nobody,
            Masquerade::Needed => Hides::Needed,
            Masquerade::All => Hides::Everybody,
        },
        conditional,
    }
}

/// Of one service, for `describe`.
pub(crate) fn of_service(plan: &Plan, key: &ObjectKey) -> Vec<String> {
    plan.yields().filter(|one| one.service == *key).map(|one| said(&one)).collect()
}

/// Of one container, for whoever attaches it.
pub(crate) fn of_container(plan: &Plan, pod: &ObjectKey) -> Vec<String> {
    plan.yields().filter(|one| one.host_port.owner == *pod).map(|one| said(&one)).collect()
}

/// Of all, for `status`.
pub(crate) fn all(plan: &Plan) -> Vec<String> {
    log::lines(plan.yields().map(|one| said(&one)), SHOWN, |more| {
        format!("{more} more host ports claimed by services; see: causeway describe service")
    })
}

/// Adds the warnings of `apply` about the services that it stored.
pub(crate) fn warn(plan: &Plan, applied: &mut Applied) {
    for one in plan.yields() {
        let (namespace, name) = (&*one.service.namespace, &*one.service.name);
        let concerned = applied.results.iter_mut().filter(|result| {
            (&*result.kind, &*result.namespace, &*result.name) == ("service", namespace, name)
        });
        concerned.for_each(|result| result.warnings.push(said(&one)));
    }
}

/// The host ports of a container's address, for `describe`.
pub(crate) fn to(plan: &Plan, address: std::net::IpAddr, port: u16) -> Vec<String> {
    let target = std::net::SocketAddr::new(address, port);
    let ours = plan.host_ports().iter().filter(|one| one.target == target);
    ours.map(place).collect()
}

/// `8080/TCP`, with an address of the host if it is only that one's.
fn place(port: &HostPort) -> String {
    let protocol = port.protocol.name();
    match port.host {
        None => format!("{}/{protocol}", port.port),
        Some(host) => format!("{}/{protocol}", std::net::SocketAddr::new(host, port.port)),
    }
}

fn said(Yield { place: asked, service, host_port }: &Yield) -> String {
    let owner = &host_port.owner;
    let taken = place(host_port);
    let whose = if host_port.conditional { " that match its conditions" } else { "" };
    format!(
        "{asked} of service {service} is host port {taken} of container {owner} on this node: \
         connections to it{whose} go to the container; change one of the two ports"
    )
}

#[cfg(test)]
mod tests;
