//! The thread that keeps the overlay: looks at the kernel whenever it is told of other peers, when
//! links, addresses, routes or neighbours change, and every ten seconds; puts right what differs
//! (rows O-11 to O-15).
//!
//! It is a thread because rtnetlink blocks. It decides nothing: [`causeway_overlay::plan`] does.
//! What it makes stays when it ends, and is adopted by the next one (row O-66).

mod apply;
mod guard;
mod look;
mod settle;

pub(crate) use look::leave;

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use causeway_kernel::{Monitor, Netlink, wait_readable};
use causeway_model::Peer;
use causeway_nft::Monitor as Rules;
use causeway_overlay::{Mode, Step, Wanted};
use causeway_ruleset::plan::NodePortAddresses;
use ipnetwork::IpNetwork;

use crate::backend::Backend;
use crate::clock;
use crate::config::{NodePorts, OverlayKind, Settings};
use crate::event::{Event, Events};
use crate::node;
use crate::schedule::{Backoff, Gap, Pace, Retry, Schedule};
use crate::state::OverlayState;

/// How often everything is compared though no change is known of.
const PERIOD: Duration = Duration::from_secs(10);
/// After what others changed was put right, or a failure, the next look at changes waits this long;
/// twice as long each time that they change it again, or that it fails again.
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(500) };
/// After a look, the next one at changes waits nine times as long as that took: if another process
/// changes routes all the time, looking is not to cost more than a tenth.
const PACE: Pace = Pace {
    period: Some(PERIOD),
    gap: Gap { times: 9, shortest: Duration::ZERO, longest: PAUSE.longest },
};
/// After a failure it is tried again, whatever changes.
const RETRY: Backoff = Backoff { first: Duration::from_millis(500), longest: PERIOD };

/// What the engine tells the thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OverlayTarget {
    /// Name of this node.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its subnets of the cluster network.
    pub subnets: Vec<IpNetwork>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// They are all there are. Otherwise what leads to others stays.
    pub complete: bool,
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Overlay {
    target: Sender<OverlayTarget>,
    /// Written to when there are orders; at its end when there will be none.
    waker: UnixStream,
}

/// What the settings say.
struct OverlayConfig {
    mode: Mode,
    /// Networks of all containers.
    cluster: Vec<IpNetwork>,
    /// Checksums of what the device sends are computed in software (row O-16).
    no_tx_checksum: bool,
    /// Links are guarded ([`crate::localhost`]); the device is from its beginning.
    guarded: bool,
    /// Nobody gave this node its addresses: they are those of the default routes, whatever these
    /// are now (row O-62).
    follow: bool,
}

/// The thread's end.
struct OverlayThread {
    config: OverlayConfig,
    events: Events,
    incoming: Receiver<OverlayTarget>,
    woken: UnixStream,
    /// Made by the thread, and anew after a failure.
    kernel: Option<(Netlink, Monitor)>,
    target: Option<OverlayTarget>,
    /// Who may send to the tunnel's port.
    guard: guard::Guard,
    /// Tells of changes of the guard.
    rules: Option<Rules>,
    /// What the kernel was made to hold last, and whether by complete orders.
    settled: Option<(Wanted, bool)>,
    /// What was said last.
    state: OverlayState,
    interest: causeway_kernel::Interest,
    looks: Schedule,
    /// Looks in a row that found changes of others.
    repairs: u32,
    /// Looks in a row that failed.
    failures: Retry,
}

/// How packets get to the other nodes by these settings; `None`: another program sees to it.
pub(crate) fn mode(settings: &Settings) -> Option<Mode> {
    match settings.overlay {
        OverlayKind::None => None,
        OverlayKind::Vxlan => Some(Mode::Vxlan {
            id: settings.vxlan_id,
            port: settings.vxlan_port,
            direct: settings.direct_routing,
        }),
        OverlayKind::HostGw => Some(Mode::HostGw),
    }
}

/// MTU for containers over an overlay of `mode` whose own end is `ip`, by the device that carries
/// it (rows O-09, O-10). `None` while no device does.
///
/// # Errors
/// rtnetlink.
pub(crate) fn mtu(mode: &Mode, ips: &[IpAddr]) -> causeway_kernel::Result<Option<u32>> {
    let netlink = Netlink::open()?;
    let found = look::underlay(&netlink, ips, &[])?;
    Ok(found.map(|look::Found { underlay, .. }| {
        let facts = causeway_overlay::OverlayContext {
            mode: mode.clone(),
            node: String::new(),
            cluster: Vec::new(),
            subnets: Vec::new(),
            underlay,
            peers: Vec::new(),
            on_link: std::collections::BTreeSet::new(),
        };
        causeway_overlay::plan(&facts).mtu
    }))
}

