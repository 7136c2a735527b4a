//! `v1 Service`: what Kubernetes' `ValidateService` asks for, with its defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;

use crate::{
    Balance, Ingress, IpFamily, IpFamilyPolicy, Misplaced, Protocol, Service, ServicePort,
    ServiceType, TargetPort, TrafficDistribution, TrafficPolicy,
};

use super::meta::{self, choice, each, port, port_number, read, refuse, required};
use super::syntax;
use super::tree::{Checked, Field, Problem};

/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`, and its greatest value.
const AFFINITY: (u32, u32) = (10_800, 86_400);

const FAMILIES: &[(&str, IpFamily)] = &[("IPv4", IpFamily::V4), ("IPv6", IpFamily::V6)];
const POLICIES: &[(&str, TrafficPolicy)] =
    &[("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];

/// A `v1 Service`.
pub(super) fn service(root: &Field<'_>, notes: &mut Vec<Problem>) -> Checked<Service> {
    let meta = meta::meta(root, syntax::dns_1035)?;
    let spec = root.get("spec");
    if !spec.is_present() {
        return Err(spec.missing());
    }
    spec.map()?;
    let mut service = Service::new(meta.key);
    service.created = meta.created;
    service.labels = meta.labels;
    service.annotations = meta.annotations;
    service.service_type = choice(
        &spec.get("type"),
        &[
            ("ClusterIP", ServiceType::ClusterIp),
            ("NodePort", ServiceType::NodePort),
            ("LoadBalancer", ServiceType::LoadBalancer),
            ("ExternalName", ServiceType::ExternalName),
        ],
    )?
    .unwrap_or(ServiceType::ClusterIp);
    service.selector = meta::labels(&spec.get("selector"))?;
    service.publish_not_ready = spec.get("publishNotReadyAddresses").boolean()?.unwrap_or_default();
    addresses(&spec, &mut service)?;
    families(&spec, &mut service)?;
    let mut misplaced = Misplaced::default();
    if service.service_type == ServiceType::ExternalName {
        no_address(&spec, &mut service, &mut misplaced);
    }
    external_name(&spec, &mut service)?;
    ports(&spec, &mut service)?;
    affinity(&spec, &mut service)?;
    policies(&spec, &mut service, &mut misplaced)?;
    load_balancer(&spec, &mut service, (&mut misplaced, notes))?;
    let field = root.get("status").get("loadBalancer").get("ingress");
    if service.service_type == ServiceType::LoadBalancer {
        ingress(&field, &mut service)?;
    } else {
        misplaced.ingress = field.is_set();
    }
    our_annotations(&root.get("metadata").get("annotations"), &mut service)?;
    service.misplaced = (misplaced != Misplaced::default()).then(|| Box::new(misplaced));
    Ok(service)
}

/// `clusterIP`, `clusterIPs`, `externalIPs`.
fn addresses(spec: &Field<'_>, service: &mut Service) -> Checked<()> {
    let (one, all) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let first = one.text()?;
    let mut texts = Vec::new();
    for item in all.items()? {
        texts.push((item.required_text()?, item));
    }
    match (first, texts.first()) {
        (Some(first), Some((other, field))) if first != *other => {
            return refuse(field, format!("must be equal to spec.clusterIP {first}"));
        }
        (Some(first), None) => texts.push((first, one.clone())),
        _ => {}
    }
    if let Some((_, field)) = texts.get(2) {
        return refuse(field, "one address per IP family, at most two");
    }
    if texts.iter().any(|(text, _)| *text == "None") {
        service.headless = true;
        return match (texts.len(), service.service_type) {
            (1, ServiceType::ClusterIp | ServiceType::ExternalName) => external_ips(spec, service),
            (1, _) => refuse(&one, "None is only allowed for type ClusterIP"),
            _ => refuse(&all, "None must be the only value"),
        };
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (text, field) in &texts {
        let address = syntax::unicast(text).map_err(|reason| field.problem(reason))?;
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return refuse(field, "one address per IP family");
        }
        addresses.push(address);
    }
    service.cluster_ips = addresses.into();
    external_ips(spec, service)
}

fn external_ips(spec: &Field<'_>, service: &mut Service) -> Checked<()> {
    service.external_ips = each(&spec.get("externalIPs"), |item| required(item, syntax::unicast))?;
    Ok(())
}

/// `ipFamilies` and `ipFamilyPolicy`, which also follow from two addresses.
fn families(spec: &Field<'_>, service: &mut Service) -> Checked<()> {
    let field = spec.get("ipFamilies");
    let mut families = Vec::new();
    for item in field.items()? {
        let family = choice(&item, FAMILIES)?.ok_or_else(|| item.missing())?;
        if families.contains(&family) {
            return refuse(&item, "is listed twice");
        }
        let index = families.len();
        if service.cluster_ips.get(index).is_some_and(|ip| IpFamily::of(*ip) != family) {
            let address = service.cluster_ips[index];
            return refuse(
                &item,
                format!("spec.clusterIPs[{index}] {address} is of another IP family"),
            );
        }
        families.push(family);
    }
    for address in &service.cluster_ips[families.len().min(service.cluster_ips.len())..] {
        families.push(IpFamily::of(*address));
    }
    let policy = spec.get("ipFamilyPolicy");
    let given = choice(
        &policy,
        &[
            ("SingleStack", IpFamilyPolicy::SingleStack),
            ("PreferDualStack", IpFamilyPolicy::PreferDualStack),
            ("RequireDualStack", IpFamilyPolicy::RequireDualStack),
        ],
    )?;
    if given == Some(IpFamilyPolicy::SingleStack) && families.len() > 1 {
        return refuse(&policy, "SingleStack allows one IP family, and two are given");
    }
    service.ip_family_policy = given.unwrap_or(if families.len() > 1 {
        IpFamilyPolicy::RequireDualStack
    } else {
        IpFamilyPolicy::SingleStack
    });
    service.ip_families = IpFamily::list(families);
    Ok(())
}

/// An ExternalName has no cluster address.
fn no_address(spec: &Field<'_>, service: &mut Service, misplaced: &mut Misplaced) {
    misplaced.cluster_ips = mem::take(&mut service.cluster_ips);
    misplaced.headless = mem::take(&mut service.headless);
    if spec.get("ipFamilies").is_set() {
        misplaced.ip_families = service.ip_families;
    }
    if spec.get("ipFamilyPolicy").is_set() {
        misplaced.ip_family_policy = Some(service.ip_family_policy);
    }
    service.ip_families = &[];
    service.ip_family_policy = IpFamilyPolicy::SingleStack;
}

fn external_name(spec: &Field<'_>, service: &mut Service) -> Checked<()> {
    let field = spec.get("externalName");
    let rule = |text: &str| {
        // A final dot is how DNS writes a full name; Kubernetes takes it off.
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.parse::<IpAddr>().is_ok() {
            return Err(format!(
                "{name:?} is an address, and in DNS there is no alias of an address: leave type and \
                 externalName out, and give the service an EndpointSlice with the address"
            ));
        }
        syntax::dns_subdomain(name).map(|()| name.into())
    };
    if service.service_type == ServiceType::ExternalName {
        service.external_name = Some(required(&field, rule)?);
    } else if field.text()?.is_some() {
        return refuse(&field, "is for type ExternalName only");
    }
    Ok(())
}

fn ports(spec: &Field<'_>, service: &mut Service) -> Checked<()> {
    let field = spec.get("ports");
    let items = field.items()?;
    let optional = service.headless || service.service_type == ServiceType::ExternalName;
    if items.is_empty() && !optional {
        return Err(field.missing());
    }
    let mut names = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut node_ports = BTreeMap::new();
    let mut ports = Vec::with_capacity(items.len());
    for item in &items {
        let port = service_port(item)?;
        let name = item.get("name");
        if port.name.is_empty() && items.len() > 1 {
            return refuse(&name, "is required if there is more than one port");
        }
        if !names.insert(port.name.clone()) {
            return refuse(&name, format!("{:?} is already the name of another port", port.name));
        }
        if !taken.insert((port.protocol, port.port)) {
            let what = format!("{}/{}", port.port, port.protocol.name());
            return refuse(&item.get("port"), format!("{what} is listed already"));
        }
        if let Some(number) = port.node_port
            && node_ports.insert((port.protocol, number), ()).is_some()
        {
            let what = format!("{number}/{}", port.protocol.name());
            return refuse(&item.get("nodePort"), format!("{what} is listed already"));
        }
        ports.push(port);
    }
    service.ports = ports.into();
    Ok(())
}

fn service_port(item: &Field<'_>) -> Checked<ServicePort> {
    item.map()?;
    let number = port(&item.get("port"))?.ok_or_else(|| item.get("port").missing())?;
    let target = item.get("targetPort");
    let target = match target.int_or_text()? {
        None | Some(Ok(0) | Err("")) => TargetPort::Number(number),
        Some(Ok(number)) => {
            TargetPort::Number(port_number(number).map_err(|reason| target.problem(reason))?)
        }
        Some(Err(name)) => {
            syntax::port_name(name).map_err(|reason| target.problem(reason))?;
            TargetPort::Name(name.into())
        }
    };
    Ok(ServicePort {
        name: read(&item.get("name"), |text| syntax::dns_label(text).map(|()| text.into()))?
            .unwrap_or_default(),
        protocol: protocol(&item.get("protocol"))?,
        port: number,
        target,
        node_port: node_port(&item.get("nodePort"))?,
        app_protocol: read(&item.get("appProtocol"), |text| {
            syntax::qualified_name(text).map(|()| text.into())
        })?,
    })
}

/// TCP if nothing is said.
pub(super) fn protocol(field: &Field<'_>) -> Checked<Protocol> {
    let choices = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|one| (one.name(), one));
    Ok(choice(field, &choices)?.unwrap_or(Protocol::Tcp))
}

fn node_port(field: &Field<'_>) -> Checked<Option<u16>> {
    // 0 is how Kubernetes writes none.
    if field.int()? == Some(0) { Ok(None) } else { port(field) }
}

fn affinity(spec: &Field<'_>, service: &mut Service) -> Checked<()> {
    let field = spec.get("sessionAffinity");
    let sticky = choice(&field, &[("None", false), ("ClientIP", true)])?.unwrap_or(false);
    let config = spec.get("sessionAffinityConfig");
    if !sticky {
        return match config.is_set() {
            true => refuse(&config, "is for sessionAffinity ClientIP only"),
            false => Ok(()),
        };
    }
    let field = config.get("clientIP").get("timeoutSeconds");
    let timeout = field.int()?.unwrap_or(i64::from(AFFINITY.0));
    let fine = u32::try_from(timeout).ok().filter(|seconds| (1..=AFFINITY.1).contains(seconds));
    if fine.is_none() {
        return refuse(&field, format!("{timeout} is not from 1 to {} seconds", AFFINITY.1));
    }
    service.affinity = fine;
    Ok(())
}

fn policies(spec: &Field<'_>, service: &mut Service, misplaced: &mut Misplaced) -> Checked<()> {
    let external = choice(&spec.get("externalTrafficPolicy"), POLICIES)?;
    if is_external(service) {
        service.external_policy = external.unwrap_or(TrafficPolicy::Cluster);
    } else {
        misplaced.external_policy = external;
    }
    service.internal_policy =
        choice(&spec.get("internalTrafficPolicy"), POLICIES)?.unwrap_or(TrafficPolicy::Cluster);
    service.traffic_distribution = choice(
        &spec.get("trafficDistribution"),
        &[
            ("PreferSameZone", TrafficDistribution::PreferSameZone),
            ("PreferClose", TrafficDistribution::PreferClose),
            ("PreferSameNode", TrafficDistribution::PreferSameNode),
        ],
    )?;
    Ok(())
}

/// Whether traffic from outside is part of the service.
pub(super) fn is_external(service: &Service) -> bool {
    matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer)
        || !service.external_ips.is_empty()
}

fn load_balancer(
    spec: &Field<'_>,
    service: &mut Service,
    (misplaced, notes): (&mut Misplaced, &mut Vec<Problem>),
) -> Checked<()> {
    let is_one = service.service_type == ServiceType::LoadBalancer;
    let ranges = spec.get("loadBalancerSourceRanges");
    if ranges.is_set() && !is_one {
        return refuse(&ranges, "is for type LoadBalancer only");
    }
    let allocate = spec.get("allocateLoadBalancerNodePorts").boolean()?;
    let class = read(&spec.get("loadBalancerClass"), |text| {
        syntax::qualified_name(text).map(|()| text.into())
    })?;
    if is_one {
        service.allocate_node_ports = allocate.unwrap_or(true);
        service.load_balancer_class = class;
    } else {
        misplaced.allocate_node_ports = allocate;
        misplaced.load_balancer_class = class;
    }
    service.load_balancer_ip = read(&spec.get("loadBalancerIP"), syntax::ip)?;
    service.source_ranges = each(&ranges, |item| {
        let network = required(item, syntax::network)?;
        let text = item.required_text()?;
        if text.trim() != network.to_string() {
            notes.push(item.problem(format!("{text} is read as the network {network}")));
        }
        Ok(network)
    })?;
    let field = spec.get("healthCheckNodePort");
    if field.int()?.is_some_and(|number| number != 0) {
        let number = port(&field)?;
        if is_one && service.external_policy == TrafficPolicy::Local {
            service.health_check_node_port = number;
        } else {
            misplaced.health_check_node_port = number;
        }
    }
    Ok(())
}

/// `status.loadBalancer.ingress`
fn ingress(field: &Field<'_>, service: &mut Service) -> Checked<()> {
    service.ingress = each(field, |item| {
        let ip = read(&item.get("ip"), syntax::unicast)?;
        let mode = item.get("ipMode");
        let proxy = choice(&mode, &[("VIP", false), ("Proxy", true)])?;
        if proxy.is_some() && ip.is_none() {
            return refuse(&mode, "needs ip, which is missing");
        }
        let hostname =
            read(&item.get("hostname"), |text| syntax::dns_subdomain(text).map(|()| text.into()))?;
        Ok(Ingress { ip, hostname, proxy: proxy.unwrap_or(false) })
    })?;
    Ok(())
}

/// Annotations `causeway.io/...`.
fn our_annotations(field: &Field<'_>, service: &mut Service) -> Checked<()> {
    for (key, value) in field.entries()? {
        match key {
            Service::BALANCE => {
                let choices = [
                    ("random", Balance::Random),
                    ("round-robin", Balance::RoundRobin),
                    ("source-hash", Balance::SourceHash),
                ];
                service.balance = choice(&value, &choices)?.unwrap_or(Balance::Random);
            }
            Service::HEALTH_CHECK => {
                service.health_check = choice(&value, &[("tcp", ())])?.is_some();
            }
            _ => {}
        }
    }
    Ok(())
}
