//! The iptables backend beside upstream's portmap.

use std::fmt::Write as _;

use causeway_tests::{Attachment, Cni, Node, executable};
use serde_json::{Value, json};

use crate::{World, alone, at, mappings, merged, refused_run, tcp, udp};

fn call<'a>(
    node: &'a Node,
    plugin: &str,
    command: &str,
    attached: &Attachment,
    extra: &Value,
) -> Cni<'a> {
    let config = merged(
        json!({ "cniVersion": "1.0.0", "name": "net", "type": plugin, "runDir": node.run_dir(),
                "backend": "iptables",
                "prevResult": {
                    "cniVersion": "1.0.0",
                    "interfaces": [{ "name": "eth0", "sandbox": attached.netns }],
                    "ips": [{ "address": "10.99.0.2/24", "interface": 0 },
                            { "address": "fd00:99::2/64", "interface": 0 }] } }),
        extra.clone(),
    );
    Cni::new(node, plugin, command, &config).attachment(attached)
}

/// The nat tables as saved. Without packet counts; the order of chains says nothing.
fn nat(node: &Node) -> String {
    let mut text = String::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let saved = node.sh(&format!("{program} -t nat"));
        let mut chains: Vec<&str> = Vec::new();
        let mut rules: Vec<&str> = Vec::new();
        for line in saved.lines() {
            match line.chars().next() {
                Some(':') => chains.push(line.split_once(" [").map_or(line, |(name, _)| name)),
                Some('-') => rules.push(line),
                _ => {}
            }
        }
        chains.sort_unstable();
        // Between chains the order says nothing; within one it does.
        rules.sort_by_key(|rule| rule.split(' ').nth(1).unwrap_or_default().to_owned());
        writeln!(text, "{program}\n{}\n{}", chains.join("\n"), rules.join("\n")).expect("a String");
    }
    text
}

/// Rules, chains, comments and order are upstream's, for all that its version 1.1.1 knows.
#[test]
fn rules_are_those_of_upstream() {
    let many: Vec<Value> = (0..17).map(|number| tcp(9000 + number, 80)).collect();
    let cases = [
        mappings(json!([tcp(8080, 80)])),
        mappings(json!([tcp(8080, 80), udp(53, 5353), tcp(8443, 443),
                        { "hostPort": 38, "containerPort": 38, "protocol": "sctp" }])),
        // Upstream names ports of the other family in the jumps too, which catches nothing.
        merged(
            mappings(json!([at("0.0.0.0", tcp(81, 81)), at("192.0.2.1", tcp(83, 83))])),
            json!({ "prevResult": { "ips": [{ "address": "10.99.0.2/24" }] } }),
        ),
        merged(
            mappings(json!([at("::", tcp(82, 82)), at("2001:db8::1", udp(84, 84))])),
            json!({ "prevResult": { "ips": [{ "address": "fd00:99::2/64" }] } }),
        ),
        mappings(json!(many)),
        merged(mappings(json!([tcp(8080, 80)])), json!({ "snat": false })),
        merged(mappings(json!([tcp(8080, 80)])), json!({ "markMasqBit": 5 })),
        merged(
            mappings(json!([tcp(8080, 80)])),
            json!({ "externalSetMarkChain": "KUBE-MARK-MASQ" }),
        ),
        merged(
            mappings(json!([tcp(8080, 80)])),
            json!({ "conditionsV4": ["!", "-s", "192.0.2.0/24", "-m", "comment", "--comment", "a \"b\" c"],
                    "conditionsV6": ["-i", "eth0"] }),
        ),
    ];
    for extra in cases {
        let (upstream, ours) = (World::new(), World::new());
        let mut attached = upstream.node().pod().attachment("eth0");
        attached.id = "a".repeat(64);
        for (world, plugin) in [(&upstream, "portmap"), (&ours, "causeway-service")] {
            // A chain of kube-proxy's, for externalSetMarkChain.
            world
                .node()
                .sh("iptables -t nat -N KUBE-MARK-MASQ; ip6tables -t nat -N KUBE-MARK-MASQ");
            call(world.node(), plugin, "ADD", &attached, &extra).run().json();
        }
        pretty_equal(&nat(upstream.node()), &nat(ours.node()), &extra);
        call(ours.node(), "causeway-service", "CHECK", &attached, &extra).run().silent();

        for (world, plugin) in [(&upstream, "portmap"), (&ours, "causeway-service")] {
            call(world.node(), plugin, "DEL", &attached, &extra).run().silent();
        }
        pretty_equal(&nat(upstream.node()), &nat(ours.node()), &extra);
    }
}

