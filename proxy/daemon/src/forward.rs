//! The thread that looks whether rules of other programs drop what containers of several nodes send
//! each other (row O-52), and says so.
//!
//! It is a thread because rtnetlink and programs block. It changes nothing: other tables are not
//! ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use causeway_kernel::{LinkKind, Netlink, Program, SYSTEM_PATH};
use causeway_nft::Client;
use causeway_overlay::{Mode, device_name};
use causeway_ruleset::forward::{Devices, ForeignTable, findings, parse_legacy};
use ipnetwork::IpNetwork;

use crate::clock;
use crate::config::{Settings, StoreKind};
use crate::event::{Event, Events};
use crate::overlay;
use crate::schedule::{Gap, Pace, Schedule};

/// How often the kernel is asked whether any rules have changed.
const PERIOD: Duration = Duration::from_secs(1);
/// How often the rules are read though none is known to have changed: the older iptables and devices
/// do not tell of it.
const LONG: Duration = Duration::from_secs(10);
/// After a look, the next one waits so many times as long as that took: if there are many rules and
/// another process changes them all the time, looking is not to cost more.
const PACE: Pace =
    Pace { period: Some(LONG), gap: Gap { times: 20, shortest: Duration::ZERO, longest: LONG } };
/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The engine's end. When it is dropped the thread ends.
#[derive(Debug)]
pub(crate) struct Forward {
    addresses: Sender<Vec<IpAddr>>,
}

/// The thread's end.
struct ForwardThread {
    cluster: Vec<IpNetwork>,
    /// Addresses of this node.
    ips: Vec<IpAddr>,
    /// Name of the vxlan device.
    device: Option<String>,
    events: Events,
    /// Those addresses, whenever they are others.
    incoming: Receiver<Vec<IpAddr>>,
    /// `None` while the kernel has no nf_tables.
    client: Option<Client>,
    /// Generation of the rules that were read last.
    seen: Option<u32>,
    looks: Schedule,
    said: Vec<String>,
}

impl Forward {
    /// Starts the thread, if this node is one of many. It answers with [`Event::Forward`] whenever
    /// it finds something other than before.
    ///
    /// # Errors
    /// No thread is left.
    pub(crate) fn start(
        settings: &Settings,
        ips: &[IpAddr],
        events: Events,
    ) -> io::Result<Option<Self>> {
        let mode = overlay::mode(settings);
        if mode.is_none() && settings.store != StoreKind::Etcd {
            return Ok(None);
        }
        let device = match mode {
            Some(Mode::Vxlan { id, .. }) => Some(device_name(id)),
            Some(Mode::HostGw) | None => None,
        };
        let (cluster, ips) = (settings.cluster_cidrs.clone(), ips.to_vec());
        let (addresses, incoming) = channel();
        std::thread::Builder::new().name("forward".to_owned()).spawn(move || {
            let (client, seen, said) = (None, None, Vec::new());
            let looks = Schedule::at_once(PACE, clock::now());
            ForwardThread { cluster, ips, device, events, incoming, client, seen, looks, said }
                .run();
        })?;
        Ok(Some(Self { addresses }))
    }

    /// Tells it this node's addresses: the devices that carry them lead to the other nodes.
    pub(crate) fn follow(&self, ips: Vec<IpAddr>) {
        // Its end is the process's.
        drop(self.addresses.send(ips));
    }
}

impl ForwardThread {
    fn run(mut self) {
        loop {
            match self.look() {
                Ok(Some(found)) if found != self.said => {
                    self.said.clone_from(&found);
                    if self.events.blocking_send(Event::Forward(found)).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "look for rules of others that drop");
                    self.client = None;
                }
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Until the next look. `false`: the engine is gone.
    fn wait(&mut self) -> bool {
        match self.incoming.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Ok(ips) => {
                self.ips = ips;
                self.looks.set(clock::now());
                true
            }
        }
    }

    /// What is dropped; `None` if that cannot be other than before.
    fn look(&mut self) -> Result<Option<Vec<String>>, Box<dyn std::error::Error>> {
        if self.client.is_none() {
            self.client = Client::open_if_supported()?;
        }
        let generation = match &mut self.client {
            Some(client) => client.generation()?,
            None => 0,
        };
        let began = clock::now();
        if self.seen != Some(generation) {
            self.looks.wanted(began);
        }
        if !self.looks.is_due(began) {
            return Ok(None);
        }
        let found = self.read();
        self.seen = Some(generation);
        self.looks.done(clock::now() - began, began);
        found.map(Some)
    }

    fn read(&mut self) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let mut tables = match &mut self.client {
            Some(client) => client.forward_drops()?,
            None => Vec::new(),
        };
        tables.extend([false, true].into_iter().filter_map(legacy));
        tables.retain(|table| !table.dropping.is_empty());
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let devices = self.devices()?;
        Ok(findings(&tables, &self.cluster, &devices))
    }

    fn devices(&self) -> causeway_kernel::Result<Devices> {
        let netlink = Netlink::open()?;
        let mut devices = Devices::default();
        for link in netlink.links()? {
            let addresses: BTreeSet<IpAddr> = netlink
                .addresses(link.index)?
                .into_iter()
                .map(|state| state.address.ip())
                .collect();
            let vxlan = matches!(link.kind, LinkKind::Vxlan(_));
            let outer = Some(&link.name) == self.device.as_ref()
                || self.ips.iter().any(|ip| addresses.contains(ip));
            let inner = !vxlan
                && self.cluster.iter().any(|net| addresses.iter().any(|ip| net.contains(*ip)));
            let of_kind = match (outer, inner) {
                (true, _) => &mut devices.outer,
                (false, true) => &mut devices.inner,
                (false, false) => &mut devices.others,
            };
            of_kind.insert(link.name);
        }
        Ok(devices)
    }
}

/// The table `filter` of the older iptables, if it is in use. Its program is asked: the kernel
/// gives its rules as memory of the program's own layout.
fn legacy(ipv6: bool) -> Option<ForeignTable> {
    let (names, tool) = match ipv6 {
        false => ("/proc/thread-self/net/ip_tables_names", "iptables"),
        true => ("/proc/thread-self/net/ip6_tables_names", "ip6tables"),
    };
    let names = std::fs::read_to_string(names).unwrap_or_default();
    if !names.lines().any(|name| name == "filter") {
        return None;
    }
    let path = |name: String| -> Option<PathBuf> {
        SYSTEM_PATH
            .split(':')
            .map(|folder| Path::new(folder).join(&name))
            .find(|file| file.is_file())
    };
    let apart = path(format!("{tool}-legacy-save"));
    let suffix = apart.is_some();
    let program = Program {
        path: apart.or_else(|| path(format!("{tool}-save")))?,
        args: vec!["-t".to_owned(), "filter".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), SYSTEM_PATH.to_owned())]),
        stdin: b"",
        timeout: TIMEOUT,
    };
    match causeway_kernel::run(&program) {
        Ok(output) if output.success => {
            Some(parse_legacy(&String::from_utf8_lossy(&output.stdout), ipv6, suffix))
        }
        Ok(output) => {
            tracing::debug!(program = %program.path.display(), stderr = output.stderr, "failed");
            None
        }
        Err(error) => {
            tracing::debug!(error = %error, "read rules of the older iptables");
            None
        }
    }
}

#[cfg(test)]
mod tests;
