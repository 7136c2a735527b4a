//! Names and shapes of what the tables hold, and the elements that follow from [`PlanContext`] alone.

use std::net::IpAddr;

use causeway_model::IpFamily;
use ipnetwork::IpNetwork;

use crate::plan::PlanContext;
use crate::{
    DataType, Element, Family, Field, Key, MapTarget, NatPort, NatTarget, RegValue, Rule, SetSpec,
    Statement, TableId,
};

/// So many endpoints have a rule in the pool chains; more have a chain for their number.
pub(super) const RULES: u32 = 16;
/// Timeout of the set; every rule says its own.
const AFFINITY_MS: u64 = 10_800_000;
/// Table of a family.
pub(super) fn table(family: IpFamily) -> TableId {
    let family = match family {
        IpFamily::V4 => Family::Ip,
        IpFamily::V6 => Family::Ip6,
    };
    TableId { family, name: "causeway_services".to_owned() }
}

/// How a packet names a frontend, and which list of endpoints it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// address . protocol . port
    Address,
    /// The same, endpoints of this node.
    AddressLocal,
    /// protocol . port
    NodePort,
    /// The same, endpoints of this node.
    NodePortLocal,
}

impl Class {
    pub(super) const ALL: [Self; 4] =
        [Self::Address, Self::AddressLocal, Self::NodePort, Self::NodePortLocal];

    /// The chain that chooses an endpoint.
    pub(super) fn pool(self) -> &'static str {
        match self {
            Self::Address => "pool",
            Self::AddressLocal => "pool-local",
            Self::NodePort => "nodeport-pool",
            Self::NodePortLocal => "nodeport-pool-local",
        }
    }

    fn endpoints(self) -> &'static str {
        match self {
            Self::Address => "endpoints",
            Self::AddressLocal => "local-endpoints",
            Self::NodePort => "nodeport-endpoints",
            Self::NodePortLocal => "nodeport-local-endpoints",
        }
    }

    fn ports(self) -> &'static str {
        match self {
            Self::Address => "ports",
            Self::AddressLocal => "local-ports",
            Self::NodePort => "nodeport-ports",
            Self::NodePortLocal => "nodeport-local-ports",
        }
    }

    fn own(self) -> &'static str {
        match self {
            Self::Address => "own",
            Self::AddressLocal => "own-local",
            Self::NodePort => "own-nodeports",
            Self::NodePortLocal => "own-nodeports-local",
        }
    }

    pub(super) fn fields(self, family: IpFamily) -> Vec<Field> {
        let port = [Field::L4Proto, Field::ThDport];
        match self {
            Self::Address | Self::AddressLocal => [daddr(family)].into_iter().chain(port).collect(),
            Self::NodePort | Self::NodePortLocal => port.to_vec(),
        }
    }

    fn key(self, family: IpFamily) -> Vec<DataType> {
        self.fields(family).into_iter().map(Field::data_type).collect()
    }

    /// The chain for more endpoints than [`RULES`].
    pub(super) fn sized_chain(self, targets: u32) -> String {
        match self {
            Self::Address => format!("n-{targets}"),
            Self::AddressLocal => format!("local-n-{targets}"),
            Self::NodePort => format!("nodeport-n-{targets}"),
            Self::NodePortLocal => format!("nodeport-local-n-{targets}"),
        }
    }

    /// Its only rule.
    pub(super) fn sized_rule(self, family: IpFamily, targets: u32) -> Rule {
        let mut fields = self.fields(family);
        fields.push(Field::Random { modulus: targets, offset: bucket(targets, 0) });
        let map = self.endpoints().to_owned();
        let port = NatPort::Map { fields: self.fields(family), map: self.ports().to_owned() };
        let to = NatTarget::Apart { fields, map, ipv6: family == IpFamily::V6, port };
        rule([Statement::Dnat(to)])
    }
}

/// Number of an endpoint in its list: other lengths have other numbers, so a rule for another
/// length finds nothing.
pub(super) fn bucket(targets: u32, index: u32) -> u32 {
    targets << 16 | index
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    ClusterIps,
    Externals,
    NodePorts,
    LocalPolicy,
    NodePortLocalPolicy,
    Restricted,
    Allowed,
    Drops,
    NodePortDrops,
    /// frontend . bucket -> address
    Endpoints(Class),
    /// frontend -> port of all its endpoints
    Ports(Class),
    Own(Class),
    Hairpin,
    /// Containers of this node.
    Containers,
    /// Ports of this node that containers have.
    HostPorts,
    /// The same of one address of this node.
    HostPortAddresses,
    ClusterCidrs,
    ServiceCidrs,
    NodePortIps,
    Affinity,
    /// bucket . protocol -> address, of one pool.
    Hash(String),
    /// bucket . target, of one pool whose targets have rules of their own.
    HashMembers(String),
}

impl Set {
    /// Those that are always there.
    pub(super) fn fixed() -> Vec<Self> {
        let mut sets = vec![
            Self::ClusterIps,
            Self::Externals,
            Self::NodePorts,
            Self::LocalPolicy,
            Self::NodePortLocalPolicy,
            Self::Restricted,
            Self::Allowed,
            Self::Drops,
            Self::NodePortDrops,
            Self::Hairpin,
            Self::Containers,
            Self::HostPorts,
            Self::HostPortAddresses,
            Self::ClusterCidrs,
            Self::ServiceCidrs,
            Self::NodePortIps,
            Self::Affinity,
        ];
        sets.extend(
            Class::ALL
                .into_iter()
                .flat_map(|class| [Self::Endpoints(class), Self::Ports(class), Self::Own(class)]),
        );
        sets
    }

