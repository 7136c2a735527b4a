//! What the tests of this package share: a plugin that records its calls, an environment with
//! changes, and replies as one line of text.

use std::cell::RefCell;
use std::io;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::*;

pub(crate) const ABOUT: About = About {
    name: "causeway-test",
    version: "1.2.3",
    supported: &Version::ALL,
    known_args: &["EXTRA"],
};

/// Records the commands it gets. ADD answers with `prevResult` or an empty result.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) calls: RefCell<Vec<&'static str>>,
    pub(crate) fail: Option<Error>,
    pub(crate) panics: bool,
}

impl Recorder {
    fn note(&self, call: &'static str) -> Result<(), Error> {
        self.calls.borrow_mut().push(call);
        assert!(!self.panics, "handler of {call} broke");
        self.fail.clone().map_or(Ok(()), Err)
    }
}

impl Plugin for Recorder {
    fn add(&self, request: &Request) -> Result<CniResult, Error> {
        self.note("add")?;
        Ok(request.prev_result.clone().unwrap_or_default())
    }
    fn del(&self, _request: &Request) -> Result<(), Error> {
        self.note("del")
    }
    fn check(&self, _request: &Request) -> Result<(), Error> {
        self.note("check")
    }
    fn gc(&self, _request: &Request) -> Result<(), Error> {
        self.note("gc")
    }
    fn status(&self, _request: &Request) -> Result<(), Error> {
        self.note("status")
    }
    fn undo_add(&self, _request: &Request) {
        drop(self.note("undo"));
    }
}

/// A complete environment for `command` with `changes`, written `K=V K=V`; `K=` empties a variable.
pub(crate) fn env(command: &str, changes: &str) -> Environment {
    let base =
        "CNI_CONTAINERID=Abc_1.x-y CNI_NETNS=/run/netns/a CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin";
    let pairs = base.split(' ').chain(changes.split(' ').filter(|change| !change.is_empty()));
    let mut env: Environment = pairs
        .map(|pair| pair.split_once('=').expect("K=V"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    env.insert("CNI_COMMAND".to_owned(), command.to_owned());
    env
}

/// A request with `config`, in a complete environment.
pub(crate) fn request(command: &str, config: &Value) -> Result<Request, Error> {
    request_from(command, &config.to_string())
}

pub(crate) fn request_from(command: &str, stdin: &str) -> Result<Request, Error> {
    Request::parse(&ABOUT, env(command, ""), || Ok(stdin.as_bytes().to_vec()))
}

/// Dispatches to `plugin` outside of its own namespace.
pub(crate) fn call(plugin: &dyn Plugin, env: Environment, stdin: &str) -> Reply {
    dispatch(plugin, &ABOUT, env, || Ok(stdin.as_bytes().to_vec()), |_| false)
}

/// stdin that must not be read.
pub(crate) fn unread() -> io::Result<Vec<u8>> {
    panic!("stdin was read")
}

/// A reply as a line: `ok`, `ok JSON`, or `CODE@VERSION MSG | DETAILS`. Fails on a reply that is
/// none of these.
pub(crate) fn line(reply: &Reply) -> String {
    assert_eq!(reply.stderr, "");
    if reply.exit == 0 && reply.stdout.is_empty() {
        return "ok".to_owned();
    }
    let value: Value = serde_json::from_slice(&reply.stdout).expect("exactly one JSON value");
    if reply.exit == 0 {
        return format!("ok {value}");
    }
    assert_eq!(reply.exit, 1);
    assert_eq!(reply.added, None);
    let members: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(members, ["cniVersion", "code", "details", "msg"]);
    let text = |key: &str| value[key].as_str().expect("a string").to_owned();
    let head = format!("{}@{} {}", value["code"], text("cniVersion"), text("msg"));
    if text("details").is_empty() { head } else { format!("{head} | {}", text("details")) }
}

/// Any JSON, with the keys of the protocol often among its keys.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| json!(f64::from(number) / 2.0)),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any_key(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let known = proptest::sample::select(vec![
        "name",
        "cniVersion",
        "prevResult",
        "interfaces",
        "ips",
        "IPS",
        "routes",
        "dns",
        "ip4",
        "ip6",
        "ip",
        "address",
        "gateway",
        "interface",
        "mac",
        "sandbox",
        "mtu",
        "dst",
        "gw",
        "table",
        "scope",
        "nameservers",
        "cni.dev/valid-attachments",
        "containerID",
        "ifname",
        "code",
        "msg",
        "details",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any_text()]
}

fn any_text() -> impl Strategy<Value = String> {
    let known = proptest::sample::select(vec![
        "",
        "net",
        "0.1.0",
        "0.2.0",
        "0.3.1",
        "0.4.0",
        "1.0.0",
        "1.1.0",
        "10.0.0.2/24",
        "10.0.0.1",
        "fd00::2/64",
        "::ffff:10.0.0.2/120",
        "::ffff:1.2.3.4/24",
        "0.0.0.0/0",
        "AA-bb",
        "eth0",
    ]);
    let free = proptest::collection::vec(any::<char>(), 0..6).prop_map(String::from_iter);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => free]
}
