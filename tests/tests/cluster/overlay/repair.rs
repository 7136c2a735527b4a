//! Whatever anybody does to the overlay, it is as it should be within moments.

use std::time::Duration;

use causeway_tests::{Lab, Ns};

use super::stage::{
    Families, Setup, Stage, addresses, assert_connected, device, fdb, neighbours, routes, vtep,
    write_file,
};

/// All of the overlay in a node's kernel.
fn whole(ns: &Ns) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(link) = device(ns) {
        let data = &link["linkinfo"]["info_data"];
        let [id, port, local, learning] = ["id", "port", "local", "learning"].map(|key| &data[key]);
        let [mac, mtu, flags] = ["address", "mtu", "flags"].map(|key| &link[key]);
        let up = flags.as_array().is_some_and(|flags| flags.contains(&"UP".into()));
        let more = ["group", "gbp", "l2miss"].map(|key| &data[key]);
        all.push(format!("{mac} {mtu} up {up} {id} {port} {local} {learning} {more:?}"));
        all.extend(addresses(ns));
        all.extend(neighbours(ns));
        all.extend(fdb(ns));
    }
    all.extend(routes(ns));
    all
}

/// Whether all threads of a process are stopped.
fn stopped(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    tasks.map(|task| task.expect("a thread").path().join("status")).all(|status| {
        // A thread may end meanwhile.
        std::fs::read_to_string(status).is_ok_and(|status| status.contains("State:\tT"))
    })
}

impl Stage<'_> {
    /// Does something to a node's overlay and waits until all of it is as before.
    fn mend(&self, index: usize, what: &str) -> Duration {
        let node = self.node(index);
        let before = whole(node);
        // It looks when all of it is done, and not at every part.
        let daemon = &self.daemons[index];
        daemon.signal(libc::SIGSTOP);
        daemon.until("it stands still", || stopped(daemon.pid()));
        node.sh(what);
        assert_ne!(whole(node), before, "{what}");
        daemon.signal(libc::SIGCONT);
        let took = daemon.until(&format!("{what}: put right"), || whole(node) == before);
        eprintln!("{what}: put right within {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        took
    }
}

/// Rows: O-05, O-11, O-12, O-13, O-14, O-21, O-23
#[test]
fn what_anybody_removes_or_changes_is_put_right() {
    let lab = Lab::with_nodes(3);
    let mut setup = Setup::new("vxlan");
    setup.pods = Families::Dual;
    let stage = Stage::new(&lab, setup);
    let (one, two) = (stage.pod(0), stage.pod(1));
    let mac = vtep("node2");
    for what in [
        "ip link del cwov1",
        "ip route del 10.0.2.0/24",
        "ip route flush proto 197; ip -6 route flush proto 197",
        "ip neigh del 10.0.2.0 dev cwov1",
        "ip neigh flush dev cwov1 nud permanent",
        "ip neigh replace 10.0.2.0 lladdr 02:00:00:00:00:99 dev cwov1 nud permanent",
        "ip neigh replace 10.0.2.0 lladdr 02:00:00:00:00:99 dev cwov1 nud stale",
        "ip neigh add 10.0.9.0 lladdr 02:00:00:00:00:99 dev cwov1 nud permanent",
        &format!("bridge fdb del {mac} dev cwov1 self"),
        &format!("bridge fdb replace {mac} dev cwov1 self dst 172.18.0.99 permanent"),
        "bridge fdb append 00:00:00:00:00:00 dev cwov1 self dst 172.18.0.99 permanent",
        "ip addr flush dev cwov1 scope global",
        "ip addr add 10.0.1.77/32 dev cwov1",
        "ip link set cwov1 down",
        "ip link set cwov1 address 02:00:00:00:00:99",
        "ip link set cwov1 mtu 1400",
        "ip link set cwov1 type vxlan learning",
        "ip link del cwov1; ip link add cwov1 type vxlan id 1 dstport 4789 local 172.18.0.2 dev eth0; \
         ip link set cwov1 up",
        "ip link del cwov1; ip link add cwov1 type vxlan id 1 dstport 8472 local 172.18.0.2 dev eth0 \
         nolearning gbp l2miss; ip link set cwov1 up",
        "ip link del cwov1; ip link add cwov1 type bridge; ip link set cwov1 up",
        "ip route replace 10.0.2.0/24 via 172.18.0.9 dev eth0 proto 197",
        "ip -6 route replace fd00:10:0:2::/64 via fd00:172:18::9 dev eth0 proto 197",
        "ip -6 route add fd00:10:0:2::/64 via fd00:172:18::9 dev eth0 proto 197 metric 77",
        "ip -6 neigh del fd00:10:0:2:: dev cwov1",
        "ip link del cwov1; ip -6 route add fd00:10:0:2::/64 via fd00:172:18::9 dev eth0 proto 197",
        "ip route add 10.0.77.0/24 via 172.18.0.9 dev eth0 proto 197",
        "ip route add 10.0.2.0/24 via 172.18.0.9 dev eth0 proto 197 metric 77",
        "ip route add 10.0.2.0/24 via 172.18.0.9 dev eth0 proto 197 table 77",
    ] {
        stage.mend(0, what);
    }
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
}

