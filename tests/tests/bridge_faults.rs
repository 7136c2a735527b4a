//! `causeway-bridge` killed, raced, and in the way of full and read-only directories.

use std::time::Duration;

use causeway_host::{RecordKey, Records};
use causeway_tests::{Attachment, BridgeNet as Net, Cni, FakeIpam, Node, Snapshot};
use serde_json::{Value, json};

fn gateway() -> Value {
    json!({ "isDefaultGateway": true, "ipMasq": true })
}

/// Rows: F1, F2, F3, F7
#[test]
fn a_killed_add_is_cleared_away() {
    // Beside the links, and after them.
    for plugin in ["static", "fake-ipam"] {
        let node = Node::new("node");
        let fake = FakeIpam::one("10.0.1.2");
        let net = Net::new(&node, &fake, gateway()).with(json!({ "ipam": { "type": plugin } }));
        let pod = node.pod();
        let attachment = pod.attachment("eth0");
        let answer = std::fs::read_to_string(fake.file("ADD.sh")).expect("the answer");
        fake.pause(&node, "ADD");
        let mut run = net.call("ADD", &attachment).spawn();
        fake.reached(&node);
        run.kill();
        assert!(!run.wait().status.success());
        fake.resume(&node);
        fake.ended(&node);
        let done = std::fs::read_to_string(fake.file("done")).expect("the child ended by itself");
        assert_eq!(done, "ADD\n");
        fake.script("ADD", &answer);
        net.del(&attachment.clone().netns(""));
        assert!(pod.link("eth0").is_none());
        assert_eq!(net.host_ends(), Vec::<String>::new());
        assert_eq!(fake.commands(), ["ADD", "DEL"]);
        net.add(&attachment);
        node.assert_ping("10.0.1.2");
    }
}

/// Rows: F7
#[test]
fn a_del_right_after_the_kill_waits_for_the_orphaned_ipam() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    fake.pause(&node, "ADD");
    let mut add = net.call("ADD", &attachment).spawn();
    fake.reached(&node);
    add.kill();
    assert!(!add.wait().status.success());
    let del = net.call("DEL", &attachment.clone().netns("")).spawn();
    del.until_it_waits_for_a_lock();
    assert_eq!(fake.commands(), ["ADD"]);
    fake.resume(&node);
    del.wait().silent();
    // The lease that the orphan took after the kill is free again.
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    assert_eq!(std::fs::read_to_string(fake.file("done")).expect("it ended"), "ADD\n");
    assert_eq!(net.host_ends(), Vec::<String>::new());
}

/// Rows: F8
#[test]
fn an_attachment_that_died_with_its_namespace_is_no_duplicate() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    node.ip(&format!("link del {}\n", net.host_ends()[0]));
    net.add(&attachment);
    assert_eq!(fake.commands(), ["ADD", "DEL", "ADD"]);
    node.assert_ping("10.0.1.2");
}

/// Rows: F12
#[test]
fn add_and_del_of_one_attachment_wait_for_each_other() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    fake.pause(&node, "ADD");
    let add = net.call("ADD", &attachment).spawn();
    fake.reached(&node);
    let del = net.call("DEL", &attachment).spawn();
    fake.resume(&node);
    add.wait().json();
    del.wait().silent();
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    assert!(pod.link("eth0").is_none());
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: F46, C75, C77
#[test]
fn gc_and_status_pass_an_add_that_runs() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    fake.pause(&node, "ADD");
    let add = net.call("ADD", &attachment).spawn();
    fake.reached(&node);
    net.on_network("STATUS", json!({})).silent();
    net.on_network("GC", json!({ "cni.dev/valid-attachments": [] })).silent();
    fake.resume(&node);
    add.wait().json();
    node.assert_ping("10.0.1.2");
    assert_eq!(fake.commands(), ["ADD", "STATUS", "GC"]);
    let sent = std::fs::read(fake.file("stdin.GC")).expect("stdin of the IPAM plugin");
    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
    let spared = json!([{ "containerID": attachment.id, "ifname": "eth0" }]);
    assert_eq!(sent["cni.dev/valid-attachments"], spared);
}

