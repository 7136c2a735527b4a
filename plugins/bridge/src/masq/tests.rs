//! Rules in a kernel that is a fake, as an ordinary user; those of a real one if many act at once, or
//! others have rules.

use std::path::Path;

use causeway_host::RecordKey;
use causeway_nft::OwnedTable;
use causeway_ruleset::owned::append;
use causeway_ruleset::{ChainSpec, Element, Op, Rule, Statement};
use cni_plugin::Code;
use ipnetwork::IpNetwork;

use super::{
    Backend, Masquerade, add, check, check_in_table, claim, in_table, layout, questions, remove,
    table,
};
use crate::rules;
use crate::rules::testing::{Host, key};

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
        self.try_add(host).expect("add");
    }

    fn try_add(&self, host: &Host) -> Result<(), cni_plugin::Error> {
        let claim = claim(&self.wanted(host.run_dir()));
        in_table(&mut host.client()).add(host.run_dir(), &claim)
    }

    fn check(&self, host: &Host) -> Result<(), cni_plugin::Error> {
        check_in_table(&mut host.client(), &self.wanted(host.run_dir()))
    }

    fn remove(&self, host: &Host, last: bool) {
        let questions = questions(&self.addresses);
        in_table(&mut host.client()).remove(&self.key, questions, last).expect("remove");
    }

    fn chain(&self) -> String {
        claim(&self.wanted(Path::new("/"))).chains.remove(0).0.name
    }
}

fn gc(host: &Host, network: &str, keep: &dyn Fn(&str) -> bool) {
    in_table(&mut host.client()).gc(network, keep).expect("gc");
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
    let node: causeway_host::NodeFile = serde_json::from_str(
        r#"{ "clusterCIDRs": ["10.0.0.0/16", "fd00:10::/48"],
             "serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"] }"#,
    )
    .expect("node.json");
    let host = Host::fake();
    let mut one = Container::new("a", &["10.0.1.2/24", "fd00:10:0:1::2/64"]);
    one.exclude = node.never_masqueraded().expect("networks");
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
    let host = Host::fake();
    let one = Container::new("a", &["10.1.0.2/16", "fd00:1::2/64"]).exclude(&["10.96.0.0/16"]);
    let two = Container::new("b", &["10.1.0.3/16", "fd00:1::3/64"]).exclude(&["10.96.0.0/16"]);
    one.add(&host);
    let base = host.table(&table());
    // The busy path must find intact what the slow path made.
    let claim = claim(&two.wanted(host.run_dir()));
    assert!(OwnedTable::new(&mut host.client(), &layout()).add(&claim).expect("an addition"));
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
    let host = Host::fake();
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
    theirs_stays(&Host::fake());
}

/// Rows: F39
#[test]
fn what_others_put_into_the_table_of_the_kernel_stays() {
    theirs_stays(&Host::enter());
}

fn theirs_stays(host: &Host) {
    let one = Container::new("a", &["10.1.0.2/16"]);
    one.add(host);
    let foreign = Rule { statements: vec![Statement::Counter], comment: Some("mine".to_owned()) };
    host.meddle(vec![
        Op::AddChain(table(), ChainSpec { name: "theirs".to_owned(), base: None }),
        append(&table(), "theirs", &foreign),
        append(&table(), "postrouting", &foreign),
    ]);
    one.check(host).expect("ours is there");
    one.add(host);
    let present = host.client().rules(&table(), "postrouting").expect("rules");
    assert_eq!(present.len(), 3, "{present:?}");
    // One of ours is gone: the order of ours is restored around theirs.
    let (handle, _) = present.first().expect("a rule");
    host.meddle(vec![Op::DeleteRule {
        table: table(),
        chain: "postrouting".to_owned(),
        handle: *handle,
    }]);
    one.add(host);
    one.check(host).expect("repaired");
    one.remove(host, true);
    let left = host.table(&table());
    assert!(left.contains("theirs") && left.matches("mine").count() == 2, "{left}");
}

/// Rows: F40
#[test]
fn an_address_used_again_belongs_to_the_newcomer() {
    let host = Host::fake();
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
    let host = Host::fake();
    let kept = Container::new("kept", &["10.1.0.2/16"]);
    let stale = Container::new("stale", &["10.2.0.3/16", "fd00:2::3/64"]);
    let mut other = Container::new("stale", &["10.3.0.2/16"]);
    other.key.network = "red".to_owned();
    for container in [&kept, &stale, &other] {
        container.add(&host);
    }
    let keep = rules::owner(&kept.key);
    gc(&host, "blue", &|owner| owner == keep);
    kept.check(&host).expect("kept");
    other.check(&host).expect("of another network");
    let text = host.table(&table());
    assert!(!text.contains("10.2.0.3") && !text.contains("fd00:2::3"), "{text}");
    assert!(!text.contains(&stale.chain()), "{text}");
    gc(&host, "blue", &|_| false);
    gc(&host, "red", &|_| false);
    assert_eq!(host.table(&table()), "");
    gc(&host, "red", &|_| false);
}