/// Rows: O-14, O-20
#[test]
fn plain_routes_are_put_right_too() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("host-gw"));
    let (one, two) = (stage.pod(0), stage.pod(1));
    for what in [
        "ip route del 10.0.2.0/24",
        "ip route replace 10.0.2.0/24 via 172.18.0.9 dev eth0 proto 197",
        "ip route add 10.0.77.0/24 via 172.18.0.9 dev eth0 proto 197",
        "ip link set eth0 down; ip link set eth0 up",
    ] {
        stage.mend(0, what);
    }
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1500);
}

/// Rows: O-15
#[test]
fn peers_that_are_no_more_leave_nothing() {
    let lab = Lab::with_nodes(3);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let (two, all) = (vtep("node2"), whole(node));
    stage.peers(0, &[0, 1]);
    stage.daemons[0].until("the third node is gone", || {
        routes(node) == ["10.0.2.0/24 via 10.0.2.0 dev cwov1 onlink"]
            && neighbours(node) == [format!("10.0.2.0 {two} PERMANENT")]
            && fdb(node) == [format!("{two} dst 172.18.0.3 permanent")]
    });
    stage.peers(0, &[0, 1, 2]);
    stage.daemons[0].until("it is back", || whole(node) == all);
}

/// Rows: O-15, O-66
#[test]
fn a_start_removes_what_a_former_run_left_and_touches_nothing_else() {
    let lab = Lab::with_nodes(3);
    let mut stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let index = device(node).expect("the device")["ifindex"].clone();
    stage.daemons[0].kill();
    stage.peers(0, &[0, 1]);
    node.sh("ip route add 10.0.77.0/24 via 172.18.0.9 dev eth0 proto 197");
    // The kernel says all that is changed from now on.
    let log = node.dir().join("monitor");
    let script =
        format!("ip -o monitor link address route neigh > {} 2>&1 & echo $!", log.display());
    let pid = node.sh(&script).trim().to_owned();
    stage.daemons[0].again();
    stage.daemons[0].until("only the second node", || routes(node).len() == 1);
    stage.daemons[0]
        .until("its objects, too", || neighbours(node).len() == 1 && fdb(node).len() == 1);
    node.sh(&format!("kill {pid}"));
    assert_eq!(device(node).expect("the device")["ifindex"], index);
    let seen = std::fs::read_to_string(&log).expect("what the monitor saw");
    let ours = |line: &&str| line.contains("10.0.2.") || line.contains(&vtep("node2"));
    let touched: Vec<&str> = seen.lines().filter(ours).collect();
    assert!(touched.is_empty(), "{touched:?}");
    assert!(seen.contains("10.0.77.0/24"), "{seen}");
}

/// Rows: O-62
#[test]
fn a_node_with_another_address_is_reached_there() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let (one, two) = (stage.pod(0), stage.pod(1));
    stage.node(1).ip("addr del 172.18.0.3/24 dev eth0\naddr add 172.18.0.33/24 dev eth0\n\
         route add default via 172.18.0.1\n");
    let moved = |text: String| text.replace("172.18.0.3\"", "172.18.0.33\"");
    for index in [0, 1] {
        let text = moved(stage.setup.entry(0)) + &moved(stage.setup.entry(1));
        write_file(stage.node(index), &text);
    }
    let mac = vtep("node2");
    let took = stage.daemons[0].until("one destination, the new one", || {
        fdb(stage.node(0)) == [format!("{mac} dst 172.18.0.33 permanent")]
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
    stage.daemons[1].until("its own end", || {
        let link = device(stage.node(1));
        link.is_some_and(|link| link["linkinfo"]["info_data"]["local"] == "172.18.0.33")
            && routes(stage.node(1)).len() == 1
    });
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
}

/// Rows: O-10, O-11, O-21, O-23
#[test]
fn the_mtu_of_the_underlay_is_followed() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let file = stage.node(0).run_dir().join("node.json");
    let told = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&file).expect("node.json")).expect("JSON")
    };
    assert_eq!(told()["overlayMTU"], 1450);
    for (underlay, overlay) in [(1400, 1350), (1600, 1550)] {
        for index in [0, 1] {
            stage.lab.switch.sh(&format!("ip link set {} mtu {underlay}", Lab::port(index)));
            stage.node(index).sh(&format!("ip link set eth0 mtu {underlay}"));
            let took = stage.daemons[index].until("the device's MTU", || {
                device(stage.node(index)).is_some_and(|link| link["mtu"] == overlay)
            });
            eprintln!("followed within {took:?}");
        }
        stage.lab.switch.sh(&format!("ip link set sw0 mtu {underlay}"));
        stage.daemons[0].until("node.json", || told()["overlayMTU"] == overlay);
    }
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_eq!(one.0.link("eth0").expect("eth0")["mtu"], 1550);
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1550);
}

