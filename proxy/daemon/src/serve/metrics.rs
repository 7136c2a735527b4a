//! Prometheus metrics: kube-proxy's and MetalLB's names if they mean the same, `process_` as everywhere,
//! `causeway_` for the rest.

mod names;

use std::fmt;

use causeway_model::IpFamily;
use causeway_ruleset::plan::{At, Decision};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};

use super::nodes::{self, Ready};
use crate::clock;
use crate::state::{Committed, State};

/// What is counted while it happens; the rest is read from the state when asked for. A clone counts
/// for the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    sync: Family<ByFamily, Histogram, NewHistogram>,
    full_sync: Family<ByFamily, Histogram, NewHistogram>,
    partial_sync: Family<ByFamily, Histogram, NewHistogram>,
    programming: Family<ByFamily, Histogram, NewHistogram>,
    conntrack: Histogram,
    forgotten: Counter,
    healthz: Family<ByCode, Counter>,
    livez: Family<ByCode, Counter>,
}

/// Label of metrics of one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFamily {
    ip_family: &'static str,
}

/// Label of metrics of answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: u32,
}

/// Label of metrics of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByIp {
    ip: String,
}

/// Label of metrics of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

/// Label of metrics of a pool of load balancer addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPool {
    pool: String,
}

/// Label of metrics of a traffic policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPolicy {
    ip_family: &'static str,
    traffic_policy: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Policy {
    Internal,
    External,
}

impl EncodeLabelValue for Policy {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let text = match self {
            Self::Internal => "internal",
            Self::External => "external",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

type NewHistogram = fn() -> Histogram;

/// From a tenth of a millisecond, which a change takes, to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 19))
}

/// The families of the services, as kube-proxy names them.
pub(crate) fn families(state: &State) -> Vec<&'static str> {
    let cidrs = &state.settings.service_cidrs;
    let has = |ipv6| cidrs.iter().any(|cidr| cidr.is_ipv6() == ipv6);
    let mut families = Vec::new();
    families.extend((has(false) || cidrs.is_empty()).then_some("IPv4"));
    families.extend(has(true).then_some("IPv6"));
    families
}

impl Metrics {
    /// Nothing was counted yet.
    pub(crate) fn new() -> Self {
        let family = || Family::new_with_constructor(seconds as NewHistogram);
        Self {
            sync: family(),
            full_sync: family(),
            partial_sync: family(),
            programming: family(),
            conntrack: seconds(),
            forgotten: Counter::default(),
            healthz: Family::default(),
            livez: Family::default(),
        }
    }

    /// A commit, which concerns all families at once.
    pub(crate) fn committed(&self, state: &State, commit: &Committed) {
        for ip_family in families(state) {
            let of = ByFamily { ip_family };
            let took = commit.took.as_secs_f64();
            self.sync.get_or_create(&of).observe(took);
            let kind = if commit.full { &self.full_sync } else { &self.partial_sync };
            kind.get_or_create(&of).observe(took);
            if !commit.touched.services.is_empty() {
                self.programming.get_or_create(&of).observe(commit.latency.as_secs_f64());
            }
        }
    }

    /// Conntrack was reconciled.
    pub(crate) fn reconciled(&self, took: std::time::Duration, deleted: usize) {
        self.conntrack.observe(took.as_secs_f64());
        self.forgotten.inc_by(deleted as u64);
    }

    /// `/healthz` or `/livez` was answered.
    pub(crate) fn probed(&self, probe: &str, code: u16) {
        let family = if probe == "livez" { &self.livez } else { &self.healthz };
        family.get_or_create(&ByCode { code: code.into() }).inc();
    }

