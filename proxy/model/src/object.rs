//! Checked objects. Field names follow Kubernetes (`core/v1`, `discovery.k8s.io/v1`).
//!
//! Types are chosen for tens of thousands of objects in memory: boxed slices, shared strings, and
//! [`LabelSet`] for labels.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::LabelSet;

/// Namespace and name. A clone shares both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace; empty for a node.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Of a namespace and a name.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
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

impl ObjectKind {
    /// What one is called in messages and keys: `endpointslice`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
            Self::Node => "node",
        }
    }
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

    /// The shared list of these families: each once, at most two.
    pub fn list(families: impl IntoIterator<Item = Self>) -> &'static [Self] {
        let mut families = families.into_iter();
        let first = families.next();
        match (first, families.find(|other| Some(*other) != first)) {
            (None, _) => &[],
            (Some(Self::V4), None) => &[Self::V4],
            (Some(Self::V6), None) => &[Self::V6],
            (Some(Self::V4), Some(_)) => &[Self::V4, Self::V6],
            (Some(Self::V6), Some(_)) => &[Self::V6, Self::V4],
        }
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

/// `spec.trafficDistribution`. Containers that a selector finds get the hints that it asks for; slices
/// have those that whoever makes them writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficDistribution {
    /// `PreferSameZone`
    PreferSameZone,
    /// `PreferClose`, the older name of the same.
    PreferClose,
    /// `PreferSameNode`
    PreferSameNode,
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
    Name(Box<str>),
}

/// An element of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty if the only port has none.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port at the service's addresses.
    pub port: u16,
    /// Port at containers that the selector finds; slices bring their own.
    pub target: TargetPort,
    /// Port at the nodes, if there is one.
    pub node_port: Option<u16>,
    /// `appProtocol`, kept for those who read the object.
    pub app_protocol: Option<Box<str>>,
}

/// An element of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Address; `None` for one of a hostname.
    pub ip: Option<IpAddr>,
    /// Host name; makes no rules.
    pub hostname: Option<Box<str>>,
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
    pub labels: LabelSet,
    /// `metadata.annotations`
    pub annotations: LabelSet,
    /// `spec.type`
    pub service_type: ServiceType,
    /// `spec.clusterIP: None`
    pub headless: bool,
    /// `spec.clusterIPs`, one per IP family, in the order of `ip_families`; empty until allocated,
    /// for headless services and for ExternalName.
    pub cluster_ips: Box<[IpAddr]>,
    /// `spec.ipFamilies`; empty until allocated if the document is silent.
    pub ip_families: &'static [IpFamily],
    /// `spec.ipFamilyPolicy`
    pub ip_family_policy: IpFamilyPolicy,
    /// `spec.ports`
    pub ports: Box<[ServicePort]>,
    /// `spec.selector`; empty: endpoints come from slices alone.
    pub selector: LabelSet,
    /// `spec.externalIPs`
    pub external_ips: Box<[IpAddr]>,
    /// `spec.externalName`
    pub external_name: Option<Box<str>>,
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
    pub source_ranges: Box<[IpNetwork]>,
    /// `spec.loadBalancerIP`, the address asked for.
    pub load_balancer_ip: Option<IpAddr>,
    /// `spec.loadBalancerClass`
    pub load_balancer_class: Option<Box<str>>,
    /// `status.loadBalancer.ingress`
    pub ingress: Box<[Ingress]>,
    /// `spec.publishNotReadyAddresses`
    pub publish_not_ready: bool,
    /// `spec.trafficDistribution`
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Annotation `causeway.io/balance`.
    pub balance: Balance,
    /// Annotation `causeway.io/health-check: tcp`.
    pub health_check: bool,
    /// Fields given that are not of its type; `None` once the service is complete.
    pub misplaced: Option<Box<Misplaced>>,
}

/// Fields that a document gives a service of a type that does not have them. Kubernetes drops those
/// that an earlier version of the service, of a type that has them, had alike (a type was changed
/// in what `get -o yaml` wrote), and refuses any other. Which it is depends on the earlier version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misplaced {
    /// `spec.externalTrafficPolicy`
    pub external_policy: Option<TrafficPolicy>,
    /// `spec.allocateLoadBalancerNodePorts`
    pub allocate_node_ports: Option<bool>,
    /// `spec.loadBalancerClass`
    pub load_balancer_class: Option<Box<str>>,
    /// `spec.healthCheckNodePort`
    pub health_check_node_port: Option<u16>,
    /// `spec.clusterIPs` of an ExternalName.
    pub cluster_ips: Box<[IpAddr]>,
    /// `spec.clusterIP: None` of one.
    pub headless: bool,
    /// `spec.ipFamilies` of one.
    pub ip_families: &'static [IpFamily],
    /// `spec.ipFamilyPolicy` of one.
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Whether there is a `status.loadBalancer.ingress`.
    pub ingress: bool,
}