/// The interfaces of running containers keep what they were made with.
///
/// Rows: RD10
#[test]
fn attachments_with_the_old_mtu_are_named() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let (old, _) = stage.pod(0);
    let warnings = || stage.daemons[0].status().warnings;
    let names = |id: &str| warnings().iter().any(|line| line.contains(id));
    assert!(!names(&old.id), "{:?}", warnings());
    stage.node(0).sh("ip link set eth0 mtu 1400");
    stage.daemons[0].until("it is named", || names(&old.id));
    let text = warnings().join("\n");
    assert!(text.contains("has MTU 1450") && text.contains("to other nodes has 1350"), "{text}");
    assert!(stage.daemons[0].causeway(&["status"]).ok().contains(&old.id));
    // One that is attached now has the new one.
    let (new, _) = stage.pod(0);
    assert_eq!(new.link("eth0").expect("eth0")["mtu"], 1350);
    assert!(!names(&new.id), "{:?}", warnings());
    // Until the interface is what it should be.
    let host = stage.node(0).sh("ip -j link show type veth");
    let links: serde_json::Value = serde_json::from_str(&host).expect("JSON");
    let of_old = links.as_array().expect("links").iter().filter(|link| link["mtu"] == 1450);
    for link in of_old {
        stage
            .node(0)
            .sh(&format!("ip link set {} mtu 1350", link["ifname"].as_str().expect("a name")));
    }
    stage.daemons[0].until("nobody is named", || !names(&old.id));
}

/// Rows: RD1
#[test]
fn the_mtu_of_a_route_to_a_peer_counts() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let mtu = || device(stage.node(0)).map(|link| link["mtu"].clone());
    assert_eq!(mtu(), Some(1450.into()));
    stage.node(0).sh("ip route replace 172.18.0.3/32 dev eth0 mtu 1300");
    stage.daemons[0].until("the device's MTU", || mtu() == Some(1250.into()));
    stage.node(0).sh("ip route del 172.18.0.3/32 dev eth0");
    stage.daemons[0].until("and back", || mtu() == Some(1450.into()));
}

/// Rows: O-18
#[test]
fn a_device_of_others_with_the_same_tunnel_is_named() {
    let lab = Lab::with_nodes(2);
    stage_with_flannel(&lab, |stage| {
        let degraded = || stage.daemons[0].status().degraded.join("\n");
        stage.daemons[0].until("it says so", || degraded().contains("flannel.1"));
        let text = degraded();
        assert!(text.contains("8472") && text.contains("--vxlan-port"), "{text}");
        stage.node(0).sh("ip link del flannel.1");
        stage.until_whole(0);
        stage.daemons[0].until("all is well", || degraded().is_empty());
    });
}

fn stage_with_flannel(lab: &Lab, test: impl FnOnce(&Stage<'_>)) {
    lab.nodes[0].sh("ip link add flannel.1 type vxlan id 1 local 172.18.0.2 dev eth0 dstport 8472");
    let stage = Stage::started(lab, Setup::new("vxlan"));
    test(&stage);
}

/// Rows: O-67
#[test]
fn after_a_reboot_all_is_made_anew() {
    let lab = Lab::with_nodes(2);
    let mut stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let before = whole(node);
    stage.daemons[0].kill();
    node.sh("ip link del cwov1; ip route flush proto 197");
    std::fs::remove_dir_all(node.run_dir()).expect("a tmpfs");
    stage.daemons[0].again();
    let told = std::fs::read_to_string(node.run_dir().join("node.json")).expect("node.json");
    assert!(told.contains("\"overlayMTU\":1450"), "{told}");
    assert!(told.contains("10.0.1.0/24"), "{told}");
    stage.daemons[0].until("all is there", || whole(node) == before);
}

/// A route of another program is not ours to replace: it is named.
#[test]
fn a_route_of_others_to_a_peer_is_named() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let degraded = || stage.daemons[0].status().degraded.join("\n");
    node.sh("ip route replace 10.0.2.0/24 via 172.18.0.9 dev eth0");
    stage.daemons[0]
        .until("it says so", || degraded().contains("ip route del 10.0.2.0/24 dev eth0"));
    assert!(node.sh("ip route").contains("10.0.2.0/24 via 172.18.0.9"));
    node.sh("ip route del 10.0.2.0/24 dev eth0");
    stage.until_whole(0);
    stage.daemons[0].until("all is well", || degraded().is_empty());
}

