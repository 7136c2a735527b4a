//! Two networks with `"subnet": "auto"` on one node: the node's subnets are those of one of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::net::{Net, address};

/// What the daemon writes.
fn tell(net: &Net, subnets: &[&str]) {
    let facts = json!({ "node": "n1", "subnets": subnets });
    std::fs::write(net.node.run_dir().join("node.json"), facts.to_string()).expect("node.json");
}

/// The networks `net` and `other`, both with `auto`, on a node of these subnets.
fn two(subnets: &[&str]) -> [Net; 2] {
    let net = Net::new(json!({ "subnet": "auto" }));
    tell(&net, subnets);
    let other = net.with("name", json!("other"));
    [net, other]
}

/// ADD and STATUS are refused, in words that name the network that has the subnets.
fn assert_refused(net: &Net, owner: &str) {
    let name = net.config["name"].as_str().expect("a name");
    for (command, id) in [("ADD", "refused"), ("STATUS", "")] {
        let error = net.call(command, id).run().error();
        assert_eq!(error["code"], 7, "{command}: {error}");
        let msg = error["msg"].as_str().expect("a message");
        for part in [
            name,
            "\"subnet\": \"auto\"",
            &format!("belong to network \"{owner}\""),
            "its own range",
        ] {
            assert!(msg.contains(part), "{command}: {part}: {msg}");
        }
    }
}

