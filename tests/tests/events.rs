//! Events of containers: from the plugin to the daemon, by its socket or the spool.

use std::fs;
use std::path::PathBuf;

use causeway_tests::{
    Attachment, Cni, Daemon, FakeDaemon, Lab, Manner, Node, Pod, Runtime, Snapshot,
};
use serde_json::{Value, json};

const SUBNET: &str = "10.68.0.0/24";

/// A node with a network and what its plugin tells.
struct Site {
    lab: Lab,
    list: Value,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::one_node();
        let list = lab.nodes[0].conflist("events", SUBNET);
        Self { lab, list }
    }

    /// The same with keys of the service plugin.
    fn with(keys: Value) -> Self {
        let mut site = Self::new();
        for (key, value) in keys.as_object().expect("a map") {
            site.list["plugins"][1][key] = value.clone();
        }
        site
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn runtime(&self) -> Runtime<'_> {
        Runtime::new(self.node(), self.list.clone())
    }

    fn place(&self, key: &str) -> PathBuf {
        self.list["plugins"][1][key].as_str().expect("a path").into()
    }

    fn socket(&self) -> PathBuf {
        self.place("socket")
    }

    fn daemon(&self, manner: Manner) -> FakeDaemon {
        FakeDaemon::start(&self.socket(), manner)
    }

    fn spool(&self) -> PathBuf {
        self.place("spoolDir")
    }

    /// Events that wait in the spool.
    fn spooled(&self) -> Vec<Value> {
        let mut events = Vec::new();
        for entry in fs::read_dir(self.spool()).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| ending == "json") {
                let bytes = fs::read(&path).expect("an event");
                events.push(serde_json::from_slice(&bytes).expect("JSON"));
            }
        }
        events
    }

    /// As a daemon that has read the spool, and taken all of it.
    fn read_spool(&self) -> Vec<Value> {
        let spool = causeway_api::Spool::new(&self.spool());
        let (events, bad) = spool.events().expect("readable");
        assert!(bad.is_empty(), "{bad:?}");
        for event in &events {
            spool.remove(event).expect("removed");
        }
        events.iter().map(|event| serde_json::to_value(event).expect("JSON")).collect()
    }
}

fn ports(attachment: Attachment) -> Attachment {
    attachment.runtime_config(
        json!({ "portMappings": [{ "hostPort": 7000, "containerPort": 80, "protocol": "tcp" }] }),
    )
}

fn eth0(pod: &Pod) -> Attachment {
    pod.attachment("eth0")
}

/// An event of ADD holds all that is known; DEL takes it back before it returns. Also for containers
/// without host ports.
///
/// Rows: S-45
#[test]
fn the_daemon_is_told_of_every_container() {
    let site = Site::with(json!({ "labels": { "app": "web", "tier": "front" } }));
    let daemon = site.daemon(Manner::Takes);
    let pod = site.node().pod();
    let mut attachment = eth0(&pod);
    attachment.args = "IgnoreUnknown=1;K8S_POD_NAME=web-1;CAUSEWAY_LABELS=tier:db".into();
    let result = site.runtime().add_ok(&attachment);
    let heard = daemon.heard();
    let [event] = heard.as_slice() else { panic!("{heard:?}") };
    let address = result["ips"][0]["address"].as_str().expect("an address");
    let key = json!({ "network": "events", "containerID": pod.id, "ifname": "eth0" });
    assert_eq!(event["key"], key);
    assert_eq!(event["record"]["ips"], json!([address.split('/').next()]));
    assert_eq!(event["record"]["netns"], json!(attachment.netns));
    let labels = json!({ "app": "web", "tier": "db", "causeway.io/network": "events",
                         "causeway.io/pod-name": "web-1", "causeway.io/pod-namespace": "default" });
    assert_eq!(event["record"]["labels"], labels);
    assert!(site.spooled().is_empty());

    site.runtime().del_ok(&attachment);
    let heard = daemon.heard();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[1]["key"], key);
    assert!(heard[1]["record"].is_null());
    assert!(heard[1]["seq"].as_u64() > heard[0]["seq"].as_u64());
    assert_eq!(heard[1]["bootId"], heard[0]["bootId"]);
    assert!(site.spooled().is_empty());
}

