//! A day in the life of an application: three services in two networks under nerdctl, and whatever
//! happens to containers, to the daemon, to rules and to containerd.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use causeway_tests::cluster::holds_within;
use causeway_tests::{Causewayd, Lab, Machine, Random, say};
use serde_json::{Value, json};

/// How long the node may take to follow an event: a container that died is noticed within a second,
/// and a busy machine needs its time.
const FOLLOWS: Duration = Duration::from_secs(10);
/// How long what nobody detaches may stay at the end, beside the grace.
const RECLAIMED: Duration = Duration::from_secs(20);
/// Names of the application's containers, with their networks and host port.
const APP: [(&str, &[&str], Option<u16>); 7] = [
    ("web1", &["front"], Some(8081)),
    ("web2", &["front"], Some(8082)),
    ("web3", &["front"], Some(8083)),
    ("api1", &["front", "back"], None),
    ("api2", &["front", "back"], None),
    ("db1", &["back"], None),
    ("db2", &["back"], Some(5432)),
];
/// A container that asks for a host port that another one has.
const LATE: &str = "late";
const SERVICES: [(&str, &str); 3] =
    [("web", "10.96.0.11"), ("api", "10.96.0.12"), ("db", "10.96.0.13")];

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Container {
    /// It runs and has this address on its first network.
    Running(String),
    /// It was stopped, its process was killed, or its start was refused.
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Run(usize),
    Kill(usize),
    Stop(usize),
    Start(usize),
    Remove(usize),
    RunWithTakenPort,
    RemoveRefused,
    RestartDaemon,
    Flush,
    RestartContainerd,
}

struct Day<'m> {
    lab: &'m Lab,
    machine: &'m Machine<'m>,
    flags: Vec<&'m str>,
    daemon: Option<Causewayd<'m>>,
    containers: BTreeMap<&'static str, Container>,
    history: Vec<String>,
}

impl Day<'_> {
    /// Events that can happen now, each as often as it is to weigh.
    fn possible(&self) -> Vec<Event> {
        let mut events = vec![Event::RestartDaemon, Event::Flush, Event::RestartContainerd];
        for (index, (name, ..)) in APP.iter().enumerate() {
            match self.containers.get(name) {
                None => events.extend([Event::Run(index); 3]),
                Some(Container::Down) => {
                    events.extend([Event::Start(index); 2]);
                    events.push(Event::Remove(index));
                }
                Some(Container::Running(_)) => {
                    events.extend([Event::Kill(index), Event::Stop(index), Event::Remove(index)]);
                }
            }
        }
        match self.containers.contains_key(LATE) {
            true => events.extend([Event::RemoveRefused; 3]),
            false if self.taken_port().is_some() => events.extend([Event::RunWithTakenPort; 2]),
            false => {}
        }
        events
    }

    fn taken_port(&self) -> Option<u16> {
        let running = |name: &str| matches!(self.containers.get(name), Some(Container::Running(_)));
        APP.iter().find_map(|&(name, _, port)| port.filter(|_| running(name)))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Run(index) => {
                let (name, networks, port) = APP[index];
                let label = format!("app={}", service_of(name));
                let published = port.map(|port| format!("{port}:80"));
                let mut options = vec!["--label", &label];
                options.extend(networks.iter().flat_map(|network| ["--net", network]));
                options.extend(published.iter().flat_map(|port| ["-p", port]));
                let started = self.machine.try_run(name, &options);
                assert!(started.status.success(), "{}\n{}", started.describe(), self.story());
                self.note_running(name);
            }
            Event::Kill(index) => {
                let name = APP[index].0;
                let pid = &self.machine.inspect(name)["State"]["Pid"];
                self.machine.sh(&format!("kill -KILL {pid}"));
                self.containers.insert(name, Container::Down);
            }
            Event::Stop(index) => {
                let name = APP[index].0;
                self.nerdctl(&["stop", "--time", "0", name]);
                self.containers.insert(name, Container::Down);
            }
            Event::Start(index) => {
                let name = APP[index].0;
                self.nerdctl(&["start", name]);
                self.note_running(name);
            }
            Event::Remove(index) => self.remove(APP[index].0),
            Event::RunWithTakenPort => {
                let port = format!("{}:80", self.taken_port().expect("a port is taken"));
                let options = ["--net", "front", "--label", "app=web", "-p", &port];
                let refused = self.machine.try_run(LATE, &options);
                assert!(!refused.status.success(), "{}\n{}", refused.describe(), self.story());
                self.containers.insert(LATE, Container::Down);
            }
            Event::RemoveRefused => self.remove(LATE),
            Event::RestartDaemon => self.restart_daemon(),
            Event::Flush => drop(self.lab.nodes[0].sh("nft flush ruleset")),
            Event::RestartContainerd => {
                self.machine.kill_containerd();
                self.machine.start_containerd();
            }
        }
    }

    fn restart_daemon(&mut self) {
        self.daemon = None;
        self.daemon = Some(self.machine.causewayd(&self.flags));
    }

    fn remove(&mut self, name: &'static str) {
        let removed = self.machine.try_remove(&[name]);
        assert!(removed.is_ok(), "{removed:?}\n{}", self.story());
        self.containers.remove(name);
    }

    fn nerdctl(&self, arguments: &[&str]) {
        let finished = self.machine.nerdctl(arguments);
        assert!(finished.status.success(), "{}\n{}", finished.describe(), self.story());
    }

    /// nerdctl gives the first network of a container the name `eth0`.
    fn note_running(&mut self, name: &'static str) {
        let inspected = self.machine.inspect(name);
        let address =
            inspected["NetworkSettings"]["Networks"]["unknown-eth0"]["IPAddress"].as_str();
        let address = address.unwrap_or_else(|| panic!("{name} has no address: {inspected}"));
        self.containers.insert(name, Container::Running(address.to_owned()));
    }

    /// Addresses of the containers of a service that run.
    fn running(&self, service: &str) -> BTreeSet<String> {
        let of = self.containers.iter().filter(|(name, _)| service_of(name) == service);
        of.filter_map(|(_, container)| match container {
            Container::Running(address) => Some(address.clone()),
            Container::Down => None,
        })
        .collect()
    }

    /// Each container that runs answers, each service's endpoints are these containers, and services
    /// and host ports lead to them.
    fn verify(&self) {
        for (service, address) in SERVICES {
            let wanted = self.running(service);
            for ip in &wanted {
                self.until(&format!("{ip} of {service} answers"), || {
                    self.asks(&format!("{ip}:80")) == Ok(ip.clone())
                });
            }
            self.until(&format!("endpoints of {service} are {wanted:?}"), || {
                let found = self.endpoints(service);
                if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }.is_ok()
            });
            if !wanted.is_empty() {
                self.until(&format!("{service} answers at {address}"), || {
                    self.asks(&format!("{address}:80")).is_ok_and(|ip| wanted.contains(&ip))
                });
            }
        }
        for (name, _, port) in APP {
            let (Some(port), Some(Container::Running(ip))) = (port, self.containers.get(name))
            else {
                continue;
            };
            self.until(&format!("host port {port} leads to {name}"), || {
                self.lab
                    .client
                    .tcp(&format!("172.18.0.2:{port}"))
                    .is_ok_and(|answer| answer.ip.to_string() == *ip)
            });
        }
    }

    fn asks(&self, to: &str) -> Result<String, String> {
        let answer = self.lab.nodes[0].tcp(to).map_err(|error| error.to_string())?;
        Ok(answer.ip.to_string())
    }

    fn endpoints(&self, service: &str) -> BTreeSet<String> {
        let text = self.machine.causeway(&["get", "endpoints", service, "-o", "json"]).ok();
        let endpoints: Value = serde_json::from_str(&text).expect("JSON");
        let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
        let ready = subsets.iter().filter_map(|subset| subset["addresses"].as_array()).flatten();
        ready.map(|address| address["ip"].as_str().expect("an address").to_owned()).collect()
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let held = holds_within(FOLLOWS, holds);
        assert!(held, "not within {FOLLOWS:?}: {what}\n{}", self.story());
    }

    /// What led to a failure, and what the node says of itself.
    fn story(&self) -> String {
        let [endpoints, pods, status] =
            [&["get", "endpoints"][..], &["get", "pods", "-A"], &["status"]]
                .map(|arguments| self.machine.causeway(arguments).describe());
        // The client's view, in case it did not do what it said.
        let tasks = self.machine.ctr(&["tasks", "list"]).describe();
        let listed = self.machine.nerdctl(&["ps", "--all"]).describe();
        format!(
            "{}\n{:?}\n{endpoints}\n{pods}\n{status}\n{tasks}\n{listed}",
            self.history.join("\n"),
            self.containers
        )
    }
}

