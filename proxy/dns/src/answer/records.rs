//! The records of a name, and denials.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::names;
use super::place::{Found, Place, in_zone};
use super::shuffle::Shuffle;
use crate::message::Reply;
use crate::zone::{Host, ServiceNames, Zone};

/// Seconds that a denial is kept at most (rows D-16, D-56).
const DENIAL: u32 = 5;

/// TTL of the version (the specification's example).
const VERSION: u32 = 28_800;

/// More service records than this fit into no message, so their addresses do not either.
const WITH_ADDRESSES: usize = 1024;

/// In which order records stand, and how many at most.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) shuffle: Shuffle,
    pub(super) most: usize,
}

/// A name of a type, what stands there, and where its records go.
struct Adding<'a> {
    zone: &'a Zone,
    owner: &'a Name,
    record_type: RecordType,
    order: &'a mut Order,
    reply: &'a mut Reply,
}

impl Order {
    /// Leaves a random part of the items that is not too many, in random order.
    fn front<T>(&mut self, items: &mut Vec<T>) {
        self.shuffle.order(items, self.most);
        items.truncate(self.most);
    }
}

/// Adds the records of a type that a name has.
pub(super) fn add(
    zone: &Zone,
    found: &Found<'_>,
    (owner, record_type): (&Name, RecordType),
    order: &mut Order,
    reply: &mut Reply,
) {
    let mut adding = Adding { zone, owner, record_type, order, reply };
    if record_type == RecordType::ANY {
        adding.any(&found.place);
        return;
    }
    match &found.place {
        Place::Missing | Place::Empty | Place::Alias(_) => {}
        Place::Apex => adding.apex(),
        Place::Version if record_type == RecordType::TXT => {
            let text = RData::TXT(TXT::from_bytes(vec![b"1.1.0"]));
            adding.reply.answers.push(Record::from_rdata(owner.clone(), VERSION, text));
        }
        Place::Version => {}
        Place::NameServer => adding.addresses(name_server(zone).to_vec()),
        Place::Address(address) => adding.addresses(vec![*address]),
        Place::Service(service) => adding.service(service),
        Place::Port(service, port) => adding.services(service, Some(*port), &|_, _| true),
        Place::Hosts(service, by_name, by_address) => {
            adding.hosts_by_label(service, by_name, *by_address);
        }
        Place::Zonal(service, topology) => {
            adding.hosts(service, &|_, host| in_zone(host.zone.as_deref(), topology));
        }
        Place::Reverse(address) => adding.reverse(*address),
    }
}

/// Adds the SOA record that says how long the denial holds (RFC 2308 section 3).
pub(super) fn deny(zone: &Zone, found: &Found<'_>, name: &Name, mut reply: Reply) -> Reply {
    let labels = name.iter();
    let skipped = labels.len().saturating_sub(found.apex);
    let owner = names::of(labels.skip(skipped));
    reply.authority.extend(owner.and_then(|owner| soa(zone, owner)));
    reply
}

fn soa(zone: &Zone, owner: Name) -> Option<Record> {
    let server = names::below(zone, &["ns", "dns"])?;
    let master = names::below(zone, &["hostmaster"])?;
    let data = SOA::new(server, master, zone.serial(), 7200, 1800, 86_400, DENIAL);
    Some(Record::from_rdata(owner, zone.settings().ttl.min(DENIAL), RData::SOA(data)))
}

/// The name server's addresses are those of the DNS service.
fn name_server(zone: &Zone) -> &[IpAddr] {
    match &zone.settings().vips[..] {
        [] => zone.service("kube-system", "kube-dns").map_or(&[], ServiceNames::cluster_ips),
        vips => vips,
    }
}

