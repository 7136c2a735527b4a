//! Rules in the kernel, in a namespace a test.

use std::path::Path;

use causeway_kernel::RecordKey;
use causeway_ruleset::{ChainSpec, Element, Op, Rule, Statement};
use cni_plugin::Code;
use ipnetwork::IpNetwork;

use super::{Backend, Masquerade, Plan, add, base, check, gc, is_exclusion_chain, remove, table};
use crate::node::Node;
use crate::rules::testing::{Host, key};
use crate::rules::{self, append};

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

/// The addresses of one container, and what is excluded beside its subnets.
struct Container {
    key: RecordKey,
    addresses: Vec<IpNetwork>,
    exclude: Vec<IpNetwork>,
}

impl Container {
    fn new(id: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| net(text)).collect();
        Self { key: key("blue", id), addresses, exclude: Vec::new() }
    }

    fn exclude(mut self, nets: &[&str]) -> Self {
        self.exclude = nets.iter().map(|text| net(text)).collect();
        self
    }

    fn wanted<'a>(&'a self, run_dir: &'a Path) -> Masquerade<'a> {
        let Self { key, addresses, exclude } = self;
        Masquerade { key, addresses, exclude, run_dir, backend: Backend::Nftables }
    }

    fn add(&self, host: &Host) {
        add(&self.wanted(host.run_dir())).expect("add");
    }

    fn check(&self, host: &Host) -> Result<(), cni_plugin::Error> {
        check(&self.wanted(host.run_dir()))
    }

    fn remove(&self, host: &Host, last: bool) {
        remove(host.run_dir(), &self.key, &self.addresses, last).expect("remove");
    }

    fn chain(&self) -> String {
        Plan::new(&self.wanted(Path::new("/"))).exclusions.name
    }
}

#[test]
fn backend_is_one_of_two() {
    assert_eq!(Backend::parse(""), Ok(Backend::Nftables));
    assert_eq!(Backend::parse("nftables"), Ok(Backend::Nftables));
    assert_eq!(Backend::parse("iptables"), Ok(Backend::Iptables));
    let error = Backend::parse("ebtables").expect_err("not supported");
    assert_eq!(error.code, Code::UnsupportedField);
    for part in ["ipMasqBackend", "ebtables", "nftables", "iptables"] {
        assert!(error.msg.contains(part), "{error}");
    }
}

#[test]
fn chain_is_named_by_what_it_excludes() {
    let one = Container::new("a", &["10.1.0.2/16"]).exclude(&["10.96.0.0/16", "10.2.0.0/16"]);
    let same = Container::new("b", &["10.1.7.7/16"]).exclude(&["10.2.0.9/16", "10.96.0.0/16"]);
    let other = Container::new("c", &["10.1.0.2/16"]).exclude(&["10.2.0.0/16"]);
    assert_eq!(one.chain(), same.chain());
    assert_ne!(one.chain(), other.chain());
    assert!(one.chain().len() <= 31);
}

/// One lookup whatever the number of containers, then what keeps its source, family by family.
///
/// Rows: O-50, O-53
#[test]
fn what_the_node_says_of_cluster_and_services_is_never_masqueraded_in_either_family() {
    let node: Node = serde_json::from_str(
        r#"{ "clusterCIDRs": ["10.0.0.0/16", "fd00:10::/48"],
             "serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"] }"#,
    )
    .expect("node.json");
    let host = Host::enter();
    let mut one = Container::new("a", &["10.0.1.2/24", "fd00:10:0:1::2/64"]);
    one.exclude = node.never_masqueraded();
    one.add(&host);
    let listed = host.table(&table());
    let body = listed.split_once(&format!("chain {} {{", one.chain())).expect("the chain").1;
    let rules: Vec<&str> = body.lines().map(str::trim).take_while(|line| *line != "}").collect();
    let rules: Vec<&str> = rules.into_iter().filter(|line| !line.is_empty()).collect();
    let (last, kept) = rules.split_last().expect("rules");
    assert_eq!(*last, "masquerade fully-random");
    assert_eq!(
        kept,
        [
            "ip daddr 10.0.0.0/16 return",
            "ip daddr 10.0.1.0/24 return",
            "ip daddr 10.96.0.0/16 return",
            "ip daddr 224.0.0.0/4 return",
            "ip6 daddr fd00:10::/48 return",
            "ip6 daddr fd00:10:0:1::/64 return",
            "ip6 daddr fd00:96::/112 return",
            "ip6 daddr ff00::/8 return",
        ]
    );
}

