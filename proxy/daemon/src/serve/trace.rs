//! `POST /v1/trace`: names to a packet, and the packet through the plan.

mod way;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use causeway_api::{TraceAnswer, TraceRequest};
use causeway_kernel::Netlink;
use causeway_model::{ObjectKey, Protocol, Service, ServiceType};
use causeway_ruleset::trace::{self, Packet};

use super::collect;
use super::render::Pod;
use crate::request::Refused;
use crate::state::State;

/// The addresses of this node, asked of the kernel beside the event loop.
pub(crate) async fn local_addresses() -> Result<Vec<IpAddr>, Refused> {
    let ask = || -> causeway_kernel::Result<Vec<IpAddr>> {
        let netlink = Netlink::open()?;
        let mut all = netlink.local_addresses(false)?;
        all.extend(netlink.local_addresses(true)?);
        Ok(all)
    };
    let failed = |error: &dyn std::error::Error| {
        Refused::caused(500, "cannot read the addresses of this node", error)
    };
    let asked = tokio::task::spawn_blocking(ask).await.map_err(|error| failed(&error))?;
    asked.map_err(|error| failed(&error))
}

/// Follows the packet that a request means; `local` are the addresses of this node.
pub(crate) fn answer(
    state: &State,
    request: &TraceRequest,
    local: &[IpAddr],
) -> Result<TraceAnswer, Refused> {
    let is_local = |address: IpAddr| address.is_loopback() || local.contains(&address);
    let protocol = request.protocol.as_deref().map(protocol).transpose()?;
    let from = source(state, &request.from)?;
    let to = destination(state, &request.to, from.family())?;
    let (port, protocol) = port(state, request, &to, protocol)?;
    let source = from.towards(to.address)?;
    if source.is_ipv4() != to.address.is_ipv4() {
        return Err(Refused::new(
            400,
            format!("from {source} to {}: both must be of the same IP family", to.address),
        ));
    }
    let packet = Packet {
        source,
        from_node: matches!(from, Source::Node) || is_local(source),
        destination: to.address,
        to_node: is_local(to.address),
        protocol,
        port,
    };
    let shown = SocketAddr::new(to.address, port);
    let shown = format!("{source} -> {shown}/{}", protocol.name().to_ascii_lowercase());
    let mut trace = trace::trace(&state.plan, &packet);
    if !packet.from_node && state.plan.is_private(source) {
        trace.steps.splice(1..1, who(state, source));
    }
    trace.steps.extend(way::steps(state, to.address, &trace.outcome));
    Ok(TraceAnswer { packet: shown, trace })
}

/// The container of this node that has an address.
fn who(state: &State, address: IpAddr) -> Option<String> {
    let mut here = state.index.containers_of(&state.node.name);
    let (one, _) = here.find(|(one, _)| one.record.ips.contains(&address))?;
    Some(format!("It is {} in network {}.", one.pod, one.record.key.network))
}

/// Finds a pod by `[NS/]NAME`: the name, the name nerdctl knows it by, or the beginning of the
/// container id (12 characters at least).
pub(crate) fn pod(state: &State, text: &str) -> Result<Pod, Refused> {
    /// Label that nerdctl gives its containers.
    const NERDCTL_NAME: &str = "nerdctl/name";
    /// What runtimes show of an id.
    const SHORT_ID: usize = 12;
    let key = key_of(text);
    let name = &*key.name;
    let known = |pod: &Pod| {
        let record = &pod.records[0];
        let id = &record.key.container_id;
        let bare = id.rsplit('-').next().unwrap_or(id);
        *pod.key().name == *name
            || record.labels.get(NERDCTL_NAME).is_some_and(|label| label == name)
            || name.len() >= SHORT_ID && (id.starts_with(name) || bare.starts_with(name))
    };
    let pods = collect::pods(&state.index).into_values();
    let here = pods.filter(|pod| pod.key().namespace == key.namespace && known(pod));
    here.max_by_key(|pod| pod.records[0].created).ok_or_else(|| {
        Refused::new(404, format!("pod {key} is not attached; see: causeway get pods -A"))
    })
}

/// `[NS/]NAME`
pub(crate) fn key_of(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ObjectKey::new(namespace, name)
}

/// `tcp`, `udp`, `sctp`, in any case.
fn protocol(text: &str) -> Result<Protocol, Refused> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|one| one.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
        Refused::new(400, format!("field protocol: {text:?} is not tcp, udp or sctp"))
    })
}

/// Who sends.
enum Source {
    Node,
    Addresses(Vec<IpAddr>),
}

