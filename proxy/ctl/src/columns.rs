//! Rows of objects with kubectl's columns, words and placeholders.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::age;
use crate::kind::{self, Kind};

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

/// How many addresses or ports a cell shows before `+ n more...`.
const SHOWN: usize = 3;

/// How rows are shown.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) kind: Kind,
    pub(crate) wide: bool,
    /// With the namespace as first column.
    pub(crate) namespace: bool,
    /// With the kind before the name, if several kinds are shown.
    pub(crate) prefixed: bool,
}

impl Look {
    pub(crate) fn header(self) -> Vec<&'static str> {
        let namespace = self.namespace.then_some("NAMESPACE");
        namespace.into_iter().chain(header(self.kind, self.wide)).collect()
    }

    pub(crate) fn row(self, object: &Value, now: u64) -> Vec<String> {
        let mut cells = cells(self.kind, object, self.wide, now);
        if self.prefixed {
            cells[0] = format!("{}/{}", self.kind.singular(), cells[0]);
        }
        if self.namespace {
            cells.insert(0, kind::namespace(object).to_owned());
        }
        cells
    }
}

/// Column titles.
fn header(kind: Kind, wide: bool) -> Vec<&'static str> {
    let (always, when_wide): (&[_], &[_]) = match kind {
        Kind::Service => {
            (&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"], &["SELECTOR"])
        }
        Kind::Endpoints => (&["NAME", "ENDPOINTS", "AGE"], &[]),
        Kind::EndpointSlice => (&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"], &[]),
        Kind::Pod => (
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
            &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
        ),
        Kind::Node => (
            &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
            &["INTERNAL-IP", "SUBNET", "VTEP", "MTU", "PROBLEM"],
        ),
        Kind::Lease => (&["ADDRESS", "NETWORK", "CONTAINER-ID", "IFNAME", "SINCE"], &[]),
    };
    let mut header = always.to_vec();
    if wide {
        header.extend(when_wide);
    }
    header
}

/// The cells of an object at a time (seconds since 1970).
pub(crate) fn cells(kind: Kind, object: &Value, wide: bool, now: u64) -> Vec<String> {
    let mut cells = match kind {
        Kind::Service => service(object, now),
        Kind::Endpoints => endpoints(object, now),
        Kind::EndpointSlice => slice(object, now),
        Kind::Pod => pod(object, now),
        Kind::Node => node(object, now),
        Kind::Lease => lease(object, now),
    };
    // All beyond the columns that are always there.
    cells.truncate(header(kind, wide).len());
    cells
}

fn service(object: &Value, now: u64) -> Vec<String> {
    let spec = &object["spec"];
    vec![
        text(&object["metadata"]["name"], NONE),
        text(&spec["type"], "ClusterIP"),
        text(spec["clusterIPs"].get(0).unwrap_or(&spec["clusterIP"]), NONE),
        external_ip(object),
        or(NONE, &join(&spec["ports"], service_port)),
        created(object, now),
        labels(&spec["selector"]),
    ]
}

/// What reaches a service from outside, as kubectl's column has it, but never cut.
fn external_ip(object: &Value) -> String {
    let spec = &object["spec"];
    let own = join(&spec["externalIPs"], plain);
    match spec["type"].as_str() {
        Some("ExternalName") => text(&spec["externalName"], NONE),
        Some("LoadBalancer") => {
            let ingress: BTreeSet<String> = list(&object["status"]["loadBalancer"]["ingress"])
                .map(|one| or(&plain(&one["hostname"]), &plain(&one["ip"])))
                .collect();
            let given = ingress.into_iter().collect::<Vec<_>>().join(",");
            match (given.as_str(), own.as_str()) {
                ("", "") => "<pending>".to_owned(),
                ("", _) => own,
                (_, "") => given,
                _ => format!("{given},{own}"),
            }
        }
        _ => or(NONE, &own),
    }
}

fn service_port(port: &Value) -> String {
    let number = plain(&port["port"]);
    let protocol = text(&port["protocol"], "TCP");
    match port["nodePort"].as_u64() {
        Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn endpoints(object: &Value, now: u64) -> Vec<String> {
    let mut all = Vec::new();
    for subset in list(&object["subsets"]) {
        let addresses = || list(&subset["addresses"]).map(|address| plain(&address["ip"]));
        if list(&subset["ports"]).next().is_none() {
            all.extend(addresses());
        }
        for port in list(&subset["ports"]) {
            all.extend(addresses().map(|ip| socket(&ip, &plain(&port["port"]))));
        }
    }
    vec![text(&object["metadata"]["name"], NONE), some_of(&all, NONE), created(object, now)]
}

fn slice(object: &Value, now: u64) -> Vec<String> {
    let port = |port: &Value| text(&port["port"], &text(&port["name"], "*"));
    let ports: Vec<String> = list(&object["ports"]).map(port).collect();
    let endpoints: Vec<String> =
        list(&object["endpoints"]).flat_map(|one| list(&one["addresses"])).map(plain).collect();
    vec![
        text(&object["metadata"]["name"], NONE),
        text(&object["addressType"], NONE),
        some_of(&ports, UNSET),
        some_of(&endpoints, UNSET),
        created(object, now),
    ]
}

/// The pod's name; if it is the container's id, for want of a better one, the name that nerdctl
/// gave the container. That is a label as any other: it is shown, and decides nothing.
fn pod_name(object: &Value) -> String {
    let meta = &object["metadata"];
    let label = |name: &str| meta["labels"][name].as_str().filter(|text| !text.is_empty());
    let id = &meta["annotations"]["causeway.io/container-id"];
    match label("nerdctl/name").filter(|_| meta["name"].is_string() && meta["name"] == *id) {
        None => text(&meta["name"], NONE),
        Some(name) => match label("nerdctl/namespace") {
            Some(namespace) if namespace != kind::namespace(object) => {
                format!("{name} ({namespace})")
            }
            _ => name.to_owned(),
        },
    }
}

fn pod(object: &Value, now: u64) -> Vec<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let containers: Vec<&Value> = list(&status["containerStatuses"]).collect();
    let ready = if containers.is_empty() {
        format!("{}/1", u8::from(condition(object, "Ready").is_none_or(|is| is == "True")))
    } else {
        let ready = containers.iter().filter(|one| one["ready"] == true).count();
        format!("{ready}/{}", containers.len())
    };
    let restarts: u64 = containers.iter().filter_map(|one| one["restartCount"].as_u64()).sum();
    let state = if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating".to_owned()
    } else {
        text(&status["phase"], "Running")
    };
    let ip = text(status["podIPs"].get(0).map_or(&status["podIP"], |first| &first["ip"]), NONE);
    vec![
        pod_name(object),
        ready,
        state,
        restarts.to_string(),
        created(object, now),
        ip,
        text(&spec["nodeName"], NONE),
        text(&status["nominatedNodeName"], NONE),
        NONE.to_owned(),
    ]
}

fn node(object: &Value, now: u64) -> Vec<String> {
    const ROLE: &str = "node-role.kubernetes.io/";
    let state = match condition(object, "Ready") {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    };
    let info = &object["status"]["nodeInfo"];
    let meta = &object["metadata"];
    let roles: Vec<&str> = meta["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix(ROLE))
        .collect();
    let addresses: Vec<String> = list(&object["status"]["addresses"])
        .filter(|one| one["type"] == "InternalIP")
        .map(|one| plain(&one["address"]))
        .collect();
    let annotation = |name: &str| text(&meta["annotations"][name], NONE);
    vec![
        text(&meta["name"], NONE),
        state.to_owned(),
        or(NONE, &roles.join(",")),
        created(object, now),
        text(&info["causewaydVersion"], &text(&info["kubeletVersion"], UNKNOWN)),
        or(NONE, &addresses.join(",")),
        or(NONE, &join(&object["spec"]["podCIDRs"], plain)),
        annotation("causeway.io/vtep-mac"),
        annotation("causeway.io/overlay-mtu"),
        node_problem(object),
    ]
}

/// What keeps a node's containers from being reached, or why it is not ready.
fn node_problem(object: &Value) -> String {
    let conditions = || list(&object["status"]["conditions"]);
    let message = |name: &str, fine: &str| {
        let found = conditions().find(|one| one["type"] == name && one["status"] != fine)?;
        Some(plain(&found["message"])).filter(|message| !message.is_empty())
    };
    let unreachable = message("NetworkUnavailable", "False");
    unreachable.or_else(|| message("Ready", "True")).unwrap_or_else(|| NONE.to_owned())
}

fn lease(object: &Value, now: u64) -> Vec<String> {
    let since = match object["since"].as_u64() {
        // A repair found the attachment and no lease of it.
        Some(0) => age::since(None, now),
        Some(seconds) => age::age(now.saturating_sub(seconds)),
        None => age::since(object["since"].as_str(), now),
    };
    vec![
        text(&object["address"], NONE),
        text(&object["network"], NONE),
        text(&object["containerID"], NONE),
        text(&object["ifname"], NONE),
        since,
    ]
}

/// Labels as `a=b,c=d`, or `<none>`.
pub(crate) fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", plain(value))).collect();
    or(NONE, &pairs.join(","))
}

/// Address and port, IPv6 in brackets.
pub(crate) fn socket(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The first few, and how many more there are.
pub(crate) fn some_of(all: &[String], none: &str) -> String {
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len() {
        0 => none.to_owned(),
        count if count > SHOWN => format!("{shown} + {} more...", count - SHOWN),
        _ => shown,
    }
}

/// A string or number as text; a placeholder for anything else and for an empty string.
pub(crate) fn text(value: &Value, placeholder: &str) -> String {
    or(placeholder, &plain(value))
}

/// The elements of an array, none if it is not there.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

fn or(placeholder: &str, text: &str) -> String {
    if text.is_empty() { placeholder.to_owned() } else { text.to_owned() }
}

fn join(array: &Value, show: impl Fn(&Value) -> String) -> String {
    list(array).map(show).collect::<Vec<_>>().join(",")
}

fn created(object: &Value, now: u64) -> String {
    age::since(object["metadata"]["creationTimestamp"].as_str(), now)
}

/// Status of one of an object's conditions.
fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    list(&object["status"]["conditions"]).find(|one| one["type"] == name)?["status"].as_str()
}

#[cfg(test)]
mod tests;
