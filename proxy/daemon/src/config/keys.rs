//! The settings there are, as the command line has them.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

/// The file that is read when none is named, if it exists.
pub(super) const DEFAULT_FILE: &str = "/etc/causeway/causeway.toml";

/// A setting: flag `--NAME`, variable `CAUSEWAY_NAME`, key `name` of the file.
pub(super) struct Key {
    /// Name of the flag, without dashes.
    pub name: &'static str,
    /// Shape of the value; empty for a switch.
    value: &'static str,
    /// For `--help`.
    help: &'static str,
    /// As it would be written, for `--help` too; `None` if what is not given is decided later.
    pub default: Option<&'static str>,
}

impl Key {
    const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}

const fn key(name: &'static str, value: &'static str, help: &'static str) -> Key {
    Key { name, value, help, default: None }
}

/// All settings.
pub(super) const KEYS: &[Key] = &[
    key("node-name", "NAME", "name of this node [default: the host name]"),
    key(
        "node-ip",
        "ADDRESS,..",
        "node IP, one per IP family [default: address of the default route's interface]",
    ),
    key(
        "node-labels",
        "KEY=VALUE,..",
        "labels of this node, such as topology.kubernetes.io/zone=a",
    ),
    key("run-dir", "DIR", "directory of the socket, node.json and attachment records")
        .or("/run/causeway"),
    key("state-dir", "DIR", "directory of the store, the spool and the record of changed sysctls")
        .or("/var/lib/causeway"),
    key("manifest-dir", "DIR", "directory of manifests, applied and watched")
        .or("/etc/causeway/manifests"),
    key(
        "containerd-socket",
        "PATH",
        "containerd socket, used to look up container labels; empty disables",
    )
    .or("/run/containerd/containerd.sock"),
    key("image-labels", "", "also use the labels of an image as labels of its containers"),
    key("service-cidr", "CIDR,..", "service network, one per IP family").or("10.96.0.0/16"),
    key("cluster-cidr", "CIDR,..", "pod network of the cluster, one per IP family")
        .or("10.0.0.0/16"),
    key("node-subnet-len", "BITS", "prefix length of a node's pod subnet").or("24"),
    key(
        "node-subnet",
        "CIDR,..",
        "pod subnet of this node, one per IP family [default: allocated, then kept]",
    ),
    key("node-port-range", "FROM-TO", "range of node ports").or("30000-32767"),
    key("backend", "nftables|iptables", "how rules are programmed").or("nftables"),
    key(
        "nodeport-addresses",
        "all|primary|CIDR,..",
        "addresses on which node ports answer; `all` includes 127.0.0.1",
    )
    .or("all"),
    key(
        "protected-ports",
        "PORT[/PROTOCOL],..",
        "further ports that no service may take on addresses of nodes and of the store; ssh, store and overlay ports are always protected",
    ),
    key("masquerade-all", "", "masquerade all traffic to service IPs"),
    key(
        "dead-grace",
        "DURATION",
        "how long to keep the address and rules of a container that vanished without DEL",
    )
    .or("1m"),
    key("store", "embedded|etcd", "store of objects").or("embedded"),
    key("etcd-endpoints", "URL,..", "etcd URLs, such as http://172.18.0.10:2379"),
    key("etcd-prefix", "PREFIX", "prefix of all keys in etcd").or("/causeway"),
    key("etcd-cafile", "PATH", "CA bundle for etcd, PEM [default: the system's]"),
    key("etcd-certfile", "PATH", "client certificate for etcd, PEM"),
    key("etcd-keyfile", "PATH", "key of the client certificate, PEM"),
    key("etcd-username", "NAME", "user name for etcd, if it requires one"),
    key(
        "etcd-password",
        "TEXT",
        "password for etcd; better set as CAUSEWAY_ETCD_PASSWORD or in the file",
    ),
    key("endpoint-ttl", "DURATION", "how long containers of an unresponsive node remain endpoints")
        .or("40s"),
    key("subnet-ttl", "DURATION", "how long an unresponsive node keeps its pod subnet").or("24h"),
    key(
        "peers-file",
        "PATH",
        "nodes in TOML, [[node]] with name, ip and subnet: an overlay without a store",
    ),
    key("overlay", "none|vxlan|host-gw", "how other nodes are reached").or("none"),
    key("vxlan-id", "ID", "VNI of the overlay").or("1"),
    key("vxlan-port", "PORT", "UDP port of the overlay").or("8472"),
    key("direct-routing", "", "use plain routes instead of vxlan to nodes on the same link"),
    key(
        "disable-tx-checksum",
        "",
        "disable checksum offload on the vxlan device, for network cards with broken offload",
    ),
    key(
        "dns-listen",
        "auto|off|ADDR:PORT,..",
        "where names are answered; `auto`: at the gateway addresses of this node's networks and at --dns-vip",
    )
    .or("auto"),
    key("dns-domain", "DOMAIN", "domain of the cluster").or("cluster.local"),
    key(
        "dns-upstream",
        "ADDR[:PORT],..",
        "name servers for names outside the cluster [default: those of the host's resolv.conf]",
    ),
    key("dns-ttl", "SECONDS", "how long clients may keep an answer, 0 to 3600").or("5"),
    key(
        "dns-vip",
        "ADDRESS,..",
        "service addresses at which every node answers names, one per IP family [default: the tenth of the service network]",
    ),
    key(
        "lb-pool",
        "CIDR|FROM-TO,..",
        "addresses for services of type LoadBalancer; several pools: [[lb_pool]] of the file",
    ),
    key(
        "lb-interface",
        "NAME,..",
        "interfaces on which load balancer addresses are announced [default: those whose network has the address]",
    ),
    key(
        "healthz-listen",
        "ADDR:PORT,..",
        "address of /healthz, /livez and /readyz; empty disables",
    )
    .or("0.0.0.0:10256"),
    key("metrics-listen", "ADDR:PORT,..", "address of /metrics and /proxyMode; empty disables")
        .or("127.0.0.1:10249"),
    key("log-format", "text|json", "format of log lines on stderr").or("text"),
    key("log-level", "error|warn|info|debug", "lowest level of log lines").or("info"),
];

