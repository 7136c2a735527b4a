//! `POST /v1/dns`: what a resolver would ask, what it is answered, and why.

use causeway_api::{DnsAnswer, DnsLookup, DnsRequest};
use causeway_dns::{Name, RecordType};
use causeway_host::NodeDns;
use causeway_model::{ObjectKey, ServiceType};

use super::trace;
use crate::names;
use crate::request::Refused;
use crate::request::answer::Questions;
use crate::state::State;

/// The questions of a resolver on this node, or in a container.
pub(crate) fn prepare(state: &State, request: &DnsRequest) -> Result<Questions, Refused> {
    let Some(own) = &state.names else {
        let message = "this node answers no names (--dns-listen off)";
        return Err(Refused::new(409, message));
    };
    let record_type: RecordType = request.record_type.parse().map_err(|_| {
        let message =
            format!("field recordType: {:?} is no type, such as A or SRV", request.record_type);
        Refused::new(400, message)
    })?;
    let search = match request.from.as_str() {
        "node" => Vec::new(),
        // What its resolv.conf says.
        from => {
            let told = names::of_node(&state.settings).unwrap_or_default();
            told.search(&trace::pod(state, from)?.key().namespace)
        }
    };
    let whole = candidates(&request.name, &search).into_iter().map(|text| {
        let name = Name::from_ascii(&text).map_err(|error| {
            Refused::new(400, format!("field name: {:?} is no name: {error}", request.name))
        })?;
        Ok((name, why(state, &text)))
    });
    let names = whole.collect::<Result<Vec<_>, Refused>>()?;
    Ok(Questions { record_type, names, asker: own.asker.clone() })
}

/// Asks until a name is there, as resolvers do.
pub(crate) async fn ask(questions: Questions) -> DnsAnswer {
    let Questions { record_type, names, asker } = questions;
    let mut lookups = Vec::new();
    for (name, why) in names {
        let shown = name.to_string();
        let Some(asked) = asker.ask(name, record_type).await else { break };
        let goes_on = asked.code == "NXDOMAIN";
        lookups.push(DnsLookup {
            name: shown,
            record_type: record_type.to_string(),
            code: asked.code,
            records: asked.records,
            why,
        });
        if !goes_on {
            break;
        }
    }
    DnsAnswer { lookups }
}

/// The whole names that are tried, in order.
fn candidates(name: &str, search: &[String]) -> Vec<String> {
    if let Some(whole) = name.strip_suffix('.') {
        return vec![format!("{whole}.")];
    }
    let itself = format!("{name}.");
    let mut list: Vec<String> = search.iter().map(|suffix| format!("{name}.{suffix}.")).collect();
    let place = if name.matches('.').count() < NodeDns::NDOTS { list.len() } else { 0 };
    list.insert(place, itself);
    list
}

/// Why a name is answered as it is.
fn why(state: &State, name: &str) -> String {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let domain = &state.settings.dns.domain;
    let Some(inner) = name.strip_suffix(domain.as_str()) else {
        return outside(state, &name);
    };
    if !inner.is_empty() && !inner.ends_with('.') {
        return outside(state, &name);
    }
    let mut labels: Vec<&str> = inner.split('.').filter(|label| !label.is_empty()).collect();
    match labels.pop() {
        Some("svc") => {}
        Some("pod") => return "records of pods are off".to_owned(),
        _ => return format!("a name of {domain} itself"),
    }
    let (Some(namespace), Some(service)) = (labels.pop(), labels.pop()) else {
        return "services are below their namespace: NAME.NAMESPACE.svc".to_owned();
    };
    of_service(state, &ObjectKey::new(namespace, service))
}

fn outside(state: &State, name: &str) -> String {
    if name.ends_with(".arpa") {
        return "an address, by the service or container that has it, else asked outside"
            .to_owned();
    }
    let names = state.names.as_ref();
    let servers = names.map(|names| names.status.upstreams.join(", ")).unwrap_or_default();
    match servers.is_empty() {
        true => "not of the cluster, and there is no server to ask".to_owned(),
        false => format!("not of the cluster: asked of {servers}"),
    }
}

fn of_service(state: &State, key: &ObjectKey) -> String {
    let Some(resolved) = state.index.resolve(key) else {
        let own = state.names.as_ref().and_then(|names| names.service.as_ref());
        return match own {
            Some(own) if own.key == *key => "the name server itself".to_owned(),
            _ => format!(
                "there is no service {} in namespace {}; see: causeway get services -A",
                key.name, key.namespace
            ),
        };
    };
    let service = &resolved.service;
    let endpoints = || {
        let all = resolved.ports.iter().flat_map(|port| &port.endpoints);
        let ready: std::collections::BTreeSet<_> =
            all.filter(|one| one.ready).map(|one| one.address).collect();
        ready.len()
    };
    match (service.service_type, &service.external_name) {
        (ServiceType::ExternalName, Some(target)) => {
            format!("service {key} is another name of {target}")
        }
        _ if service.headless => {
            format!("service {key} is headless and has {} ready endpoints", endpoints())
        }
        _ => format!("service {key} has this address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tried_in_the_order_of_a_resolver() {
        let search = ["shop.svc.cluster.local", "svc.cluster.local"].map(str::to_owned);
        let tried = candidates("web", &search);
        assert_eq!(tried, ["web.shop.svc.cluster.local.", "web.svc.cluster.local.", "web."]);
        assert_eq!(candidates("web.", &search), ["web."]);
        assert_eq!(candidates("a.b.c.d.e.f", &search)[0], "a.b.c.d.e.f.");
        assert_eq!(candidates("web", &[]), ["web."]);
    }
}
