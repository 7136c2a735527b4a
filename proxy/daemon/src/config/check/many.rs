//! Checks across several settings, and of the files that they name.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use causeway_model::part_len;
use ipnetwork::IpNetwork;

use super::super::given::{Given, Values};
use super::super::{Error, OverlayKind, Settings, StoreKind, store_url};

/// Settings that say something about etcd alone.
const OF_ETCD: &[&str] = &[
    "etcd-endpoints",
    "etcd-prefix",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-username",
    "etcd-password",
    "endpoint-ttl",
    "subnet-ttl",
];

/// What is shown instead of a secret.
const HIDDEN: &str = "(hidden)";

/// Anybody may read the file.
const OTHERS_READ: u32 = 0o004;

/// Refuses addresses of etcd with a user in them before anybody says what they are.
///
/// # Errors
/// One has a user, which is not shown.
pub(super) fn no_user_in_urls(values: &Values) -> Result<(), Error> {
    match values.get("etcd-endpoints") {
        Some(given) if given.value.contains('@') => Err(Error::Value {
            field: given.field.clone(),
            value: HIDDEN.to_owned(),
            reason: "contains a user; set --etcd-username and CAUSEWAY_ETCD_PASSWORD instead"
                .to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Checks them all; returns what is to be known of.
///
/// # Errors
/// The first one that is wrong.
pub(super) fn check(values: &Values, settings: &Settings) -> Result<Vec<String>, Error> {
    let etcd = settings.store == StoreKind::Etcd;
    if etcd && settings.etcd_endpoints.is_empty() {
        return wrong(values, "store", "needs --etcd-endpoints; set it to the URLs of etcd");
    }
    let unread = OF_ETCD.iter().find(|name| !etcd && values.contains_key(*name));
    if let Some(name) = unread {
        return wrong(values, name, "has no effect without --store etcd; set that or omit this");
    }
    if etcd {
        user(values)?;
        subnets(values, settings)?;
        if settings.subnet_ttl < settings.endpoint_ttl {
            let reason = format!(
                "is shorter than --endpoint-ttl of {} s; a node must not lose its subnet before \
                 its containers",
                settings.endpoint_ttl.as_secs()
            );
            return wrong(values, "subnet-ttl", &reason);
        }
    }
    overlay(values, settings)?;
    let mut warnings = tls(values, settings)?;
    if etcd {
        store_is_apart(values, settings)?;
        warnings.extend(open_store(settings));
    }
    peers_file(values, settings)?;
    if let Some(given) = values.get("etcd-password")
        && given.field == "--etcd-password"
    {
        warnings.push(
            "--etcd-password is visible to every user of this machine in the process list; set \
             CAUSEWAY_ETCD_PASSWORD, or etcd_password in a file of mode 600, instead"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// What a file that holds a password or a key is, if everybody on the machine can read it.
pub(in super::super) fn exposed(path: &Path, holds: &str) -> Option<String> {
    let mode = path.metadata().ok()?.mode();
    (mode & OTHERS_READ != 0).then(|| {
        format!(
            "{path} contains {holds} and every user of this machine can read it; run: chmod 600 \
             {path}",
            path = path.display()
        )
    })
}

fn wrong<T>(values: &Values, name: &str, reason: &str) -> Result<T, Error> {
    let default = Given { value: String::new(), field: format!("--{name}") };
    let mut given = values.get(name).cloned().unwrap_or(default);
    if name == "etcd-password" {
        given.value = HIDDEN.to_owned();
    }
    Err(given.wrong(reason))
}

/// User and password go together.
fn user(values: &Values) -> Result<(), Error> {
    let has = |name: &str| values.get(name).is_some_and(|given| !given.value.is_empty());
    match (has("etcd-username"), has("etcd-password")) {
        (true, false) => wrong(
            values,
            "etcd-username",
            "needs a password; set CAUSEWAY_ETCD_PASSWORD, or etcd_password in the file",
        ),
        (false, true) => wrong(values, "etcd-password", "needs --etcd-username; set it as well"),
        (true, true) | (false, false) => Ok(()),
    }
}

/// Certificates: all that belong together, readable, and for addresses that use them.
fn tls(values: &Values, settings: &Settings) -> Result<Vec<String>, Error> {
    let (tls, urls) = (&settings.etcd_tls, &settings.etcd_endpoints);
    let is_secure = |url: &&String| url.starts_with("https://");
    let secure = urls.iter().filter(is_secure).count();
    if secure != 0 && secure != urls.len() {
        return wrong(values, "etcd-endpoints", "mixes http and https; use one of them");
    }
    let certificate = "-----BEGIN CERTIFICATE-----";
    let files: [(&str, &Option<PathBuf>, &str); 3] = [
        ("etcd-cafile", &tls.ca, certificate),
        ("etcd-certfile", &tls.cert, certificate),
        ("etcd-keyfile", &tls.key, "PRIVATE KEY-----"),
    ];
    for (name, path, label) in files {
        let Some(path) = path else { continue };
        if secure == 0 {
            let reason = "has no effect with http://; write https:// in --etcd-endpoints";
            return wrong(values, name, reason);
        }
        let text = read(values, name, path)?;
        if !text.contains(label) {
            let reason = format!("is not in PEM: it has no line with {label}");
            return wrong(values, name, &reason);
        }
    }
    match (&tls.cert, &tls.key) {
        (Some(_), None) => wrong(values, "etcd-certfile", "needs --etcd-keyfile; set it as well"),
        (None, Some(_)) => wrong(values, "etcd-keyfile", "needs --etcd-certfile; set it as well"),
        (_, key) => Ok(key.iter().filter_map(|key| exposed(key, "a private key")).collect()),
    }
}

/// Addresses of services that nobody has lead nowhere.
fn store_is_apart(values: &Values, settings: &Settings) -> Result<(), Error> {
    for network in &settings.service_cidrs {
        let mut store = store_url::literals(&settings.etcd_endpoints);
        if let Some(ip) = store.find(|ip| network.contains(*ip)) {
            let reason = format!(
                "contains {ip}, the address of the store; choose a --service-cidr without it"
            );
            return wrong(values, "etcd-endpoints", &reason);
        }
    }
    Ok(())
}

/// What to know of a store that is not this machine's alone: who else may write to it.
fn open_store(settings: &Settings) -> Option<String> {
    let mut outside = settings.etcd_endpoints.iter().filter(|url| !store_url::is_loopback(url));
    let url = outside.next()?;
    let known = settings.etcd_user.is_some() || settings.etcd_tls.cert.is_some();
    let why = match (url.starts_with("https://"), known) {
        (true, true) => return None,
        (true, false) => "without a user or a certificate of this node",
        (false, true) => "over http, so the password can be read and answers can be forged",
        (false, false) => "over http and without a user",
    };
    Some(format!(
        "the store is reached {why} ({url}): anyone who can reach it, even a container, can \
         redirect every service; give etcd certificates, and this node https:// with \
         --etcd-cafile, --etcd-certfile and --etcd-keyfile"
    ))
}

/// A subnet of the cluster network for every node.
fn subnets(values: &Values, settings: &Settings) -> Result<(), Error> {
    let length = |cluster: &IpNetwork| part_len(*cluster, settings.node_subnet_len);
    for cluster in &settings.cluster_cidrs {
        if cluster.is_ipv4() && length(cluster) <= cluster.prefix() {
            let reason = format!(
                "leaves {cluster} to one node; set a length above {}, or a larger --cluster-cidr",
                cluster.prefix()
            );
            return wrong(values, "node-subnet-len", &reason);
        }
        let asked = |subnet: &&IpNetwork| subnet.is_ipv4() == cluster.is_ipv4();
        let asked = settings.node_subnets.iter().find(asked);
        if asked.is_some_and(|subnet| subnet.prefix() != length(cluster)) {
            let reason =
                format!("node subnets of this cluster have prefix length {}", length(cluster));
            return wrong(values, "node-subnet", &reason);
        }
    }
    Ok(())
}

/// The overlay knows the nodes, and its port is no service's.
fn overlay(values: &Values, settings: &Settings) -> Result<(), Error> {
    let etcd = settings.store == StoreKind::Etcd;
    if settings.overlay != OverlayKind::None && !etcd && settings.peers_file.is_none() {
        let reason = "needs --store etcd or --peers-file to know the other nodes";
        return wrong(values, "overlay", reason);
    }
    if settings.overlay != OverlayKind::Vxlan {
        let switches = [
            ("vxlan-id", values.contains_key("vxlan-id")),
            ("vxlan-port", values.contains_key("vxlan-port")),
            ("direct-routing", settings.direct_routing),
            ("disable-tx-checksum", settings.disable_tx_checksum),
        ];
        if let Some((name, _)) = switches.into_iter().find(|(_, given)| *given) {
            let reason = "has no effect without --overlay vxlan; set that or omit this";
            return wrong(values, name, reason);
        }
        return Ok(());
    }
    let (first, last) = settings.node_port_range;
    if (first..=last).contains(&settings.vxlan_port) {
        let reason = format!(
            "is in --node-port-range {first}-{last}, where a service could take it; choose a port \
             outside it"
        );
        return wrong(values, "vxlan-port", &reason);
    }
    Ok(())
}

/// The file of the nodes, if there is no store that knows them.
fn peers_file(values: &Values, settings: &Settings) -> Result<(), Error> {
    let Some(path) = &settings.peers_file else { return Ok(()) };
    if settings.store == StoreKind::Etcd {
        let reason = "stands against --store etcd, which knows the nodes; choose one";
        return wrong(values, "peers-file", reason);
    }
    read(values, "peers-file", path).map(drop)
}

/// The text of a file that a setting names.
fn read(values: &Values, name: &str, path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => wrong(values, name, &format!("cannot be read: {error}")),
    }
}