impl Overlay {
    /// Starts the thread, if there is an overlay by the settings. It answers with
    /// [`Event::Overlay`] whenever something is other than it said before. When this value is
    /// dropped it ends and leaves everything in place.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub(crate) fn start(
        settings: &Settings,
        backend: &Backend,
        events: Events,
    ) -> io::Result<Option<Self>> {
        let Some(mode) = mode(settings) else { return Ok(None) };
        // A kernel without nf_tables has no guard, and no changes of it.
        let rules = backend.watch(guard::tables()).ok();
        let (target, incoming) = channel();
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let state = OverlayState { kind: kind(&mode), ..OverlayState::default() };
        let config = OverlayConfig {
            mode,
            cluster: settings.cluster_cidrs.clone(),
            no_tx_checksum: settings.disable_tx_checksum,
            guarded: settings.node_port_addresses == NodePorts::Planned(NodePortAddresses::All),
            follow: settings.node_ips.is_empty() && settings.peers_file.is_none(),
        };
        std::thread::Builder::new().name("overlay".to_owned()).spawn(move || {
            let thread = OverlayThread {
                state,
                config,
                events,
                incoming,
                woken,
                kernel: None,
                target: None,
                guard: guard::Guard::default(),
                rules,
                settled: None,
                interest: causeway_kernel::Interest::default(),
                looks: Schedule::later(PACE, clock::now()),
                repairs: 0,
                failures: Retry::default(),
            };
            thread.run();
        })?;
        Ok(Some(Self { target, waker }))
    }

    /// Tells it what there is now.
    pub(crate) fn set_target(&self, target: OverlayTarget) {
        if self.target.send(target).is_ok() {
            // A full buffer wakes it as well.
            drop((&self.waker).write(&[0]));
        }
    }
}

impl OverlayTarget {
    /// Whether a step is to be taken though not all nodes may be known.
    fn allow(&self, step: &Step) -> bool {
        let removes = matches!(
            step,
            Step::RemoveAddress(_)
                | Step::RemoveNeighbour(_)
                | Step::RemoveFdb(..)
                | Step::RemoveRoute(_)
        );
        self.complete || !removes
    }
}

fn kind(mode: &Mode) -> String {
    match mode {
        Mode::Vxlan { id, port, .. } => format!("vxlan id {id} port {port}"),
        Mode::HostGw => "host-gw".to_owned(),
    }
}

impl OverlayThread {
    fn run(mut self) {
        loop {
            let wait = self.looks.wait(clock::now());
            let woken = self.woken.as_fd();
            let monitor = self.kernel.as_ref().map(|(_, monitor)| monitor.as_fd());
            let rules = self.rules.as_ref().map(Rules::as_fd);
            let files: Vec<_> = std::iter::once(woken).chain(monitor).chain(rules).collect();
            if let Err(error) = wait_readable(&files, wait) {
                tracing::error!(error = %causeway_api::chain(&error), "the overlay is not kept");
                return;
            }
            if !self.take_orders() {
                return;
            }
            self.take_changes();
            if !self.looks.is_due(clock::now()) {
                continue;
            }
            if self.target.is_none() {
                // They wake it.
                self.looks.set(clock::now() + PERIOD);
            } else if !self.look() {
                return;
            }
        }
    }

    /// `false`: nobody gives orders any more.
    fn take_orders(&mut self) -> bool {
        let mut buffer = [0; 64];
        let ended = loop {
            match (&self.woken).read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if let Some(target) = self.incoming.try_iter().last() {
            self.target = Some(target);
            self.looks.set(clock::now());
        }
        !ended
    }

    /// Whatever others changed is looked at soon.
    fn take_changes(&mut self) {
        let now = clock::now();
        match self.rules.as_mut().map(Rules::changes) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(_))) => self.looks.wanted(now),
            Some(Err(error)) => {
                tracing::error!(error = %causeway_api::chain(&error), "hear of the guard's end");
                self.rules = self.rules.take().and_then(|rules| rules.again()().ok());
                self.looks.wanted(now);
            }
        }
        let Some((_, monitor)) = &mut self.kernel else { return };
        match monitor.changed(&self.interest) {
            Ok(true) => self.looks.wanted(now),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %causeway_api::chain(&error), "hear of changes");
                self.kernel = None;
            }
        }
    }

    /// Looks at the kernel, puts right what differs, says how it is. `false`: nobody listens.
    fn look(&mut self) -> bool {
        let before = self.state.clone();
        let began = clock::now();
        let settled = self.settle();
        let now = clock::now();
        self.looks.done(now - began, now);
        match (&settled, self.state.repairs > before.repairs) {
            (Err(_), _) => {
                let pause = self.failures.failed(RETRY, now);
                self.looks.set(now + pause);
                self.repairs = 0;
            }
            (Ok(()), repaired) => {
                self.failures = Retry::default();
                self.repairs = if repaired { self.repairs.saturating_add(1) } else { 0 };
            }
        }
        // What failed may have changed things before it did, which must not wake it at once forever.
        let streak = self.repairs.max(self.failures.failures());
        self.looks.hold_off(now + PAUSE.pause(streak));
        self.state.failure = settled.err();
        if let Some(failure) = &self.state.failure {
            // What is there may be anything now.
            self.settled = None;
            if before.failure.as_ref() != Some(failure) {
                tracing::error!("overlay: {failure}");
            }
        }
        if let Some(ips) = self.moved()
            && self.events.blocking_send(Event::Addresses(ips)).is_err()
        {
            return false;
        }
        if self.state == before && self.state.mtu != 0 {
            return true;
        }
        self.events.blocking_send(Event::Overlay(self.state.clone())).is_ok()
    }

    /// The addresses of a node that has lost one, once it has another one of each family that it
    /// had.
    fn moved(&self) -> Option<Vec<IpAddr>> {
        let (netlink, _) = self.kernel.as_ref()?;
        let target = self.target.as_ref().filter(|_| self.config.follow)?;
        let lost = |ip: &IpAddr| matches!(netlink.link_of_address(*ip), Ok(None));
        if !target.ips.iter().any(lost) {
            return None;
        }
        let families = |ips: &[IpAddr]| ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>();
        let now = node::primary_addresses(&self.config.cluster).ok()?;
        (now != target.ips && families(&now) == families(&target.ips)).then_some(now)
    }
}

#[cfg(test)]
mod tests;
