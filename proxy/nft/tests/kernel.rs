//! What is committed reads back equal from a real kernel.

mod common;

use causeway_nft::Client;
use causeway_ruleset::{
    Batch, DataType, Element, ElementValue, Family, Hook, Key, MapTarget, Op, RegValue, Rule,
    SetSpec, Statement, TableId,
};

use common::{
    batch, chain, client, element, enter_netns, everything, guard, rule, rules, set, sets, table,
    v4,
};

fn id() -> TableId {
    table(Family::Inet, "t")
}

/// A table with a set of ports that holds nothing.
fn ports(client: &mut Client) -> SetSpec {
    let ports = set("ports", &[DataType::InetService], None, false);
    let ops = vec![Op::AddTable(id()), Op::AddSet(id(), ports.clone())];
    client.commit(&batch(ops)).expect("a commit");
    ports
}

fn port(number: u16) -> Element {
    element(vec![RegValue::Port(number)], None, "")
}

fn add(set: &SetSpec, elements: Vec<Element>, exclusive: bool) -> Op {
    Op::AddElements { table: id(), set: set.clone(), elements, exclusive }
}

fn delete(set: &SetSpec, elements: Vec<Element>) -> Op {
    Op::DeleteElements { table: id(), set: set.clone(), elements }
}

#[test]
fn everything_reads_back_equal() {
    let mut client = client();
    let id = table(Family::Inet, "t");
    client.commit(&everything(&id)).unwrap();
    for name in ["pre", "post"] {
        let wanted = rules().into_iter().filter(|(chain, _)| *chain == name);
        let read = client.rules(&id, name).unwrap();
        let read = read.into_iter().map(|(_, rule)| (name, rule)).collect::<Vec<_>>();
        for (wanted, read) in wanted.clone().zip(&read) {
            assert_eq!(wanted, *read);
        }
        assert_eq!(wanted.count(), read.len());
    }
    for (set, elements) in sets() {
        assert_eq!(client.elements(&id, &set).unwrap(), elements, "{}", set.name);
        for wanted in elements {
            assert_eq!(client.element(&id, &set, &wanted.key).unwrap(), Some(wanted));
        }
    }
    let state = client.table(&id).unwrap().unwrap();
    assert_eq!(state.chains.keys().collect::<Vec<_>>(), ["other", "post", "pre"]);
    assert_eq!(state.chains["pre"].0, chain("pre", Some(("nat", Hook::Prerouting, -100))));
    for (set, elements) in sets() {
        assert_eq!(state.sets[&set.name], (set, elements));
    }
    assert_eq!(state.chains["pre"].1, client.rules(&id, "pre").unwrap());
}

#[test]
fn a_guard_reads_back_equal() {
    let mut client = client();
    let id = table(Family::Bridge, "b");
    let wanted = guard(&id);
    client.commit(&wanted).unwrap();
    let rules = client.rules(&id, "guard").unwrap();
    let read = rules.into_iter().map(|(_, rule)| Op::AddRule {
        table: id.clone(),
        chain: "guard".to_owned(),
        rule,
    });
    assert_eq!(read.collect::<Vec<_>>(), wanted.ops[4..]);
}

#[test]
fn a_taken_element_is_eexist_and_nothing_of_the_batch_stays() {
    let mut client = client();
    let ports = ports(&mut client);
    client.commit(&batch(vec![add(&ports, vec![port(80)], true)])).unwrap();
    let both = batch(vec![add(&ports, vec![port(81)], true), add(&ports, vec![port(80)], true)]);
    let error = client.commit(&both).unwrap_err();
    assert!(error.is_exists(), "{error:?}");
    assert_eq!(error.op, Some(1));
    assert_eq!(error.to_string(), "nftables: add element inet t ports");
    assert_eq!(client.elements(&id(), &ports).unwrap(), [port(80)]);
    client.commit(&batch(vec![add(&ports, vec![port(80)], false)])).unwrap();
}

