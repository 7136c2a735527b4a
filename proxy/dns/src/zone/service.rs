//! What names of one service need, in little memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use causeway_model::{
    Endpoint, ObjectKey, Protocol, Resolved, Service, ServicePort, ServiceType, TargetPort,
};

/// The names of a service. What it shares with the index costs nothing again: a service that is not
/// headless takes 16 bytes beside its name in the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    service: Arc<Service>,
    /// `None` unless it is headless.
    hosts: Option<Box<Hosts>>,
}

/// Places of hosts, each with its port.
type PortHosts = Box<[(u32, u16)]>;

/// The published endpoints of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hosts {
    /// Those without a host name by address, then the others by host name and address.
    hosts: Box<[Host]>,
    /// No two hosts have one address.
    distinct: bool,
    /// For each port of the service: its hosts, as places in `hosts`, with the port there.
    ports: Box<[PortHosts]>,
}

/// A published endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Host name; without one it is called by its address.
    pub hostname: Option<Arc<str>>,
    /// Address.
    pub address: IpAddr,
    /// Topology zone, if it is known.
    pub zone: Option<Arc<str>>,
}

impl ServiceNames {
    /// Of a service with its endpoints as they are now.
    pub fn of(resolved: &Resolved) -> Self {
        let hosts = resolved.service.headless.then(|| Box::new(Hosts::of(resolved)));
        Self { service: Arc::clone(&resolved.service), hosts }
    }

    /// Of the DNS service at these addresses.
    pub(super) fn of_dns(vips: &[IpAddr]) -> Self {
        let port = |name: &str, protocol| ServicePort {
            name: name.into(),
            protocol,
            port: 53,
            target: TargetPort::Number(53),
            node_port: None,
            app_protocol: None,
        };
        let mut service = Service::new(ObjectKey::new("kube-system", "kube-dns"));
        service.cluster_ips = vips.into();
        service.ports = [port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)].into();
        Self { service: Arc::new(service), hosts: None }
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        &self.service.key
    }

    /// The service's ports.
    pub fn ports(&self) -> &[ServicePort] {
        &self.service.ports
    }

    /// What an ExternalName stands for.
    pub fn external_name(&self) -> Option<&str> {
        self.service.external_name.as_deref()
    }

    /// Whether it is an ExternalName.
    pub fn is_external(&self) -> bool {
        self.service.service_type == ServiceType::ExternalName
    }

    /// Whether its names lead to its endpoints.
    pub fn is_headless(&self) -> bool {
        self.hosts.is_some()
    }

    /// Addresses of the service itself.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        &self.service.cluster_ips
    }

    /// The published endpoints of a headless service.
    pub fn hosts(&self) -> &[Host] {
        self.hosts.as_ref().map_or(&[], |hosts| &hosts.hosts)
    }

    /// Whether no two hosts have one address.
    pub fn hosts_are_distinct(&self) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.distinct)
    }

    /// The hosts of a service port, as places in [`ServiceNames::hosts`], with their port.
    pub fn hosts_of_port(&self, index: usize) -> &[(u32, u16)] {
        let ports = self.hosts.as_ref().map_or(&[][..], |hosts| &hosts.ports);
        ports.get(index).map_or(&[], |pairs| pairs)
    }

    /// The hosts of this host name, which is in lower case.
    pub fn hosts_by_name(&self, name: &str) -> Range<usize> {
        let hosts = self.hosts();
        let start = hosts.partition_point(|host| host.hostname.as_deref() < Some(name));
        let end = hosts.partition_point(|host| host.hostname.as_deref() <= Some(name));
        start..end
    }

    /// The host without a host name that has this address.
    pub fn host_by_address(&self, address: IpAddr) -> Option<usize> {
        let key = |host: &Host| (host.hostname.is_some(), host.address);
        self.hosts().binary_search_by_key(&(false, address), key).ok()
    }

    /// The addresses that lead to names of this service, ascending, each once.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let hosts = self.hosts().iter().map(|host| host.address);
        let mut all: Vec<_> = hosts.chain(self.cluster_ips().iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Hosts {
    fn of(resolved: &Resolved) -> Self {
        let all = resolved.service.publish_not_ready;
        let published = |endpoint: &&Endpoint| endpoint.ready || all;
        let each = resolved.ports.iter().flat_map(|port| port.endpoints.iter().filter(published));
        let mut zones = BTreeSet::new();
        let mut hosts: Vec<Host> = each.map(|endpoint| host(endpoint, &mut zones)).collect();
        hosts.sort_unstable();
        hosts.dedup_by(|later, first| {
            (&later.hostname, later.address) == (&first.hostname, first.address)
        });
        let find = |endpoint: &Endpoint| {
            let wanted = (endpoint.hostname.as_deref(), endpoint.address);
            let place = |host: &Host| (host.hostname.as_deref(), host.address).cmp(&wanted);
            let index = hosts.binary_search_by(place).ok()?;
            Some((u32::try_from(index).ok()?, endpoint.port))
        };
        let ports = resolved.service.ports.iter().zip(&resolved.ports);
        let ports = ports
            .map(|(_, port)| port.endpoints.iter().filter(published).filter_map(find).collect())
            .collect();
        let mut addresses: Vec<_> = hosts.iter().map(|host| host.address).collect();
        addresses.sort_unstable();
        let distinct = addresses.windows(2).all(|pair| pair[0] != pair[1]);
        Self { hosts: hosts.into(), distinct, ports }
    }
}

/// Zones are few, and each stands in memory once.
fn host(endpoint: &Endpoint, zones: &mut BTreeSet<Arc<str>>) -> Host {
    let zone = endpoint.zone.as_ref().map(|zone| {
        let known = zones.get(zone).unwrap_or(zone).clone();
        zones.insert(Arc::clone(&known));
        known
    });
    Host { hostname: endpoint.hostname.clone(), address: endpoint.address, zone }
}