#[test]
fn two_containers_share_all_but_their_elements() {
    let host = Host::enter();
    let one = Container::new("a", &["10.1.0.2/16", "fd00:1::2/64"]).exclude(&["10.96.0.0/16"]);
    let two = Container::new("b", &["10.1.0.3/16", "fd00:1::3/64"]).exclude(&["10.96.0.0/16"]);
    one.add(&host);
    let base = host.table(&table());
    // The busy path must find intact what the slow path made.
    assert!(
        Plan::new(&two.wanted(host.run_dir()))
            .stands(&mut rules::client().expect("a client"))
            .expect("rules")
    );
    two.add(&host);
    let both = host.table(&table());
    for line in [
        "10.1.0.0/16 return",
        "10.96.0.0/16 return",
        "224.0.0.0/4 return",
        "fd00:1::/64 return",
        "ff00::/8 return",
        "masquerade fully-random",
        "vmap @sources4",
        "vmap @sources6",
    ] {
        assert_eq!(both.matches(line).count(), 1, "{line} in:\n{both}");
    }
    one.check(&host).expect("check");
    two.check(&host).expect("check");
    two.add(&host);
    assert_eq!(host.table(&table()), both);
    two.remove(&host, false);
    assert_eq!(host.table(&table()), base);
    assert!(two.check(&host).is_err());
    two.remove(&host, false);
    one.remove(&host, true);
    assert_eq!(host.table(&table()), "");
    one.remove(&host, true);
}

/// Rows: F38
#[test]
fn flushed_rules_are_noticed_and_written_again() {
    let host = Host::enter();
    let one = Container::new("a", &["10.1.0.2/16"]);
    one.add(&host);
    let whole = host.table(&table());
    let flushes = [
        vec![Op::FlushChain(table(), "postrouting".to_owned())],
        vec![Op::FlushChain(table(), one.chain())],
        vec![Op::DeleteTable(table())],
    ];
    for flush in flushes {
        host.meddle(flush);
        let error = one.check(&host).expect_err("rules are missing");
        assert!(error.msg.contains("ipMasq"), "{error}");
        one.add(&host);
        one.check(&host).expect("repaired");
        assert_eq!(host.table(&table()), whole);
    }
    host.meddle(vec![Op::DeleteTable(table())]);
    one.remove(&host, false);
    one.remove(&host, true);
    assert_eq!(host.table(&table()), "");
}

/// Rows: F39
#[test]
fn what_others_put_into_the_table_stays() {
    let host = Host::enter();
    let one = Container::new("a", &["10.1.0.2/16"]);
    one.add(&host);
    let foreign = Rule { statements: vec![Statement::Counter], comment: Some("mine".to_owned()) };
    host.meddle(vec![
        Op::AddChain(table(), ChainSpec { name: "theirs".to_owned(), base: None }),
        append(&table(), "theirs", &foreign),
        append(&table(), "postrouting", &foreign),
    ]);
    one.check(&host).expect("ours is there");
    one.add(&host);
    let mut client = rules::client().expect("a client");
    let present = client.rules(&table(), "postrouting").expect("rules");
    assert_eq!(present.len(), 3, "{present:?}");
    // One of ours is gone: the order of ours is restored around theirs.
    let (handle, _) = present.first().expect("a rule");
    host.meddle(vec![Op::DeleteRule {
        table: table(),
        chain: "postrouting".to_owned(),
        handle: *handle,
    }]);
    one.add(&host);
    one.check(&host).expect("repaired");
    one.remove(&host, true);
    let left = host.table(&table());
    assert!(left.contains("theirs") && left.matches("mine").count() == 2, "{left}");
}