#[test]
fn what_is_absent_is_enoent_to_a_commit_and_nothing_to_a_reader() {
    let mut client = client();
    let absent = set("ports", &[DataType::InetService], None, false);
    let key = port(80).key;
    let error = client.commit(&batch(vec![add(&absent, vec![port(80)], true)])).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.op, Some(0));
    assert_eq!(client.element(&id(), &absent, &key).unwrap(), None);
    assert_eq!(client.elements(&id(), &absent).unwrap(), []);
    assert_eq!(client.rules(&id(), "c").unwrap(), []);
    assert_eq!(client.table(&id()).unwrap(), None);

    let ports = ports(&mut client);
    assert_eq!(client.element(&id(), &ports, &key).unwrap(), None);
    assert_eq!(client.rules(&id(), "c").unwrap(), []);
    let ops = vec![add(&ports, vec![port(81)], true), delete(&ports, vec![port(80)])];
    let error = client.commit(&batch(ops)).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.op, Some(1));
    let other = table(Family::Bridge, "t");
    let error = client.commit(&batch(vec![Op::DeleteTable(other)])).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    client.commit(&batch(vec![Op::DeleteTable(id())])).unwrap();
    assert_eq!(client.table(&id()).unwrap(), None);
}

#[test]
fn the_same_base_again_changes_nothing() {
    let mut client = client();
    let mut base = everything(&id());
    for op in &mut base.ops {
        if let Op::AddElements { exclusive, .. } = op {
            *exclusive = false;
        }
    }
    let first_rule = base.ops.iter().position(|op| matches!(op, Op::AddRule { .. })).unwrap();
    for name in ["pre", "post"] {
        base.ops.insert(first_rule, Op::FlushChain(id(), name.to_owned()));
    }
    client.commit(&base).unwrap();
    let rules_of = |client: &mut Client| {
        let rules = client.rules(&id(), "pre").unwrap();
        rules.into_iter().map(|(_, rule)| rule).collect::<Vec<_>>()
    };
    let before = (rules_of(&mut client), client.table(&id()).unwrap().unwrap().sets);
    client.commit(&base).unwrap();
    assert_eq!((rules_of(&mut client), client.table(&id()).unwrap().unwrap().sets), before);
}

#[test]
fn a_commit_on_an_old_generation_is_refused() {
    let mut client = client();
    let ports = ports(&mut client);
    let generation = Some(client.generation().unwrap());
    let on = |ops| Batch { ops, generation };
    client.commit(&on(vec![add(&ports, vec![port(80)], true)])).unwrap();
    let error = client.commit(&on(vec![add(&ports, vec![port(81)], true)])).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(client.elements(&id(), &ports).unwrap(), [port(80)]);
    client.commit(&batch(vec![add(&ports, vec![port(81)], true)])).unwrap();
}

#[test]
fn many_elements_go_in_one_transaction_and_come_back() {
    let mut client = client();
    let key = [DataType::Ipv4Addr, DataType::InetService];
    let target = MapTarget::Data(vec![DataType::Ipv4Addr, DataType::InetService]);
    let map = set("many", &key, Some(target), false);
    let elements = (0..60_000u32).map(|n| {
        let values = vec![RegValue::V4((0x0a00_0000 + n).into()), RegValue::Port(80)];
        element(values.clone(), Some(ElementValue::Data(values)), "owner of many")
    });
    let elements = elements.collect::<Vec<_>>();
    let ops =
        vec![Op::AddTable(id()), Op::AddSet(id(), map.clone()), add(&map, elements.clone(), true)];
    client.commit(&batch(ops)).unwrap();
    let read = client.elements(&id(), &map).unwrap();
    assert_eq!(read.len(), elements.len());
    assert!(read == elements, "elements differ");
    let again = client.commit(&batch(vec![add(&map, elements.clone(), true)])).unwrap_err();
    assert!(again.is_exists(), "{again:?}");
    client.commit(&batch(vec![delete(&map, elements)])).unwrap();
    assert_eq!(client.elements(&id(), &map).unwrap(), []);
}

