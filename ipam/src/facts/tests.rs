//! Files that other programs write.

use std::os::unix::fs::PermissionsExt as _;

use cni_plugin::Code;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;

/// Rows: F30
#[test]
fn the_clock_of_leases_is_that_of_the_boot() {
    let now = now();
    assert!(now.boot_ms > 0 && now.boot_ms / 1000 < now.unix, "{now:?}");
    assert!(!now.boot.is_empty());
}

#[test]
fn resolv_conf_reads_like_resolvers_do() {
    let text = "# a comment\n; another\nnameserver 10.0.0.53 extra\n\tnameserver fd00::53\n\
        domain example.net\nsearch a.example b.example\nsearch c.example\n\
        options ndots:5 edns0\nsortlist 1.2.3.4\nnameserver\ndomain\n";
    let dns = parse_resolv_conf(text);
    assert_eq!(dns.nameservers, ["10.0.0.53", "fd00::53"]);
    assert_eq!(dns.domain, "example.net");
    assert_eq!(dns.search, ["a.example", "b.example", "c.example"]);
    assert_eq!(dns.options, ["ndots:5", "edns0"]);
    assert!(parse_resolv_conf("").is_empty());
    let error = resolv_conf(Path::new("/nowhere/resolv.conf")).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (Code::Io, "read ipam.resolvConf /nowhere/resolv.conf",)
    );
}

#[test]
fn node_subnets_are_waited_for_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.json");
    assert_eq!(node_subnets(&path).unwrap_err().code, Code::TryAgainLater);
    for text in ["", "[]", "{}", r#"{"subnets":["x"]}"#, r#"{"subnets":[1]}"#] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(node_subnets(&path).unwrap_err().code, Code::Decode, "{text}");
    }
    for (text, part) in [
        (r#"{"subnets":[]}"#, "waits for causewayd"),
        (r#"{"subnets":[],"subnetRefused":""}"#, "waits for causewayd"),
        (r#"{"subnets":[],"subnetRefused":"n2 took 10.0.1.0/24"}"#, "n2 took 10.0.1.0/24"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = node_subnets(&path).unwrap_err();
        assert_eq!(error.code, Code::TryAgainLater, "{text}");
        assert!(error.msg.contains(part), "{text}: {error}");
    }
    for text in [
        r#"{"node":"a","subnets":["10.0.1.0/24","fd00:1::/64"]}"#,
        // Fields that this plugin does not use may be of any type.
        r#"{"node":1,"subnets":["10.0.1.0/24","fd00:1::/64"],"overlayMTU":"x","clusterCIDRs":7}"#,
    ] {
        std::fs::write(&path, text).unwrap();
        let subnets = node_subnets(&path).unwrap();
        assert_eq!(
            subnets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.1.0/24", "fd00:1::/64"]
        );
    }
}

#[test]
fn attachment_records_of_the_network_count_and_garbage_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("attachments/bridge/net");
    std::fs::create_dir_all(&folder).unwrap();
    assert_eq!(attached(dir.path(), "net"), []);
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write(
        "a.json",
        r#"{"key":{"network":"net","container_id":"c1","ifname":"eth0"},
        "record":{"addresses":["10.0.1.2/16","::ffff:10.0.1.9/112","nonsense",7],"more":{}}}"#,
    );
    write(
        "b.json",
        r#"{"key":{"network":"other","container_id":"c2","ifname":"eth0"},
        "record":{"addresses":["10.0.1.3/16"]}}"#,
    );
    write("c.json", "{ torn");
    write(
        "d.lock",
        r#"{"key":{"network":"net","container_id":"c4","ifname":"eth0"},
        "record":{"addresses":["10.0.1.4/16"]}}"#,
    );
    write("e.json", r#"{"key":{"network":"net","container_id":"c5","ifname":"eth0"},"record":{}}"#);
    let leases = attached(dir.path(), "net");
    let found: Vec<_> =
        leases.iter().map(|l| (l.address.to_string(), l.owner.container_id.as_str())).collect();
    assert_eq!(found, [("10.0.1.2".to_owned(), "c1"), ("10.0.1.9".to_owned(), "c1")]);
}

/// Users of the list would hand out the addresses that are missing from it.
#[test]
fn a_directory_that_cannot_be_read_hides_no_record_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join("attachments/bridge").join(name);
    for name in ["a", "b", "c"] {
        std::fs::create_dir_all(folder(name)).unwrap();
        let key = format!(r#"{{"network":"{name}","container_id":"c1","ifname":"eth0"}}"#);
        let record = format!(r#"{{"key":{key},"record":{{"addresses":["10.0.1.2/16"]}}}}"#);
        std::fs::write(folder(name).join("c1.json"), record).unwrap();
    }
    let set_mode = |mode| {
        std::fs::set_permissions(folder("b"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0);
    // Modes bind a thread without these rights, root's too.
    let found = std::thread::scope(|scope| {
        let ask = || {
            let mut held = capabilities(None).unwrap();
            held.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            set_capabilities(None, held).unwrap();
            assert!(folder("b").read_dir().is_err());
            attached_networks(dir.path())
        };
        scope.spawn(ask).join().unwrap()
    });
    set_mode(0o700);
    assert_eq!(found, ["a", "c"].map(str::to_owned).into());
}
