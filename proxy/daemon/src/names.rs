//! Names: what the name server's thread is told of services and addresses, and what it reports.
//!
//! The rules come first: a name leads to an address that works.

mod addresses;

pub(crate) use addresses::leave;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use causeway_api::NamesStatus;
use causeway_dns::{
    Change, Config, Name, Outside, Problems, Server, ServiceNames, Sources, Stale, Upstream,
    ZoneSettings,
};
use causeway_host::NodeDns;
use causeway_model::{IpFamily, ObjectKey, Protocol, Service, ServicePort, TargetPort};
use ipnetwork::IpNetwork;
use tokio::sync::watch;

use crate::clock;
use crate::config::{DnsListen, Settings};
use crate::event::{Event, Events};
use crate::state::{NameAddresses, NamesState, State, Touched};

/// Port of DNS.
const PORT: u16 = 53;
/// Label that says who made an object.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "causewayd");

/// The name server of this node.
#[derive(Debug)]
pub(crate) struct Names {
    server: Server,
    listen: DnsListen,
    /// `--dns-vip`
    vips: BTreeSet<IpAddr>,
    /// To the thread that looks for addresses.
    orders: Arc<addresses::NameOrders>,
    /// Services that have one of them, which leaves it to them.
    takers: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
    found: NameAddresses,
    problems: Problems,
    domain: String,
    /// Networks of containers and addresses of nodes, which may ask beside this node.
    clients: Vec<IpNetwork>,
    /// The server has all services of this node's index.
    complete: bool,
    synced: bool,
}

impl Names {
    /// Starts the name server, which knows nothing yet and listens where the settings say so;
    /// `None`: it is switched off.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(settings: &Settings, events: &Events) -> io::Result<Option<Self>> {
        let listen = settings.dns.listen.clone();
        if listen == DnsListen::Off {
            return Ok(None);
        }
        let vips: BTreeSet<IpAddr> = settings.dns_vips().into_iter().collect();
        let server = Server::start(config(settings, &vips)?)?;
        watch(server.problems(), events.clone());
        let orders = addresses::start(settings, events.clone())?;
        let names = Self {
            server,
            listen,
            vips,
            orders,
            takers: BTreeMap::new(),
            found: NameAddresses::default(),
            problems: Problems::default(),
            domain: settings.dns.domain.clone(),
            clients: Vec::new(),
            complete: false,
            synced: false,
        };
        names.listen();
        Ok(Some(names))
    }

    /// The kernel holds what was touched; the first time, all there is.
    pub(crate) fn committed(&mut self, state: &State, touched: &Touched) {
        let keys: Vec<&ObjectKey> = match self.complete {
            true => touched.services.iter().collect(),
            false => state.index.services().keys().collect(),
        };
        let updates = keys.into_iter().map(|key| {
            let resolved = state.index.resolve(key);
            self.note_taker(key, resolved.as_ref().map(|resolved| &*resolved.service));
            Change::Service(key.clone(), resolved.map(|resolved| ServiceNames::of(&resolved)))
        });
        let updates: Vec<_> = updates.collect();
        if !updates.is_empty() {
            self.server.update(updates);
        }
        self.complete = true;
        self.orders.answer(self.answering());
        let nodes = state.peers.values().flat_map(|peer| peer.ips.iter().copied());
        let nodes = nodes.chain(state.node.ips.iter().copied()).map(IpNetwork::from);
        let containers = state.settings.cluster_cidrs.iter().chain(&state.settings.service_cidrs);
        let clients = nodes.chain(containers.copied()).collect();
        if clients != self.clients {
            self.clients = clients;
            self.admit();
        }
    }

    /// Begins to say that names are not there, once all are known that are: of a cluster nothing is
    /// before its store, or what was kept of it, has spoken (row D-22).
    pub(crate) fn settle(&mut self, state: &State) {
        let known = state.cluster.as_ref().is_none_or(|cluster| cluster.revision > 0);
        if self.complete && known && !self.synced {
            self.synced = true;
            self.server.synced();
        }
    }

    /// The thread has looked.
    pub(crate) fn on_addresses(&mut self, found: NameAddresses) {
        self.found = found;
        self.listen();
        self.admit();
    }

    /// The server has other problems than before.
    pub(crate) fn on_problems(&mut self, problems: Problems) {
        self.problems = problems;
    }

    /// What answers need to know; `None` when the server has ended.
    pub(crate) fn state(&self, created: u64) -> Option<NamesState> {
        let vips: Vec<IpAddr> = self.found.vips.iter().copied().collect();
        let listening = self.listening();
        // Those that every container reaches come first.
        let (all, some): (Vec<SocketAddr>, Vec<SocketAddr>) =
            listening.into_iter().partition(|at| vips.contains(&at.ip()));
        let upstreams = self.problems.upstreams.iter().map(|(server, _)| server.to_string());
        let status = NamesStatus {
            domain: self.domain.clone(),
            servers: [all, some].concat(),
            upstreams: upstreams.collect(),
        };
        let service = (!vips.is_empty()).then(|| Arc::new(service(&vips, created)));
        let counters = Arc::clone(self.server.counters());
        Some(NamesState { service, status, asker: self.server.asker()?, counters })
    }

    /// Where names are to be answered and are not.
    pub(crate) fn failures(&self) -> Vec<String> {
        let all = self.problems.listeners.iter();
        let listeners = all.map(|(at, why)| format!("{at}: {why}"));
        let ended = self.server.has_ended();
        let ended = ended.then(|| "the name server has ended; restart causewayd".to_owned());
        listeners.chain(self.found.failure.clone()).chain(ended).collect()
    }

    /// What is to be known: service addresses that services have, servers for names outside that do
    /// not answer.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let taken =
            self.takers.iter().flat_map(|(key, vips)| vips.iter().map(move |vip| (key, vip)));
        let text = |(key, vip): (&ObjectKey, &IpAddr)| {
            format!(
                "{vip} is the address of service {}/{}, so names are not answered there; give the \
                 service another clusterIP, or choose --dns-vip",
                key.namespace, key.name
            )
        };
        let skipped = self.problems.warnings.iter().cloned();
        taken.map(text).chain(outside(&self.problems)).chain(skipped).collect()
    }

    /// Service addresses that no service has.
    fn answering(&self) -> BTreeSet<IpAddr> {
        let taken: BTreeSet<IpAddr> = self.takers.values().flatten().copied().collect();
        self.vips.difference(&taken).copied().collect()
    }

    fn note_taker(&mut self, key: &ObjectKey, service: Option<&Service>) {
        let ips = service.map_or(&[][..], |service| &service.cluster_ips);
        let taken: BTreeSet<IpAddr> =
            ips.iter().copied().filter(|ip| self.vips.contains(ip)).collect();
        match taken.is_empty() {
            true => drop(self.takers.remove(key)),
            false => drop(self.takers.insert(key.clone(), taken)),
        }
    }

    /// Says who may ask: containers, this node and the others.
    fn admit(&self) {
        let found = &self.found;
        let own = found.own.iter().chain(&found.vips).chain(&found.containers);
        let own = own.map(|ip| IpNetwork::from(*ip));
        let gateways = self.found.gateways.iter().copied();
        self.server.clients(own.chain(gateways).chain(self.clients.iter().copied()).collect());
    }

    fn listen(&self) {
        let at = self.listening();
        self.server.listen(at.into_iter().map(|at| (at, Outside::Forward)).collect());
    }

    fn listening(&self) -> BTreeSet<SocketAddr> {
        match &self.listen {
            DnsListen::Off => BTreeSet::new(),
            DnsListen::At(addresses) => addresses.iter().copied().collect(),
            DnsListen::Auto => {
                let gateways = self.found.gateways.iter().map(IpNetwork::ip);
                let all = gateways.chain(self.found.vips.iter().copied());
                all.map(|ip| SocketAddr::new(ip, PORT)).collect()
            }
        }
    }
}