/// The command line.
pub(crate) fn command() -> Command {
    let cleanup = Command::new("cleanup")
        .about("Remove everything the daemon made on this node and restore the sysctls it changed")
        .arg(switch(
            "all",
            "also remove attachments (veths, bridges, vxlan, leases, host ports) and stored \
             objects",
        ))
        .arg(switch("dry-run", "only print what would be removed"))
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .default_value("/var/lib/cni/causeway")
                .help("dataDir of causeway-ipam, with --all"),
        )
        .arg(config_arg())
        .args(KEYS.iter().filter(|key| matches!(key.name, "run-dir" | "state-dir")).map(arg));
    let leave = Command::new("leave")
        .about(
            "Take this node out of the cluster for good: its endpoints, routes and subnets are \
             removed at once",
        )
        .after_help(
            "Stop causewayd first. The settings are those of the daemon: file, environment \
             variables or flags.",
        )
        .arg(switch("force", "leave even if containers are attached"))
        .arg(config_arg())
        .args(KEYS.iter().map(arg));
    Command::new("causewayd")
        .about("Node daemon: programs services and cross-node routes")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Every flag is also an environment variable (--node-name: CAUSEWAY_NODE_NAME) \
             and a key of the settings file (node_name).",
        )
        .args_conflicts_with_subcommands(true)
        .arg(config_arg())
        .args(KEYS.iter().map(arg))
        .subcommand(cleanup)
        .subcommand(leave)
}

/// The variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("CAUSEWAY_{}", name.to_uppercase().replace('-', "_"))
}

fn config_arg() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("CAUSEWAY_CONFIG")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!("settings file, TOML [default: {DEFAULT_FILE}, if it exists]"))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn arg(key: &Key) -> Arg {
    let help = match key.default {
        Some(default) => format!("{} [default: {default}]", key.help),
        None => key.help.to_owned(),
    };
    let arg = Arg::new(key.name).long(key.name).env(variable(key.name)).help(help);
    // `--help` shows values of the environment.
    let arg = arg.hide_env_values(key.name == "etcd-password");
    match key.value {
        "" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        value => arg.value_name(value),
    }
}
