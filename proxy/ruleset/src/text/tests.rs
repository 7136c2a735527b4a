//! Snapshots of text. `causeway-nft` holds the same text against the real `nft`.

use super::*;
use crate::{DataType, Field, Key, Match, NatTarget, RegValue, Rule, SetSpec, Statement, Verdict};

fn id() -> TableId {
    TableId { family: Family::Inet, name: "causeway_hostport".to_owned() }
}

fn v4(last: u8) -> RegValue {
    RegValue::V4([10, 0, 0, last].into())
}

fn hostports() -> SetSpec {
    SetSpec {
        name: "ports".to_owned(),
        key: vec![DataType::InetProto, DataType::InetService],
        target: Some(MapTarget::Data(vec![DataType::Ipv4Addr, DataType::InetService])),
        interval: false,
        dynamic: false,
        timeout_ms: None,
    }
}

fn hostport() -> Element {
    Element {
        key: Key::Exact(vec![RegValue::Proto(6), RegValue::Port(8080)]),
        value: Some(ElementValue::Data(vec![v4(2), RegValue::Port(80)])),
        comment: Some("owner".to_owned()),
    }
}

fn prerouting() -> ChainSpec {
    let base = BaseChain {
        kind: "nat".to_owned(),
        hook: Hook::Prerouting,
        priority: -100,
        policy_drop: false,
    };
    ChainSpec { name: "prerouting".to_owned(), base: Some(base) }
}

fn dnat() -> Rule {
    let fields = vec![Field::L4Proto, Field::ThDport];
    let to = NatTarget::Map { fields, map: "ports".to_owned(), ipv6: false };
    let local = Statement::Match(Match::FibDaddrLocal { negate: false });
    Rule { statements: vec![local, Statement::Dnat(to)], comment: Some("host ports".to_owned()) }
}

#[test]
fn a_table_reads_as_nft_lists_it() {
    let mut state = TableState::default();
    state.sets.insert("ports".to_owned(), (hostports(), vec![hostport()]));
    state.chains.insert("prerouting".to_owned(), (prerouting(), vec![(7, dnat())]));
    let text = "table inet causeway_hostport {
\tmap ports {
\t\ttype inet_proto . inet_service : ipv4_addr . inet_service
\t\telements = { tcp . 8080 comment \"owner\" : 10.0.0.2 . 80 }
\t}

\tchain prerouting {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tfib daddr type local dnat ip to meta l4proto . th dport map @ports comment \"host ports\"
\t}
}
";
    assert_eq!(table(&id(), &state), text);
}

#[test]
fn a_batch_is_input_for_nft() {
    let elements = vec![hostport()];
    let set = hostports();
    let name = || "ports".to_owned();
    let (table, exclusive) = (id(), true);
    let chain = "prerouting".to_owned();
    let ops = vec![
        Op::AddTable(id()),
        Op::AddSet(id(), hostports()),
        Op::AddChain(id(), prerouting()),
        Op::FlushChain(id(), chain.clone()),
        Op::AddRule { table: id(), chain: chain.clone(), rule: dnat() },
        Op::DeleteRule { table: id(), chain: chain.clone(), handle: 7 },
        Op::AddElements { table, set: set.clone(), elements: elements.clone(), exclusive },
        Op::DeleteElements { table: id(), set, elements },
        Op::FlushSet(id(), name()),
        Op::DeleteSet(id(), name()),
        Op::DeleteChain(id(), chain),
        Op::DeleteTable(id()),
    ];
    let text = "add table inet T
add map inet T ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
add chain inet T prerouting { type nat hook prerouting priority -100; policy accept; }
flush chain inet T prerouting
add rule inet T prerouting fib daddr type local dnat ip to meta l4proto . th dport map @ports comment \"host ports\"
delete rule inet T prerouting handle 7
create element inet T ports { tcp . 8080 comment \"owner\" : 10.0.0.2 . 80 }
delete element inet T ports { tcp . 8080 }
flush map inet T ports
delete map inet T ports
delete chain inet T prerouting
delete table inet T
";
    let text = text.replace("inet T", "inet causeway_hostport");
    assert_eq!(batch(&Batch { ops, generation: None }), text);
}

fn check(statements: Vec<Statement>, text: &str) {
    assert_eq!(rule(Family::Inet, &Rule { statements, comment: None }), text);
}

#[test]
fn statements_read_as_nft_lists_them() {
    let tcp = RegValue::Proto(6);
    let cmp = |field, value| Statement::Match(Match::Cmp { field, negate: false, value });
    let port = cmp(Field::ThDport, RegValue::Port(80));
    check(vec![cmp(Field::L4Proto, tcp.clone()), port.clone()], "tcp dport 80");
    check(vec![cmp(Field::L4Proto, tcp)], "meta l4proto tcp");
    check(vec![port], "th dport 80");
    let mark = |mask, value| vec![Statement::SetMark { mask, value }];
    check(mark(0x4000, 0x4000), "meta mark set meta mark | 0x00004000");
    check(mark(0x4000, 0), "meta mark set meta mark & 0xffffbfff");
    check(mark(0xff00, 0x100), "meta mark set meta mark & 0xffff01ff | 0x00000100");
    check(mark(u32::MAX, 7), "meta mark set 0x00000007");
    let unknown = Statement::Other("limit".to_owned(), vec![1, 0xff]);
    check(vec![unknown, Statement::Verdict(Verdict::Drop)], "drop # unknown: limit 01ff");
}

#[test]
fn keys_and_durations_read_as_nft_lists_them() {
    let range = |from, to| value::key(&Key::Range(from, to));
    assert_eq!(range(vec![v4(0)], vec![v4(255)]), "10.0.0.0/24");
    assert_eq!(range(vec![v4(1)], vec![v4(2)]), "10.0.0.1-10.0.0.2");
    let ports = |from, to| (RegValue::Port(from), RegValue::Port(to));
    let (from, to) = ports(80, 95);
    assert_eq!(range(vec![v4(1), from], vec![v4(1), to]), "10.0.0.1 . 80-95");
    assert_eq!(value::duration(93_784_005), "1d2h3m4s5ms");
    assert_eq!(value::duration(90_000), "1m30s");
}
