//! Where values come from, and which are refused.

mod many;
mod pools;

use std::fs;

use super::*;

fn settings(arguments: &[&str]) -> Result<Settings, String> {
    let matches = command()
        .try_get_matches_from([&["causewayd"], arguments].concat())
        .map_err(|error| error.to_string())?;
    match invocation(&matches) {
        Ok(Invocation::Run(settings)) => Ok(*settings),
        Ok(Invocation::Cleanup(_)) => Err("cleanup".to_owned()),
        Ok(Invocation::Leave { settings, .. }) => Ok(*settings),
        Err(error) => Err(match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }),
    }
}

fn with_file(text: &str, arguments: &[&str]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("causeway.toml");
    fs::write(&path, text).unwrap();
    settings(&[&["--config", path.to_str().unwrap()], arguments].concat())
        .map_err(|error| error.replace(path.to_str().unwrap(), "FILE"))
}

#[test]
fn defaults_are_those_of_the_design() {
    let settings = with_file("", &[]).unwrap();
    assert_eq!(settings.run_dir.to_str(), Some("/run/causeway"));
    assert_eq!(settings.state_dir.to_str(), Some("/var/lib/causeway"));
    assert_eq!(settings.manifest_dir.to_str(), Some("/etc/causeway/manifests"));
    assert_eq!(settings.service_cidrs, ["10.96.0.0/16".parse().unwrap()]);
    assert_eq!(settings.cluster_cidrs, ["10.0.0.0/16".parse().unwrap()]);
    assert_eq!(settings.node_port_range, (30000, 32767));
    assert_eq!(settings.backend, BackendKind::Nftables);
    assert_eq!(settings.node_port_addresses, NodePorts::Planned(NodePortAddresses::All));
    assert_eq!(settings.healthz_listen, ["0.0.0.0:10256".parse().unwrap()]);
    assert_eq!(settings.metrics_listen, ["127.0.0.1:10249".parse().unwrap()]);
    assert_eq!(settings.socket().to_str(), Some("/run/causeway/causeway.sock"));
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "backend = \"iptables\"\nservice_cidr = [\"10.97.0.0/16\", \"fd96::/112\"]\n\
                node_subnet_len = 26\nmasquerade_all = true\nnode_labels = { zone = \"a\" }\n";
    let read = with_file(file, &["--node-subnet-len", "25", "--node-labels", "x=y,z=1"]).unwrap();
    assert_eq!(read.backend, BackendKind::Iptables);
    assert_eq!(read.service_cidrs.len(), 2);
    assert_eq!(read.node_subnet_len, 25);
    assert!(read.masquerade_all);
    assert_eq!(read.node_labels.len(), 2);
    assert_eq!(with_file(file, &[]).unwrap().node_labels["zone"], "a");
    assert!(!with_file(file, &["--masquerade-all=false"]).unwrap().masquerade_all);
    assert!(with_file("", &["--masquerade-all"]).unwrap().masquerade_all);
    assert_eq!(with_file("", &["--healthz-listen", ""]).unwrap().healthz_listen, []);
}

#[test]
fn a_named_file_must_be_there_and_hold_known_keys_alone() {
    let missing = settings(&["--config", "/nowhere/causeway.toml"]).unwrap_err();
    assert!(missing.starts_with("read /nowhere/causeway.toml: "), "{missing}");
    let check = |text: &str, wanted: &str| {
        let error = with_file(text, &[]).unwrap_err();
        assert!(error.starts_with(wanted), "{error}");
    };
    check("colour = 1", "FILE: unknown key colour");
    check("service_cird = \"10.1.0.0/16\"", "FILE: unknown key service_cird");
    check("backnd = \"x\"", "FILE: unknown key backnd; did you mean backend?");
    check("node-name = \"x\"", "FILE: unknown key node-name; did you mean node_name?");
    check("backend", "FILE: not TOML: ");
    check("backend = 1.5", "FILE: backend: \"float\": it takes a string");
}

