//! What other programs make of forwarding, read back from the kernel.

mod common;

use std::process::Command;

use causeway_nft::Client;
use causeway_ruleset::forward::{Devices, findings};
use common::{client, nft};

#[expect(clippy::disallowed_methods, reason = "a test's own program")]
fn run(words: &str) {
    let mut words = words.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output();
    let output = output.expect("the program is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn said(client: &mut Client) -> String {
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
    let devices = Devices {
        inner: names(&["cw0"]),
        outer: names(&["cwov1", "eth0"]),
        others: names(&["docker0"]),
    };
    let cluster = ["10.0.0.0/16", "fd00:10::/48"].map(|net| net.parse().expect(net));
    let tables = client.forward_drops().expect("tables");
    findings(&tables, &cluster, &devices).join("\n")
}

const ALL: &str = "chain FORWARD of table ip filter has policy drop and no rule that accepts \
                   10.0.0.0/16: traffic between containers of different nodes is dropped; allow it \
                   with `iptables -I FORWARD -s 10.0.0.0/16 -j ACCEPT` and `iptables -I FORWARD -d \
                   10.0.0.0/16 -j ACCEPT`";

/// Row: O-52
#[test]
fn the_policy_that_iptables_sets_is_found_and_the_commands_help() {
    let mut client = client();
    assert_eq!(said(&mut client), "");
    for rule in [
        "-P FORWARD DROP",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        "-A FORWARD -m comment --comment x -d 192.168.0.0/16 -j ACCEPT",
        "-A FORWARD -i docker+ -j ACCEPT",
        "-A FORWARD -j LOG",
    ] {
        run(&format!("iptables-nft {rule}"));
        if rule != "-A FORWARD -j LOG" {
            assert_eq!(said(&mut client), ALL, "{rule}");
        }
    }
    run("iptables-nft -I FORWARD -s 10.0.0.0/16 -j ACCEPT");
    let half = ALL.replace("containers of different nodes", "containers and the outside");
    assert_eq!(said(&mut client), half);
    run("iptables-nft -I FORWARD -d 10.0.0.0/16 -j ACCEPT");
    assert_eq!(said(&mut client), "");
    run("ip6tables-nft -P FORWARD DROP");
    let six = ALL
        .replace("table ip ", "table ip6 ")
        .replace("10.0.0.0/16", "fd00:10::/48")
        .replace("iptables", "ip6tables");
    assert_eq!(said(&mut client), six);
    run("ip6tables-nft -I FORWARD -s fd00:10::/48 -j ACCEPT");
    run("ip6tables-nft -I FORWARD -d fd00:10::/48 -j ACCEPT");
    assert_eq!(said(&mut client), "");
}

/// Row: O-52
#[test]
fn a_chain_for_users_is_named_and_what_is_in_it_counts() {
    let mut client = client();
    for rule in ["-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"] {
        run(&format!("iptables-nft {rule}"));
    }
    assert_eq!(said(&mut client), ALL.replace("-I FORWARD", "-I DOCKER-USER"));
    run("iptables-nft -I DOCKER-USER -s 10.0.0.0/16 -j ACCEPT");
    run("iptables-nft -I DOCKER-USER -d 10.0.0.0/16 -j ACCEPT");
    assert_eq!(said(&mut client), "");
}

/// Row: O-52
#[test]
fn the_policy_of_a_table_of_nft_is_found_and_the_commands_help() {
    let mut client = client();
    let rules = "table inet fw { chain forward { type filter hook forward priority 0; policy drop; \
        ct state { established, related } accept; ct status dnat accept; iifname \"lo\" accept; \
        ip saddr 192.168.7.0/24 accept; iifname \"docker*\" accept; }; }\n\
        table ip nice { chain forward { type filter hook forward priority 0; policy accept; }; }";
    nft(&["-f", "-"], rules);
    let commands = [
        "ip saddr 10.0.0.0/16",
        "ip daddr 10.0.0.0/16",
        "ip6 saddr fd00:10::/48",
        "ip6 daddr fd00:10::/48",
    ]
    .map(|net| format!("nft insert rule inet fw forward {net} accept"));
    let quoted = commands.clone().map(|command| format!("`{command}`")).join(" and ");
    assert_eq!(
        said(&mut client),
        format!(
            "chain forward of table inet fw has policy drop and no rule that accepts 10.0.0.0/16 \
             and fd00:10::/48: traffic between containers of different nodes is dropped; allow it \
             with {quoted}"
        )
    );
    for command in commands {
        run(&command);
    }
    assert_eq!(said(&mut client), "");
    // Whom the mark is for is not known: nothing is claimed.
    nft(&["flush", "chain", "inet", "fw", "forward"], "");
    nft(&["add", "rule", "inet", "fw", "forward", "meta", "mark", "1", "accept"], "");
    assert_eq!(said(&mut client), "");
}
