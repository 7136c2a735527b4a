//! The thread that announces addresses of load balancers on this node's segments: it hears and sends
//! frames of ARP and neighbour discovery, and looks at links when they change and every ten seconds
//! (rows L-07 to L-09).
//!
//! It is a thread because sockets and rtnetlink block. It decides nothing: [`speaker`] does. The
//! addresses are on no interface, so that nobody answers for them once it ends (rows L-18, L-19).

mod interfaces;
mod neighbours;
mod ports;
mod speaker;

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use causeway_kernel::{Interest, Monitor, Netlink, wait_readable};
use ipnetwork::IpNetwork;

use crate::clock;
use crate::event::{Event, Events};
use crate::schedule::{Gap, Pace, Schedule};
use crate::state::AnnounceState;
use interfaces::{Interfaces, interface};
use ports::Ports;
use speaker::Speaker;

/// How often links are looked at though none has changed.
const PERIOD: Duration = Duration::from_secs(10);
/// Changes of links wait nine times as long as a look took.
const PACE: Pace = Pace {
    period: Some(PERIOD),
    gap: Gap { times: 9, shortest: Duration::ZERO, longest: Duration::from_millis(500) },
};

/// Row L-30.
const REFRESH: Duration = Duration::from_secs(60);

/// What the settings say.
#[derive(Clone, Debug)]
pub(crate) struct AnnounceConfig {
    /// Addresses are announced on these interfaces only, if there are any (`--lb-interface`).
    pub interfaces: Vec<String>,
    /// Between two announcements while all is well (row L-30); `None`: they are not repeated.
    pub refresh: Option<Duration>,
}

impl Default for AnnounceConfig {
    fn default() -> Self {
        Self { interfaces: Vec::new(), refresh: Some(REFRESH) }
    }
}

/// The addresses that this node is to hold.
type Orders = BTreeMap<IpAddr, ()>;

/// The engine's end. When it is dropped the thread ends, and nobody answers for the addresses.
#[derive(Debug)]
pub(crate) struct Announce {
    orders: Sender<Orders>,
    /// Written to when there are orders; at its end when there will be none.
    waker: UnixStream,
}

/// The thread's end.
struct AnnounceThread {
    config: AnnounceConfig,
    events: Events,
    incoming: Receiver<Orders>,
    woken: UnixStream,
    /// Made by the thread, and anew after a failure.
    kernel: Option<(Netlink, Monitor)>,
    speaker: Speaker,
    ports: Ports,
    looks: Schedule,
    /// What was said last.
    said: AnnounceState,
    failure: Option<String>,
    /// Named interfaces that can never announce.
    useless: Vec<String>,
}

impl Announce {
    /// Starts the thread in the calling thread's network namespace. It answers with
    /// [`Event::Announced`] whenever something is other than it said before, and with what it counts
    /// every ten seconds.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub(crate) fn start(config: AnnounceConfig, events: Events) -> io::Result<Self> {
        let (orders, incoming) = channel();
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        std::thread::Builder::new().name("announce".to_owned()).spawn(move || {
            let last_word = LastWord::new(events.clone());
            let thread = AnnounceThread {
                speaker: Speaker::new(config.refresh),
                config,
                events,
                incoming,
                woken,
                kernel: None,
                ports: Ports::default(),
                looks: Schedule::at_once(PACE, clock::now()),
                said: AnnounceState::default(),
                failure: None,
                useless: Vec::new(),
            };
            last_word.after(|| thread.run());
        })?;
        Ok(Self { orders, waker })
    }

    /// Tells it which addresses to hold. It is silent about all others at once.
    pub(crate) fn hold(&self, addresses: Orders) {
        if self.orders.send(addresses).is_ok() {
            // A full buffer wakes it as well.
            drop((&self.waker).write(&[0]));
        }
    }
}

/// Says that nothing is announced any more when the thread ends before its time, however it does.
struct LastWord {
    events: Events,
    failure: Option<String>,
}

impl LastWord {
    fn new(events: Events) -> Self {
        Self { events, failure: Some("the thread that announces addresses has crashed".to_owned()) }
    }

    fn after(mut self, work: impl FnOnce() -> causeway_kernel::Result<()>) {
        self.failure = work().err().map(|error| causeway_api::chain(&error));
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let Some(failure) = self.failure.take() else { return };
        let failure =
            Some(format!("{failure}; nothing is announced until causewayd is started again"));
        let state = AnnounceState { failure, ..AnnounceState::default() };
        // Nobody listens while the daemon ends.
        drop(self.events.blocking_send(Event::Announced(state)));
    }
}