/// Rows: F40
#[test]
fn an_address_used_again_belongs_to_the_newcomer() {
    let host = Host::enter();
    let old = Container::new("old", &["10.1.0.2/16"]);
    let new = Container::new("new", &["10.1.0.2/16"]).exclude(&["10.96.0.0/16"]);
    let third = Container::new("third", &["10.1.0.3/16"]).exclude(&["10.96.0.0/16"]);
    old.add(&host);
    new.add(&host);
    third.add(&host);
    new.check(&host).expect("taken over");
    assert!(old.check(&host).is_err());
    assert!(!host.table(&table()).contains(&old.chain()), "the old chain is in use by nobody");
    let before = host.table(&table());
    old.remove(&host, false);
    old.remove(&host, true);
    assert_eq!(host.table(&table()), before);
    new.check(&host).expect("still there");
}

/// Rows: C74
#[test]
fn gc_removes_what_of_its_network_is_not_kept() {
    let host = Host::enter();
    let kept = Container::new("kept", &["10.1.0.2/16"]);
    let stale = Container::new("stale", &["10.2.0.3/16", "fd00:2::3/64"]);
    let mut other = Container::new("stale", &["10.3.0.2/16"]);
    other.key.network = "red".to_owned();
    for container in [&kept, &stale, &other] {
        container.add(&host);
    }
    let keep = rules::owner(&kept.key);
    gc(host.run_dir(), "blue", &|owner| owner == keep).expect("gc");
    kept.check(&host).expect("kept");
    other.check(&host).expect("of another network");
    let text = host.table(&table());
    assert!(!text.contains("10.2.0.3") && !text.contains("fd00:2::3"), "{text}");
    assert!(!text.contains(&stale.chain()), "{text}");
    gc(host.run_dir(), "blue", &|_| false).expect("gc");
    gc(host.run_dir(), "red", &|_| false).expect("gc");
    assert_eq!(host.table(&table()), "");
    gc(host.run_dir(), "red", &|_| false).expect("gc of nothing");
}

#[test]
fn a_table_is_not_dropped_under_an_adder() {
    let host = Host::enter();
    let one = Container::new("a", &["10.1.0.2/16"]);
    let two = Container::new("b", &["10.1.0.3/16"]);
    one.add(&host);
    let owner = rules::owner(&one.key);
    let added = std::cell::Cell::new(false);
    let leaving = |element: &Element| {
        // What was read is what is judged here: an ADD comes in between.
        if !added.replace(true) {
            two.add(&host);
        }
        element.comment.as_ref() == Some(&owner)
    };
    let mut client = rules::client().expect("a client");
    let gone = base().drop_if_spent(&mut client, &is_exclusion_chain, &leaving);
    assert!(!gone.expect("a look"));
    one.check(&host).expect("left to the one who asked");
    two.check(&host).expect("not lost");
}

#[test]
fn many_at_once_lose_nothing() {
    let host = Host::enter();
    let containers: Vec<Container> = (0..24)
        .map(|n| {
            let subnet = format!("10.{}.0.{}/16", n % 3, n + 2);
            Container::new(&format!("c{n}"), &[&subnet, &format!("fd00::{n}/64")])
        })
        .collect();
    std::thread::scope(|scope| {
        for (n, container) in containers.iter().enumerate() {
            let host = &host;
            scope.spawn(move || {
                for _ in 0..5 {
                    container.add(host);
                    container.check(host).expect("check after add");
                    // Most believe to be the last: the table comes and goes under the others.
                    container.remove(host, n % 4 != 0);
                }
                container.add(host);
            });
        }
    });
    for container in &containers {
        container.check(&host).expect("check at the end");
    }
    for container in &containers {
        container.remove(&host, true);
    }
    assert_eq!(host.table(&table()), "");
}