fn held(net: &Net) -> Vec<String> {
    net.leases().iter().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_first_network_has_the_nodes_subnets_until_its_last_lease_is_gone() {
    let [net, other] = two(&["10.0.1.0/24", "fd00:0:0:1::/64"]);
    let result = net.add("a");
    assert_eq!(address(&result), "10.0.1.2/24");
    assert_refused(&other, "net");
    assert!(!net.node.data_dir().join("other").exists(), "a refused ADD makes no store");
    // All else goes on, in both.
    net.call("STATUS", "").run().silent();
    net.with("prevResult", result).call("CHECK", "a").run().silent();
    other.del("refused");
    other.with("cni.dev/valid-attachments", json!([])).call("GC", "").run().silent();
    assert_eq!(held(&net), ["10.0.1.2 net a", "fd00:0:0:1::2 net a"]);
    let repaired = net.tool(&["repair"]);
    assert_eq!(repaired.stdout, b"network net: intact, 2 leases\n", "{}", repaired.describe());
    // A range of its own is all it takes.
    let mut own = other.config["ipam"].clone();
    own["subnet"] = json!("10.0.9.0/24");
    let apart = other.with("ipam", own.clone());
    apart.call("STATUS", "").run().silent();
    assert_eq!(address(&apart.add("b")), "10.0.9.2/24");
    assert_refused(&other, "net");

    // The last lease goes: whoever comes next has them.
    net.del("a");
    other.call("STATUS", "").run().silent();
    assert_eq!(address(&other.add("c")), "10.0.1.2/24");
    assert_refused(&net, "other");
    net.del("refused");
    // A range apart from the node's subnets is in nobody's way.
    own["subnet"] = json!("10.0.8.0/24");
    net.with("ipam", own).add("d");
    other.del("c");
    assert_eq!(address(&net.add("e")), "10.0.1.2/24");
}

#[test]
fn a_hundred_processes_of_two_networks_at_once_share_no_address() {
    let nets = two(&["10.0.1.0/24"]);
    for round in 0..3 {
        let id = |n: usize| format!("r{round}c{n}");
        let running: Vec<_> =
            (0..100).map(|n| (n, nets[n % 2].call("ADD", &id(n)).spawn())).collect();
        let mut winners = [BTreeSet::new(), BTreeSet::new()];
        for (n, one) in running {
            let outcome = one.wait();
            if outcome.status.success() {
                winners[n % 2].insert(address(&outcome.json()).to_owned());
            } else {
                assert_eq!(outcome.error_code(), 7, "{}", outcome.describe());
            }
        }
        let counts = winners.each_ref().map(BTreeSet::len);
        causeway_tests::say(&format!("round {round}: {counts:?}"));
        assert!([[50, 0], [0, 50]].contains(&counts), "one has all, the other nothing: {counts:?}");
        assert_eq!(nets[0].leases().len(), 50);
        let releasing: Vec<_> = (0..100).map(|n| nets[n % 2].call("DEL", &id(n)).spawn()).collect();
        releasing.into_iter().for_each(|one| one.wait().silent());
        assert_eq!(nets[0].leases(), [""; 0]);
    }
}

/// Each kill hits another point of an ADD that takes the subnets over.
#[test]
fn a_killed_process_leaves_the_subnets_with_one_network() {
    let nets = two(&["10.0.1.0/24"]);
    let step = nets[0].microseconds_of_an_add() * 15 / 600;
    let mut taken = 0;
    for n in 0..60_u32 {
        let (taker, rival) = if n % 2 == 0 { (&nets[1], &nets[0]) } else { (&nets[0], &nets[1]) };
        // The rival has them and no lease, so the killed one takes over.
        rival.add("before");
        rival.del("before");
        taker.killed_after_microseconds("ADD", "killed", n * step);
        let took = !held(taker).is_empty();
        taken += u32::from(took);
        let outcome = rival.call("ADD", "next").run();
        assert_eq!(outcome.status.success(), !took, "{}", outcome.describe());
        if took {
            assert_eq!(outcome.error_code(), 7);
        }
        let addresses: Vec<String> =
            held(taker).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(addresses.len(), 1, "{addresses:?}");
        taker.del("killed");
        rival.del("next");
    }
    causeway_tests::say(&format!("{taken} of 60 came to their end"));
}

#[test]
fn leases_of_an_older_subnet_of_the_node_count_and_those_of_other_ranges_do_not() {
    let [net, other] = two(&["10.0.1.0/24"]);
    net.add("a");
    tell(&net, &["10.0.5.0/24"]);
    assert_refused(&other, "net");
    assert_eq!(address(&net.add("b")), "10.0.5.2/24");
    net.del("b");
    // The older one may come back while `a` is there.
    assert_refused(&other, "net");
    let mut own = net.config["ipam"].clone();
    own["subnet"] = json!("10.0.9.0/24");
    net.with("ipam", own).add("c");
    net.del("a");
    assert_eq!(address(&other.add("d")), "10.0.5.2/24");
    assert_eq!(held(&net), ["10.0.9.2 net c", "10.0.5.2 other d"]);
}

#[test]
fn a_lost_file_or_store_makes_no_second_owner() {
    let [net, other] = two(&["10.0.1.0/24"]);
    net.add("a");
    let file = net.node.data_dir().join(".auto");
    for damage in [None, Some("{\"netw"), Some("")] {
        match damage {
            None => std::fs::remove_file(&file).expect("the file is there"),
            Some(text) => std::fs::write(&file, text).expect("the file is there"),
        }
        assert_refused(&other, "net");
    }
    net.add("b");
    // All stores are gone, and a container is on record.
    let folder = net.node.run_dir().join("attachments/bridge/net");
    std::fs::create_dir_all(&folder).expect("a folder for records");
    let record = json!({ "key": { "network": "net", "container_id": "a", "ifname": "eth0" },
                         "record": { "addresses": ["10.0.1.2/24"] } });
    std::fs::write(folder.join("a.json"), record.to_string()).expect("a record");
    std::fs::remove_dir_all(net.node.data_dir()).expect("the stores");
    assert_refused(&other, "net");
    net.add("c");
    assert_eq!(held(&net), ["10.0.1.2 net a", "10.0.1.3 net c"]);
}

#[test]
fn leases_of_another_boot_keep_nobody_out() {
    let [net, other] = two(&["10.0.1.0/24"]);
    net.add("a");
    let boot = net.node.dir().join("boot_id");
    std::fs::write(&boot, "another-boot\n").expect("a boot id");
    let text = other.after_boot(&boot, other.call("ADD", "b")).ok();
    let result: Value = serde_json::from_str(&text).expect("a result");
    assert_eq!(address(&result), "10.0.1.2/24");
}