/// An attachment that was being made when GC began is newer than the list, also if ADD has
/// ended before its turn comes.
///
/// Rows: F46
#[test]
fn gc_spares_an_add_that_ends_meanwhile() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pods = [node.pod(), node.pod()];
    let first = Attachment { id: "a".to_owned(), ..pods[0].attachment("eth0") };
    let second = Attachment { id: "b".to_owned(), ..pods[1].attachment("eth0") };
    net.add(&first);
    fake.script("ADD", r#"echo '{"ips":[{"address":"10.0.1.3/16","gateway":"10.0.1.1"}]}'"#);
    net.add(&second);
    let key = RecordKey {
        network: "net".to_owned(),
        container_id: second.id.clone(),
        ifname: second.ifname.clone(),
    };
    let making = Records::new(&node.run_dir(), "bridge").lock(&key, Duration::ZERO);
    fake.pause(&node, "DEL");
    let none = Attachment { netns: String::new(), ..first };
    let list = json!({ "cni.dev/valid-attachments": [] });
    let gc = net.with(list).call("GC", &none).spawn();
    fake.reached(&node);
    drop(making.expect("nobody else works on it"));
    fake.resume(&node);
    gc.wait().silent();
    assert!(pods[0].link("eth0").is_none());
    assert!(pods[1].link("eth0").is_some());
}

/// Rows: F47
#[test]
fn a_malformed_list_removes_nothing() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    net.add(&pod.attachment("eth0"));
    for list in [json!("all"), json!([1]), json!([{ "containerID": 7, "ifname": "eth0" }])] {
        let code = net.on_network("GC", json!({ "cni.dev/valid-attachments": list })).error_code();
        assert!(code == 6 || code == 7, "{list}: {code}");
    }
    node.assert_ping("10.0.1.2");
    assert_eq!(fake.commands(), ["ADD"]);
}

/// Rows: F48
#[test]
fn del_finishes_in_spite_of_sigterm() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    net.add(&attachment);
    fake.pause(&node, "DEL");
    let del = net.call("DEL", &attachment).spawn();
    fake.reached(&node);
    node.sh(&format!("kill -TERM {}", del.id()));
    fake.resume(&node);
    del.wait().silent();
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: F11
#[test]
fn adds_and_dels_at_once_lose_no_rule() {
    let node = Node::new("node");
    let fakes: Vec<_> = (0..12).map(|n| FakeIpam::one(&format!("10.0.1.{}", n + 2))).collect();
    let nets: Vec<_> = fakes.iter().map(|fake| Net::new(&node, fake, gateway())).collect();
    let pods: Vec<_> = fakes.iter().map(|_| node.pod()).collect();
    let attachments: Vec<_> = pods.iter().map(|pod| pod.attachment("eth0")).collect();
    for n in 0..6 {
        nets[n].add(&attachments[n]);
    }
    for round in 0..4 {
        let (gone, new) = if round % 2 == 0 { (0..6, 6..12) } else { (6..12, 0..6) };
        let dels: Vec<_> = gone.clone().map(|n| nets[n].call("DEL", &attachments[n])).collect();
        let adds: Vec<_> = new.clone().map(|n| nets[n].call("ADD", &attachments[n])).collect();
        let runs: Vec<_> =
            dels.into_iter().zip(adds).map(|(del, add)| (del.spawn(), add.spawn())).collect();
        for (del, add) in runs {
            del.wait().silent();
            add.wait().json();
        }
        let rules = node.nft();
        for n in new {
            assert!(rules.contains(&format!("10.0.1.{} ", n + 2)), "10.0.1.{}: {rules}", n + 2);
            node.assert_ping(&format!("10.0.1.{}", n + 2));
        }
        for n in gone {
            assert!(!rules.contains(&format!("10.0.1.{} ", n + 2)), "10.0.1.{}: {rules}", n + 2);
        }
    }
}