fn pretty_equal(upstream: &str, ours: &str, what: &Value) {
    assert!(upstream == ours, "{what}\n--- upstream\n{upstream}\n--- ours\n{ours}");
}

/// A node that changes over: what upstream made, ours removes, and the other way round.
#[test]
fn attachments_of_upstream_are_removed_and_the_other_way_round() {
    let extra = mappings(json!([tcp(8080, 80), udp(53, 53)]));
    for (adder, remover) in [("portmap", "causeway-service"), ("causeway-service", "portmap")] {
        let world = World::new();
        let node = world.node();
        let attached = node.pod().attachment("eth0");
        call(node, adder, "ADD", &attached, &extra).run().json();
        assert!(nat(node).contains("CNI-DN-"));
        call(node, remover, "DEL", &attached, &extra).run().silent();
        assert!(!nat(node).contains("CNI-DN-"), "{remover}: {}", nat(node));
    }
}

/// Upstream lets the second container have the port in its rules and the packets go to the first.
///
/// Rows: F44
#[test]
fn ports_that_upstream_mapped_are_refused() {
    let extra = mappings(json!([tcp(8080, 80)]));
    let world = World::new();
    let node = world.node();
    let (first, second) = (node.pod().attachment("eth0"), node.pod().attachment("eth0"));
    call(node, "portmap", "ADD", &first, &extra).run().json();
    let error = call(node, "causeway-service", "ADD", &second, &extra).run().error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().expect("a message").contains(&first.id), "{error}");
}

/// Rows: F39
#[test]
fn a_foreign_chain_of_our_name_stays() {
    let extra = mappings(json!([tcp(8080, 80)]));
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    call(node, "causeway-service", "ADD", &attached, &extra).run().json();
    // Somebody else's comment on the jump: not ours any more.
    let theirs =
        "iptables-save -t nat | sed 's/dnat name: [^ ]*/dnat name: theirs/' | iptables-restore";
    node.sh(theirs);
    call(node, "causeway-service", "DEL", &attached, &extra).run().silent();
    let rules = nat(node);
    assert!(
        rules.contains("theirs") && rules.contains("DNAT --to-destination 10.99.0.2:80"),
        "{rules}"
    );
}

/// Puts `script` in front of the real programs, under the name `program`.
fn shadow(node: &Node, program: &str, script: &str) -> String {
    let folder = node.dir().join("bin");
    std::fs::create_dir_all(&folder).expect("make a folder");
    let file = folder.join(program);
    executable::script(&file, script);
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display())
}

/// Exit status 4 is how iptables-restore says that it gave up waiting for the xtables lock.
///
/// Rows: C60, F35, O-55
#[test]
fn a_held_xtables_lock_is_code_11_and_leaves_nothing() {
    let extra = mappings(json!([tcp(8080, 80)]));
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let log = node.dir().join("arguments");
    let path =
        shadow(node, "iptables-restore", &format!("echo \"$@\" >> {}; exit 4", log.display()));
    let add = call(node, "causeway-service", "ADD", &attached, &extra).env("PATH", &path);
    assert_eq!(refused_run(add.run())["code"], 11);
    let arguments = std::fs::read_to_string(&log).expect("it was called");
    assert!(arguments.contains("--noflush --wait="), "a bounded wait: {arguments}");
    assert!(!nat(node).contains("CNI-"), "{}", nat(node));

    // The lock of IPv6 is held once IPv4 is done: that goes again.
    let path = shadow(node, "ip6tables-restore", "exit 4");
    std::fs::remove_file(node.dir().join("bin/iptables-restore")).expect("remove the script");
    let add = call(node, "causeway-service", "ADD", &attached, &extra).env("PATH", &path);
    assert_eq!(refused_run(add.run())["code"], 11);
    assert!(!nat(node).contains("CNI-DN-"), "{}", nat(node));

    call(node, "causeway-service", "ADD", &attached, &extra).run().json();
    let path = shadow(node, "iptables-restore", "exit 4");
    let del = call(node, "causeway-service", "DEL", &attached, &extra).env("PATH", &path);
    assert_eq!(refused_run(del.run())["code"], 11);
    call(node, "causeway-service", "DEL", &attached, &extra).run().silent();
    assert!(!nat(node).contains("CNI-DN-"), "{}", nat(node));
}

