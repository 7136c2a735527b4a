//! Settings of many nodes: what goes together, what is a file, what is a secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::{check, file};
use super::*;

const ETCD: &str = "store = \"etcd\"\netcd_endpoints = [\"http://127.0.0.1:2379\"]\n";
const SECRET: &str = "Xyzzy-4711";

/// A directory with a file of each sort that settings name, and text of settings with `DIR` for it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let certificate = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
        files.write("ca.pem", certificate, 0o644);
        files.write("cert.pem", certificate, 0o644);
        files.write("key.pem", key, 0o600);
        files.write("peers.toml", "", 0o644);
        files
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn settings(&self, text: &str) -> Result<Settings, String> {
        let folder = self.0.path().to_str().unwrap();
        let result = with_file(&text.replace("DIR", folder), &[]);
        result.map_err(|error| error.replace(folder, "DIR"))
    }

    fn refused(&self, text: &str, wanted: &str) {
        let error = self.settings(text).unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[test]
fn many_nodes_have_defaults_and_names_in_the_file() {
    let plain = with_file("", &[]).unwrap();
    assert_eq!((plain.store, plain.overlay), (StoreKind::Embedded, OverlayKind::None));
    assert_eq!((plain.vxlan_id, plain.vxlan_port), (1, 8472));
    assert_eq!(plain.endpoint_ttl, Duration::from_secs(40));
    assert_eq!(plain.subnet_ttl, Duration::from_secs(24 * 3600));
    assert_eq!(plain.etcd_prefix, "/causeway");
    let text = "store = \"etcd\"\netcd_endpoints = [\"https://a.example:2379/\", \"https://[fd00::1]:2379\"]\n\
                etcd_prefix = \"/x/y/\"\netcd_cafile = \"DIR/ca.pem\"\netcd_certfile = \"DIR/cert.pem\"\n\
                etcd_keyfile = \"DIR/key.pem\"\netcd_username = \"u\"\netcd_password = \"p\"\n\
                endpoint_ttl = \"10s\"\nsubnet_ttl = \"2h\"\noverlay = \"vxlan\"\nvxlan_id = 7\n\
                vxlan_port = 4789\ndirect_routing = true\ndisable_tx_checksum = true\n";
    let files = Files::new();
    let read = files.settings(text).unwrap();
    assert_eq!(read.etcd_endpoints, ["https://a.example:2379", "https://[fd00::1]:2379"]);
    assert_eq!(read.etcd_prefix, "/x/y");
    assert_eq!(read.etcd_tls.key, Some(files.0.path().join("key.pem")));
    assert_eq!(read.etcd_user, Some(("u".to_owned(), Secret("p".to_owned()))));
    assert_eq!(
        (read.endpoint_ttl, read.subnet_ttl),
        (Duration::from_secs(10), Duration::from_secs(2 * 3600))
    );
    assert_eq!((read.overlay, read.vxlan_id, read.vxlan_port), (OverlayKind::Vxlan, 7, 4789));
    assert!(read.direct_routing && read.disable_tx_checksum);
    let peers = files.settings("peers_file = \"DIR/peers.toml\"\noverlay = \"host-gw\"\n").unwrap();
    assert_eq!(peers.overlay, OverlayKind::HostGw);
    assert_eq!(peers.peers_file, Some(files.0.path().join("peers.toml")));
}

#[test]
fn wrong_values_of_many_nodes_are_refused_by_field_value_and_remedy() {
    let files = Files::new();
    for (line, wanted) in [
        ("store = \"consul\"", "FILE: store: \"consul\": neither embedded nor etcd"),
        ("overlay = \"gre\"", "FILE: overlay: \"gre\": neither none nor vxlan nor host-gw"),
        ("etcd_endpoints = [\"172.18.0.10:2379\"]", "172.18.0.10:2379: not http://HOST:PORT"),
        ("etcd_endpoints = [\"http://172.18.0.10\"]", "not http://HOST:PORT"),
        ("etcd_endpoints = [\"http://172.18.0.10:0\"]", "not http://HOST:PORT"),
        ("etcd_endpoints = [\"http://fd00::1:2379\"]", "not http://HOST:PORT"),
        ("etcd_endpoints = [\"unix:///run/etcd:1\"]", "not http://HOST:PORT"),
        ("etcd_endpoints = [\"http://a:2379/x\"]", "not http://HOST:PORT"),
        ("etcd_prefix = \"causeway\"", "begin it with /"),
        ("etcd_prefix = \"/\"", "begin it with /"),
        ("endpoint_ttl = \"40 s\"", "not a duration; write 40s, 10m or 24h"),
        ("endpoint_ttl = \"1s\"", "not between 2 s and a year"),
        ("subnet_ttl = \"1d\"", "not a duration"),
        ("vxlan_id = 0", "FILE: vxlan_id: \"0\": not a number from 1 to 16777215"),
        ("vxlan_id = 16777216", "not a number from 1 to 16777215"),
        ("vxlan_port = 65536", "not a port from 1 to 65535"),
        ("direct_routing = \"yes\"", "neither true nor false"),
        ("disable_tx_checksum = 1", "neither true nor false"),
        ("peers_file = \"peers.toml\"", "not an absolute path"),
        ("etcd_cafile = \"ca.pem\"", "not an absolute path"),
    ] {
        files.refused(line, wanted);
    }
}

#[test]
fn settings_of_many_nodes_go_together() {
    let files = Files::new();
    let etcd = |more: &str, wanted: &str| files.refused(&format!("{ETCD}{more}"), wanted);
    files.refused("store = \"etcd\"", "FILE: store: \"etcd\": needs --etcd-endpoints");
    for line in ["etcd_prefix = \"/x\"", "endpoint_ttl = \"9s\"", "etcd_username = \"u\""] {
        files.refused(line, "has no effect without --store etcd");
    }
    files.refused("overlay = \"vxlan\"", "needs --store etcd or --peers-file");
    etcd("peers_file = \"DIR/peers.toml\"", "stands against --store etcd");
    etcd(
        "endpoint_ttl = \"2m\"\nsubnet_ttl = \"119s\"",
        "FILE: subnet_ttl: \"119s\": is shorter than --endpoint-ttl of 120 s",
    );
    assert!(files.settings(&format!("{ETCD}endpoint_ttl = \"2m\"\nsubnet_ttl = \"2m\"")).is_ok());
    for line in ["vxlan_id = 2", "vxlan_port = 4789", "direct_routing = true"] {
        etcd(&format!("overlay = \"host-gw\"\n{line}"), "has no effect without --overlay vxlan");
    }
    assert!(files.settings(&format!("{ETCD}direct_routing = false")).is_ok());
    etcd("overlay = \"vxlan\"\nvxlan_port = 30001", "is in --node-port-range 30000-32767");
    etcd("node_subnet_len = 16", "leaves 10.0.0.0/16 to one node; set a length above 16");
    etcd("node_subnet = \"10.0.1.0/25\"", "node subnets of this cluster have prefix length 24");
    assert!(files.settings(&format!("{ETCD}node_subnet = \"10.0.1.0/24\"")).is_ok());
    let six =
        "cluster_cidr = [\"10.0.0.0/16\", \"fd00:10::/56\"]\nservice_cidr = \"10.96.0.0/16\"\n";
    etcd(&format!("{six}node_subnet = \"fd00:10::/72\""), "have prefix length 64");
    assert!(files.settings(&format!("{ETCD}{six}node_subnet = \"fd00:10:0:1::/64\"")).is_ok());
    // The parts are those that the cluster store deals.
    let narrow = "cluster_cidr = [\"fd00:10::/64\"]\nservice_cidr = [\"fd00:96::/112\"]\n";
    etcd(&format!("{narrow}node_subnet = \"fd00:10::/64\""), "have prefix length 72");
    assert!(files.settings(&format!("{ETCD}{narrow}node_subnet = \"fd00:10::/72\"")).is_ok());
}

/// Rows: C-15
#[test]
fn files_that_settings_name_are_there_and_what_they_should_be() {
    let files = Files::new();
    let secure = ETCD.replace("http:", "https:");
    let check = |more: &str, wanted: &str| files.refused(&format!("{secure}{more}"), wanted);
    check(
        "etcd_cafile = \"DIR/gone.pem\"",
        "FILE: etcd_cafile: \"DIR/gone.pem\": cannot be read: No such file or directory",
    );
    check("etcd_cafile = \"DIR\"", "cannot be read: Is a directory");
    check("etcd_cafile = \"DIR/key.pem\"", "is not in PEM: it has no line with -----BEGIN CERT");
    check(
        "etcd_certfile = \"DIR/cert.pem\"\netcd_keyfile = \"DIR/cert.pem\"",
        "FILE: etcd_keyfile: \"DIR/cert.pem\": is not in PEM",
    );
    check("etcd_certfile = \"DIR/cert.pem\"", "etcd_certfile: \"DIR/cert.pem\": needs --etcd-keyf");
    check("etcd_keyfile = \"DIR/key.pem\"", "etcd_keyfile: \"DIR/key.pem\": needs --etcd-certfile");
    files.refused(
        &format!("{ETCD}etcd_cafile = \"DIR/ca.pem\""),
        "has no effect with http://; write https://",
    );
    let mixed = "store = \"etcd\"\netcd_endpoints = [\"http://a:1\", \"https://b:1\"]";
    files.refused(mixed, "mixes http and https");
    files.refused("peers_file = \"DIR/gone\"", "peers_file: \"DIR/gone\": cannot be read: No such");
    let pair = "etcd_certfile = \"DIR/cert.pem\"\netcd_keyfile = \"DIR/key.pem\"";
    assert_eq!(files.settings(&format!("{secure}{pair}")).unwrap().warnings, [""; 0]);
    files.write("key.pem", "-----BEGIN EC PRIVATE KEY-----\n", 0o644);
    let warnings = files.settings(&format!("{secure}{pair}")).unwrap().warnings;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let key = files.0.path().join("key.pem").display().to_string();
    let wanted = format!(
        "{key} contains a private key and every user of this machine can read it; run: chmod 600 {key}"
    );
    assert_eq!(*warning, wanted);
}

/// Rows: C-15
#[test]
fn a_password_is_never_said_and_who_can_read_it_is_warned_of() {
    let files = Files::new();
    let password = format!("etcd_password = \"{SECRET}\"\n");
    let etcd = |more: &str, wanted: &str| files.refused(&format!("{ETCD}{password}{more}"), wanted);
    etcd("", "FILE: etcd_password: \"(hidden)\": needs --etcd-username");
    etcd("colour = 1", "FILE: unknown key colour");
    etcd("= 1", "FILE: not TOML: line 4: ");
    etcd(&format!("etcd_password = \"{SECRET}"), "FILE: not TOML: line 4: ");
    files.refused(&format!("etcd_password = \"{SECRET}\""), "\"(hidden)\": has no effect without");
    files.refused(&format!("{ETCD}etcd_username = \"u\""), "needs a password; set CAUSEWAY_ETCD_P");
    files.refused(
        &format!("store = \"etcd\"\netcd_endpoints = \"http://root:{SECRET}@a:2379\""),
        "FILE: etcd_endpoints: \"(hidden)\": contains a user; set --etcd-username",
    );

    let path = files.0.path().join("causeway.toml");
    let text = format!("{ETCD}{password}etcd_username = \"u\"\n");
    let warnings = |mode: u32| {
        files.write("causeway.toml", &text, mode);
        settings(&["--config", path.to_str().unwrap()]).unwrap().warnings
    };
    assert_eq!(warnings(0o640), [""; 0]);
    let said = warnings(0o644);
    assert!(said[0].ends_with(&format!("chmod 600 {}", path.display())), "{said:?}");
    files.write("causeway.toml", ETCD, 0o644);
    let flags = ["--etcd-username", "u", "--etcd-password", SECRET];
    let read = settings(&[&["--config", path.to_str().unwrap()], &flags[..]].concat()).unwrap();
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
    assert!(read.warnings[0].contains("process list") && !read.warnings[0].contains(SECRET));
    assert!(!format!("{read:?}").contains(SECRET), "passwords are not shown");
}

/// Rows: RH1, RH3
#[test]
fn who_else_may_write_to_the_store_is_said() {
    let files = Files::new();
    let folder = files.0.path().to_str().unwrap();
    let warnings = |url: &str, more: &str| {
        let text = format!("store = \"etcd\"\netcd_endpoints = \"{url}\"\n{more}");
        files.write("causeway.toml", &text, 0o600);
        settings(&["--config", &format!("{folder}/causeway.toml")]).map(|read| read.warnings)
    };
    let user = format!("etcd_username = \"u\"\netcd_password = \"{SECRET}\"\n");
    let certificate =
        format!("etcd_certfile = \"{folder}/cert.pem\"\netcd_keyfile = \"{folder}/key.pem\"\n");
    for (url, more, part) in [
        ("http://172.18.0.10:2379", "", Some("over http and without a user")),
        ("http://172.18.0.10:2379", &*user, Some("so the password can be read")),
        ("https://172.18.0.10:2379", "", Some("without a user or a certificate")),
        ("https://etcd.example:2379", &*user, None),
        ("https://172.18.0.10:2379", &*certificate, None),
        ("http://127.0.0.1:2379", "", None),
        ("http://localhost:2379", "", None),
        ("http://[::1]:2379", "", None),
    ] {
        let said = warnings(url, more).unwrap();
        match part {
            Some(part) => assert!(said.len() == 1 && said[0].contains(part), "{url}: {said:?}"),
            None => assert_eq!(said, [""; 0], "{url}"),
        }
    }
    let inside = warnings("https://10.96.0.9:2379", &user).unwrap_err();
    assert!(inside.contains("contains 10.96.0.9, the address of the store"), "{inside}");
}

/// Rows: RH3
#[test]
fn ports_that_no_service_takes_are_read() {
    let read = settings(&["--protected-ports", "2222, 51820/udp,9000/TCP"]).unwrap();
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    assert_eq!(read.protected_ports, [(tcp, 2222), (udp, 2222), (udp, 51820), (tcp, 9000)]);
    for wrong in ["0", "ssh", "22/icmp", "70000", "22/"] {
        let error = settings(&["--protected-ports", wrong]).unwrap_err();
        assert!(error.contains("not PORT or PORT/PROTOCOL"), "{error}");
    }
}

/// Rows: C-15
#[test]
fn flannels_settings_of_etcd_have_ours() {
    // Its --etcd-endpoints, --etcd-prefix, --etcd-keyfile, --etcd-certfile, --etcd-cafile,
    // --etcd-username, --etcd-password; --subnet-lease-renew-margin needs none: we renew always.
    let known = command();
    for name in [
        "etcd-endpoints",
        "etcd-prefix",
        "etcd-keyfile",
        "etcd-certfile",
        "etcd-cafile",
        "etcd-username",
        "etcd-password",
    ] {
        let found = known.get_arguments().find(|arg| arg.get_id() == name);
        let found = found.unwrap_or_else(|| panic!("{name} is missing"));
        let variable = format!("CAUSEWAY_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(found.get_env(), Some(std::ffi::OsStr::new(&variable)));
        // `--help` shows what variables hold.
        assert_eq!(found.is_hide_env_values_set(), name == "etcd-password", "{name}");
    }
}

/// The sample with each `#key = value` in force.
#[test]
fn the_sample_file_is_accepted_with_any_of_its_settings() {
    let sample = include_str!("../../../../../conf/causeway.toml");
    let path = Path::new("causeway.toml");
    let as_it_is = file::parse(path, sample).unwrap();
    assert!(check::check(&as_it_is).is_ok());
    let in_force = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
            setting.to_owned()
        }
        _ => line.to_owned(),
    };
    let all: Vec<String> = sample.lines().map(in_force).collect();
    let all = file::parse(path, &all.join("\n")).unwrap();
    for name in ["store", "etcd-password", "peers-file", "overlay", "node-ip", "subnet-ttl"] {
        assert!(all.contains_key(name), "{name}");
    }
    let without = |gone: &[&str]| {
        let mut values = all.clone();
        values.retain(|name, _| !gone.iter().any(|gone| name.starts_with(gone)));
        check::check(&values).map_err(|error| error.to_string())
    };
    let etcd = without(&["peers-file", "etcd-cafile", "etcd-certfile", "etcd-keyfile"]).unwrap();
    assert_eq!((etcd.store, etcd.overlay), (StoreKind::Etcd, OverlayKind::Vxlan));
    let alone = without(&["etcd-", "endpoint-ttl", "subnet-ttl", "store"]).unwrap_err();
    assert!(alone.contains("/etc/causeway/peers.toml"), "{alone}");
}