/// Rows: F38
#[test]
fn flushed_rules_are_no_obstacle() {
    let node = Node::new("node");
    let fakes = ["10.0.1.2", "10.0.1.3"].map(FakeIpam::one);
    let more = json!({ "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true });
    let nets = [0, 1].map(|n| Net::new(&node, &fakes[n], more.clone()));
    let pods = [node.pod(), node.pod()];
    let [one, two] = [0, 1].map(|n: usize| pods[n].attachment("eth0"));
    let result = nets[0].add(&one);
    node.sh("nft flush ruleset");
    nets[0].with(json!({ "prevResult": result })).run("CHECK", &one).error();
    nets[1].add(&two);
    let rules = node.nft();
    assert!(rules.contains("10.0.1.3") && rules.contains("causeway_spoof"), "{rules}");
    nets[0].del(&one);
    nets[1].del(&two);
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: C57, C67
#[test]
fn del_takes_another_address_and_no_runtime_configuration() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let mac = json!({ "runtimeConfig": { "mac": "02:11:22:33:44:55" } });
    let mut result = net.with(mac).add(&attachment);
    pod.ip("link set eth0 address 02:00:00:00:00:77\n");
    result["interfaces"][2]["mac"] = json!("02:00:00:00:00:77");
    result["interfaces"].as_array_mut().expect("a list").push(json!({ "name": "bwp0" }));
    net.with(json!({ "prevResult": result })).del(&attachment);
    assert!(pod.link("eth0").is_none());
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// ADD in a mount namespace of its own, which `script` prepares.
fn add_with_mounts(net: &Net<'_>, attachment: &Attachment, script: &str) -> std::process::Output {
    let stdin = net.fake.file("config");
    std::fs::write(&stdin, net.config.to_string()).expect("write the configuration");
    let plugin = net.call("ADD", attachment).command();
    let mut command = net.node.command("unshare");
    for (key, value) in plugin.get_envs() {
        command.env(key, value.expect("a value"));
    }
    let script = format!("{script}; exec \"$0\"");
    command.args(["--mount", "/bin/sh", "-euc", &script]).arg(plugin.get_program());
    command.stdin(std::fs::File::open(&stdin).expect("the configuration"));
    command.output().expect("run the plugin")
}

/// Rows: F37
#[test]
fn a_kernel_without_ipv6_attaches_ipv4_and_says_why_not_ipv6() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let (pod, other) = (node.pod(), node.pod());
    // How ipv6.disable=1 shows itself to a plugin.
    let without = "mount -t tmpfs none /proc/sys/net/ipv6";
    let made = add_with_mounts(&net, &pod.attachment("eth0"), without);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    assert!(made.stderr.is_empty(), "{}", String::from_utf8_lossy(&made.stderr));
    node.assert_ping("10.0.1.2");
    let before = Snapshot::take(&node);
    fake.script("ADD", r#"echo '{"ips":[{"address":"fd00:10::2/64"}]}'"#);
    let refused = add_with_mounts(&net, &other.attachment("eth0"), without);
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && text.contains("IPv6 is disabled"), "{text}");
    before.assert_same(&Snapshot::take(&node));
}

/// Rows: F49, C77, RC7
#[test]
fn a_hung_ipam_is_ended() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    fake.script("STATUS", "exec sleep 3600");
    let error = net.on_network("STATUS", json!({})).error();
    assert_eq!(error["code"], 50);
    let msg = "IPAM plugin fake-ipam returned no result within 2s and was killed";
    assert_eq!(error["msg"], msg);
}

/// With all that it started, and what ADD made is taken back. It takes the time that an IPAM
/// plugin has.
///
/// Rows: RC7
#[test]
fn an_add_whose_ipam_hangs_ends_and_leaves_nothing() {
    let node = Node::new("node");
    let fake = FakeIpam::one("10.0.1.2");
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let running = fake.file("running");
    fake.script("ADD", &format!("exec 9> {}; flock 9; sleep 3600 & wait", running.display()));
    let before = Snapshot::take(&node);
    let error = net.run("ADD", &pod.attachment("eth0")).error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().is_some_and(|msg| msg.contains("was killed")), "{error}");
    // Its child held the lock, too.
    node.sh(&format!("flock --nonblock {} true", running.display()));
    assert_eq!(fake.commands(), ["ADD", "DEL"]);
    assert!(pod.link("eth0").is_none());
    node.ip("link del cw0\n");
    before.assert_same(&Snapshot::take(&node));
}