/// Without a daemon there is one small file per container, and nothing after DEL.
///
/// Rows: F52
#[test]
fn without_a_daemon_the_spool_holds_what_is_attached() {
    let site = Site::new();
    let runtime = site.runtime();
    let first = site.node().pod();
    runtime.add_ok(&eth0(&first));
    runtime.del_ok(&eth0(&first));
    let before = Snapshot::take(site.node());
    let pods: Vec<Pod> = (0..3).map(|_| site.node().pod()).collect();
    for pod in &pods {
        runtime.add_ok(&eth0(pod));
    }
    assert_eq!(site.spooled().len(), 3);
    // A socket that a killed daemon has left is none.
    drop(std::os::unix::net::UnixListener::bind(site.socket()).expect("a socket"));
    for pod in &pods {
        runtime.del_ok(&eth0(pod));
        runtime.del_ok(&eth0(pod));
    }
    fs::remove_file(site.socket()).expect("removed");
    assert_eq!(before.diff(&Snapshot::take(site.node())), "");
}

/// A DEL that finds no daemon leaves an event only if a daemon may know the container.
///
/// Rows: F52
#[test]
fn a_daemon_that_may_know_the_container_finds_the_end_of_it() {
    let site = Site::new();
    let runtime = site.runtime();
    let pods: Vec<Pod> = (0..4).map(|_| site.node().pod()).collect();
    let [told, read, unread, broken] = [0, 1, 2, 3].map(|number| eth0(&pods[number]));
    let daemon = site.daemon(Manner::Takes);
    runtime.add_ok(&told);
    daemon.be(Manner::Breaks);
    runtime.add_ok(&broken);
    drop(daemon);
    runtime.add_ok(&read);
    assert_eq!(site.read_spool().len(), 2);
    runtime.add_ok(&unread);
    for attachment in [&told, &read, &unread, &broken] {
        runtime.del_ok(attachment);
    }
    let mut ids: Vec<String> = Vec::new();
    for event in site.spooled() {
        assert!(event["record"].is_null());
        ids.push(event["key"]["containerID"].as_str().expect("an id").to_owned());
    }
    ids.sort();
    let mut expected = [&told, &read, &broken].map(|one| one.id.clone());
    expected.sort();
    assert_eq!(ids, expected);

    // The end waits in the spool, and another beginning and end go by: it is told all the same.
    runtime.add_ok(&told);
    runtime.del_ok(&told);
    assert!(site.spooled().iter().any(|e| e["key"]["containerID"] == json!(told.id)));
    // One that answers again is told at once, and the spool is empty.
    let daemon = site.daemon(Manner::Takes);
    for attachment in [&told, &read, &broken] {
        runtime.add_ok(attachment);
        runtime.del_ok(attachment);
    }
    assert_eq!(site.spooled(), [Value::Null; 0]);
    assert_eq!(daemon.attached(&[]), [""; 0]);
}

/// Whatever the daemon does, ADD and DEL succeed, and the last word is with it or in the spool.
///
/// Rows: F52
#[test]
fn a_daemon_that_fails_costs_nothing_but_time() {
    for manner in [Manner::Fails, Manner::Breaks, Manner::Hangs] {
        let site = Site::new();
        let runtime = site.runtime();
        let daemon = site.daemon(manner);
        let pod = site.node().pod();
        let attachment = ports(eth0(&pod));
        runtime.add_ok(&attachment);
        assert_eq!(daemon.attached(&site.spooled()), [pod.id.as_str()], "{manner:?}");
        assert_eq!(site.spooled().len(), 1, "{manner:?}");
        runtime.del_ok(&attachment);
        assert_eq!(daemon.attached(&site.spooled()), [""; 0], "{manner:?}");
        assert!(!site.node().nft().contains("7000"), "{manner:?}");
    }
}

/// Rows: C76, C60
#[test]
fn i7_where_the_daemon_is_required_a_failed_add_leaves_nothing() {
    let site = Site::with(json!({ "requireDaemon": true }));
    let runtime = site.runtime();
    let daemon = site.daemon(Manner::Takes);
    let first = site.node().pod();
    runtime.add_ok(&ports(eth0(&first)));
    runtime.del_ok(&ports(eth0(&first)));
    let before = Snapshot::take(site.node());
    let pod = site.node().pod();
    for manner in [Manner::Fails, Manner::Breaks] {
        daemon.be(manner);
        let failed = runtime.add(&ports(eth0(&pod))).expect_err("the daemon is required");
        assert_eq!(failed.error_code(), 104);
        daemon.be(Manner::Takes);
        runtime.del_ok(&ports(eth0(&pod)));
        assert_eq!(before.diff(&Snapshot::take(site.node())), "");
        assert_eq!(daemon.attached(&site.spooled()), [""; 0]);
    }
}

