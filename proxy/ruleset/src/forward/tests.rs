use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::{Devices, findings, parse_legacy};

fn devices() -> Devices {
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
    Devices {
        inner: names(&["cw0"]),
        outer: names(&["cwov1", "eth0"]),
        others: names(&["docker0", "lo"]),
    }
}

fn said(rules: &str, devices: &Devices) -> Vec<String> {
    let text = format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n");
    let cluster: [IpNetwork; 1] = ["10.0.0.0/16".parse().unwrap()];
    findings(&[parse_legacy(&text, false, true)], &cluster, devices)
}

const BETWEEN: &str = "chain FORWARD of table ip filter of iptables-legacy has policy drop and no \
                       rule that accepts 10.0.0.0/16: traffic between containers of different \
                       nodes is dropped; allow it with `iptables-legacy -I FORWARD -s 10.0.0.0/16 \
                       -j ACCEPT` and `iptables-legacy -I FORWARD -d 10.0.0.0/16 -j ACCEPT`";
const OUTSIDE: &str = "chain FORWARD of table ip filter of iptables-legacy has policy drop and no \
                       rule that accepts 10.0.0.0/16: traffic between containers and the outside \
                       is dropped; allow it with `iptables-legacy -I FORWARD -s 10.0.0.0/16 -j \
                       ACCEPT` and `iptables-legacy -I FORWARD -d 10.0.0.0/16 -j ACCEPT`";

#[track_caller]
fn check(rules: &str, text: &str) {
    let all = said(&format!(":FORWARD DROP [0:0]\n{rules}"), &devices());
    assert_eq!(all.join("\n"), text, "{rules}");
}

/// Rows: O-52, S-17
#[test]
fn a_policy_of_drop_is_named_with_the_commands_that_allow_it() {
    check("", BETWEEN);
    check("-A FORWARD -s 192.168.0.0/16 -j ACCEPT", BETWEEN);
    check("-A FORWARD -o docker0 -j ACCEPT\n-A FORWARD ! -i cw0 ! -o cw0 -j ACCEPT", BETWEEN);
    check("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", BETWEEN);
    assert!(said(":FORWARD ACCEPT [0:0]", &devices()).is_empty());
}

/// Row: O-52
#[test]
fn what_the_commands_make_is_enough_and_half_of_it_is_not() {
    check("-A FORWARD -s 10.0.0.0/16 -j ACCEPT\n-A FORWARD -d 10.0.0.0/16 -j ACCEPT", "");
    check("-A FORWARD -s 10.0.0.0/16 -j ACCEPT", OUTSIDE);
    check("-A FORWARD -d 10.0.0.0/16 -m comment --comment \"a b -j DROP\" -j ACCEPT", OUTSIDE);
    let answers = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    check(&format!("{answers}\n-A FORWARD -s 10.0.0.0/16 -j ACCEPT"), "");
    // By devices.
    check("-A FORWARD -i cw0 -j ACCEPT\n-A FORWARD -o cw+ -j ACCEPT", "");
    check("-A FORWARD -i cw0 -j ACCEPT", BETWEEN);
}

/// Row: O-52
#[test]
fn what_docker_makes_is_understood_and_its_own_chain_named() {
    let docker = ":DOCKER - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n\
        :DOCKER-ISOLATION-STAGE-2 - [0:0]\n:DOCKER-USER - [0:0]\n\
        -A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
        -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
        -A FORWARD -o docker0 -j DOCKER\n-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
        -A FORWARD -i docker0 -o docker0 -j ACCEPT\n\
        -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2\n\
        -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n\
        -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n-A DOCKER-ISOLATION-STAGE-2 -j RETURN";
    let returns = "-A DOCKER-USER -j RETURN";
    check(&format!("{docker}\n{returns}"), &BETWEEN.replace("-I FORWARD", "-I DOCKER-USER"));
    let allow = "-A DOCKER-USER -d 10.0.0.0/16 -j ACCEPT\n-A DOCKER-USER -s 10.0.0.0/16 -j ACCEPT";
    check(&format!("{docker}\n{allow}\n{returns}"), "");
    // Before the first container there is no bridge that a rule could mean; docker0 is another's.
    let bare = Devices { inner: [].into(), ..devices() };
    let rules = format!(":FORWARD DROP [0:0]\n{docker}\n{returns}");
    assert_eq!(said(&rules, &bare).len(), 1);
}

/// Row: O-52
#[test]
fn nothing_is_claimed_of_rules_that_may_accept() {
    check("-A FORWARD -m set --match-set pods src -j ACCEPT", "");
    check("-A FORWARD -s 10.0.1.0/24 -j ACCEPT", OUTSIDE_UNKNOWN);
    check("-A FORWARD -m mark --mark 0x1/0x1 -j ACCEPT", "");
    check("-A FORWARD -j NFQUEUE --queue-num 0", "");
    let chain = ":OWN - [0:0]\n-A FORWARD -g OWN\n-A OWN -p tcp -j ACCEPT";
    check(chain, "");
    let bare = Devices { inner: [].into(), ..devices() };
    let rules = ":FORWARD DROP [0:0]\n-A FORWARD -i cw0 -j ACCEPT\n-A FORWARD -o cw0 -j ACCEPT";
    assert!(said(rules, &bare).is_empty());
}

/// Answers from the outside are dropped: their source is no container's.
const OUTSIDE_UNKNOWN: &str = OUTSIDE;

fn some_rule() -> impl Strategy<Value = String> {
    let words = vec![
        "-s 10.0.0.0/16",
        "-d 10.0.0.0/16",
        "! -s 10.0.0.0/8",
        "-s 10.0.1.0/24",
        "-i cw0",
        "! -o docker0",
        "-o e+",
        "-m conntrack --ctstate NEW",
        "-p tcp",
        "-m comment --comment \"a \\\" b\"",
        "!",
        "-s",
    ];
    let targets =
        vec!["-j ACCEPT", "-j DROP", "-j A", "-g B", "-j RETURN", "-j LOG", "-j NFQUEUE", "-j", ""];
    let chain = prop::sample::select(vec!["FORWARD", "A", "B"]);
    let words = prop::collection::vec(prop::sample::select(words), 0..3);
    (chain, words, prop::sample::select(targets))
        .prop_map(|(chain, words, target)| format!("-A {chain} {} {target}", words.join(" ")))
}

proptest! {
    /// Whatever else is there, loops among chains too: what the commands of a report make ends it,
    /// and nothing is said of a policy of accept.
    #[test]
    fn a_report_ends_when_its_commands_are_typed(
        rules in prop::collection::vec(some_rule(), 0..12),
        noise in ".{0,80}",
    ) {
        let rest = format!(":A - [0:0]\n:B - [0:0]\n{}\n{noise}", rules.join("\n"));
        let before = said(&format!(":FORWARD ACCEPT [0:0]\n{rest}"), &devices());
        prop_assert_eq!(before, Vec::<String>::new());
        let allowed = "-A FORWARD -s 10.0.0.0/16 -j ACCEPT\n-A FORWARD -d 10.0.0.0/16 -j ACCEPT";
        let after = said(&format!(":FORWARD DROP [0:0]\n{allowed}\n{rest}"), &devices());
        prop_assert_eq!(after, Vec::<String>::new());
    }
}