fn service_of(name: &str) -> &str {
    name.trim_end_matches(char::is_numeric)
}

fn network(name: &str, subnet: u8, backend: &str) -> Value {
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [
        { "type": "causeway-bridge", "bridge": format!("br-{name}"), "isGateway": true,
          "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
          "ipam": { "type": "causeway-ipam", "ranges": [[{ "subnet": format!("10.0.{subnet}.0/24") }]] } },
        { "type": "causeway-service", "backend": backend,
          "capabilities": { "portMappings": true } } ] })
}

fn manifest() -> String {
    let document = |(name, address): (&str, &str)| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "clusterIP": address, "selector": { "app": name },
                      "ports": [{ "port": 80 }] } })
        .to_string()
    };
    SERVICES.map(document).join("\n---\n")
}

fn day(backend: &str, seed: u64, events: usize) {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("front", 71, backend));
    machine.network(&network("back", 72, backend));
    let mut day = Day {
        lab: &lab,
        machine: &machine,
        flags: vec!["--backend", backend, "--dead-grace", "2s"],
        daemon: None,
        containers: BTreeMap::new(),
        history: vec![format!("seed {seed}, {backend}")],
    };
    day.restart_daemon();
    std::fs::write(machine.path("/run/causeway/app.yaml"), manifest()).expect("write a manifest");
    machine.causeway(&["apply", "-f", "/run/causeway/app.yaml"]).ok();
    std::fs::remove_file(machine.path("/run/causeway/app.yaml")).expect("remove a manifest");
    let before = machine.residue();
    let mut random = Random(seed);
    for number in 1..=events {
        let possible = day.possible();
        let event = possible[random.below(possible.len())];
        day.history.push(format!("{number}: {event:?}"));
        day.happen(event);
        day.verify();
    }
    let names: Vec<&str> = day.containers.keys().copied().collect();
    for name in names {
        day.history.push(format!("the end of {name}"));
        day.remove(name);
    }
    day.verify();
    let reclaimed = holds_within(RECLAIMED, || machine.residue() == before);
    assert!(reclaimed, "left: {:#?}\nbefore: {before:#?}\n{}", machine.residue(), day.story());
    say(&format!("{backend}: seed {seed}, {events} events"));
}

/// Rows: RB1, RB2, RB3, RC1
#[test]
fn a_day_in_the_life_of_an_application() {
    day("nftables", 0x00c0_ffee, 200);
}

/// Rows: RB1, RB2, RB3, RC1
#[test]
fn a_morning_with_the_iptables_backend() {
    day("iptables", 0x0dd_ba11, 40);
}
