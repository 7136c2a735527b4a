//! Checked objects. Field names follow Kubernetes (`core/v1`, `discovery.k8s.io/v1`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace; empty for a node.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Kinds of stored objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1 Service`
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`; a `v1 Endpoints` document becomes slices.
    EndpointSlice,
    /// `v1 Node`
    Node,
}

/// A checked object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A service.
    Service(Service),
    /// Endpoints of a service.
    EndpointSlice(EndpointSlice),
    /// A node.
    Node(Node),
}

impl Object {
    /// Kind of the object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::Node(_) => ObjectKind::Node,
        }
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Service(service) => &service.key,
            Self::EndpointSlice(slice) => &slice.key,
            Self::Node(node) => &node.key,
        }
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `TCP`, `UDP` or `SCTP`, as Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// `spec.type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceType {
    /// `ClusterIP`, also headless
    ClusterIp,
    /// `NodePort`
    NodePort,
    /// `LoadBalancer`
    LoadBalancer,
    /// `ExternalName`
    ExternalName,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl IpFamily {
    /// Family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// `spec.ipFamilyPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamilyPolicy {
    /// `SingleStack`
    SingleStack,
    /// `PreferDualStack`
    PreferDualStack,
    /// `RequireDualStack`
    RequireDualStack,
}

/// `spec.internalTrafficPolicy`, `spec.externalTrafficPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficPolicy {
    /// All endpoints.
    Cluster,
    /// Endpoints of this node only.
    Local,
}

/// Annotation `causeway.io/balance`: how an endpoint is chosen for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balance {
    /// Uniformly at random.
    Random,
    /// One after the other, by ascending address and port, from the lowest.
    RoundRobin,
    /// By a consistent hash of the source address.
    SourceHash,
}

/// `targetPort`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// Name of a container's port: label `port.causeway.io/NAME` of the container.
    Name(String),
}

/// An element of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty where the only port has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at the service's addresses.
    pub port: u16,
    /// Port at containers that the selector finds; slices bring their own.
    pub target: TargetPort,
    /// Port at the nodes, where there is one.
    pub node_port: Option<u16>,
    /// `appProtocol`, kept for those who read the object.
    pub app_protocol: Option<String>,
}

/// An element of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Address; `None` for one of a hostname.
    pub ip: Option<IpAddr>,
    /// Host name; makes no rules.
    pub hostname: Option<String>,
    /// `ipMode: Proxy`: traffic goes out to the load balancer, no rules (KEP-1860).
    pub proxy: bool,
}

/// A checked `v1 Service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.creationTimestamp`, seconds since 1970; set by who stores the object first.
    pub created: u64,
    /// `metadata.labels`
    pub labels: Labels,
    /// `metadata.annotations`
    pub annotations: Labels,
    /// `spec.type`
    pub service_type: ServiceType,
    /// `spec.clusterIP: None`
    pub headless: bool,
    /// `spec.clusterIPs`, one a family, in the order of `ip_families`; empty until allocated, for
    /// headless services and for ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ipFamilies`; empty until allocated where the document is silent.
    pub ip_families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`
    pub ip_family_policy: IpFamilyPolicy,
    /// `spec.ports`
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; empty: endpoints come from slices alone.
    pub selector: Labels,
    /// `spec.externalIPs`
    pub external_ips: Vec<IpAddr>,
    /// `spec.externalName`
    pub external_name: Option<String>,
    /// `spec.sessionAffinity: ClientIP` with its timeout in seconds (default 10800).
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy`
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`
    pub external_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`
    pub health_check_node_port: Option<u16>,
    /// `spec.allocateLoadBalancerNodePorts`
    pub allocate_node_ports: bool,
    /// `spec.loadBalancerSourceRanges`
    pub source_ranges: Vec<IpNetwork>,
    /// `spec.loadBalancerIP`, the address asked for.
    pub load_balancer_ip: Option<IpAddr>,
    /// `spec.loadBalancerClass`
    pub load_balancer_class: Option<String>,
    /// `status.loadBalancer.ingress`
    pub ingress: Vec<Ingress>,
    /// `spec.publishNotReadyAddresses`
    pub publish_not_ready: bool,
    /// `spec.trafficDistribution`
    pub traffic_distribution: Option<String>,
    /// Annotation `causeway.io/balance`.
    pub balance: Balance,
    /// Annotation `causeway.io/health-check: tcp`.
    pub health_check: bool,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name, equal to that of the service port it serves.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the endpoints. `None` (all ports) serves no service port.
    pub port: Option<u16>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses of the slice's type.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, absent is true.
    pub ready: bool,
    /// `conditions.serving`, absent is `ready`.
    pub serving: bool,
    /// `conditions.terminating`, absent is false.
    pub terminating: bool,
    /// `hostname`
    pub hostname: Option<String>,
    /// `nodeName`
    pub node: Option<String>,
    /// `zone`
    pub zone: Option<String>,
    /// `hints.forNodes`
    pub for_nodes: Vec<String>,
    /// `hints.forZones`
    pub for_zones: Vec<String>,
    /// `targetRef` to a pod.
    pub target: Option<ObjectKey>,
}

/// A checked `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: ObjectKey,
    /// See [`Service::created`].
    pub created: u64,
    /// `metadata.labels`
    pub labels: Labels,
    /// Name of the service, from label `kubernetes.io/service-name`; `None` serves nobody.
    pub service: Option<String>,
    /// Family of the addresses. `FQDN` slices are refused.
    pub family: IpFamily,
    /// Ports.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// It was written as `v1 Endpoints` of the service's name.
    pub from_endpoints: bool,
}

/// A checked `v1 Node`: labels of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name; the namespace is empty.
    pub key: ObjectKey,
    /// See [`Service::created`].
    pub created: u64,
    /// Labels, `topology.kubernetes.io/zone` among them.
    pub labels: Labels,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}