/// Rows: O-48
#[test]
fn two_nodes_of_one_address_are_named_and_others_go_on() {
    let lab = Lab::with_nodes(3);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let (one, two) = (stage.pod(0), stage.pod(1));
    let third = stage.setup.entry(2);
    let fourth = third.replace("node3", "node4").replace("10.0.3.0", "10.0.4.0");
    let text = stage.setup.entry(0) + &stage.setup.entry(1) + &third + &fourth;
    write_file(stage.node(0), &text);
    let degraded = || stage.daemons[0].status().degraded.join("\n");
    stage.daemons[0].until("it says so", || {
        let text = degraded();
        ["node3", "node4", "172.18.0.4"].iter().all(|part| text.contains(part))
    });
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
    stage.peers(0, &[0, 1, 2]);
    stage.daemons[0].until("all is well", || degraded().is_empty());
    stage.until_whole(0);
}

/// Other settings leave nothing of the former ones.
///
/// Rows: O-21
#[test]
fn other_settings_leave_nothing_of_former_ones() {
    let lab = Lab::with_nodes(2);
    let mut stage = Stage::new(&lab, Setup::new("vxlan"));
    let overlays = |stage: &Stage<'_>| {
        let names = stage.node(0).link_names().into_iter();
        names.filter(|name| name.starts_with("cwov")).collect::<Vec<_>>()
    };
    assert_eq!(overlays(&stage), ["cwov1"]);
    let mut other = Setup::new("vxlan");
    other.flags = vec!["--vxlan-id", "2"];
    stage.restart(0, other);
    stage.daemons[0].until("another device", || overlays(&stage) == ["cwov2"]);
    stage.until_whole(0);
    stage.restart(0, Setup::new("host-gw"));
    stage.daemons[0].until("no device", || overlays(&stage).is_empty());
    assert_eq!(routes(stage.node(0)), ["10.0.2.0/24 via 172.18.0.3 dev eth0"]);
    stage.restart(0, Setup::new("none"));
    assert!(routes(stage.node(0)).is_empty());
}

/// Nobody's wrong file takes anything away.
#[test]
fn a_wrong_peers_file_changes_nothing_and_is_named() {
    let lab = Lab::with_nodes(2);
    let mut stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let before = whole(node);
    let wrong = "[[node]]\nname = \"node2\"\nip = \"nonsense\"\nsubnet = \"10.0.2.0/24\"\n";
    write_file(node, wrong);
    stage.daemons[0].kill();
    stage.daemons[0].again();
    let degraded = || stage.daemons[0].status().degraded.join("\n");
    assert!(degraded().contains("what there is of an overlay stays"), "{}", degraded());
    assert_eq!(whole(node), before);
    stage.peers(0, &[0, 1]);
    stage.daemons[0].until("all is well", || degraded().is_empty());
    assert_eq!(whole(node), before);
    write_file(node, wrong);
    stage.daemons[0]
        .until("it says so", || degraded().contains("peers.toml:1: node \"node2\": ip:"));
    assert_eq!(whole(node), before);
    write_file(node, &stage.setup.entry(1));
    stage.daemons[0].until("this node is missing", || degraded().contains("\"node1\"; add it"));
    assert_eq!(whole(node), before);
    stage.peers(0, &[0, 1]);
    stage.daemons[0].until("all is well", || degraded().is_empty());
    assert_eq!(whole(node), before);
}

/// The thread sleeps while nothing happens, and right after its own changes.
#[test]
fn its_own_changes_do_not_keep_it_awake() {
    let lab = Lab::with_nodes(2);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let pid = stage.daemons[0].pid();
    let switches = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let thread = tasks.map(|task| task.expect("a thread").path()).find(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "overlay")
        });
        let status = thread.expect("the overlay's thread").join("status");
        let status = std::fs::read_to_string(status).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.expect("its count").trim().parse().expect("a number")
    };
    stage.mend(0, "ip link del cwov1");
    let before = switches();
    // Three seconds with traffic. One look follows a repair, and there is one in ten seconds.
    stage.node(0).sh("ping -q -i 0.01 -c 300 172.18.0.3");
    let woken = switches() - before;
    eprintln!("woken {woken} times in 3 s after a repair");
    assert!(woken < 20, "{woken}");
}