impl Adding<'_> {
    fn push(&mut self, data: RData) {
        let record = Record::from_rdata(self.owner.clone(), self.zone.settings().ttl, data);
        self.reply.answers.push(record);
    }

    /// Little, and true (RFC 8482 section 4.2).
    fn any(&mut self, place: &Place<'_>) {
        if !matches!(place, Place::Missing | Place::Empty) {
            self.push(RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())));
        }
    }

    /// Row D-16.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other types are not there")]
    fn apex(&mut self) {
        match self.record_type {
            RecordType::SOA => self.reply.answers.extend(soa(self.zone, self.owner.clone())),
            RecordType::NS => {
                let Some(server) = names::below(self.zone, &["ns", "dns"]) else { return };
                self.push(RData::NS(NS(server.clone())));
                for address in name_server(self.zone) {
                    self.beside(server.clone(), *address);
                }
            }
            _ => {}
        }
    }

    /// An address in the additional section.
    fn beside(&mut self, name: Name, address: IpAddr) {
        let record = Record::from_rdata(name, self.zone.settings().ttl, data(address));
        self.reply.additional.push(record);
    }

    fn service(&mut self, service: &ServiceNames) {
        if service.is_headless() {
            self.hosts(service, &|_, _| true);
        } else if self.record_type == RecordType::SRV {
            self.services(service, None, &|_, _| true);
        } else {
            self.addresses(service.cluster_ips().to_vec());
        }
    }

    /// The hosts of a headless service that are meant.
    fn hosts(&mut self, service: &ServiceNames, meant: &dyn Fn(usize, &Host) -> bool) {
        if self.record_type == RecordType::SRV {
            self.services(service, None, meant);
            return;
        }
        let hosts = service.hosts().iter().enumerate();
        let hosts = hosts.filter(|(index, host)| meant(*index, host));
        let mut addresses: Vec<_> = hosts.map(|(_, host)| host.address).collect();
        if !service.hosts_are_distinct() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        self.addresses(addresses);
    }

    /// Hosts of one label, without a look at the others.
    fn hosts_by_label(
        &mut self,
        service: &ServiceNames,
        by_name: &Range<usize>,
        by_address: Option<usize>,
    ) {
        if self.record_type == RecordType::SRV {
            let meant = |index, _: &Host| by_name.contains(&index) || by_address == Some(index);
            self.services(service, None, &meant);
            return;
        }
        let all = service.hosts();
        let mut addresses: Vec<_> = all[by_name.clone()].iter().map(|host| host.address).collect();
        let another = by_address.map(|index| all[index].address);
        addresses.extend(another.filter(|address| !addresses.contains(address)));
        self.addresses(addresses);
    }

    /// Those of the family that is asked for, in any order.
    fn addresses(&mut self, mut addresses: Vec<IpAddr>) {
        let v4 = self.record_type == RecordType::A;
        if !v4 && self.record_type != RecordType::AAAA {
            return;
        }
        addresses.retain(|address| address.is_ipv4() == v4);
        self.order.front(&mut addresses);
        self.reply.answers.reserve(addresses.len());
        for address in addresses {
            self.push(data(address));
        }
    }

    /// Service records of one port or of all (rows D-03, D-07).
    fn services(
        &mut self,
        service: &ServiceNames,
        port: Option<usize>,
        meant: &dyn Fn(usize, &Host) -> bool,
    ) {
        if self.record_type != RecordType::SRV {
            return;
        }
        let ports = (0..service.ports().len()).filter(|index| port.is_none_or(|one| one == *index));
        if service.is_headless() {
            self.hosts_of_ports(service, ports, meant);
            return;
        }
        let Some(target) = names::service(self.zone, service) else { return };
        let addresses = service.cluster_ips();
        let weight = weight(addresses.len() * ports.clone().count());
        // Equal records are one (RFC 2181 section 5): a port of TCP may have the number of one of UDP.
        let numbers: BTreeSet<u16> = ports.map(|index| service.ports()[index].port).collect();
        // Without an address there is nothing to connect to.
        for number in numbers.into_iter().filter(|_| !addresses.is_empty()) {
            self.push(RData::SRV(SRV::new(0, weight, number, target.clone())));
        }
        for address in addresses {
            self.beside(target.clone(), *address);
        }
    }

    fn hosts_of_ports(
        &mut self,
        service: &ServiceNames,
        ports: impl Iterator<Item = usize>,
        meant: &dyn Fn(usize, &Host) -> bool,
    ) {
        let hosts = service.hosts();
        let mut pairs: Vec<(usize, u16)> = ports
            .flat_map(|port| service.hosts_of_port(port))
            .filter_map(|(index, port)| Some((usize::try_from(*index).ok()?, *port)))
            .filter(|(index, _)| meant(*index, &hosts[*index]))
            .collect();
        let weight = weight(pairs.len());
        // Hosts of one name are one target, and stand side by side.
        let same = |one: usize, other: usize| {
            let (name, other_name) = (&hosts[one].hostname, &hosts[other].hostname);
            one == other || (name.is_some() && name == other_name)
        };
        let mut places: Vec<usize> = pairs.iter().map(|(index, _)| *index).collect();
        pairs.sort_unstable_by_key(|(index, port)| (*port, *index));
        pairs.dedup_by(|later, first| later.1 == first.1 && same(later.0, first.0));
        let all = pairs.len();
        self.order.front(&mut pairs);
        for (index, port) in &pairs {
            let Some(target) = names::host(self.zone, service, &hosts[*index]) else { continue };
            self.push(RData::SRV(SRV::new(0, weight, *port, target)));
        }
        if pairs.len() < all || all > WITH_ADDRESSES {
            return;
        }
        places.sort_unstable();
        places.dedup();
        for index in places {
            let Some(target) = names::host(self.zone, service, &hosts[index]) else { continue };
            self.beside(target, hosts[index].address);
        }
    }

    /// All names, those of host names first, the others sorted: programs take the first, and it is the
    /// same each time (row D-57).
    fn reverse(&mut self, address: IpAddr) {
        if self.record_type != RecordType::PTR {
            return;
        }
        let zone = self.zone;
        let mut all: Vec<(bool, Name)> = Vec::new();
        for (_, service) in zone.owners(address) {
            if service.cluster_ips().contains(&address) {
                all.extend(names::service(zone, service).map(|name| (true, name)));
            }
            let hosts = service.hosts().iter().filter(|host| host.address == address);
            let hosts =
                hosts.filter(|host| host.hostname.is_some() || !zone.settings().hostnames_only);
            let name = |host: &Host| {
                let name = names::host(zone, service, host)?;
                Some((host.hostname.is_none(), name))
            };
            all.extend(hosts.filter_map(name));
        }
        all.sort_unstable();
        all.dedup();
        for (_, name) in all {
            self.push(RData::PTR(PTR(name)));
        }
    }
}

/// In equal parts, as far as whole numbers go.
fn weight(count: usize) -> u16 {
    u16::try_from(100 / count.max(1)).unwrap_or(1).max(1)
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}
