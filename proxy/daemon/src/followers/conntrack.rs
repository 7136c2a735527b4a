//! UDP flows after a commit: those whose endpoint no longer serves are deleted (rows 72 to
//! 80). Dumps happen on a thread of their own; what arrives meanwhile is handled together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc;

use causeway_kernel::{self as kernel, UdpFrontend, UdpFrontendAt};
use causeway_model::{IpFamily, ObjectKey, Protocol};
use causeway_ruleset::plan::{At, NodePortAddresses, PortPlan, ServicePlan};
use ipnetwork::IpNetwork;

use crate::clock;
use crate::serve::Metrics;
use crate::state::{Committed, State};

/// A UDP frontend: where and port. Node ports are without address, told apart by family.
type FrontendPlace = (Option<IpAddr>, bool, u16);

/// Who may answer, by frontend.
type UdpBackends = BTreeMap<FrontendPlace, BTreeSet<(IpAddr, u16)>>;

/// What is to be reconciled.
#[derive(Debug)]
struct FlowWork {
    batch: UdpBackends,
    node_ports: kernel::NodePortAddresses,
    /// If the batch is all there is: networks of services, some of which may have gone while no
    /// daemon ran.
    services: Vec<IpNetwork>,
}

/// Hands frontends to the thread that reconciles.
#[derive(Debug)]
pub(crate) struct Conntrack {
    work: Option<mpsc::Sender<FlowWork>>,
    /// Nothing was reconciled by this process yet.
    first: bool,
    reports: mpsc::Receiver<Option<String>>,
    trouble: Option<String>,
}

impl Conntrack {
    /// Starts the thread; it ends with the value.
    pub(crate) fn start(metrics: Metrics) -> Self {
        let (work, todo) = mpsc::channel();
        let (report, reports) = mpsc::channel();
        let thread = std::thread::Builder::new().name("conntrack".to_owned());
        let started = thread.spawn(move || reconcile(&todo, &report, &metrics));
        match started {
            Ok(_) => Self { work: Some(work), first: true, reports, trouble: None },
            Err(error) => {
                Self { work: None, first: true, reports, trouble: Some(error.to_string()) }
            }
        }
    }

    /// Follows a commit.
    pub(crate) fn committed(&mut self, state: &State, commit: &Committed) {
        let first = std::mem::take(&mut self.first);
        let batch = touched(state, commit, first);
        let services = if first { state.plan.facts.service_cidrs.clone() } else { Vec::new() };
        if let Some(work) = &self.work
            && (first || !batch.is_empty())
        {
            let node_ports = node_ports(&state.plan.facts.node_port_addresses);
            // The thread ends with this value alone.
            drop(work.send(FlowWork { batch, node_ports, services }));
        }
    }

    /// Why flows are not forgotten, with the remedy.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        if let Some(last) = self.reports.try_iter().last() {
            self.trouble = last;
        }
        let trouble = self.trouble.as_ref()?;
        Some(format!(
            "UDP clients may be stuck to removed endpoints: {trouble}; run: conntrack -D -p udp"
        ))
    }
}

fn reconcile(
    todo: &mpsc::Receiver<FlowWork>,
    report: &mpsc::Sender<Option<String>>,
    metrics: &Metrics,
) {
    let mut left: Option<FlowWork> = None;
    while let Ok(next) = todo.recv() {
        // What failed is tried again with what came after it.
        let first = match left.take() {
            Some(left) => left.and(next),
            None => next,
        };
        let all = todo.try_iter().fold(first, FlowWork::and);
        let frontends: Vec<UdpFrontend> = all.batch.iter().map(frontend).collect();
        let began = clock::now();
        let outcome = kernel::reconcile_udp(&frontends, &all.node_ports, &all.services);
        let took = clock::now().saturating_duration_since(began);
        let trouble = match outcome {
            Ok(deleted) => {
                metrics.reconciled(took, deleted);
                tracing::debug!(
                    deleted,
                    frontends = frontends.len(),
                    ?took,
                    "conntrack reconciled"
                );
                None
            }
            Err(error) => {
                left = Some(all);
                let trouble = format!("{error}: {}", error.source);
                tracing::warn!("conntrack is not reconciled: {trouble}");
                Some(trouble)
            }
        };
        if report.send(trouble).is_err() {
            return;
        }
    }
}

impl FlowWork {
    /// This and what came after it. What was all there is still is, with that.
    fn and(mut self, after: Self) -> Self {
        self.batch.extend(after.batch);
        self.node_ports = after.node_ports;
        self.services.extend(after.services);
        self
    }
}

fn frontend(
    ((address, ipv6, port), serving): (&FrontendPlace, &BTreeSet<(IpAddr, u16)>),
) -> UdpFrontend {
    let at = match address {
        Some(address) => UdpFrontendAt::Address(*address),
        None => UdpFrontendAt::NodePort { ipv6: *ipv6 },
    };
    UdpFrontend { at, port: *port, serving: serving.clone() }
}

fn node_ports(addresses: &NodePortAddresses) -> kernel::NodePortAddresses {
    match addresses {
        NodePortAddresses::All => {
            kernel::NodePortAddresses { networks: Vec::new(), localhost: true }
        }
        NodePortAddresses::In(networks) => {
            kernel::NodePortAddresses { networks: networks.clone(), localhost: false }
        }
    }
}

/// The UDP frontends that a commit may concern, with who serves them now. Endpoints that are in
/// no rotation count too: one that terminates and then is gone changes no rule. With `all` every
/// frontend there is.
fn touched(state: &State, commit: &Committed, all: bool) -> UdpBackends {
    let mut batch = UdpBackends::new();
    let mut services: BTreeSet<&ObjectKey> = commit.touched.services.iter().collect();
    if all {
        services.extend(state.plan.services.keys());
    }
    for (key, before, after) in &commit.delta.services {
        services.insert(key);
        for plan in [before, after].into_iter().flatten() {
            for (_, front) in fronts(plan) {
                batch.entry(front).or_default();
            }
        }
    }
    for key in services {
        let Some(plan) = state.plan.services.get(key) else { continue };
        if fronts(plan).next().is_none() {
            continue;
        }
        let resolved = state.index.resolve(key);
        let ports = resolved.iter().flat_map(|all| all.service.ports.iter().zip(&all.ports));
        let udp = ports.filter(|(of, _)| of.protocol == Protocol::Udp);
        let by_name: BTreeMap<&str, _> = udp.map(|(of, found)| (&*of.name, found)).collect();
        for (port, front) in fronts(plan) {
            let serving = batch.entry(front).or_default();
            let Some(found) = by_name.get(&*port.name) else { continue };
            let usable = found.endpoints.iter().filter(|one| {
                (one.ready || one.serving) && IpFamily::of(one.address) == port.family
            });
            serving.extend(usable.map(|one| (one.address, one.port)));
        }
    }
    batch
}

/// The UDP frontends of a service, each with its port.
fn fronts(plan: &ServicePlan) -> impl Iterator<Item = (&PortPlan, FrontendPlace)> {
    let udp = plan.ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.flat_map(|port| {
        port.frontends.iter().map(move |front| {
            let ipv6 = port.family == IpFamily::V6;
            let at = match front.at {
                At::Cluster(address, number) | At::External(address, number) => {
                    (Some(address), ipv6, number)
                }
                At::NodePort(number) => (None, ipv6, number),
            };
            (port, at)
        })
    })
}

#[cfg(test)]
mod tests;
