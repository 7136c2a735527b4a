//! What a service of type LoadBalancer asks for: addresses, a pool, company.

use std::net::IpAddr;

use crate::{IpFamily, Service, ServicePort, ServiceType};

/// Annotations that ask for addresses, ours first. The others are MetalLB's, of today and of before.
const ADDRESSES: [&str; 3] =
    [Service::LB_ADDRESSES, "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs"];
/// Annotations that ask for a pool.
const POOL: [&str; 3] =
    [Service::LB_POOL, "metallb.io/address-pool", "metallb.universe.tf/address-pool"];
/// Annotations with the key that services share an address by.
const SHARING: [&str; 3] =
    [Service::LB_SHARING, "metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"];

/// What a service asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish<'a> {
    /// At most one a family.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pool: Option<&'a str>,
}

/// Reads the wishes of a service.
///
/// # Errors
/// They cannot be read, or contradict each other.
pub(super) fn wish(service: &Service) -> Result<Wish<'_>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Some((key, text)) = first(service, &ADDRESSES) {
        for part in text.split(',').map(str::trim) {
            let address: IpAddr = part
                .parse()
                .map_err(|_| format!("annotation {key}: {part:?} is not an IP address; fix it"))?;
            if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(format!(
                    "annotation {key}: {text:?} has two addresses of one IP family; keep one"
                ));
            }
            addresses.push(address);
        }
        if let Some(field) = service.load_balancer_ip
            && addresses != [field]
        {
            return Err(format!(
                "annotation {key} asks for {text} and spec.loadBalancerIP for {field}; keep one"
            ));
        }
    }
    if addresses.is_empty() {
        addresses.extend(service.load_balancer_ip);
    }
    for address in &addresses {
        let family = IpFamily::of(*address);
        if !service.ip_families.contains(&family) {
            return Err(format!(
                "it asks for {address}, and has no {family:?} in spec.ipFamilies; add the family or \
                 ask for another address"
            ));
        }
    }
    let pool = first(service, &POOL).map(|(_, name)| name.trim());
    Ok(Wish { addresses, pool })
}

/// By what a service shares its addresses.
pub(super) fn sharing(service: &Service) -> Option<&str> {
    first(service, &SHARING).map(|(_, key)| key)
}

/// Whether its addresses are given here: not if they are another implementation's.
pub(super) fn is_balanced(service: &Service) -> bool {
    let class = service.load_balancer_class.as_deref();
    service.service_type == ServiceType::LoadBalancer
        && service.is_proxied()
        && class.is_none_or(|class| class == Service::LB_CLASS)
}

/// Whether its addresses were given here.
pub(super) fn is_allocated(service: &Service) -> bool {
    service.annotations.contains_key(Service::LB_ALLOCATED)
}

/// Its load balancer addresses.
pub(super) fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.ingress.iter().filter_map(|ingress| ingress.ip)
}

/// Whether there are load balancer addresses that its document gave it, or another controller did.
pub(super) fn is_given(service: &Service) -> bool {
    !service.ingress.is_empty() && !is_allocated(service)
}

/// What a service has of pools that no other may have, as texts.
pub(super) fn claims(service: &Service) -> Vec<String> {
    if !is_balanced(service) || !is_allocated(service) {
        return Vec::new();
    }
    if sharing(service).is_none() {
        return addresses(service).map(|ip| format!("balancer/{ip}")).collect();
    }
    let of = |ip: IpAddr| {
        let text = move |port: &ServicePort| {
            let protocol = port.protocol.name().to_ascii_lowercase();
            format!("balancer/{ip}/{protocol}/{}", port.port)
        };
        service.ports.iter().map(text)
    };
    addresses(service).flat_map(of).collect()
}

fn first<'a>(service: &'a Service, keys: &[&'static str]) -> Option<(&'static str, &'a str)> {
    let get = |key: &&'static str| Some((*key, service.annotations.get(key)?));
    keys.iter().find_map(get).filter(|(_, text)| !text.trim().is_empty())
}
