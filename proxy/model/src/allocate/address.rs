//! Cluster addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::{IpFamily, IpFamilyPolicy, Service};

use super::{Claim, Refused, Work, by, gap, has_cluster_ip, refused, search, start};

/// So many addresses of a network are handed out at most: more than any machine has services.
const MAX_SIZE: u128 = 1 << 20;

impl Work<'_> {
    /// Settles families and addresses.
    pub(super) fn addresses(&mut self, service: &mut Service) -> Result<(), Refused> {
        if !has_cluster_ip(service) {
            return Ok(());
        }
        let previous = self.previous.filter(|previous| has_cluster_ip(previous));
        if let Some(previous) = previous {
            self.keep_kind(service, previous)?;
        }
        let families = self.families(service, previous)?;
        if service.headless {
            service.ip_families = IpFamily::list(families);
            return Ok(());
        }
        let mut addresses = Vec::with_capacity(families.len());
        for (index, family) in families.iter().enumerate() {
            let of_family = |ip: &&IpAddr| IpFamily::of(**ip) == *family;
            let given = service.cluster_ips.iter().find(of_family).copied();
            let had = previous.and_then(|previous| previous.cluster_ips.iter().find(of_family));
            let field = if index == 0 { "spec.clusterIP" } else { "spec.clusterIPs[1]" };
            addresses.push(match (given, had) {
                (Some(given), Some(had)) if given != *had && index == 0 => {
                    return refused(
                        field,
                        format!(
                            "cannot change from {had} to {given}: delete the service first, or \
                             omit the field"
                        ),
                    );
                }
                (Some(given), _) => self.given(given, field, service)?,
                (None, Some(had)) if self.address_free(*had, service) => *had,
                (None, _) => self.free(*family, field, service)?,
            });
        }
        service.cluster_ips = addresses.into();
        service.ip_families = IpFamily::list(families);
        Ok(())
    }

    /// A service with an address stays one, a headless one stays headless.
    fn keep_kind(&mut self, service: &mut Service, previous: &Service) -> Result<(), Refused> {
        match (previous.headless, service.headless) {
            (true, false) if service.cluster_ips.is_empty() => {
                service.headless = true;
                self.warnings.push(
                    "spec.clusterIP: cannot change from None: to get an address, delete the \
                     service first"
                        .to_owned(),
                );
                Ok(())
            }
            (true, false) => refused(
                "spec.clusterIP",
                "cannot change from None to an address: delete the service first",
            ),
            (false, true) => refused(
                "spec.clusterIP",
                "cannot change from an address to None: delete the service first",
            ),
            (true, true) | (false, false) => Ok(()),
        }
    }

    fn families(
        &self,
        service: &Service,
        previous: Option<&Service>,
    ) -> Result<Vec<IpFamily>, Refused> {
        let available: Vec<_> =
            self.pools.service_cidrs.iter().map(|network| IpFamily::of(network.ip())).collect();
        let had = previous.map_or(&[][..], |previous| previous.ip_families);
        let mut families = service.ip_families.to_vec();
        if let (Some(first), Some(before)) = (families.first(), had.first())
            && first != before
        {
            return refused(
                "spec.ipFamilies[0]",
                format!("cannot change from {before:?} to {first:?}: delete the service first"),
            );
        }
        if families.is_empty() {
            let first = had.first().or(available.first()).copied();
            let Some(first) = first else {
                return refused("spec.clusterIP", "there is no service network to allocate from");
            };
            families.push(first);
        }
        if service.ip_family_policy != IpFamilyPolicy::SingleStack && families.len() == 1 {
            let both = had.iter().chain(&available);
            families.extend(both.copied().find(|other| *other != families[0]));
        }
        if service.ip_family_policy == IpFamilyPolicy::RequireDualStack && families.len() < 2 {
            let reason = "RequireDualStack needs service networks of both families";
            return refused("spec.ipFamilyPolicy", reason);
        }
        for (index, family) in families.iter().enumerate() {
            let given = service.cluster_ips.iter().any(|ip| IpFamily::of(*ip) == *family);
            if !available.contains(family) && !given && !had.contains(family) {
                return refused(
                    format!("spec.ipFamilies[{index}]"),
                    format!("there is no {family:?} service network"),
                );
            }
        }
        Ok(families)
    }

    /// Whether the service can have the address as far as other services are concerned.
    fn address_free(&self, address: IpAddr, service: &Service) -> bool {
        self.allocator.other(Claim::Address(address), &service.key).is_none()
            && self.pools.guarded.cluster(address).is_none()
    }

    /// An address that the document asks for.
    fn given(
        &mut self,
        address: IpAddr,
        field: &str,
        service: &Service,
    ) -> Result<IpAddr, Refused> {
        if let Some(owner) = self.allocator.other(Claim::Address(address), &service.key) {
            return refused(
                field,
                format!(
                    "{address} is allocated to {}: choose another one or omit the field",
                    by(owner)
                ),
            );
        }
        if let Some(why) = self.pools.guarded.cluster(address) {
            return refused(field, why);
        }
        let network = self.pools.network(IpFamily::of(address));
        match network {
            Some(network) if network.contains(address) => {
                if !bounds(network).contains(&number(address)) {
                    let reason =
                        format!("{address} is the network or broadcast address of {network}");
                    return refused(field, reason);
                }
            }
            Some(network) => self
                .warnings
                .push(format!("{field}: {address} is outside the service network {network}")),
            None => self.warnings.push(format!(
                "{field}: {address} is set, but there is no service network of its IP family"
            )),
        }
        if let Some(foreign) = self.pools.foreign.iter().find(|one| one.contains(address)) {
            self.warnings.push(format!(
                "{field}: {address} is inside {foreign}, a network of nodes or containers: a host \
                 with this address becomes unreachable"
            ));
        }
        Ok(address)
    }

    /// Addresses and ports that the service is to answer at beside its cluster address.
    pub(super) fn outside(&self, service: &Service) -> Result<(), Refused> {
        let guarded = &self.pools.guarded;
        let why = |address| {
            let mut ports = service.ports.iter();
            ports.find_map(|port| guarded.external(address, port.port, port.protocol))
        };
        for (index, address) in service.external_ips.iter().enumerate() {
            if let Some(why) = why(*address) {
                return refused(format!("spec.externalIPs[{index}]"), why);
            }
        }
        let handled = service.ingress.iter().enumerate().filter(|(_, ingress)| !ingress.proxy);
        for (index, ingress) in handled {
            if let Some(why) = ingress.ip.and_then(why) {
                return refused(format!("status.loadBalancer.ingress[{index}].ip"), why);
            }
        }
        Ok(())
    }

    /// An address that nobody has.
    fn free(&self, family: IpFamily, field: &str, service: &Service) -> Result<IpAddr, Refused> {
        let Some(network) = self.pools.network(family) else {
            return refused(field, format!("there is no {family:?} service network"));
        };
        let (first, last) = (*bounds(network).start(), *bounds(network).end());
        let last = last.min(first.saturating_add(MAX_SIZE - 1));
        if first > last {
            return refused(field, format!("{network} is too small for services"));
        }
        let size = last - first + 1;
        // As KEP-3070: a sixteenth, not less than 16 and not more than 256; none in a tiny network.
        let band = if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) };
        let reserved = |found| self.pools.reserved.contains(&address(found, family));
        let next = |from, to| {
            let range = Claim::Address(address(from, family))..=Claim::Address(address(to, family));
            let taken = self.allocator.taken.range(range).filter_map(|(claim, _)| match claim {
                Claim::Address(address) => Some(number(*address)),
                Claim::Port(..) => None,
            });
            gap(from, to, taken)
        };
        let free = |from, to| {
            let mut from = from;
            loop {
                let found = next(from, to)?;
                if !reserved(found) {
                    return Some(found);
                }
                from = found + 1;
                if from > to {
                    return None;
                }
            }
        };
        let lower = if band == 0 { (1, 0) } else { (first, first + band - 1) };
        let hash = start(&service.key, if family == IpFamily::V4 { "v4" } else { "v6" });
        match search(hash, [(first + band, last), lower], free) {
            Some(number) => Ok(address(number, family)),
            None => refused(field, format!("all addresses of {network} are allocated")),
        }
    }
}

/// Whether two networks have an address in common.
pub(super) fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// The addresses of a network that a service may have.
fn bounds(network: IpNetwork) -> std::ops::RangeInclusive<u128> {
    // The last address of an IPv6 network is an ordinary one; left out all the same, as Kubernetes
    // leaves out the first in both families.
    number(network.network()).saturating_add(1)..=number(network.broadcast()).saturating_sub(1)
}

/// An address as a number of its family.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of a number.
pub(super) fn address(number: u128, family: IpFamily) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpFamily::V6 => Ipv6Addr::from(number).into(),
    }
}