    /// The exposition text.
    pub(crate) fn text(&self, state: &State, watchers: usize) -> String {
        let mut registry = Registry::default();
        self.kube_proxy(&mut registry, state);
        own(&mut registry, state, watchers);
        cluster(&mut registry, state);
        names::register(&mut registry, state);
        allocator(&mut registry, state);
        announced(&mut registry, state);
        process(&mut registry, state);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing into a string does not fail.
            Err(fmt::Error) => String::new(),
        }
    }

    fn kube_proxy(&self, registry: &mut Registry, state: &State) {
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        let histograms = [
            ("sync_proxy_rules_duration", "Duration of a commit", &self.sync),
            ("sync_full_proxy_rules_duration", "Duration of a full commit", &self.full_sync),
            (
                "sync_partial_proxy_rules_duration",
                "Duration of a partial commit",
                &self.partial_sync,
            ),
            ("network_programming_duration", "Time from a change to the kernel", &self.programming),
        ];
        for (name, help, metric) in histograms {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        }
        let (name, help) =
            ("conntrack_reconciler_sync_duration", "Duration of a conntrack cleanup");
        registry.register_with_unit(name, help, Unit::Seconds, self.conntrack.clone());
        let (name, help) = ("conntrack_reconciler_deleted_entries", "UDP flows deleted");
        registry.register(name, help, self.forgotten.clone());
        registry.register("proxy_healthz", "Responses of /healthz by status", self.healthz.clone());
        registry.register("proxy_livez", "Responses of /livez by status", self.livez.clone());
        let progress = &state.progress;
        for (name, help, count) in [
            ("sync_proxy_rules_service_changes", "Changes of services", progress.service_changes),
            (
                "sync_proxy_rules_endpoint_changes",
                "Changes of endpoints",
                progress.endpoint_changes,
            ),
            (failures_name(state), "Commits that failed", progress.failures),
        ] {
            registry.register(name, help, ConstCounter::new(count));
        }
        let now = clock::now();
        let unix = clock::unix().as_secs_f64();
        for (name, help, instant) in [
            ("sync_proxy_rules_last_timestamp", "Time of the last commit", progress.synced),
            (
                "sync_proxy_rules_last_queued_timestamp",
                "Time of the oldest change not yet committed, or of the last commit if there is \
                 none",
                progress.behind.or(progress.synced),
            ),
        ] {
            let ago = instant.map(|at| now.saturating_duration_since(at).as_secs_f64());
            let at = ago.map_or(0.0, |ago| unix - ago);
            registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(at));
        }
        let local = no_local_endpoints(state);
        let help = "Service ports without local endpoints that drop traffic by policy";
        registry.register("sync_proxy_rules_no_local_endpoints_total", help, local);
    }
}

/// kube-proxy's name for failed commits differs by backend.
fn failures_name(state: &State) -> &'static str {
    match state.settings.backend {
        crate::config::BackendKind::Nftables => "sync_proxy_rules_nftables_sync_failures",
        crate::config::BackendKind::Iptables => "sync_proxy_rules_iptables_restore_failures",
    }
}

/// Row 41.
fn no_local_endpoints(state: &State) -> Family<ByPolicy, Gauge> {
    let gauges = Family::<ByPolicy, Gauge>::default();
    let of = |ip_family, traffic_policy| {
        gauges.get_or_create(&ByPolicy { ip_family, traffic_policy }).clone()
    };
    for ip_family in families(state) {
        for policy in [Policy::Internal, Policy::External] {
            of(ip_family, policy).set(0);
        }
    }
    for port in state.plan.services.values().flat_map(|service| service.ports.iter()) {
        let family = match port.family {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        };
        let internal = port
            .frontends
            .iter()
            .any(|front| matches!(front.at, At::Cluster(..)) && front.decision == Decision::Drop);
        let external = port.local.is_empty()
            && port.frontends.iter().any(|front| front.decision == Decision::ByOrigin);
        if internal {
            of(family, Policy::Internal).inc();
        }
        if external {
            of(family, Policy::External).inc();
        }
    }
    gauges
}

fn own(registry: &mut Registry, state: &State, watchers: usize) {
    let registry = registry.sub_registry_with_prefix("causeway");
    let counts = super::status::counts(state);
    let gauge = |name: &str| ConstGauge::new(counts.get(name).copied().unwrap_or_default());
    registry.register("services", "Services known", gauge("services"));
    registry.register(
        "service_ports",
        "Service ports with rules, per IP family",
        gauge("servicePorts"),
    );
    registry.register("endpoints", "Endpoints in rotation", gauge("endpoints"));
    registry.register("endpoint_slices", "Endpoint slices known", gauge("endpointSlices"));
    registry.register("containers", "Attachments known", gauge("containers"));
    registry.register("watchers", "Clients watching a list", ConstGauge::new(watchers as u64));
    let degraded = ConstGauge::new(state.conditions.count() as u64);
    registry.register("degraded", "Degraded conditions, see: causeway status", degraded);
    let spooled = std::fs::read_dir(state.settings.spool());
    let spooled = spooled.map_or(0, |entries| entries.flatten().filter(is_event).count());
    registry.register("spool_events", "Events in the spool", ConstGauge::new(spooled as u64));
    let progress = &state.progress;
    for (name, help, count) in [
        ("syncs", "Commits", progress.syncs),
        ("full_syncs", "Commits that compared the whole ruleset", progress.full_syncs),
        ("failures", "Commits and reads that failed", progress.failures),
        ("repairs", "Times that rules changed by another process were restored", progress.repairs),
    ] {
        registry.register(name, help, ConstCounter::new(count));
    }
}