/// Rows: RD12
#[test]
fn wrong_values_are_refused_by_field_value_and_remedy() {
    let check = |arguments: &[&str], wanted: &str| {
        let error = with_file("", arguments).unwrap_err();
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    };
    check(&["--backend", "ipvs"], "--backend: \"ipvs\": neither nftables nor iptables");
    check(&["--service-cidr", "10.96.0.0"], "write ADDRESS/LENGTH");
    check(&["--service-cidr", "10.96.0.1/16"], "write 10.96.0.0/16");
    check(&["--service-cidr", "10.96.0.0/16,10.97.0.0/16"], "has two of the same IP family");
    check(&["--service-cidr", "10.0.128.0/17"], "overlaps the cluster network 10.0.0.0/16");
    check(
        &["--service-cidr", "10.96.0.0/16", "--node-ip", "10.96.0.4"],
        "node's address 10.96.0.4",
    );
    check(&["--service-cidr", "10.96.0.1/32"], "--service-cidr: \"10.96.0.1/32\": is too small");
    check(&["--service-cidr", "10.96.0.0/16,fd96::/127"], "choose a network of /126 or wider");
    check(&["--cluster-cidr", "10.1.0.0/31"], "--cluster-cidr: \"10.1.0.0/31\": is too small");
    check(&["--node-subnet", "10.0.1.4/31"], "--node-subnet: \"10.0.1.4/31\": is too small");
    check(&["--node-subnet", "10.1.0.0/24"], "not inside a network of --cluster-cidr");
    check(&["--node-port-range", "40000-30000"], "not FROM-TO");
    check(&["--node-port-range", "0-5"], "not FROM-TO");
    check(&["--node-subnet-len", "31"], "between 8 and 30");
    check(
        &["--nodeport-addresses", "primary,10.0.0.0/8"],
        "primary: neither all nor primary alone",
    );
    check(&["--node-name", "Node_1"], "not a valid Kubernetes name");
    check(&["--node-labels", "zone"], "zone: not KEY=VALUE");
    check(&["--run-dir", "run"], "not an absolute path");
    check(&["--healthz-listen", "10256"], "not ADDRESS:PORT");
    check(&["--dns-listen", "on"], "neither auto nor off nor ADDRESS:PORT");
    check(&["--dns-domain", "a_b"], "not a domain");
    check(&["--dns-upstream", "one.one.one.one"], "neither an IP address nor ADDRESS:PORT");
    check(&["--dns-ttl", "3601"], "not a number of seconds between 0 and 3600");
    check(&["--dns-vip", "10.96.0.10,10.96.0.11"], "two of the same IP family");
    check(&["--dns-vip", "10.0.0.10"], "is in the cluster network");
    check(&["--lb-interface", "a/b"], "not the name of an interface");
    check(&["--masquerade-all=maybe"], "neither true nor false");
    check(&["--log-format", "xml"], "neither text nor json");
    check(&["--nonsense"], "--nonsense");
}

#[test]
fn settings_of_later_versions_are_refused_as_such() {
    let error = with_file("", &["--store", "kubernetes"]).unwrap_err();
    assert!(error.contains("not supported in this version"), "{error}");
    assert!(with_file("store = \"embedded\"\noverlay = \"none\"", &[]).is_ok());
}

#[test]
fn cleanup_has_flags_of_its_own() {
    let matches = command()
        .try_get_matches_from([
            "causewayd",
            "cleanup",
            "--all",
            "--run-dir",
            "/r",
            "--state-dir",
            "/s",
        ])
        .unwrap();
    let wanted = CleanupArgs {
        all: true,
        dry_run: false,
        run_dir: PathBuf::from("/r"),
        state_dir: PathBuf::from("/s"),
        data_dir: PathBuf::from("/var/lib/cni/causeway"),
    };
    assert!(matches!(invocation(&matches), Ok(Invocation::Cleanup(args)) if args == wanted));
}