    /// Whether it comes and goes with a pool.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Hash(_) | Self::HashMembers(_))
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::Externals => "externals",
            Self::NodePorts => "nodeports",
            Self::LocalPolicy => "local-policy",
            Self::NodePortLocalPolicy => "nodeport-local-policy",
            Self::Restricted => "restricted",
            Self::Allowed => "allowed",
            Self::Drops => "drops",
            Self::NodePortDrops => "nodeport-drops",
            Self::Endpoints(class) => class.endpoints(),
            Self::Ports(class) => class.ports(),
            Self::Own(class) => class.own(),
            Self::Hairpin => "hairpin",
            Self::Containers => "containers",
            Self::HostPorts => "host-ports",
            Self::HostPortAddresses => "host-port-addresses",
            Self::ClusterCidrs => "cluster-cidrs",
            Self::ServiceCidrs => "service-cidrs",
            Self::NodePortIps => "nodeport-ips",
            Self::Affinity => "affinity",
            Self::Hash(name) | Self::HashMembers(name) => name,
        }
    }

    pub(super) fn spec(&self, family: IpFamily) -> SetSpec {
        let address = address_type(family);
        let plain = |key: Vec<DataType>| SetSpec {
            name: self.name().to_owned(),
            key,
            target: None,
            interval: false,
            dynamic: false,
            timeout_ms: None,
        };
        match self {
            Self::ClusterIps | Self::Containers => plain(vec![address]),
            Self::Externals
            | Self::LocalPolicy
            | Self::Restricted
            | Self::Drops
            | Self::HostPortAddresses => plain(Class::Address.key(family)),
            Self::NodePorts | Self::NodePortLocalPolicy | Self::NodePortDrops | Self::HostPorts => {
                plain(Class::NodePort.key(family))
            }
            Self::Allowed => {
                let key = [address].into_iter().chain(Class::Address.key(family)).collect();
                SetSpec { interval: true, ..plain(key) }
            }
            Self::Endpoints(class) => {
                let mut key = class.key(family);
                key.push(DataType::Number);
                SetSpec { target: Some(MapTarget::Data(vec![address])), ..plain(key) }
            }
            Self::Ports(class) => {
                let target = MapTarget::Data(vec![DataType::InetService]);
                SetSpec { target: Some(target), ..plain(class.key(family)) }
            }
            Self::Own(class) => {
                SetSpec { target: Some(MapTarget::Verdict), ..plain(class.key(family)) }
            }
            Self::Hairpin => plain(vec![address, address]),
            Self::ClusterCidrs | Self::ServiceCidrs | Self::NodePortIps => {
                SetSpec { interval: true, ..plain(vec![address]) }
            }
            Self::Affinity => SetSpec {
                dynamic: true,
                timeout_ms: Some(AFFINITY_MS),
                ..plain(vec![address, DataType::Mark])
            },
            Self::Hash(_) => {
                let key = vec![DataType::Number, DataType::InetProto];
                SetSpec { target: Some(MapTarget::Data(vec![address])), ..plain(key) }
            }
            Self::HashMembers(_) => plain(vec![DataType::Number, DataType::Mark]),
        }
    }
}

/// Elements that follow from the facts.
pub(super) fn elements(facts: &PlanContext, family: IpFamily) -> Vec<(Set, Vec<Element>)> {
    let plain = |nets: &[IpNetwork]| {
        let ranges = networks(nets, family).into_iter();
        ranges.map(|net| Element { key: range(net, &[]), value: None, comment: None }).collect()
    };
    let addresses = facts.node_port_addresses.nets(family).unwrap_or_default();
    vec![
        (Set::ClusterCidrs, plain(&facts.cluster_cidrs)),
        (Set::ServiceCidrs, plain(&facts.service_cidrs)),
        (Set::NodePortIps, plain(&addresses)),
    ]
}

/// The networks of a family, each address in one of them only, ascending.
pub(super) fn networks(nets: &[IpNetwork], family: IpFamily) -> Vec<IpNetwork> {
    let of_family = nets.iter().filter(|net| IpFamily::of(net.ip()) == family);
    let canonical = |net: &IpNetwork| IpNetwork::new(net.network(), net.prefix()).unwrap_or(*net);
    let mut nets = of_family.map(canonical).collect::<Vec<_>>();
    nets.sort_by_key(|net| (net.network(), net.prefix()));
    // Networks hold one another or are apart, so the one before is the only one to look at.
    nets.dedup_by(|net, before| before.contains(net.network()));
    nets
}

/// A network, and exact values after it.
pub(super) fn range(net: IpNetwork, rest: &[RegValue]) -> Key {
    let with = |address: IpAddr| {
        [RegValue::from(address)].into_iter().chain(rest.iter().cloned()).collect::<Vec<_>>()
    };
    let (from, to) = (net.network(), net.broadcast());
    if from == to { Key::Exact(with(from)) } else { Key::Range(with(from), with(to)) }
}

pub(super) fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule { statements: statements.into_iter().collect(), comment: None }
}

pub(super) fn saddr(family: IpFamily) -> Field {
    match family {
        IpFamily::V4 => Field::IpSaddr,
        IpFamily::V6 => Field::Ip6Saddr,
    }
}

pub(super) fn daddr(family: IpFamily) -> Field {
    match family {
        IpFamily::V4 => Field::IpDaddr,
        IpFamily::V6 => Field::Ip6Daddr,
    }
}

fn address_type(family: IpFamily) -> DataType {
    match family {
        IpFamily::V4 => DataType::Ipv4Addr,
        IpFamily::V6 => DataType::Ipv6Addr,
    }
}