impl Service {
    /// Label that gives a service to another proxy (row 2), whatever its value.
    pub const PROXY_NAME: &'static str = "service.kubernetes.io/service-proxy-name";
    /// Annotation of [`Service::balance`].
    pub const BALANCE: &'static str = "causeway.io/balance";
    /// Annotation that names the network whose addresses are the endpoints; without it that is the one
    /// of the container's `eth0`.
    pub const NETWORK: &'static str = "causeway.io/network";
    /// Annotation of [`Service::health_check`].
    pub const HEALTH_CHECK: &'static str = "causeway.io/health-check";
    /// Annotation that asks for load balancer addresses: `192.0.2.1` or `192.0.2.1,2001:db8::1`.
    pub const LB_ADDRESSES: &'static str = "causeway.io/load-balancer-ips";
    /// Annotation that asks for a pool of load balancer addresses.
    pub const LB_POOL: &'static str = "causeway.io/address-pool";
    /// Annotation with a key: services with the same one may have one load balancer address.
    pub const LB_SHARING: &'static str = "causeway.io/allow-shared-ip";
    /// Annotation of services whose `status.loadBalancer.ingress` was given here: the pools. Those
    /// without it have their addresses of documents, and nobody takes them away.
    pub const LB_ALLOCATED: &'static str = "causeway.io/allocated-from-pool";
    /// `spec.loadBalancerClass` that means us; none means us, too.
    pub const LB_CLASS: &'static str = "causeway.io/load-balancer";

    /// A service of this name with Kubernetes' defaults, without ports.
    pub fn new(key: ObjectKey) -> Self {
        Self {
            key,
            created: 0,
            labels: LabelSet::default(),
            annotations: LabelSet::default(),
            service_type: ServiceType::ClusterIp,
            headless: false,
            cluster_ips: Box::default(),
            ip_families: &[],
            ip_family_policy: IpFamilyPolicy::SingleStack,
            ports: Box::default(),
            selector: LabelSet::default(),
            external_ips: Box::default(),
            external_name: None,
            affinity: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            health_check_node_port: None,
            allocate_node_ports: true,
            source_ranges: Box::default(),
            load_balancer_ip: None,
            load_balancer_class: None,
            ingress: Box::default(),
            publish_not_ready: false,
            traffic_distribution: None,
            balance: Balance::Random,
            health_check: false,
            misplaced: None,
        }
    }

    /// Whether rules are made for it: not for headless ones, `ExternalName`, and those that another
    /// proxy takes care of. All of them have names all the same.
    pub fn is_proxied(&self) -> bool {
        self.service_type != ServiceType::ExternalName
            && !self.headless
            && !self.labels.contains_key(Self::PROXY_NAME)
    }
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name, equal to that of the service port it serves.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the endpoints. `None` (all ports) serves no service port.
    pub port: Option<u16>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses of the slice's type.
    pub addresses: Box<[IpAddr]>,
    /// `conditions.ready`, absent is true.
    pub ready: bool,
    /// `conditions.serving`, absent is `ready`.
    pub serving: bool,
    /// `conditions.terminating`, absent is false.
    pub terminating: bool,
    /// `hostname`
    pub hostname: Option<Arc<str>>,
    /// `nodeName`
    pub node: Option<Arc<str>>,
    /// `zone`
    pub zone: Option<Arc<str>>,
    /// `hints`
    pub hints: Option<Arc<Hints>>,
    /// `targetRef` to a pod.
    pub target: Option<Arc<ObjectKey>>,
}

/// Topology hints of an endpoint (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    /// `hints.forNodes`
    pub for_nodes: Box<[Box<str>]>,
    /// `hints.forZones`
    pub for_zones: Box<[Box<str>]>,
}

/// A checked `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: ObjectKey,
    /// See [`Service::created`].
    pub created: u64,
    /// `metadata.labels`
    pub labels: LabelSet,
    /// Family of the addresses. `FQDN` slices are refused.
    pub family: IpFamily,
    /// Ports.
    pub ports: Box<[SlicePort]>,
    /// Endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
}

impl SliceEndpoint {
    /// A ready endpoint of one address.
    pub fn ready(address: IpAddr) -> Self {
        Self {
            addresses: Box::new([address]),
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node: None,
            zone: None,
            hints: None,
            target: None,
        }
    }
}

impl EndpointSlice {
    /// Label with the name of the service.
    pub const SERVICE_NAME: &'static str = "kubernetes.io/service-name";
    /// Label that names who wrote the slice.
    pub const MANAGED_BY: &'static str = "endpointslice.kubernetes.io/managed-by";
    /// [`EndpointSlice::MANAGED_BY`] of a slice that was written as `v1 Endpoints`.
    pub const FROM_ENDPOINTS: &'static str = "endpointslicemirroring-controller.k8s.io";

    /// Name of the service whose endpoints these are; `None` serves no one.
    pub fn service(&self) -> Option<&str> {
        self.labels.get(Self::SERVICE_NAME).filter(|name| !name.is_empty())
    }

    /// It was written as `v1 Endpoints` of the service's name.
    pub fn from_endpoints(&self) -> bool {
        self.labels.get(Self::MANAGED_BY) == Some(Self::FROM_ENDPOINTS)
    }
}

/// A checked `v1 Node`: labels of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name; the namespace is empty.
    pub key: ObjectKey,
    /// See [`Service::created`].
    pub created: u64,
    /// Labels, `topology.kubernetes.io/zone` among them.
    pub labels: LabelSet,
    /// Addresses.
    pub addresses: Box<[IpAddr]>,
    /// It is about to be deleted: it has a deletion timestamp or the taint
    /// [`Node::TO_BE_DELETED`]. Load balancers are told to send it no new connections.
    pub deleted: bool,
}

impl Node {
    /// Taint that the cluster autoscaler puts on a node before it deletes it.
    pub const TO_BE_DELETED: &'static str = "ToBeDeletedByClusterAutoscaler";
}
