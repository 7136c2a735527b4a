//! `healthCheckNodePort`: a small server for each service of type LoadBalancer with external
//! policy Local, which tells load balancers whether this node has an endpoint (rows 83 to 85).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use causeway_kernel::Netlink;
use causeway_model::{ObjectKey, Protocol, ServiceType, TrafficPolicy};
use causeway_ruleset::plan::NodePortAddresses;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::conditions::Concern;
use crate::serve::{Api, Health, listen};
use crate::state::{Committed, State};

/// The servers, by service.
#[derive(Debug, Default)]
pub(crate) struct HealthChecks {
    servers: BTreeMap<ObjectKey, Server>,
    /// Services whose port is taken.
    failed: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    tasks: Vec<JoinHandle<()>>,
    /// Ready endpoints on this node.
    local: watch::Sender<usize>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl HealthChecks {
    /// Follows a commit. A port that cannot be bound is a warning.
    pub(crate) fn committed(&mut self, api: &Api, state: &mut State, commit: &Committed) {
        let mut keys: BTreeSet<ObjectKey> = commit.touched.services.clone();
        keys.extend(commit.delta.services.iter().map(|(key, ..)| key.clone()));
        keys.append(&mut self.failed);
        for key in keys {
            self.follow(api, state, key);
        }
    }

    fn follow(&mut self, api: &Api, state: &mut State, key: ObjectKey) {
        let concern = Concern::HealthCheckPort(key.clone());
        let before = state.conditions.take_warnings(&concern);
        let Some((port, local)) = wanted(state, &key) else {
            self.servers.remove(&key);
            return;
        };
        // What is still to start there would find it taken. Another node may have written the
        // service.
        if let Some(why) = state.plan.guarded().node_port(port, Protocol::Tcp) {
            self.servers.remove(&key);
            warn(state, &before, concern, format!("not opened: {why}"));
            return;
        }
        if let Some(server) = self.servers.get(&key)
            && server.port == port
        {
            server.local.send_replace(local);
            return;
        }
        self.servers.remove(&key);
        let (sender, receiver) = watch::channel(local);
        let router = router(api.clone(), key.clone(), receiver);
        match listeners(state, port) {
            Ok(listeners) => {
                let strangers = &api.strangers;
                let serve = |one| listen::serve(one, router.clone(), strangers.clone());
                let tasks = listeners.into_iter().map(serve).collect();
                self.servers.insert(key, Server { port, tasks, local: sender });
            }
            Err(error) => {
                let warning = format!(
                    "port {port} cannot be bound ({error}): load balancers see this node as down; \
                     free the port, or give the service another healthCheckNodePort"
                );
                warn(state, &before, concern, warning);
                self.failed.insert(key);
            }
        }
    }
}

/// Keeps a warning for `status`; what stood there before is no news.
fn warn(state: &mut State, before: &[String], concern: Concern, warning: String) {
    if before != [warning.as_str()] {
        tracing::warn!("{concern}: {warning}");
    }
    state.conditions.set_warnings(concern, vec![warning]);
}

/// The port, and how many ready endpoints are on this node.
fn wanted(state: &State, key: &ObjectKey) -> Option<(u16, usize)> {
    let resolved = state.index.resolve(key)?;
    let service = &resolved.service;
    let local = service.external_policy == TrafficPolicy::Local;
    if service.service_type != ServiceType::LoadBalancer || !local || !service.is_proxied() {
        return None;
    }
    let port = service.health_check_node_port?;
    let endpoints = resolved.ports.iter().flat_map(|port| &port.endpoints);
    let here = endpoints.filter(|one| {
        one.ready && one.node.as_ref().is_some_and(|node| **node == *state.node.name)
    });
    let addresses: BTreeSet<IpAddr> = here.map(|one| one.address).collect();
    Some((port, addresses.len()))
}

/// Listeners on the addresses that serve node ports.
fn listeners(state: &State, port: u16) -> io::Result<Vec<tokio::net::TcpListener>> {
    let cidrs = &state.settings.service_cidrs;
    let addresses = match &state.plan.facts.node_port_addresses {
        NodePortAddresses::All => {
            let mut any = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
            let ipv6 = cidrs.iter().any(|cidr| cidr.is_ipv6());
            any.extend(ipv6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
            any
        }
        NodePortAddresses::In(networks) => {
            let within = |address: &IpAddr| {
                let mut family =
                    networks.iter().filter(|one| one.is_ipv6() == address.is_ipv6()).peekable();
                family.peek().is_none() || family.any(|network| network.contains(*address))
            };
            let all = local_addresses().map_err(|error| error.source)?;
            all.into_iter().filter(|one| !one.is_loopback() && within(one)).collect()
        }
    };
    addresses.into_iter().map(|address| listen::bind(SocketAddr::new(address, port))).collect()
}

/// The kernel's answer takes less than a millisecond; the connection must not be used inside the
/// runtime.
fn local_addresses() -> causeway_kernel::Result<Vec<IpAddr>> {
    let ask = || {
        let netlink = Netlink::open()?;
        let mut all = netlink.local_addresses(false)?;
        all.extend(netlink.local_addresses(true)?);
        Ok(all)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(ask);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Answers every path, as kube-proxy does.
fn router(api: Api, key: ObjectKey, local: watch::Receiver<usize>) -> Router {
    Router::new().fallback(move || answer(api.clone(), key.clone(), *local.borrow()))
}

async fn answer(api: Api, key: ObjectKey, local: usize) -> Response {
    /// Header by which load balancers weigh nodes.
    const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
    let healthy = Health::ask(&api).await.healthy;
    let status =
        if healthy && local > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": { "namespace": &*key.namespace, "name": &*key.name },
        "localEndpoints": local,
        "serviceProxyHealthy": healthy,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, local.to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}
