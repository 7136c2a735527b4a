//! `causeway-ipam` as a process: requests, crowds, kills, full disks, damaged stores.

mod auto;
mod net;

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;

use causeway_tests::{Cni, Node, Runtime, bins};
use net::{Net, address, plain};
use serde_json::{Value, json};

/// Rows: C13, C49, S-06, S-11
#[test]
fn a_result_holds_addresses_routes_and_dns_and_nothing_else() {
    let net = Net::new(json!({ "ranges": [
        [{ "subnet": "10.0.0.0/16", "rangeStart": "10.0.1.2", "rangeEnd": "10.0.1.254",
           "gateway": "10.0.1.1" }],
        [{ "subnet": "fd00::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.9.0.0/16", "gw": "10.0.1.9", "mtu": 1400 }],
        "resolvConf": "RESOLV" }));
    std::fs::write(net.node.dir().join("resolv.conf"), "nameserver 10.0.0.53\nsearch a b\n")
        .unwrap();
    assert_eq!(
        net.add("one"),
        json!({ "cniVersion": "1.1.0",
            "ips": [{ "address": "10.0.1.2/16", "gateway": "10.0.1.1" },
                    { "address": "fd00::2/64", "gateway": "fd00::1" }],
            "routes": [{ "dst": "0.0.0.0/0" },
                       { "dst": "10.9.0.0/16", "gw": "10.0.1.9", "mtu": 1400 }],
            "dns": { "nameservers": ["10.0.0.53"], "search": ["a", "b"] } })
    );
    assert_eq!(address(&net.add("two")), "10.0.1.3/16");
    let old = net.with("cniVersion", json!("0.2.0"));
    assert_eq!(old.add("three")["ip4"]["ip"], "10.0.1.4/16");
}

/// Rows: C61, C62, C66, F13
#[test]
fn an_attachment_has_its_addresses_once_and_loses_them_any_number_of_times() {
    let net = plain();
    net.del("never");
    assert!(!net.node.data_dir().join("net").exists(), "DEL before any ADD makes nothing");
    assert_eq!(address(&net.add("a")), "10.0.0.2/24");
    let refused = net.call("ADD", "a").run().error();
    let msg = "10.0.0.2 has been allocated to a, duplicate allocation is not allowed";
    assert_eq!(refused["msg"], msg);
    let second = net.call("ADD", "a").env("CNI_IFNAME", "eth1").run().json();
    assert_eq!(address(&second), "10.0.0.3/24");
    net.del("a");
    net.del("a");
    assert_eq!(net.leases(), ["10.0.0.3 net a eth1"]);
    assert_eq!(address(&net.add("a")), "10.0.0.4/24");
}

/// Rows: C67, F34
#[test]
fn a_release_needs_neither_the_ranges_nor_the_capabilities() {
    let net = plain();
    let ranges = json!({ "ipRanges": [[{ "subnet": "10.7.0.0/24" }]] });
    let rich = net.with("runtimeConfig", ranges);
    let bare = json!({ "type": "causeway-ipam", "dataDir": net.node.data_dir() });
    let mut broken = bare.clone();
    broken["ranges"] = json!([[{ "subnet": "nonsense" }]]);
    for ipam in [bare, broken] {
        assert_eq!(rich.add("a")["ips"].as_array().map(Vec::len), Some(2));
        net.with("ipam", ipam).del("a");
        assert_eq!(net.leases(), [""; 0]);
    }
    // Versions below 0.3.0 hold one address per IP family; what a newer one got goes all the same.
    rich.add("b");
    let old = rich.with("cniVersion", json!("0.2.0"));
    assert_eq!(old.call("ADD", "c").run().error_code(), 7);
    old.del("b");
    assert_eq!(net.leases(), [""; 0]);
}

/// Rows: C71, C72
#[test]
fn check_compares_the_leases_with_the_result() {
    let net = plain();
    let result = net.add("a");
    net.add("b");
    let check = |id: &str, previous: &Value| {
        net.with("prevResult", previous.clone()).call("CHECK", id).run()
    };
    check("a", &result).silent();
    for (id, previous, part) in [
        ("c", &result, "no address of network net is leased to eth0 of container c"),
        ("b", &result, "10.0.0.3 is leased to eth0 of container b but not in prevResult"),
    ] {
        let error = check(id, previous).error();
        assert!(error["msg"].as_str().is_some_and(|msg| msg.contains(part)), "{error}");
    }
    let mut more = result.clone();
    more["ips"] = json!([result["ips"][0], { "address": "10.0.0.9/24" }]);
    let error = check("a", &more).error();
    assert_eq!(error["msg"], "10.0.0.9 of prevResult is not leased to eth0 of container a");
    // A later plugin may add what is none of ours.
    more["ips"][1] = json!({ "address": "192.168.0.9/24" });
    check("a", &more).silent();
    net.del("a");
    assert_ne!(check("a", &result).code(), 0);
}

/// As upstream's `host-local`, which asks for none.
///
/// Rows: RC8
#[test]
fn check_without_a_result_asks_for_a_lease_alone() {
    let net = plain();
    net.add("a");
    net.call("CHECK", "a").run().silent();
    let error = net.call("CHECK", "b").run().error();
    let part = "no address of network net is leased to eth0 of container b";
    assert!(error["msg"].as_str().is_some_and(|msg| msg.contains(part)), "{error}");
}

/// Rows: C73, C74, C83, F1, F46, F47
#[test]
fn gc_frees_what_is_not_listed_in_this_network_only() {
    let net = plain();
    let other = net.with("name", json!("other"));
    for id in ["a", "b", "c"] {
        net.add(id);
        other.add(id);
    }
    let gc = |list: Value| net.with("cni.dev/valid-attachments", list).call("GC", "").run();
    for bad in [json!("all"), json!([{ "containerID": "a" }]), json!([7])] {
        let code = gc(bad).error_code();
        assert!(code == 6 || code == 7, "{code}");
    }
    assert_eq!(net.leases().len(), 6);
    gc(json!([{ "containerID": "b", "ifname": "eth0" }, { "containerID": "c", "ifname": "x" }]))
        .silent();
    let others = ["10.0.0.2 other a eth0", "10.0.0.3 other b eth0", "10.0.0.4 other c eth0"];
    assert_eq!(net.leases(), [&["10.0.0.3 net b eth0"][..], &others].concat());
    // A list that may be older than the newest attachments: they have a time of grace.
    let mut ipam = net.config["ipam"].clone();
    ipam["gcGrace"] = json!("1h");
    let none = net.with("cni.dev/valid-attachments", json!([]));
    none.with("ipam", ipam).call("GC", "").run().silent();
    assert_eq!(net.leases().len(), 4);
    none.call("GC", "").run().silent();
    assert_eq!(net.leases(), others);
}

/// Rows: C76, C77, F31
#[test]
fn status_tells_of_exhaustion_where_it_is_asked_to() {
    let net =
        Net::new(json!({ "ranges": [[{ "subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.3" }]] }));
    let status = |net: &Net| net.call("STATUS", "").run();
    status(&net).silent();
    net.add("a");
    status(&net).silent();
    net.add("b");
    let full = "no IP addresses available in range set: 10.0.0.1-10.0.0.3";
    let error = net.call("ADD", "c").run().error();
    assert_eq!((&error["code"], &error["msg"]), (&json!(100), &json!(full)));
    let error = status(&net).error();
    assert_eq!((&error["code"], &error["msg"]), (&json!(50), &json!(full)));
    let mut ipam = net.config["ipam"].clone();
    ipam["statusIgnoresExhaustion"] = json!(true);
    status(&net.with("ipam", ipam)).silent();
    net.del("a");
    status(&net).silent();
    assert_eq!(address(&net.add("c")), "10.0.0.2/29");
    let wrong = net.with("ipam", json!({ "ranges": [] }));
    assert_eq!(status(&wrong).error_code(), 7);
    let waiting = net.with("ipam", json!({ "subnet": "auto", "runDir": net.node.run_dir() }));
    assert_eq!(status(&waiting).error_code(), 50);
    assert_eq!(waiting.call("ADD", "a").run().error_code(), 11);
}

/// Rows: F32, F33
#[test]
fn a_refused_request_allocates_nothing() {
    let net = Net::new(json!({ "ranges": [
        [{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.1.0.0/30", "rangeStart": "10.1.0.2" }]] }));
    net.add("a");
    assert_eq!(net.call("ADD", "b").run().error_code(), 100);
    net.del("a");
    for args in ["IP=10.0.0.1", "IP=10.0.0.255", "IP=10.0.9.9"] {
        let outcome = net.call("ADD", "b").env("CNI_ARGS", args).run();
        assert_eq!(outcome.error_code(), 101, "{}", outcome.describe());
    }
    assert_eq!(net.leases(), [""; 0]);
    let asked = net.call("ADD", "b").env("CNI_ARGS", "IgnoreUnknown=1;IP=10.0.0.77").run().json();
    assert_eq!(address(&asked), "10.0.0.77/24");
    let taken = plain_with_ip(&net, "10.0.0.77");
    assert_eq!(taken["code"], 101);
    assert_eq!(taken["details"], "it belongs to eth0 of container b");
}

fn plain_with_ip(net: &Net, address: &str) -> Value {
    net.with("args", json!({ "cni": { "ips": [address] } })).call("ADD", "z").run().error()
}

/// Rows: C75, C78, F10, F11, S-12
#[test]
fn a_hundred_processes_at_once_get_a_hundred_addresses() {
    let net = plain();
    net.add("first");
    let running: Vec<_> = (0..100).map(|n| net.call("ADD", &format!("c{n}")).spawn()).collect();
    let releasing = net.call("DEL", "first").spawn();
    let results: Vec<Value> = running.into_iter().map(|one| one.wait().json()).collect();
    releasing.wait().silent();
    let unique: BTreeSet<String> = results.iter().map(|one| address(one).to_owned()).collect();
    assert_eq!(unique.len(), 100);
    let held: BTreeSet<String> = net.leases().into_iter().collect();
    assert_eq!(held.len(), 100);
    assert!(!held.iter().any(|line| line.contains("first")));
    let running: Vec<_> = (0..100).map(|n| net.call("DEL", &format!("c{n}")).spawn()).collect();
    running.into_iter().for_each(|one| one.wait().silent());
    assert_eq!(net.leases(), [""; 0]);
}

/// Rows: C84
#[test]
fn it_serves_upstreams_main_plugins() {
    let net = plain();
    let pod = net.node.pod();
    let list = json!({ "cniVersion": "1.0.0", "name": "net",
        "plugins": [{ "type": "ptp", "ipam": net.config["ipam"] }] });
    let runtime = Runtime::new(&net.node, list);
    let attachment = pod.attachment("eth0");
    let result = runtime.add_ok(&attachment);
    assert_eq!(result["ips"][0]["address"], "10.0.0.2/24");
    assert_eq!(pod.addresses("eth0"), ["10.0.0.2/24"]);
    assert_eq!(net.leases().len(), 1);
    assert!(runtime.check(&attachment).is_ok());
    runtime.del_ok(&attachment);
    assert_eq!(net.leases(), [""; 0]);
}

/// Each kill hits another point of ADD or DEL, from before the start to after the end.
///
/// Rows: C19, F1, F5, F7
#[test]
fn a_killed_process_leaves_the_old_state_or_the_new_one() {
    let net = plain();
    net.add("settled");
    let step = net.microseconds_of_an_add() * 12 / 1000;
    for n in 0..100 {
        let id = format!("k{n}");
        let command = if n % 4 == 3 { "DEL" } else { "ADD" };
        if command == "DEL" {
            net.add(&id);
        }
        net.killed_after_microseconds(command, &id, n * step);
        let leases = net.leases();
        assert!(leases.contains(&"10.0.0.2 net settled eth0".to_owned()), "{leases:?}");
        let own: Vec<_> = leases.iter().filter(|line| line.contains(&id)).collect();
        assert!(own.len() <= 1 && leases.len() == 1 + own.len(), "{leases:?}");
        // The runtime knows of no result: it releases and comes again with another id.
        net.del(&id);
        net.add(&format!("new{n}"));
        net.del(&format!("new{n}"));
    }
    assert_eq!(net.leases(), ["10.0.0.2 net settled eth0"]);
    let repaired = net.tool(&["repair"]);
    assert_eq!(repaired.stdout, b"network net: intact, 1 leases\n", "{}", repaired.describe());
}

/// Rows: C77, F26, C-01
#[test]
fn a_lock_that_is_never_given_back_ends_in_try_again_later() {
    let net = plain();
    net.add("a");
    let path = net.node.data_dir().join(".net.lock");
    let hung = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    // SAFETY: flock takes no pointer, and the descriptor is open.
    assert_eq!(unsafe { libc::flock(hung.as_raw_fd(), libc::LOCK_EX) }, 0);
    net.call("STATUS", "").run().silent();
    let error = net.call("ADD", "b").run().error();
    assert_eq!(error["code"], 11, "{error}");
    let msg = error["msg"].as_str().unwrap();
    assert!(msg.contains("/net is locked by process "), "{msg}");
    drop(hung);
    net.add("b");
}

/// The last opener of a store is on its way out: sled's lock is free a moment later. Whoever waits
/// for it, with a real-time policy, must not keep the thread that gets it from running.
///
/// Rows: F26
#[test]
#[expect(clippy::disallowed_methods, reason = "what is tested is a delay")]
fn a_store_that_is_being_closed_delays_an_add_no_longer_than_that() {
    let net = plain();
    net.add("a");
    let log = std::fs::File::open(net.node.data_dir().join("net/db")).unwrap();
    log.lock().unwrap();
    let inode = format!(":{} ", log.metadata().unwrap().ino());
    let release = std::thread::spawn(move || {
        let is_waiter = |line: &str| line.contains("-> FLOCK") && line.contains(&inode);
        while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(is_waiter) {
            std::thread::yield_now();
        }
        log.unlock().unwrap();
        std::time::Instant::now()
    });
    net.add("b");
    let delay = release.join().unwrap().elapsed();
    assert!(delay < std::time::Duration::from_millis(700), "{delay:?}");
}

/// The kubelet's runtime asks every five seconds. A store that is in use serves ADD a moment later.
///
/// Rows: RC7
#[test]
#[expect(clippy::disallowed_methods, reason = "the row is a limit of time")]
fn status_does_not_wait_for_stores_in_use() {
    let net = plain();
    net.add("a");
    let mut auto = net.with("name", json!("new"));
    auto.config["ipam"]["ranges"] = json!([[{ "subnet": "auto" }]]);
    std::fs::write(net.node.run_dir().join("node.json"), r#"{"subnets":["10.9.0.0/24"]}"#).unwrap();
    let names = ["one", "two", "three"];
    for name in names {
        net.with("name", json!(name)).add("a");
    }
    let data = net.node.data_dir();
    let paths = names.map(|name| data.join(format!(".{name}.lock")));
    for (held, network) in [(vec![data.join("net/db")], &net), (paths.to_vec(), &auto)] {
        let hung: Vec<_> = held
            .iter()
            .map(|path| std::fs::File::options().read(true).write(true).open(path).unwrap())
            .collect();
        for file in &hung {
            // SAFETY: flock takes no pointer, and the descriptor is open.
            assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
        }
        let start = std::time::Instant::now();
        network.call("STATUS", "").run().silent();
        assert!(start.elapsed() < std::time::Duration::from_millis(2500), "{:?}", start.elapsed());
    }
}

/// Rows: F27
#[test]
fn what_is_printed_is_on_disk() {
    let net = plain();
    for id in ["first", "second"] {
        let calls = net.traced("ADD", id);
        let last = |name: &str, file: &str| {
            let found = calls.iter().rposition(|call| call.contains(name) && call.contains(file));
            found.unwrap_or_else(|| panic!("no {name} of {file} in {calls:#?}"))
        };
        let written = last(" pwrite64(", "/net/db>");
        let synced = last(" fsync(", "/net/db>");
        let printed = last(" write(1<", "ips");
        assert!(written < synced && synced < printed, "{calls:#?}");
    }
}

/// Rows: F23
#[test]
fn a_full_disk_fails_the_add_and_keeps_nothing_of_it() {
    let node = Node::new("full");
    let disk = node.dir().join("disk");
    std::fs::create_dir(&disk).unwrap();
    node.sh(&format!("mount -t tmpfs -o size=4m full {}", disk.display()));
    let net = Net::on(node, &disk, json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }]] }));
    net.add("a");
    let fill = disk.join("fill");
    net.node.sh(&format!("head -c 8m /dev/zero > {} || true", fill.display()));
    for id in ["b", "c"] {
        let outcome = net.call("ADD", id).run();
        assert_eq!(outcome.error_code(), 5, "{}", outcome.describe());
    }
    let release = net.call("DEL", "a").run();
    assert!(release.code() == 0 || release.error_code() == 5, "{}", release.describe());
    std::fs::remove_file(&fill).unwrap();
    let leases = net.leases();
    assert!(leases.iter().all(|line| line == "10.0.0.2 net a eth0"), "{leases:?}");
    net.del("a");
    net.add("b");
    net.del("b");
    assert_eq!(net.leases(), [""; 0]);
    net.node.sh(&format!("mount -o remount,ro {}", disk.display()));
    assert_eq!(net.call("ADD", "b").run().error_code(), 5);
    assert_eq!(net.call("DEL", "b").run().error_code(), 5);
    net.node.sh(&format!("umount -l {}", disk.display()));
}

/// Rows: F24
#[test]
fn addresses_in_use_survive_the_loss_of_the_store() {
    let node = Node::new("wiped");
    let runtime = Runtime::new(&node, node.conflist("net", "10.0.0.0/24"));
    let (one, two) = (node.pod(), node.pod());
    let first = runtime.add_ok(&one.attachment("eth0"));
    assert_eq!(first["ips"][0]["address"], "10.0.0.2/24");
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    let second = runtime.add_ok(&two.attachment("eth0"));
    assert_eq!(second["ips"][0]["address"], "10.0.0.3/24");
    runtime.del_ok(&one.attachment("eth0"));
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    runtime.del_ok(&two.attachment("eth0"));
}

/// Rows: F25
#[test]
fn a_damaged_store_is_named_and_repaired_and_harms_no_other_network() {
    let net = plain();
    let other = net.with("name", json!("other"));
    net.add("a");
    net.add("b");
    other.add("a");
    let store = net.node.data_dir().join("net");
    let log = std::fs::File::options().write(true).open(store.join("db")).unwrap();
    log.set_len(600).unwrap();
    let error = net.call("ADD", "c").run().error();
    assert_eq!(error["code"], 103, "{error}");
    let msg = format!(
        "lease store {} is damaged; `causeway-ipam repair` rebuilds it from the readable records",
        store.display()
    );
    assert_eq!(error["msg"], msg);
    assert_eq!(net.call("DEL", "a").run().error_code(), 103);
    assert_eq!(net.call("STATUS", "").run().error_code(), 50);
    assert_eq!(address(&other.add("b")), "10.0.0.3/24");
    let repaired = net.tool(&["repair"]).ok();
    assert!(repaired.contains("network net: rebuilt with "), "{repaired}");
    assert!(repaired.contains("network other: intact, 2 leases\n"), "{repaired}");
    net.call("STATUS", "").run().silent();
    net.del("a");
    net.del("b");
    net.add("c");
}

/// Rows: F28, S-06
#[test]
fn leases_of_host_local_are_taken_over() {
    let net = plain();
    let folder = net.node.dir().join("net");
    let mut upstream = net.with(
        "ipam",
        json!({ "type": "host-local", "dataDir": net.node.dir(), "subnet": "10.0.0.0/24" }),
    );
    upstream.config["cniVersion"] = json!("1.0.0");
    let host_local = |command: &str, id: &str| {
        let attachment = net.attachment(id);
        Cni::new(&net.node, "host-local", command, &upstream.config).attachment(&attachment).run()
    };
    assert_eq!(address(&host_local("ADD", "a").json()), "10.0.0.2/24");
    host_local("ADD", "b").json();
    std::fs::write(folder.join("10.0.0.9"), "old").unwrap();
    let imported = net.tool(&["import", &folder.display().to_string()]).ok();
    assert!(imported.starts_with("network net: 3 leases imported, 0 already known,"), "{imported}");
    let again = net.tool(&["import", &folder.display().to_string()]).ok();
    assert!(again.starts_with("network net: 0 leases imported, 3 already known,"), "{again}");
    assert_eq!(address(&net.add("c")), "10.0.0.4/24");
    for id in ["a", "b", "old"] {
        net.del(id);
    }
    assert_eq!(net.leases(), ["10.0.0.4 net c eth0"]);
}

/// Rows: F29, RC6
#[test]
fn after_a_boot_every_address_is_free_at_once() {
    let net = plain();
    let boot = net.node.dir().join("boot_id");
    std::fs::write(&boot, "another boot\n").unwrap();
    let asked = |id: &str| net.call("ADD", id).env("CNI_ARGS", "IP=10.0.0.9");
    asked("a").run().json();
    assert_eq!(asked("b").run().error_code(), 101);
    let rebooted = net.after_boot(&boot, asked("b")).ok();
    assert!(rebooted.contains("10.0.0.9/24"), "{rebooted}");
    assert_eq!(net.leases_of_boot(&boot), ["10.0.0.9 net b eth0"]);
    // A lease of another boot is nobody's.
    assert_eq!(net.leases(), [""; 0]);
}

/// Rows: F51
#[test]
fn sixty_thousand_leases_leave_room_for_more() {
    let net = Net::new(json!({ "ranges": [[{ "subnet": "10.0.0.0/16" }]] }));
    let folder = net.node.dir().join("net");
    std::fs::create_dir(&folder).unwrap();
    for n in 0..60_000_u32 {
        let address = std::net::Ipv4Addr::from(0x0a00_0002 + n);
        std::fs::write(folder.join(address.to_string()), format!("container{n}\r\neth0")).unwrap();
    }
    net.tool(&["import", &folder.display().to_string()]).ok();
    assert_eq!(address(&net.add("more")), "10.0.234.98/16");
    net.del("container30000");
    net.del("more");
    let calls = net.traced("ADD", "traced").len();
    assert!(calls < 1000, "an ADD walks through {calls} places beside 60,000 leases");
    net.del("traced");
    let size = |name: &str| {
        let path = net.node.data_dir().join("net").join(name);
        std::fs::metadata(path).map_or(0, |meta| meta.len())
    };
    assert!(size("db") < 32 * 1024 * 1024, "{}", size("db"));
    for n in 0..20 {
        net.add(&format!("x{n}"));
        net.del(&format!("x{n}"));
    }
    assert!(size("db") < 32 * 1024 * 1024, "{}", size("db"));
}

/// Rows: F48, C17
#[test]
fn a_result_that_nobody_reads_is_taken_back() {
    let net = plain();
    net.add("first");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = net.call("ADD", "a").command();
    let stdin = net.node.dir().join("stdin");
    std::fs::write(&stdin, net.config.to_string()).unwrap();
    command.stdin(std::fs::File::open(&stdin).unwrap()).stdout(full);
    assert!(!command.status().unwrap().success());
    assert_eq!(net.leases(), ["10.0.0.2 net first eth0"]);
}

#[test]
fn the_program_says_what_it_is() {
    let net = plain();
    let outcome = net.tool(&[]);
    assert!(outcome.status.success() && outcome.stdout.is_empty(), "{}", outcome.describe());
    let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(text.starts_with("CNI causeway-ipam plugin v"), "{text}");
    assert_eq!(net.tool(&["nonsense"]).code(), 2);
    assert!(bins::ours("causeway-ipam").exists());
}