#[test]
fn many_refused_operations_still_name_the_first() {
    let mut client = client();
    let ports = ports(&mut client);
    let ops = (0..20_000u16).map(|n| delete(&ports, vec![port(n)])).collect();
    let error = client.commit(&batch(ops)).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.op, Some(0));
    client.commit(&batch(vec![add(&ports, vec![port(80)], true)])).unwrap();
}

#[test]
fn everything_can_be_deleted_again() {
    let mut client = client();
    let ports = ports(&mut client);
    let name = || "c".to_owned();
    let counter = || Rule { comment: None, ..rule(vec![Statement::Counter]) };
    let ops = vec![
        add(&ports, vec![port(80), port(81)], true),
        Op::AddChain(id(), chain("c", None)),
        Op::AddRule { table: id(), chain: name(), rule: counter() },
        Op::AddRule { table: id(), chain: name(), rule: counter() },
    ];
    client.commit(&batch(ops)).unwrap();
    let handle = client.rules(&id(), "c").unwrap()[0].0;
    let ops =
        vec![delete(&ports, vec![port(80)]), Op::DeleteRule { table: id(), chain: name(), handle }];
    client.commit(&batch(ops)).unwrap();
    assert_eq!(client.elements(&id(), &ports).unwrap(), [port(81)]);
    assert_eq!(client.rules(&id(), "c").unwrap().len(), 1);
    let ops = vec![
        Op::FlushSet(id(), "ports".to_owned()),
        Op::FlushChain(id(), name()),
        Op::DeleteSet(id(), "ports".to_owned()),
        Op::DeleteChain(id(), name()),
    ];
    client.commit(&batch(ops)).unwrap();
    assert_eq!(client.table(&id()).unwrap(), Some(causeway_ruleset::TableState::default()));
}

#[test]
fn ranges_are_deleted_and_found_by_key() {
    let mut client = client();
    let all = sets().into_iter().filter(|(set, _)| set.interval).collect::<Vec<_>>();
    let mut ops = vec![Op::AddTable(id())];
    for (set, elements) in &all {
        ops.push(Op::AddSet(id(), set.clone()));
        ops.push(add(set, elements.clone(), true));
    }
    client.commit(&batch(ops)).unwrap();
    for (set, mut elements) in all {
        let gone = elements.remove(1);
        client.commit(&batch(vec![delete(&set, vec![gone.clone()])])).unwrap();
        assert_eq!(client.element(&id(), &set, &gone.key).unwrap(), None);
        assert_eq!(client.elements(&id(), &set).unwrap(), elements);
    }
}

#[test]
fn what_cannot_be_said_is_refused_before_anything_is_sent() {
    let mut client = client();
    let ports = ports(&mut client);
    let before = client.generation().unwrap();
    let wrong = element(vec![v4("10.0.0.1")], None, "");
    let long = element(vec![RegValue::Port(1)], None, &"x".repeat(129));
    let range =
        Element { key: Key::Range(vec![RegValue::Port(1)], vec![RegValue::Port(2)]), ..port(1) };
    for bad in [wrong, long, range] {
        let ops = vec![add(&ports, vec![port(80)], true), add(&ports, vec![bad], true)];
        let error = client.commit(&batch(ops)).unwrap_err();
        assert_eq!(error.op, Some(1));
        assert_eq!(error.source.kind(), std::io::ErrorKind::InvalidInput);
    }
    client.commit(&Batch::default()).unwrap();
    client.commit(&batch(vec![add(&ports, Vec::new(), true)])).unwrap();
    assert_eq!(client.generation().unwrap(), before);
}

#[test]
fn a_client_stays_in_the_namespace_it_was_opened_in() {
    let mut client = client();
    let ports = ports(&mut client);
    enter_netns();
    client.commit(&batch(vec![add(&ports, vec![port(80)], true)])).unwrap();
    assert_eq!(client.elements(&id(), &ports).unwrap(), [port(80)]);
    assert_eq!(Client::open().unwrap().table(&id()).unwrap(), None);
}