/// Rows: F43
#[test]
fn read_only_sysctls_with_the_right_values_are_fine() {
    let node = Node::new("node");
    let fake = FakeIpam::new(&json!({ "ips": [
        { "address": "10.0.1.2/16" }, { "address": "fd00:10::2/64" } ] }));
    let net = Net::new(&node, &fake, gateway());
    let pod = node.pod();
    let frozen = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    let add = |attachment: &Attachment| add_with_mounts(&net, attachment, frozen);
    let refused = add(&pod.attachment("eth0"));
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && text.contains("ip_forward"), "{text}");
    assert!(pod.link("eth0").is_none());
    node.set_sysctl("ipv4/ip_forward", "1");
    node.set_sysctl("ipv6/conf/all/forwarding", "1");
    let made = add(&pod.attachment("eth0"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    node.assert_ping("10.0.1.2");
    node.assert_ping("fd00:10::2");
}

/// Rows: F23
#[test]
fn a_state_folder_that_can_not_be_written_fails_add_and_not_the_work_of_del() {
    let node = Node::new("node");
    let fakes = ["10.0.1.2", "10.0.1.3"].map(FakeIpam::one);
    let nets = [0, 1].map(|n| Net::new(&node, &fakes[n], gateway()));
    let pods = [node.pod(), node.pod(), node.pod()];
    let [one, two, new] = [0, 1, 2].map(|n: usize| pods[n].attachment("eth0"));
    nets[0].add(&one);
    nets[1].add(&two);
    let dir = node.run_dir();
    let dir = dir.display();
    // Full, down to the last inode.
    node.sh(&format!(
        "mkdir {dir}.old; cp -a {dir}/. {dir}.old; mount -t tmpfs -o size=8k,nr_inodes=20 full {dir}; \
         cp -a {dir}.old/. {dir}; n=0; while touch {dir}/fill$n 2>/dev/null; do n=$((n+1)); done"
    ));
    let before = Snapshot::of(&node);
    assert_eq!(nets[0].run("ADD", &new).error_code(), 5);
    before.assert_same(&Snapshot::of(&node));
    nets[0].del(&one);
    node.sh(&format!("mount -o remount,ro {dir}"));
    assert_eq!(nets[1].run("DEL", &two).error_code(), 5);
    assert_eq!(nets[0].host_ends(), Vec::<String>::new());
    assert!(!node.nft().contains("10.0.1."), "{}", node.nft());
    node.sh(&format!("mount -o remount,rw {dir}"));
    nets[1].del(&two);
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
    node.sh(&format!("umount {dir}"));
}

/// Rows: F24
#[test]
fn a_wiped_lease_store_hands_out_no_address_in_use() {
    let node = Node::new("node");
    let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "causeway-bridge",
        "bridge": "cw0", "isGateway": true, "runDir": node.run_dir(), "ipam": {
            "type": "causeway-ipam", "dataDir": node.data_dir(), "runDir": node.run_dir(),
            "subnet": "10.9.0.0/29" } });
    let add = |attachment: &Attachment| {
        let call = Cni::new(&node, "causeway-bridge", "ADD", &config).attachment(attachment);
        call.run().json()["ips"][0]["address"].clone()
    };
    let (one, two) = (node.pod(), node.pod());
    let first = add(&one.attachment("eth0"));
    std::fs::remove_dir_all(node.data_dir()).expect("wipe the leases");
    assert_ne!(add(&two.attachment("eth0")), first);
}