/// The cluster store; nothing without one.
fn cluster(registry: &mut Registry, state: &State) {
    let Some(store) = &state.cluster else { return };
    let registry = registry.sub_registry_with_prefix("causeway");
    let connected = ConstGauge::new(u64::from(store.connection.is_ok()));
    registry.register("store_connected", "Whether the cluster store is reachable", connected);
    let revision = ConstGauge::new(store.revision);
    registry.register("store_revision", "Newest revision of the cluster store seen", revision);
    let nodes = Family::<ByState, Gauge>::default();
    for ready in [Ready::Yes, Ready::No, Ready::Unknown] {
        drop(nodes.get_or_create(&ByState { state: ready.word() }));
    }
    for node in nodes::all(state).values() {
        nodes.get_or_create(&ByState { state: node.ready.word() }).inc();
    }
    registry.register("cluster_nodes", "Nodes known, by state", nodes);
    let progress = &state.progress;
    for (name, help, count) in [
        ("store_writes", "Writes of this node accepted by the cluster store", progress.writes),
        ("store_conflicts", "Writes retried because another node wrote first", progress.conflicts),
    ] {
        registry.register(name, help, ConstCounter::new(count));
    }
}

/// MetalLB's names for pools of load balancer addresses.
fn allocator(registry: &mut Registry, state: &State) {
    let registry = registry.sub_registry_with_prefix("metallb_allocator");
    let (used, all) = (Family::<ByPool, Gauge>::default(), Family::<ByPool, Gauge>::default());
    for pool in &state.balancers.pools {
        let of = ByPool { pool: pool.name.clone() };
        let count = i64::try_from(pool.used).unwrap_or(i64::MAX);
        used.get_or_create(&of).set(count);
        all.get_or_create(&of).set(i64::try_from(pool.size).unwrap_or(i64::MAX));
    }
    registry.register("addresses_in_use_total", "Addresses of a pool in use", used);
    registry.register("addresses_total", "Addresses of a pool", all);
}

/// Addresses of load balancers, as MetalLB names what it counts; gauges, since a counter would get
/// another name (`_total`).
fn announced(registry: &mut Registry, state: &State) {
    let Some(announced) = &state.announced else { return };
    let registry = registry.sub_registry_with_prefix("metallb_layer2");
    let families: [Family<ByIp, Gauge>; 3] = Default::default();
    for (ip, held) in &announced.addresses {
        let counts = [held.counts.requests, held.counts.responses, held.counts.gratuitous];
        for (family, count) in families.iter().zip(counts) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family.get_or_create(&ByIp { ip: ip.to_string() }).set(count);
        }
    }
    let [requests, responses, gratuitous] = families;
    for (name, help, family) in [
        ("requests_received", "ARP and NDP requests for an announced address", requests),
        ("responses_sent", "Answers to them", responses),
        ("gratuitous_sent", "Announcements of an address that nobody asked for", gratuitous),
    ] {
        registry.register(name, help, family);
    }
}

/// Files that the spool keeps; `.NAME` and `NAME.bad` are none.
fn is_event(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    !name.starts_with('.') && !name.ends_with(".bad")
}

/// The names that every Prometheus client has.
fn process(registry: &mut Registry, state: &State) {
    let registry = registry.sub_registry_with_prefix("process");
    let usage = Usage::read();
    let bytes = ConstGauge::new(usage.resident);
    registry.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, bytes);
    let cpu: ConstCounter<f64> = ConstCounter::new(usage.cpu);
    registry.register_with_unit("cpu", "Processor time", Unit::Seconds, cpu);
    registry.register("open_fds", "Open file descriptors", ConstGauge::new(usage.descriptors));
    let up = clock::now().saturating_duration_since(state.progress.started).as_secs_f64();
    let started = ConstGauge::new(clock::unix().as_secs_f64() - up);
    registry.register_with_unit(
        "start_time",
        "Start time, seconds since 1970",
        Unit::Seconds,
        started,
    );
}

/// What this process uses.
struct Usage {
    resident: u64,
    cpu: f64,
    descriptors: u64,
}

impl Usage {
    fn read() -> Self {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 =
            statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let page = rustix::param::page_size() as u64;
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
        Self { resident: pages * page, cpu: cpu_seconds(), descriptors }
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    std::time::Duration::try_from(time).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