impl Source {
    /// Family of the only addresses, if they are of one.
    fn family(&self) -> Option<bool> {
        match self {
            Self::Node => None,
            Self::Addresses(all) => {
                let ipv6 = all.first()?.is_ipv6();
                all.iter().all(|one| one.is_ipv6() == ipv6).then_some(ipv6)
            }
        }
    }

    /// The address it sends from.
    fn towards(&self, to: IpAddr) -> Result<IpAddr, Refused> {
        match self {
            Self::Addresses(all) => {
                let fitting = all.iter().find(|one| one.is_ipv6() == to.is_ipv6());
                fitting
                    .or(all.first())
                    .copied()
                    .ok_or_else(|| Refused::new(409, "field from: the pod has no address"))
            }
            Self::Node => from_node(to).map_err(|error| {
                Refused::caused(409, &format!("field to: this node has no route to {to}"), &error)
            }),
        }
    }
}

/// The address the kernel takes for packets of this node; nothing is sent.
fn from_node(to: IpAddr) -> std::io::Result<IpAddr> {
    let any = match to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // The port is only asked for.
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

fn source(state: &State, text: &str) -> Result<Source, Refused> {
    if text == "node" {
        return Ok(Source::Node);
    }
    if let Ok(address) = text.parse() {
        return Ok(Source::Addresses(vec![address]));
    }
    Ok(Source::Addresses(pod(state, text)?.ips().collect()))
}

/// Where a packet goes.
struct Destination {
    address: IpAddr,
    service: Option<ObjectKey>,
}

fn destination(state: &State, text: &str, ipv6: Option<bool>) -> Result<Destination, Refused> {
    if let Ok(address) = text.parse() {
        let has = |service: &&std::sync::Arc<Service>| service.cluster_ips.contains(&address);
        let service = state.index.services().values().find(has);
        return Ok(Destination { address, service: service.map(|service| service.key.clone()) });
    }
    let key = key_of(text);
    if let Some(service) = state.index.services().get(&key) {
        let address = cluster_address(service, ipv6)?;
        return Ok(Destination { address, service: Some(key) });
    }
    let pod = pod(state, text).map_err(|_| {
        let message = format!("field to: {text:?} is not an IP, service or pod");
        Refused::new(404, message)
    })?;
    let fitting = pod.ips().find(|one| ipv6.is_none_or(|ipv6| one.is_ipv6() == ipv6));
    let address = fitting.or_else(|| pod.ips().next());
    let address = address.ok_or_else(|| Refused::new(409, format!("pod {key} has no address")))?;
    Ok(Destination { address, service: None })
}

/// A service's own address, of a family if it has one of it.
pub(crate) fn cluster_address(service: &Service, ipv6: Option<bool>) -> Result<IpAddr, Refused> {
    let fitting = service.cluster_ips.iter().find(|one| ipv6.is_none_or(|v6| one.is_ipv6() == v6));
    fitting.or(service.cluster_ips.first()).copied().ok_or_else(|| {
        let why = match service.service_type {
            ServiceType::ExternalName => "is an ExternalName",
            ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::LoadBalancer => {
                "is headless"
            }
        };
        let message = format!("service {} {why}: it has no address of its own", service.key);
        Refused::new(409, message)
    })
}

/// The port and protocol that are meant.
fn port(
    state: &State,
    request: &TraceRequest,
    to: &Destination,
    protocol: Option<Protocol>,
) -> Result<(u16, Protocol), Refused> {
    let service = to.service.as_ref().and_then(|key| state.index.services().get(key));
    let ports = service.map(|service| &*service.ports).unwrap_or_default();
    let fits = |port: &&causeway_model::ServicePort| {
        request.port.is_none_or(|number| number == port.port)
            && protocol.is_none_or(|protocol| protocol == port.protocol)
    };
    let mut fitting = ports.iter().filter(fits);
    match (fitting.next(), fitting.next(), request.port) {
        (Some(port), None, _) => Ok((port.port, port.protocol)),
        // Of several protocols at one port TCP is meant, as in curl.
        (Some(port), Some(_), Some(number)) => Ok((number, protocol.unwrap_or(port.protocol))),
        (Some(_), Some(_), None) => {
            let all: Vec<String> = ports
                .iter()
                .map(|port| format!("{}/{}", port.port, port.protocol.name().to_lowercase()))
                .collect();
            let message = format!(
                "field port: the service has several ports, add one after a colon: {}",
                all.join(", ")
            );
            Err(Refused::new(400, message))
        }
        (None, _, Some(number)) => Ok((number, protocol.unwrap_or(Protocol::Tcp))),
        (None, _, None) => {
            Err(Refused::new(400, format!("field port: a port is required: {}:PORT", request.to)))
        }
    }
}