/// If neither daemon nor spool takes the event, ADD fails whole. DEL removes all the same, and is
/// to be repeated while a daemon may know the container.
///
/// Rows: F23
#[test]
fn an_event_that_nobody_takes_fails_add_and_is_tried_again_by_del() {
    let site = Site::new();
    let runtime = site.runtime();
    let pod = site.node().pod();
    let attachment = ports(eth0(&pod));
    // A file where the directory is to be.
    fs::create_dir_all(site.spool().parent().expect("a folder")).expect("made");
    fs::write(site.spool(), "").expect("written");
    let failed = runtime.add(&attachment).expect_err("the event is lost");
    assert_eq!(failed.error_code(), 5);
    assert!(failed.error()["msg"].as_str().expect("text").starts_with("spoolDir: "));
    assert!(!site.node().nft().contains("7000"));
    runtime.del_ok(&attachment);

    let daemon = site.daemon(Manner::Takes);
    runtime.add_ok(&attachment);
    drop(daemon);
    assert_eq!(runtime.del(&attachment).expect_err("not told").error_code(), 5);
    assert!(!site.node().nft().contains("7000"), "{}", site.node().nft());
    fs::remove_file(site.spool()).expect("removed");
    runtime.del_ok(&attachment);
    assert_eq!(site.spooled().len(), 1);
}

/// DEL knows by its record whom to tell: the configuration may be another one by then.
///
/// Rows: F34
#[test]
fn del_tells_whom_add_told() {
    let site = Site::new();
    let daemon = site.daemon(Manner::Takes);
    let pod = site.node().pod();
    site.runtime().add_ok(&eth0(&pod));
    let config = json!({ "cniVersion": "1.1.0", "name": "events", "type": "causeway-service",
                         "runDir": site.node().run_dir(), "socket": 1, "spoolDir": "/nowhere" });
    Cni::new(site.node(), "causeway-service", "DEL", &config)
        .attachment(&eth0(&pod))
        .run()
        .silent();
    assert_eq!(daemon.attached(&[]), [""; 0]);
    site.runtime().del_ok(&eth0(&pod));
}

/// Rows: C74
#[test]
fn gc_tells_of_the_containers_that_are_gone() {
    let site = Site::new();
    let runtime = site.runtime();
    let daemon = site.daemon(Manner::Takes);
    let pods: Vec<Pod> = (0..3).map(|_| site.node().pod()).collect();
    for pod in &pods[..2] {
        runtime.add_ok(&eth0(pod));
    }
    runtime.add_ok(&ports(eth0(&pods[2])));
    runtime.gc(&[&eth0(&pods[0])]).expect("GC");
    assert_eq!(daemon.attached(&[]), [pods[0].id.as_str()]);
}

/// Labels that are none are refused with their field, before anything is made.
#[test]
fn a_bad_label_is_code_7() {
    let site = Site::with(json!({ "labels": { "app": "a b" } }));
    let pod = site.node().pod();
    let failed = site.runtime().add(&eth0(&pod)).expect_err("no label");
    assert_eq!(failed.error_code(), 7);
    assert!(failed.error()["msg"].as_str().expect("text").starts_with("labels: "));
    site.runtime().del_ok(&eth0(&pod));
    assert!(site.spooled().is_empty());
}

/// The same with the real daemon: what is attached while it is away is there when it is back, and
/// what is removed meanwhile is not.
///
/// Rows: S-45, F52
#[test]
fn causewayd_counts_what_is_attached_through_stops_and_kills() {
    let site = Site::new();
    let runtime = site.runtime();
    let pods: Vec<Pod> = (0..4).map(|_| site.node().pod()).collect();
    let ids = |daemon: &Daemon<'_>| {
        let list = daemon.get("/v1/pods");
        let items = list["items"].as_array().expect("a list").clone();
        let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
        items.iter().map(name).collect::<Vec<_>>()
    };
    let of = |numbers: &[usize]| {
        let mut ids: Vec<String> = numbers.iter().map(|n| pods[*n].id.clone()).collect();
        ids.sort();
        ids
    };
    runtime.add_ok(&eth0(&pods[0]));
    let mut daemon = Daemon::start(site.node());
    assert_eq!(ids(&daemon), of(&[0]));
    runtime.add_ok(&eth0(&pods[1]));
    assert_eq!(ids(&daemon), of(&[0, 1]));
    daemon.kill();
    runtime.del_ok(&eth0(&pods[0]));
    runtime.add_ok(&eth0(&pods[2]));
    daemon.again();
    assert_eq!(ids(&daemon), of(&[1, 2]));
    daemon.stop();
    runtime.del_ok(&eth0(&pods[1]));
    runtime.add_ok(&eth0(&pods[3]));
    runtime.del_ok(&eth0(&pods[3]));
    daemon.again();
    assert_eq!(ids(&daemon), of(&[2]));
    daemon.kill();
    daemon.again();
    assert_eq!(ids(&daemon), of(&[2]));
    runtime.del_ok(&eth0(&pods[2]));
    assert_eq!(ids(&daemon), [""; 0]);
    daemon.kill();
    daemon.again();
    assert_eq!(ids(&daemon), [""; 0]);
}
