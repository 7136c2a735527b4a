//! Faults: kill -9 at every moment of ADD and of DEL, a hundred processes at once, a full disk, a
//! damaged store, and what is left afterwards: nothing.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use causeway_api::Spool;
use causeway_tests::{
    Attachment, Daemon, FakeDaemon, Lab, Manner, Node, Pod, Runtime, Snapshot, say,
};
use serde_json::{Value, json};

/// How many kills each sweep spreads over the whole run time of its operation.
const KILLS: u32 = 84;

/// How many runs a sweep may take for that: one that ends before its moment is not killed.
const RUNS: u32 = 4 * KILLS;

fn ports(host_port: u16) -> Value {
    json!({ "portMappings": [
        { "hostPort": host_port, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": host_port, "containerPort": 80, "protocol": "udp" } ] })
}

/// One step of a chain to kill: a plugin's position in the list and the command.
#[derive(Clone, Copy)]
struct Victim {
    plugin: usize,
    command: &'static str,
}

struct Site {
    lab: Lab,
    list: Value,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::one_node();
        let list = lab.nodes[0].conflist("faults", "10.67.0.0/24");
        Self { lab, list }
    }

    /// The same with all kinds of rules by `backend`.
    fn with_rules_by(backend: &str) -> Self {
        let mut site = Self::new();
        site.list["plugins"][0]["ipMasqBackend"] = json!(backend);
        site.list["plugins"][0]["macspoofchk"] = json!(true);
        site.list["plugins"][1]["backend"] = json!(backend);
        site
    }

    /// The same with a link of its own for each container.
    fn without_bridge() -> Self {
        let mut site = Self::new();
        let main = site.list["plugins"][0].as_object_mut().expect("a plugin");
        for key in ["bridge", "isDefaultGateway", "hairpinMode"] {
            main.remove(key);
        }
        main.insert("mode".to_owned(), json!("ptp"));
        site
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn runtime(&self) -> Runtime<'_> {
        Runtime::new(self.node(), self.list.clone())
    }

    /// Runs one step by itself, killed after `limit` when there is one. Returns how long it lasted
    /// and its stdout; `None` when it was killed.
    fn step(
        &self,
        victim: Victim,
        attachment: &Attachment,
        previous: &Value,
        limit: Option<Duration>,
    ) -> (Duration, Option<Value>) {
        let runtime = self.runtime();
        let plugin = runtime.plugins().nth(victim.plugin).expect("a plugin of the list");
        let config = runtime.config(plugin, attachment, previous);
        let call = runtime.call(plugin, victim.command, &config, attachment);
        run(call.command(), config.to_string().as_bytes(), limit)
    }

    /// Attaches up to and without `plugin`, and returns the result so far.
    fn before(&self, plugin: usize, attachment: &Attachment) -> Value {
        let mut previous = Value::Null;
        for index in 0..plugin {
            let victim = Victim { plugin: index, command: "ADD" };
            let (_, result) = self.step(victim, attachment, &previous, None);
            previous = result.expect("an ADD that nobody kills");
        }
        previous
    }
}

/// Runs a command; SIGKILLs it after `limit`, by its descriptor, so that no pid can be mistaken.
fn run(mut command: Command, stdin: &[u8], limit: Option<Duration>) -> (Duration, Option<Value>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[expect(clippy::disallowed_methods, reason = "a kill sweep is about moments")]
    let started = Instant::now();
    let mut child = command.spawn().expect("start a plugin");
    let mut pipe = child.stdin.take().expect("a pipe");
    // A plugin that dies early closes its stdin; that is what the sweep is about.
    drop(pipe.write_all(stdin));
    drop(pipe);
    let killed = limit.is_some_and(|limit| {
        !ended_within(&child, limit.saturating_sub(started.elapsed())) && {
            child.kill().expect("kill a plugin");
            true
        }
    });
    let mut text = String::new();
    let status = child.wait().expect("wait for a plugin");
    let took = started.elapsed();
    if killed && !status.success() {
        return (took, None);
    }
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("read stdout");
    assert!(status.success(), "{command:?}: {text}");
    let result = if text.is_empty() { Value::Null } else { text.parse().expect("JSON") };
    (took, Some(result))
}

/// Waits for the end of a child on its pidfd, with a resolution below a millisecond.
fn ended_within(child: &Child, limit: Duration) -> bool {
    let pid = i32::try_from(child.id()).expect("a process id is positive");
    // SAFETY: pidfd_open takes two integers and returns a descriptor or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = i32::try_from(raw).expect("a descriptor");
    assert!(raw >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: `raw` is a descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(limit.as_nanos().min(999_999_999)).expect("below a second"),
    };
    // SAFETY: one pollfd and one timespec that live across the call; no signal mask.
    let ready = unsafe { libc::ppoll(&raw mut poll, 1, &raw const limit, std::ptr::null()) };
    ready > 0
}

/// Kills `victim` at `KILLS` moments spread over its run time. After each kill DEL of the chain (or
/// GC, at every fourth) leaves the node as it was, with the bystander's attachment whole.
fn sweep(site: &Site, victim: Victim) -> u32 {
    let (node, runtime) = (site.node(), site.runtime());
    let bystander_pod = node.pod();
    let bystander = bystander_pod.attachment("eth0").runtime_config(ports(7000));
    runtime.add_ok(&bystander);
    let whole = usual(site, victim);
    let before = Snapshot::take(node);
    let mut killed = 0;
    for round in 0..RUNS {
        if killed == KILLS {
            break;
        }
        let pod = node.pod();
        let attachment = pod.attachment("eth0").runtime_config(ports(8080));
        let limit = whole * moment(round) / 1000;
        killed += u32::from(kill_at(site, victim, &attachment, limit));
        if round % 4 == 3 {
            until_nobody_works_on(node, &attachment);
            runtime.gc(&[&bystander]).expect("GC after a kill");
        } else {
            // The container is gone by now; no result and no namespace come with DEL.
            runtime.forget(&attachment);
            runtime.del(&attachment.clone().netns("")).expect("DEL after a kill");
        }
        let after = Snapshot::take(node);
        assert!(
            before == after,
            "killed {} of plugin {} after {limit:?}:\n{}",
            victim.command,
            victim.plugin,
            before.diff(&after)
        );
        if round % 8 == 7 {
            assert_usable(site, &pod);
        }
    }
    runtime.check(&bystander).expect("the bystander's attachment is whole");
    runtime.del_ok(&bystander);
    killed
}

/// GC spares an attachment whose lock is held, and an orphaned IPAM plugin holds it until it ends.
fn until_nobody_works_on(node: &Node, attachment: &Attachment) {
    let folder = node.run_dir().join("attachments/bridge/faults");
    let lock = folder.join(format!("{}:{}.lock", attachment.id, attachment.ifname));
    node.sh(&format!("[ ! -e {0} ] || flock {0} true", lock.display()));
}

/// The container's namespace can be attached again, by the same name, and the address comes back.
fn assert_usable(site: &Site, pod: &Pod) {
    let runtime = site.runtime();
    let attachment = pod.attachment("eth0").runtime_config(ports(8080));
    runtime.add_ok(&attachment);
    runtime.check(&attachment).expect("CHECK of the attachment after the kill");
    runtime.del_ok(&attachment);
}

/// The moment of a run, in thousandths of the usual time: evenly spread however many there are
/// (steps of the golden ratio, modulo one).
fn moment(round: u32) -> u32 {
    round * 618 % 1000
}

/// The usual time of a step.
fn usual(site: &Site, victim: Victim) -> Duration {
    let one = |_| {
        let pod = site.node().pod();
        let attachment = pod.attachment("eth0").runtime_config(ports(8080));
        let (took, result) = one_step(site, victim, &attachment, None);
        if victim.command == "ADD" {
            site.runtime().remember(&attachment, result.expect("nobody killed it"));
        }
        site.runtime().del(&attachment).expect("DEL");
        took
    };
    let mut times: Vec<Duration> = (0..7).map(one).collect();
    times.sort_unstable();
    times[3]
}

fn kill_at(site: &Site, victim: Victim, attachment: &Attachment, limit: Duration) -> bool {
    one_step(site, victim, attachment, Some(limit)).1.is_none()
}

fn one_step(
    site: &Site,
    victim: Victim,
    attachment: &Attachment,
    limit: Option<Duration>,
) -> (Duration, Option<Value>) {
    let attached = if victim.command == "ADD" { victim.plugin } else { 2 };
    let previous = site.before(attached, attachment);
    if victim == (Victim { plugin: 0, command: "DEL" }) {
        // DEL runs in reverse order: the service plugin is done when the bridge plugin's turn comes.
        let (_, done) =
            site.step(Victim { plugin: 1, command: "DEL" }, attachment, &previous, None);
        assert!(done.is_some(), "nobody killed it");
    }
    site.step(victim, attachment, &previous, limit)
}

impl PartialEq for Victim {
    fn eq(&self, other: &Self) -> bool {
        self.plugin == other.plugin && self.command == other.command
    }
}

fn report(what: &str, killed: u32) {
    say(&format!("kill -9 during {what}: {killed} runs killed, nothing left behind"));
    assert_eq!(killed, KILLS, "{what}: too few of {RUNS} runs could be killed");
}

/// Rows: F2, F3
#[test]
fn a_link_without_bridge_killed_at_every_moment_leaves_nothing() {
    for command in ["ADD", "DEL"] {
        let killed = sweep(&Site::without_bridge(), Victim { plugin: 0, command });
        report(&format!("{command} of causeway-bridge in ptp mode"), killed);
    }
}

/// Rows: C78, F10, F11
#[test]
fn a_hundred_at_once_on_an_empty_node_all_attach_and_leave() {
    const PODS: u16 = 100;
    let site = Site::new();
    let (node, runtime) = (site.node(), site.runtime());
    let pods: Vec<Pod> = (0..PODS).map(|_| node.pod()).collect();
    let attachments: Vec<Attachment> = pods
        .iter()
        .zip(10_000..)
        .map(|(pod, port)| pod.attachment("eth0").runtime_config(ports(port)))
        .collect();
    let at_once = |work: &(dyn Fn(&Attachment) + Sync)| {
        std::thread::scope(|scope| {
            for attachment in &attachments {
                scope.spawn(move || work(attachment));
            }
        });
    };
    at_once(&|attachment| drop(runtime.add_ok(attachment)));
    let addresses: BTreeSet<String> = attachments
        .iter()
        .map(|attachment| {
            runtime.result(attachment).expect("a result")["ips"][0]["address"].to_string()
        })
        .collect();
    assert_eq!(addresses.len(), usize::from(PODS), "every address once");
    for (pod, attachment) in pods.iter().zip(&attachments) {
        pod.assert_ping("10.67.0.1");
        runtime.check(attachment).expect("CHECK");
    }
    at_once(&|attachment| runtime.del_ok(attachment));
    let names = node.link_names();
    assert!(names.iter().all(|name| !name.starts_with("veth")), "{names:?}");
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
    assert_usable(&site, &pods[0]);
    say(&format!(
        "{PODS} chains at once on an empty node: {PODS} attached, {PODS} gone, nothing left"
    ));
}

/// Rows: C19, C60, F1, F2, F3, F5, F7, F8
#[test]
fn kill_9_during_add_of_the_bridge_leaves_nothing_behind() {
    report("ADD of causeway-bridge", sweep(&Site::new(), Victim { plugin: 0, command: "ADD" }));
}

/// Rows: C19, F4, F8
#[test]
fn kill_9_during_add_of_host_ports_leaves_nothing_behind() {
    report("ADD of causeway-service", sweep(&Site::new(), Victim { plugin: 1, command: "ADD" }));
}

/// Rows: C19, C65, C66
#[test]
fn kill_9_during_del_of_the_bridge_leaves_nothing_behind() {
    report("DEL of causeway-bridge", sweep(&Site::new(), Victim { plugin: 0, command: "DEL" }));
}

/// The daemon is there in two of three runs, and away from the kill on in one of these. What it was
/// told and what waits for it say together that the container is gone, and the bystander is not.
fn sweep_of_events(command: &'static str) -> u32 {
    let site = Site::new();
    let (node, runtime) = (site.node(), site.runtime());
    let victim = Victim { plugin: 1, command };
    let place = |key: &str| site.list["plugins"][1][key].as_str().expect("a path").to_owned();
    let (socket, spool) = (PathBuf::from(place("socket")), PathBuf::from(place("spoolDir")));
    let first = FakeDaemon::start(&socket, Manner::Takes);
    let bystander_pod = node.pod();
    let bystander = bystander_pod.attachment("eth0").runtime_config(ports(7000));
    runtime.add_ok(&bystander);
    let mut told = first.heard();
    drop(first);
    let whole = usual(&site, victim);
    // The daemon reads the spool from now on.
    let spool = Spool::new(&spool);
    assert_eq!(spool.events().expect("readable"), (vec![], vec![]));
    let before = Snapshot::take(node);
    let mut killed = 0;
    for round in 0..RUNS {
        if killed == KILLS {
            break;
        }
        let pod = node.pod();
        let attachment = pod.attachment("eth0").runtime_config(ports(8080));
        let mut daemon = (round % 3 != 0).then(|| FakeDaemon::start(&socket, Manner::Takes));
        killed += u32::from(kill_at(&site, victim, &attachment, whole * moment(round) / 1000));
        if round % 3 == 1 {
            told.extend(daemon.take().expect("it runs").heard());
        }
        runtime.forget(&attachment);
        runtime.del(&attachment.clone().netns("")).expect("DEL after a kill");
        told.extend(daemon.map(|daemon| daemon.heard()).unwrap_or_default());
        let (events, bad) = spool.events().expect("readable");
        assert!(bad.is_empty(), "{bad:?}");
        for event in events {
            told.push(serde_json::to_value(&event).expect("JSON"));
            spool.remove(&event).expect("removed");
        }
        let moment = format!("{command} killed at {} of 1000", moment(round));
        assert_eq!(FakeDaemon::attached_by(&told), [bystander.id.as_str()], "{moment}: {told:#?}");
        let after = Snapshot::take(node);
        assert!(before == after, "{moment}:\n{}", before.diff(&after));
    }
    killed
}

/// Rows: C19, F8, F52, S-45
#[test]
fn kill_9_during_add_loses_and_doubles_no_endpoint() {
    report("ADD with a daemon that comes and goes", sweep_of_events("ADD"));
}

/// Rows: C19, C65, F52, S-45
#[test]
fn kill_9_during_del_loses_and_doubles_no_endpoint() {
    report("DEL with a daemon that comes and goes", sweep_of_events("DEL"));
}

/// Rows: C19, C65, C66
#[test]
fn kill_9_during_del_of_host_ports_leaves_nothing_behind() {
    report("DEL of causeway-service", sweep(&Site::new(), Victim { plugin: 1, command: "DEL" }));
}

/// What another program does to the rules of a backend.
const FLUSHES: [(&str, &str); 2] =
    [("nftables", "nft flush ruleset"), ("iptables", "iptables -t nat -F; iptables -t raw -F")];

/// A daemon that puts rules back at every moment of a DEL brings nothing of it back, killed or not.
///
/// Rows: RC1
#[test]
fn kill_9_during_del_while_rules_are_repaired_brings_nothing_back() {
    // As many repairs in a row are at once.
    const ROUNDS: u32 = 16;
    for (backend, flush) in FLUSHES {
        let site = Site::with_rules_by(backend);
        let (node, runtime) = (site.node(), site.runtime());
        let bystander_pod = node.pod();
        let bystander = bystander_pod.attachment("eth0").runtime_config(ports(7000));
        runtime.add_ok(&bystander);
        let mut killed = 0;
        for plugin in [0, 1] {
            let victim = Victim { plugin, command: "DEL" };
            let whole = usual(&site, victim);
            let daemon = Daemon::start(node);
            for round in 0..ROUNDS {
                let pod = node.pod();
                let attachment = pod.attachment("eth0").runtime_config(ports(8080));
                let previous = site.before(2, &attachment);
                if plugin == 0 {
                    let first = Victim { plugin: 1, command: "DEL" };
                    site.step(first, &attachment, &previous, None);
                }
                node.sh(flush);
                let limit = whole * moment(round) / 1000;
                killed +=
                    u32::from(site.step(victim, &attachment, &previous, Some(limit)).1.is_none());
                runtime.forget(&attachment);
                runtime.del(&attachment.clone().netns("")).expect("DEL after a kill");
                daemon
                    .until("the bystander's rules are back", || runtime.check(&bystander).is_ok());
                let (rules, id) = (node.rules(), &attachment.id);
                let back = rules.lines().find(|line| line.contains("8080") || line.contains(id));
                assert_eq!(back, None, "{backend}, plugin {plugin}, killed after {limit:?}");
            }
        }
        say(&format!("{backend}: {killed} of {} DELs killed under repairs", 2 * ROUNDS));
        assert!(killed > 0, "{backend}: none could be killed");
        runtime.del_ok(&bystander);
    }
}

/// Containers come and go while another program removes all rules again and again.
///
/// Rows: RC1
#[test]
fn sixty_containers_come_and_go_under_flushes() {
    const AT_ONCE: u16 = 6;
    const EACH: u16 = 10;
    for (backend, flush) in FLUSHES {
        let site = Site::with_rules_by(backend);
        let (node, runtime) = (site.node(), site.runtime());
        let daemon = Daemon::start(node);
        let stays_pod = node.pod();
        let stays = stays_pod.attachment("eth0").runtime_config(ports(7000));
        runtime.add_ok(&stays);
        let pods: Vec<Pod> = (0..AT_ONCE).map(|_| node.pod()).collect();
        let come_and_go = &|pod: &Pod, port: u16| {
            for _ in 0..EACH {
                let one = pod.attachment("eth0").runtime_config(ports(port));
                runtime.add_ok(&one);
                runtime.del_ok(&one);
            }
        };
        let mut flushes = 0;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (pods.iter().zip(8000..))
                .map(|(pod, port)| scope.spawn(move || come_and_go(pod, port)))
                .collect();
            // The daemon's pace of repairs is a second and more under a flood of them. A thread that
            // panicked has finished too.
            while threads.iter().any(|thread| !thread.is_finished()) {
                node.sh(flush);
                flushes += 1;
            }
        });
        assert!(flushes > 1, "{backend}: {flushes} flushes");
        daemon.until("what stays is whole", || runtime.check(&stays).is_ok());
        let rules = node.rules();
        let back = rules.lines().find(|line| (8000..8006).any(|n| line.contains(&n.to_string())));
        assert_eq!(back, None, "{backend}");
        assert_eq!(node.leases().len(), 1, "{backend}");
        runtime.del_ok(&stays);
        say(&format!("{backend}: {} ADDs and DELs under {flushes} flushes", AT_ONCE * EACH));
    }
}