/// The programs are hidden by empty directories over theirs.
///
/// Rows: F36
#[test]
fn without_iptables_add_names_the_program_and_del_succeeds() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let hidden = |command: &str, extra: &Value| {
        let cni = call(node, "causeway-service", command, &attached, extra);
        let inner = cni.command();
        let environment: Vec<String> = inner
            .get_envs()
            .filter_map(|(name, value)| Some(format!("{}='{}'", name.to_str()?, value?.to_str()?)))
            .collect();
        let config = node.dir().join("config.json");
        std::fs::write(&config, cni.input()).expect("write the configuration");
        node.try_sh(&format!(
            "unshare -m sh -c 'for f in /usr/local/sbin /usr/sbin; do mount -t tmpfs none $f; done
             exec env \"$@\" < {}' sh {} {}",
            config.display(),
            environment.join(" "),
            inner.get_program().display()
        ))
    };
    let ports = mappings(json!([tcp(8080, 80)]));
    let failed = hidden("ADD", &ports);
    let error: Value = serde_json::from_slice(&failed.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", failed.describe()));
    assert_eq!(error["code"], 5, "{error}");
    assert!(error["msg"].as_str().expect("a message").contains("iptables-save"), "{error}");
    hidden("ADD", &json!({})).ok();

    call(node, "causeway-service", "ADD", &attached, &ports).run().json();
    let done = hidden("DEL", &json!({}));
    assert!(done.status.success() && done.stdout.is_empty(), "{}", done.describe());
    assert!(String::from_utf8_lossy(&done.stderr).contains("iptables-save"), "a warning");

    let status = json!({ "cniVersion": "1.1.0" });
    let failed = hidden("STATUS", &status);
    let error: Value = serde_json::from_slice(&failed.stdout).expect("an error object");
    assert_eq!(error["code"], 50, "{error}");
    // nftables needs none of them.
    let nft = merged(ports, json!({ "backend": "nftables" }));
    hidden("ADD", &nft).ok();
    hidden("DEL", &nft).ok();
}

/// No IPv6 in the kernel's settings, and no ip6tables: IPv4 works, and IPv6 is refused by name.
///
/// Rows: F37
#[test]
fn without_ipv6_the_other_family_works() {
    let world = World::new();
    let node = world.node();
    for scope in ["all", "default"] {
        node.set_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    let attached = node.pod().attachment("eth0");
    let v4 = json!({ "prevResult": { "ips": [{ "address": "10.99.0.2/24" }] } });
    for backend in ["nftables", "iptables"] {
        let extra = merged(mappings(json!([tcp(8080, 80), udp(53, 53)])), v4.clone());
        let extra = merged(extra, json!({ "backend": backend }));
        for command in ["ADD", "CHECK", "DEL"] {
            let outcome = call(node, "causeway-service", command, &attached, &extra).run();
            assert!(outcome.status.success(), "{backend}: {}", outcome.describe());
        }
    }
    let path = shadow(node, "ip6tables-restore", "exit 3");
    let extra = mappings(json!([tcp(8080, 80)]));
    let add = call(node, "causeway-service", "ADD", &attached, &extra).env("PATH", &path);
    let error = refused_run(add.run());
    assert_eq!(error["code"], 5, "{error}");
    assert!(error["msg"].as_str().expect("a message").contains("ip6tables-restore"), "{error}");
    assert!(!nat(node).contains("CNI-DN-"), "{}", nat(node));
}

/// No backend is named, and an option is iptables': iptables it is.
#[test]
fn options_of_iptables_choose_it() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let extra =
        merged(mappings(json!([tcp(8080, 80)])), json!({ "conditionsV4": ["-s", "192.0.2.1"] }));
    alone(node, "ADD", extra.clone(), &attached).run().json();
    assert!(nat(node).contains("-s 192.0.2.1/32"), "{}", nat(node));
    alone(node, "CHECK", extra.clone(), &attached).run().silent();
    alone(node, "DEL", extra, &attached).run().silent();
    assert!(!nat(node).contains("CNI-DN-"));
}
