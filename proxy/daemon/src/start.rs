//! The order of a start: settings, lock, backend, store, `node.json`, sysctls, what the disk holds,
//! the kernel, and then the socket. Before that no request is answered.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use causeway_host::FileLock;
use causeway_kernel::{Holder, NetnsLock};
use causeway_nft::{Change, Monitor};
use causeway_source::{DirWatch, ManifestDir, Store};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::announce::{Announce, AnnounceConfig};
use crate::backend::{self, Backend};
use crate::conditions::Concern;
use crate::config::{DnsListen, Settings, StoreKind};
use crate::engine::{Engine, EngineParts};
use crate::event::{Event, Events};
use crate::forward::Forward;
use crate::keeper;
use crate::liveness::Liveness;
use crate::localhost;
use crate::log;
use crate::names::{self, Names};
use crate::node;
use crate::notify::Notifier;
use crate::objects;
use crate::old_mtu;
use crate::overlay::{self, Overlay};
use crate::serve::Front;
use crate::sysctls::Sysctls;
use crate::watch::Watched;

/// Events that wait for the engine before their senders do.
const QUEUE: usize = 1024;

/// Name of the lock in the run directory.
pub(crate) const LOCK: &str = "causewayd.lock";

/// Name of the lock of the network namespace: tables and chains have the same names for every
/// causewayd, so that two of them in one namespace would undo each other's rules for ever.
const NETNS_LOCK: &str = "causewayd";

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another one runs.
    #[error("another causewayd is running with {}; stop it first", .0.display())]
    Running(std::path::PathBuf),
    /// Another one runs in this network namespace, or another program has its lock.
    #[error("{}", taken(.0.as_ref()))]
    Taken(Option<Holder>),
    /// The lock cannot be taken.
    #[error("lock the run directory")]
    Lock(#[source] causeway_kernel::Error),
    /// The lock of the network namespace cannot be taken.
    #[error("lock the network namespace")]
    LockNetns(#[source] causeway_kernel::Error),
    /// A directory or file.
    #[error("{action}")]
    File {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error("open the store")]
    Store(#[source] causeway_source::Error),
    /// The node.
    #[error("detect the addresses of this node")]
    Node(#[source] node::Error),
    /// Where addresses and ports of services come from.
    #[error("--service-cidr, --node-port-range: {0}")]
    Pools(String),
    /// Where load balancer addresses come from.
    #[error("--lb-pool: {0}")]
    BalancerPools(String),
    /// Links and routes.
    #[error("remove the overlay of an earlier run")]
    Overlay(#[source] causeway_kernel::Error),
    /// What the name server had.
    #[error("remove the local routes of the name server")]
    Names(#[source] causeway_kernel::Error),
    /// The backend.
    #[error("use the backend")]
    Backend(#[source] backend::Error),
}

/// What a daemon and `cleanup` hold as long as they run.
#[derive(Debug)]
pub(crate) struct Locks {
    _run_dir: FileLock,
    _netns: NetnsLock,
}

/// The locks of a run directory and of this network namespace, for the daemon and for `cleanup`.
///
/// # Errors
/// [`Error::Running`] and [`Error::Taken`] if another process has one.
pub(crate) fn lock(run_dir: &Path) -> Result<Locks, Error> {
    let folder =
        FileLock::acquire(&run_dir.join(LOCK), Duration::ZERO).map_err(|error| {
            match error.is_transient() {
                true => Error::Running(run_dir.to_owned()),
                false => Error::Lock(error),
            }
        })?;
    let netns = NetnsLock::acquire(NETNS_LOCK).map_err(Error::LockNetns)?;
    Ok(Locks { _run_dir: folder, _netns: netns.map_err(Error::Taken)? })
}

/// Who is in the way, and what to do about it.
fn taken(holder: Option<&Holder>) -> String {
    let socket = format!("the abstract socket @{NETNS_LOCK} of this network namespace");
    match holder {
        Some(Holder { pid, name, .. }) if name == "causewayd" => format!(
            "another causewayd (process {pid}) manages the rules of this network namespace, with \
             another --run-dir; stop it first"
        ),
        Some(Holder { pid, name, uid }) => format!(
            "process {pid} ({name}, user {uid}) holds {socket}, the lock that allows one causewayd \
             per network namespace; stop it first"
        ),
        None => format!(
            "another causewayd, in another PID namespace, holds {socket}; stop it first: `ss -xap` \
             in its container or on the host shows it"
        ),
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// See [`Error`]. Nothing is programmed then.
pub(crate) fn run(settings: Settings, env: &BTreeMap<OsString, OsString>) -> Result<(), Error> {
    raise_descriptors();
    make_folders(&settings)?;
    let _lock = lock(&settings.run_dir)?;
    let backend = Backend::open(settings.backend).map_err(Error::Backend)?;
    let store = Store::open(&settings.state_dir).map_err(Error::Store)?;
    let notifier = Notifier::new(env).map_err(to("use NOTIFY_SOCKET"))?;
    let facts = facts(&settings, &notifier)?;
    let pools = objects::pools(&settings, &facts);
    pools.check().map_err(Error::Pools)?;
    pools.check_balancers().map_err(Error::BalancerPools)?;
    let previous = node::previous(&settings);
    say_node(&settings, &facts, &store)?;
    let machine_id = node::machine_id(&settings).map_err(Error::Node)?;
    let (sysctls, problems) = prepare_kernel(&settings, &facts)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(to("start the event loop"))?.block_on(async {
        let (sender, events) = mpsc::channel(QUEUE);
        spawn_sources(&settings, &sender)?;
        let monitor = backend.monitor().map_err(Error::Backend)?;
        let notifies = monitor.map(|monitor| watch_rules(monitor, sender.clone())).is_some();
        let socket = settings.socket();
        let warnings = settings.warnings.clone();
        let overlay =
            Overlay::start(&settings, &backend, sender.clone()).map_err(to("start the overlay"))?;
        let forward = Forward::start(&settings, &facts.ips, sender.clone())
            .map_err(to("watch the rules of other programs"))?;
        keep_attachments(&settings, &backend, &sender)?;
        let front = Front::new(sender.clone(), &settings);
        let node_ports = facts.node_ports.clone();
        let parts = EngineParts {
            settings,
            facts,
            store,
            backend,
            notifies,
            sysctls,
            overlay,
            forward,
            front,
            notifier,
            machine_id,
        };
        let mut engine = Engine::load(parts).map_err(Error::Store)?;
        engine.report_refused();
        start_threads(&mut engine, &sender)?;
        engine.warn(Concern::Sysctls, problems);
        engine.warn(Concern::Settings, warnings);
        if !engine.set_bridge() {
            tokio::spawn(await_bridge(sender.clone()));
        }
        // Whoever comes from now on waits for the rules: they are ready when that is said.
        let listener = bind(&socket).map_err(file("listen at", &socket))?;
        engine.start_front(listener);
        engine.commit();
        localhost::start(&node_ports, sender.clone()).map_err(to("protect localhost"))?;
        engine.start_cluster(sender, previous);
        engine.run(events).await;
        engine.leave().await;
        Ok(())
    })
}

/// Threads that the engine tells what to do.
fn start_threads(engine: &mut Engine, sender: &Events) -> Result<(), Error> {
    let settings = &engine.state.settings;
    let names = Names::start(settings, sender).map_err(to("answer names"))?;
    let liveness = Liveness::start(settings, sender.clone()).map_err(to("watch containers"))?;
    engine.start_names(names);
    engine.watch_liveness(liveness);
    announce(engine, sender)
}

/// Has this node announce addresses of load balancers, if it is the only one: among several, one is to
/// be chosen first.
fn announce(engine: &mut Engine, events: &Events) -> Result<(), Error> {
    let settings = &engine.state.settings;
    if is_one_of_several(settings) {
        let warnings = interfaces_without_effect(settings).into_iter().collect();
        engine.warn(Concern::Settings, warnings);
        return Ok(());
    }
    let interfaces = settings.balancer_interfaces.clone();
    let config = AnnounceConfig { interfaces, ..AnnounceConfig::default() };
    let announce = Announce::start(config, events.clone());
    engine.announce_by(announce.map_err(to("announce addresses of load balancers"))?);
    Ok(())
}

/// As many descriptors as the system allows: each question to a name server outside takes some. What
/// systemd gives at first is 1,024.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "raise the limit of open files");
    }
}

fn is_one_of_several(settings: &Settings) -> bool {
    settings.store != StoreKind::Embedded || settings.peers_file.is_some()
}

/// What to say of `--lb-interface` if no address is announced.
fn interfaces_without_effect(settings: &Settings) -> Option<String> {
    let named = settings.balancer_interfaces.join(",");
    (is_one_of_several(settings) && !named.is_empty()).then(|| {
        format!(
            "--lb-interface {named} has no effect: a node among several announces no addresses; \
             remove it, or --store and --peers-file if this node is alone"
        )
    })
}

fn make_folders(settings: &Settings) -> Result<(), Error> {
    for folder in [&settings.run_dir, &settings.state_dir, &settings.spool()] {
        causeway_host::file::make_folder(folder).map_err(file("make", folder))?;
    }
    Ok(())
}

/// What has to be so before there are rules, and before the daemon sends anything. Says what could
/// not be set.
fn prepare_kernel(
    settings: &Settings,
    facts: &node::NodeInfo,
) -> Result<(Sysctls, Vec<String>), Error> {
    let (mut sysctls, damaged) = Sysctls::open_or_begin(&settings.state_dir, &facts.boot_id)
        .map_err(file("read sysctls.json of", &settings.state_dir))?;
    localhost::begin(&facts.node_ports);
    let mut networks = settings.service_cidrs.iter().chain(&settings.cluster_cidrs);
    let mut problems = sysctls.before_rules(networks.any(|network| network.is_ipv6()));
    problems.extend(damaged);
    Ok((sysctls, problems))
}

/// What this node is, as soon as it has an address. The log and systemd are told of the wait.
fn facts(settings: &Settings, notifier: &Notifier) -> Result<node::NodeInfo, Error> {
    let facts = node::await_facts(settings, |waits| {
        tracing::warn!("{waits}; waiting for the address");
        notifier.say(&format!("STATUS={waits}; waiting for the address"));
    })
    .map_err(Error::Node)?;
    tracing::info!(
        node = &*facts.name,
        ips = log::addresses(&facts.ips),
        backend = settings.backend.name(),
        version = env!("CARGO_PKG_VERSION"),
        "causewayd starting"
    );
    Ok(facts)
}

/// Writes `node.json` before any store answers (row O-67), with what is known of the overlay now, or
/// was before. What an earlier run with an overlay left goes, if something else routes between
/// nodes now.
fn say_node(settings: &Settings, facts: &node::NodeInfo, store: &Store) -> Result<(), Error> {
    let mode = overlay::mode(settings);
    if mode.is_none() {
        for what in overlay::leave(false).map_err(Error::Overlay)? {
            tracing::info!("--overlay none: removed {what}");
        }
    }
    if settings.dns.listen != DnsListen::Auto {
        for what in names::leave(false).map_err(Error::Names)? {
            tracing::info!("--dns-listen: removed {what}");
        }
    }
    // The overlay's thread reports what fails.
    let mtu = mode.and_then(|mode| overlay::mtu(&mode, &facts.ips).ok()?);
    let known = store.known().map_err(Error::Store)?;
    let parts = node::SubnetSource::first(settings, facts, &known);
    node::publish(settings, facts, &parts, mtu).map_err(Error::Node)
}

/// Signals and directories become events. They are watched before they are read the first time.
fn spawn_sources(settings: &Settings, sender: &Events) -> Result<(), Error> {
    let signals: [(SignalKind, fn() -> Event); 3] = [
        (SignalKind::terminate(), || Event::Stop),
        (SignalKind::interrupt(), || Event::Stop),
        (SignalKind::hangup(), || Event::Manifests),
    ];
    for (kind, event) in signals {
        let mut signal = signal(kind).map_err(to("handle signals"))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() && sender.send(event()).await.is_ok() {}
        });
    }
    let (spool, manifests) = (settings.spool(), &settings.manifest_dir);
    let json = |name: &OsStr| Path::new(name).extension() == Some(OsStr::new("json"));
    watch_directory(&spool, sender, |_| Event::Spool, move |spool| DirWatch::new(spool, json));
    let written = |folder: &Path| ManifestDir::new(folder).watch();
    watch_directory(manifests, sender, |_| Event::Manifests, written);
    if let Some(folder) = settings.peers_file.as_deref().and_then(Path::parent) {
        // Any name: the file may be a link to one that is replaced beside it.
        watch_directory(folder, sender, |_| Event::Peers, |folder| DirWatch::new(folder, |_| true));
    }
    Ok(())
}

/// Threads that look after what the plugins made.
fn keep_attachments(settings: &Settings, backend: &Backend, sender: &Events) -> Result<(), Error> {
    let attachments = backend.watch(keeper::tables());
    keeper::start(settings.run_dir.clone(), attachments, sender.clone())
        .map_err(to("maintain the rules of attachments"))?;
    old_mtu::start(settings, sender.clone()).map_err(to("watch the MTU of attachments"))
}

fn watch_directory(
    folder: &Path,
    sender: &Events,
    event: fn(Option<()>) -> Event,
    arm: impl Fn(&Path) -> io::Result<DirWatch> + Send + Sync + 'static,
) {
    let concern = Concern::Directory(folder.to_owned());
    let remedy = "it is read every 2 s instead; raise the sysctls fs.inotify.max_user_instances and \
                  fs.inotify.max_user_watches if other programs have used them up";
    let folder = folder.to_owned();
    Watched { concern, remedy, arm: move || arm(&folder), event }.spawn(sender.clone());
}

fn watch_rules(monitor: Monitor, sender: Events) {
    let concern = Concern::RuleWatch;
    let remedy = "they are compared every 2 s instead";
    let again = monitor.again();
    // The first one is open before the rules are read.
    let first = Mutex::new(Some(monitor));
    let arm = move || match first.lock().ok().and_then(|mut first| first.take()) {
        Some(monitor) => Ok(monitor),
        None => again().map_err(io::Error::other),
    };
    let event = |change: Option<Change>| Event::KernelChanged { by: change.and_then(|it| it.by) };
    Watched { concern, remedy, arm, event }.spawn(sender);
}

/// Until the module is loaded that gives the kernel the settings of bridges.
async fn await_bridge(sender: Events) {
    while !Sysctls::has_bridge() {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // Without an engine nobody needs them.
    drop(sender.send(Event::BridgeSettings).await);
}

/// The socket, for root alone. One that a dead daemon left is replaced: the lock is ours.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody may connect before its mode is right.
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    to(&format!("{action} {}", path.display()))
}

/// What could not be done, for [`Error::File`].
fn to(action: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let action = action.to_owned();
    move |source| Error::File { action, source }
}

#[cfg(test)]
mod tests;