#[test]
fn a_table_is_not_dropped_under_an_adder() {
    let host = Host::fake();
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
    let gone = OwnedTable::new(&mut host.client(), &layout()).drop_if_spent(&leaving);
    assert!(!gone.expect("a look"));
    one.check(&host).expect("left to the one who asked");
    two.check(&host).expect("not lost");
}

#[test]
fn what_another_process_does_in_between_is_made_good() {
    let host = Host::fake();
    let one = Container::new("a", &["10.1.0.2/16"]);
    let two = Container::new("b", &["10.1.0.3/16"]);
    one.add(&host);
    two.add(&host);
    let both = host.table(&table());
    two.remove(&host, false);
    // After the look at the rules and before the addition.
    host.kernel().meanwhile(vec![Op::DeleteTable(table())]);
    two.add(&host);
    one.add(&host);
    assert_eq!(host.table(&table()), both);
    // Before the first transaction under the lock, and before the second.
    host.meddle(vec![Op::DeleteTable(table())]);
    let flush = || vec![Op::AddTable(table()), Op::DeleteTable(table())];
    host.kernel().meanwhile(flush());
    one.add(&host);
    host.kernel().meanwhile(vec![Op::FlushChain(table(), "postrouting".to_owned())]);
    two.add(&host);
    assert!(two.check(&host).is_err(), "flushed right before the addition: nothing tells");
    one.add(&host);
    assert_eq!(host.table(&table()), both);
}

#[test]
fn a_refusal_says_whether_to_try_again() {
    let host = Host::fake();
    let one = Container::new("a", &["10.1.0.2/16"]);
    host.kernel().refuse([libc::ENOMEM]);
    let error = one.try_add(&host).expect_err("refused");
    assert_eq!(error.code, Code::Io, "{error}");
    // One time short of what is tried under the lock.
    let before = host.kernel().commits();
    host.kernel().refuse([libc::EBUSY; 15]);
    one.add(&host);
    assert_eq!(host.kernel().commits() - before, 16);
    one.remove(&host, true);
    host.kernel().refuse([libc::EBUSY; 16]);
    let error = one.try_add(&host).expect_err("refused");
    assert_eq!(error.code, Code::TryAgainLater, "{error}");
    assert_eq!(host.table(&table()), "");
}

#[test]
fn what_is_missing_comes_back_to_its_owner_alone() {
    let host = Host::fake();
    let one = Container::new("a", &["10.1.0.2/16", "fd00:1::2/64"]);
    let two = Container::new("b", &["10.1.0.3/16"]).exclude(&["10.96.0.0/16"]);
    let claims = [&one, &two].map(|container| claim(&container.wanted(host.run_dir())));
    let restore = |write| {
        let lacking = in_table(&mut host.client()).restore(&claims, write).expect("restore");
        lacking.into_iter().collect::<Vec<_>>()
    };
    one.add(&host);
    two.add(&host);
    let whole = host.table(&table());
    assert_eq!(restore(true), [0usize; 0]);
    for (ops, lacking) in [
        (vec![Op::DeleteTable(table())], vec![0, 1]),
        (vec![Op::FlushChain(table(), "postrouting".to_owned())], vec![0, 1]),
        (vec![Op::FlushChain(table(), two.chain())], vec![1]),
        (vec![Op::FlushSet(table(), "sources6".to_owned())], vec![0]),
    ] {
        host.meddle(ops);
        let damaged = host.table(&table());
        assert_eq!(restore(false), lacking, "{damaged}");
        assert_eq!(host.table(&table()), damaged, "only looked at");
        assert_eq!(restore(true), lacking, "{damaged}");
        assert_eq!(host.table(&table()), whole);
    }
    let newcomer = Container::new("new", &["10.1.0.2/16"]);
    newcomer.add(&host);
    let taken = host.table(&table());
    assert_eq!(restore(true), [0usize; 0], "the address is another's");
    assert_eq!(host.table(&table()), taken);
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
                let (wanted, run_dir) = (container.wanted(host.run_dir()), host.run_dir());
                for _ in 0..5 {
                    add(&wanted).expect("add");
                    check(&wanted).expect("check after add");
                    // Most believe to be the last: the table comes and goes under the others.
                    remove(run_dir, &container.key, &container.addresses, n % 4 != 0)
                        .expect("remove");
                }
                add(&wanted).expect("add");
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
