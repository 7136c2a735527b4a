//! What is in a namespace, and how a node's state differs between two moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::{Node, Ns, bins, finish};

impl Ns {
    /// The links, as `ip -j -d link` tells them.
    pub fn links(&self) -> Vec<Value> {
        self.ip_json("-d link show")
    }

    /// The link of this name, if there is one.
    pub fn link(&self, name: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == name)
    }

    /// The names of all links, sorted.
    pub fn link_names(&self) -> BTreeSet<String> {
        let links = self.links();
        links.iter().filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect()
    }

    /// The global addresses of a link as `ADDRESS/PREFIX`, IPv4 first as the kernel lists them.
    pub fn addresses(&self, link: &str) -> Vec<String> {
        let found = self.ip_json(&format!("addr show dev {link} scope global"));
        let infos = found.iter().filter_map(|one| one["addr_info"].as_array()).flatten();
        // iproute2 prints an empty object for an address that the scope filtered out.
        infos
            .filter_map(|info| Some(format!("{}/{}", info["local"].as_str()?, info["prefixlen"])))
            .collect()
    }

    /// The routes of all tables and both families, without the `local` table.
    pub fn routes(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for family in ["-4", "-6"] {
            all.extend(self.ip_json(&format!("{family} -d route show table all")));
        }
        all.retain(|route| route["table"] != "local");
        all
    }

    /// `nft list ruleset` without counters and other state.
    pub fn nft(&self) -> String {
        self.sh("nft -s list ruleset")
    }

    /// `iptables-save` and `ip6tables-save` without counters and comments with dates.
    pub fn iptables(&self) -> String {
        let text = self.sh("iptables-save 2>/dev/null; ip6tables-save 2>/dev/null");
        let mut kept = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            kept.push_str(line.split_once(" [").map_or(line, |(policy, _)| policy));
            kept.push('\n');
        }
        kept
    }

    /// `nft` and `iptables-save` output together.
    pub fn rules(&self) -> String {
        format!("{}{}", self.nft(), self.iptables())
    }

    /// What `ip -j` says.
    pub fn ip_json(&self, arguments: &str) -> Vec<Value> {
        let text = self.sh(&format!("ip -j {arguments}"));
        if text.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("ip -j {arguments}: {e}: {text}"))
    }
}

impl Node {
    /// The leases below [`Node::data_dir`], as `causeway-ipam show` prints them.
    pub fn leases(&self) -> Vec<Value> {
        let entries = std::fs::read_dir(self.data_dir());
        let mut entries = entries.unwrap_or_else(|e| panic!("list the node's data: {e}"));
        if !entries.any(|entry| is_database(&entry.expect("a folder entry").path())) {
            return Vec::new();
        }
        let mut command = self.command(bins::ours("causeway-ipam"));
        command.args(["show", "--data-dir"]).arg(self.data_dir());
        let text = finish(command, b"").ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("causeway-ipam show: {e}: {text}"))
    }
}

/// All of a node that a plugin could change: links, addresses, routes, permanent neighbours and FDB
/// entries, policy rules, firewall rules, leases, and files below its state directories. Lock files, empty
/// directories and the inside of a lease database do not count: they stay by design. Neither does
/// what comes and goes by itself: timers, carrier, link-local addresses, their routes and
/// solicited-node groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<&'static str, Vec<String>>);

impl Snapshot {
    /// Takes the state of a node with its state directories.
    pub fn take(node: &Node) -> Self {
        let mut snapshot = Self::of(node);
        let mut files = Vec::new();
        walk(node.dir(), node.dir(), &mut files);
        files.sort();
        snapshot.0.insert("files", files);
        snapshot.0.insert("leases", node.leases().iter().map(Value::to_string).collect());
        snapshot
    }

    /// Takes the network state of a namespace.
    pub fn of(ns: &Ns) -> Self {
        let sh = |script: &str| ns.sh(script).lines().map(str::to_owned).collect::<Vec<_>>();
        Self(BTreeMap::from([
            ("links", ns.links().into_iter().map(steady).collect()),
            ("addresses", sh("ip -o addr show | sed '/scope link/d; s/valid_lft.*//'")),
            ("routes", steady_routes(ns.routes())),
            ("policy rules", sh("ip rule show; ip -6 rule show")),
            ("neighbours", sh("ip neigh show nud permanent; ip neigh show proxy")),
            ("fdb", sh("bridge fdb show | grep -w permanent | grep -v ^33:33:ff: || true")),
            ("nft", ns.nft().lines().map(str::to_owned).collect()),
            ("iptables", ns.iptables().lines().map(str::to_owned).collect()),
        ]))
    }

    /// Lines that only one side has, `- ` for `self` and `+ ` for `later`, grouped; empty when equal.
    pub fn diff(&self, later: &Self) -> String {
        let mut text = String::new();
        for (part, before) in &self.0 {
            let after = &later.0[part];
            if before == after {
                continue;
            }
            let lost = before.iter().filter(|line| !after.contains(line));
            let gained = after.iter().filter(|line| !before.contains(line));
            writeln!(text, "{part}:").expect("writing to a String");
            for (sign, line) in lost.map(|l| ('-', l)).chain(gained.map(|l| ('+', l))) {
                writeln!(text, "  {sign} {line}").expect("writing to a String");
            }
        }
        text
    }

    /// Panics with the difference unless `later` is equal.
    pub fn assert_same(&self, later: &Self) {
        assert!(self == later, "the state of the node changed:\n{}", self.diff(later));
    }
}

/// A link without what changes by itself.
fn steady(mut link: Value) -> String {
    fn strip(value: &mut Value) {
        let Value::Object(members) = value else { return };
        members.retain(|key, _| {
            let passing = ["operstate", "state", "link_netnsid", "message_age", "topology_change"];
            !key.ends_with("timer") && !passing.contains(&key.as_str())
        });
        members.values_mut().for_each(strip);
    }
    strip(&mut link);
    without(&mut link["flags"], &["LOWER_UP", "NO-CARRIER", "RUNNING"]);
    link.to_string()
}

fn steady_routes(mut routes: Vec<Value>) -> Vec<String> {
    routes.retain(|route| route["dst"] != "fe80::/64" && route["dst"] != "ff00::/8");
    for route in &mut routes {
        without(&mut route["flags"], &["linkdown", "dead"]);
    }
    routes.iter().map(Value::to_string).collect()
}

fn without(flags: &mut Value, passing: &[&str]) {
    if let Value::Array(flags) = flags {
        flags.retain(|flag| !passing.iter().any(|one| flag == one));
    }
}

/// Whether sled keeps its log and its settings here.
fn is_database(folder: &Path) -> bool {
    folder.join("db").is_file() && folder.join("conf").is_file()
}

fn walk(top: &Path, folder: &Path, files: &mut Vec<String>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|e| panic!("list {}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            if !is_database(&path) {
                walk(top, &path, files);
            }
        } else if path.extension().is_none_or(|end| end != "lock") && !path.ends_with("lock") {
            let name = path.strip_prefix(top).expect("below the top folder");
            files.push(name.display().to_string());
        }
    }
}