impl AnnounceThread {
    /// Until nobody gives orders, or nobody listens any more.
    fn run(mut self) -> causeway_kernel::Result<()> {
        loop {
            let now = clock::now();
            if !self.take_orders(now) {
                return Ok(());
            }
            self.take_changes(now);
            let looks = !self.speaker.is_idle() && self.looks.is_due(now);
            if looks {
                self.look(now);
            }
            self.converse(now);
            if !self.report(now, looks) {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn wait(&self) -> causeway_kernel::Result<()> {
        let now = clock::now();
        let due = self.speaker.due().map(|due| due.saturating_duration_since(now));
        let looks = if self.speaker.is_idle() { Duration::MAX } else { self.looks.wait(now) };
        let wait = due.map_or(looks, |due| due.min(looks));
        let monitor = self.kernel.as_ref().map(|(_, monitor)| monitor.as_fd());
        let files = std::iter::once(self.woken.as_fd()).chain(monitor).chain(self.ports.files());
        wait_readable(&files.collect::<Vec<_>>(), wait)
    }

    /// `false`: nobody gives orders any more.
    fn take_orders(&mut self, now: Instant) -> bool {
        let mut buffer = [0; 64];
        let ended = loop {
            match (&self.woken).read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        if let Some(orders) = self.incoming.try_iter().last() {
            self.speaker.hold(&orders.into_keys().collect(), now);
            // Routes, whose gateways are taught, are not followed between looks.
            self.looks.wanted(now);
            if self.speaker.is_idle() {
                // Nothing of links matters, nor wakes it.
                self.kernel = None;
                self.failure = None;
            }
            // A look opens them as well, and knows which are there.
            if self.speaker.is_idle() || !self.looks.is_due(now) {
                self.open_ports(now);
            }
        }
        !ended
    }

    fn take_changes(&mut self, now: Instant) {
        let Some((_, monitor)) = &mut self.kernel else { return };
        match monitor.changed(&Interest::default()) {
            Ok(true) => self.looks.wanted(now),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %causeway_api::chain(&error), "hear of changes of links");
                self.kernel = None;
                self.looks.set(now);
            }
        }
    }

    /// Looks at the links. Those that could not be used before are tried again.
    fn look(&mut self, now: Instant) {
        let seen = self.see();
        let after = clock::now();
        self.looks.done(after.saturating_duration_since(now), after);
        match seen {
            Ok(interfaces) => {
                self.failure = None;
                self.say_useless(&interfaces);
                self.speaker.look(interfaces, now);
            }
            Err(error) => {
                self.kernel = None;
                self.failure = Some(causeway_api::chain(&error));
            }
        }
        self.open_ports(now);
    }

    /// Says which named interfaces can never announce, once.
    fn say_useless(&mut self, interfaces: &Interfaces) {
        let useless: Vec<String> = interfaces.useless().map(str::to_owned).collect();
        for name in useless.iter().filter(|name| !self.useless.contains(name)) {
            tracing::error!("--lb-interface {name}: {}", interfaces::USELESS);
        }
        self.useless = useless;
    }

    fn see(&mut self) -> causeway_kernel::Result<Interfaces> {
        let (netlink, _) = match &mut self.kernel {
            Some(kernel) => kernel,
            none => {
                let netlink = Netlink::open()?;
                let monitor = Monitor::of_addresses(&netlink)?;
                none.insert((netlink, monitor))
            }
        };
        let links = netlink.links()?;
        let networks = netlink.all_addresses()?;
        let mut defaults = Vec::new();
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
            if let Ok(any) = IpNetwork::new(any, 0) {
                defaults.extend(netlink.routes_to(any)?);
            }
        }
        let mut found =
            Interfaces { only: self.config.interfaces.clone(), ..Interfaces::default() };
        for link in &links {
            let by_link = defaults.iter().filter(|route| route.dev == link.index);
            let gateways = by_link.filter_map(|route| route.gw).collect();
            match interface(link, &links, &networks, gateways) {
                Some(interface) => found.all.push(interface),
                None => found.barred.push(link.name.clone()),
            }
            let own = networks.iter().filter(|(index, _)| *index == link.index);
            found.own.extend(own.map(|(_, network)| (network.ip(), link.name.clone())));
        }
        Ok(found)
    }

    /// An interface that frames cannot be read from is no place to announce on until the next look.
    fn open_ports(&mut self, now: Instant) {
        let failed = self.ports.open(&self.speaker.listens(), &self.speaker.groups());
        if failed.is_empty() {
            return;
        }
        for error in failed.values() {
            tracing::error!("announce: {error}");
        }
        self.speaker.avoid(failed, now);
        // What is left without an interface leaves its group.
        self.ports.open(&self.speaker.listens(), &self.speaker.groups());
    }

    /// Takes in what was said, and says what there is to say.
    fn converse(&mut self, now: Instant) {
        let (heard, failed) = self.ports.receive();
        let answers =
            heard.into_iter().filter_map(|(link, frame)| self.speaker.hear(link, &frame, now));
        let answers: Vec<_> = answers.collect();
        let said = self.speaker.speak(now);
        for sending in answers.into_iter().chain(said) {
            if let Err(error) = self.ports.send(&sending) {
                tracing::warn!(error = %causeway_api::chain(&error), "announce an address");
                self.looks.wanted(now);
            }
        }
        if failed {
            // The link went away or down.
            self.looks.wanted(now);
        }
    }

    /// Says what is other than before; what is counted only after a look. `false`: nobody listens.
    fn report(&mut self, now: Instant, looked: bool) -> bool {
        let state = AnnounceState {
            addresses: self.speaker.state(now),
            heard: self.speaker.heard(),
            missing: self.speaker.missing().into_iter().map(str::to_owned).collect(),
            silent: self.speaker.silent(now),
            claims: self.speaker.claims(now),
            failure: self.failure.clone(),
        };
        let same = if looked { state == self.said } else { state.is_like(&self.said) };
        if same {
            return true;
        }
        self.said = AnnounceState { claims: Vec::new(), ..state.clone() };
        self.events.blocking_send(Event::Announced(state)).is_ok()
    }
}

#[cfg(test)]
mod tests;