/// What the server begins with.
fn config(settings: &Settings, vips: &BTreeSet<IpAddr>) -> io::Result<Config> {
    let domain = Name::from_ascii(format!("{}.", settings.dns.domain));
    let domain = domain.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let networks = [settings.service_cidrs.as_slice(), &settings.cluster_cidrs].concat();
    let zone = ZoneSettings {
        vips: vips.iter().copied().collect(),
        // Rises over restarts.
        serial: u32::try_from(clock::unix().as_secs()).unwrap_or(u32::MAX),
        ..ZoneSettings::new(domain, settings.dns.ttl, networks)
    };
    let upstream = |at: &SocketAddr| Upstream { address: at.ip(), port: at.port(), zone: None };
    let upstreams: Vec<Upstream> = settings.dns.upstreams.iter().map(upstream).collect();
    let sources = match upstreams.is_empty() {
        true => Sources::host(),
        false => Sources::List(upstreams),
    };
    let (listen, clients) = (BTreeMap::new(), Vec::new());
    Ok(Config { zone, listen, sources, clients, stale: Stale::Never })
}

/// Servers for names outside that do not answer.
fn outside(problems: &Problems) -> Vec<String> {
    let all = &problems.upstreams;
    let away = all.iter().filter_map(|(server, why)| Some((server, why.as_ref()?)));
    away.map(|(server, why)| format!("name server {server}: {why}")).collect()
}

/// Tells the engine of what does not work, until the server ends.
fn watch(mut problems: watch::Receiver<Problems>, events: Events) {
    tokio::spawn(async move {
        while problems.changed().await.is_ok() {
            let now = problems.borrow_and_update().clone();
            if events.send(Event::NameProblems(now)).await.is_err() {
                return;
            }
        }
        // Whoever hears of it asks whether the server has ended; with the engine it has a right to.
        drop(events.send(Event::NameProblems(Problems::default())).await);
    });
}

/// What the plugins are told to give containers.
pub(crate) fn of_node(settings: &Settings) -> Option<NodeDns> {
    let domain = settings.dns.domain.clone();
    match &settings.dns.listen {
        DnsListen::Off => None,
        DnsListen::Auto => Some(NodeDns { domain, gateways: true, servers: settings.dns_vips() }),
        DnsListen::At(addresses) => {
            // resolv.conf has no ports.
            let usual = addresses.iter().filter(|one| one.port() == PORT).map(SocketAddr::ip);
            let servers = usual.filter(|ip| !ip.is_loopback()).collect();
            Some(NodeDns { domain, gateways: false, servers })
        }
    }
}

/// As every cluster has it, so that whoever looks for the name server finds it under the usual name.
fn service(vips: &[IpAddr], created: u64) -> Service {
    let port = |name: &str, protocol| ServicePort {
        name: name.into(),
        protocol,
        port: PORT,
        target: TargetPort::Number(PORT),
        node_port: None,
        app_protocol: None,
    };
    Service {
        created,
        labels: [MANAGED_BY, ("k8s-app", "kube-dns")].into_iter().collect(),
        cluster_ips: vips.into(),
        ip_families: IpFamily::list(vips.iter().map(|ip| IpFamily::of(*ip))),
        ports: [port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)].into(),
        ..Service::new(ObjectKey::new("kube-system", "kube-dns"))
    }
}
