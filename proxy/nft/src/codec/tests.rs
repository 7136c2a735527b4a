//! Against bytes that `nft` sent and that the kernel dumped, and against bytes of no meaning.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_ruleset::{
    BaseChain, Batch, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key,
    MapTarget, Match, NatPort, NatTarget, Op, RegValue, Rule, SetSpec, Statement, TableId, Verdict,
};
use ipnetwork::IpNetwork;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_netfilter::NetfilterMessage;
use proptest::prelude::*;

use super::object::{read_chain, read_rule, write_chain, write_rule};
use super::set::{self, ElementFields, read_spec, write_list, write_spec};
use crate::uapi::{RULE_HANDLE, SET_USERDATA};
use crate::wire::{Attributes, Messages, Writer};

const SET_ID_OF_ELEMENTS: u16 = 4;

fn captured(name: &str) -> Vec<u8> {
    let lines = include_str!("captured.txt").lines();
    let mut named = lines.filter_map(|line| line.split_once(' ')).filter(|(one, _)| *one == name);
    let hex = named.next().expect(name).1.as_bytes();
    let digits = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16);
    hex.chunks(2).map(|pair| digits(pair).expect("hexadecimal")).collect()
}

fn id() -> TableId {
    TableId { family: Family::Inet, name: "t".to_owned() }
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    write(&mut out);
    out.into_bytes()
}

/// Attributes without one kind.
fn without(bytes: &[u8], kind: u16) -> Vec<(u16, Vec<u8>)> {
    let all = Attributes(bytes).filter(|attribute| attribute.kind != kind);
    all.map(|attribute| (attribute.kind, attribute.value.to_vec())).collect()
}

fn matches(condition: Match) -> Statement {
    Statement::Match(condition)
}

fn cmp(field: Field, negate: bool, value: RegValue) -> Statement {
    matches(Match::Cmp { field, negate, value })
}

fn name(name: &str) -> RegValue {
    RegValue::IfName(name.to_owned())
}

fn net(field: Field, net: &str) -> Statement {
    matches(Match::Net { field, negate: false, net: net.parse().expect(net) })
}

fn base_chain() -> ChainSpec {
    let (hook, priority) = (Hook::Prerouting, -100);
    let base = BaseChain { kind: "nat".to_owned(), hook, priority, policy_drop: false };
    ChainSpec { name: "pre".to_owned(), base: Some(base) }
}

fn spec(name: &str, key: &[DataType], target: Option<MapTarget>, interval: bool) -> SetSpec {
    let (name, key) = (name.to_owned(), key.to_vec());
    SetSpec { name, key, target, interval, dynamic: false, timeout_ms: None }
}

fn map() -> SetSpec {
    let target = MapTarget::Data(vec![DataType::Ipv4Addr, DataType::InetService]);
    let key = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    spec("d", &key, Some(target), false)
}

fn ranges() -> SetSpec {
    spec("c", &[DataType::Ipv4Addr, DataType::InetService], None, true)
}

fn v4(text: &str) -> RegValue {
    RegValue::V4(text.parse().expect(text))
}

fn map_element() -> Element {
    Element {
        key: Key::Exact(vec![v4("10.0.0.1"), RegValue::Proto(6), RegValue::Port(80)]),
        value: Some(ElementValue::Data(vec![v4("10.1.0.2"), RegValue::Port(8080)])),
        comment: Some("own".to_owned()),
    }
}

fn range_element() -> Element {
    let from = vec![v4("10.1.0.0"), RegValue::Port(80)];
    let to = vec![v4("10.1.255.255"), RegValue::Port(90)];
    Element { key: Key::Range(from, to), value: None, comment: None }
}

/// The rules whose bytes were captured, with the text that was given to `nft`.
fn captured_rules() -> Vec<(&'static str, Rule)> {
    let owned = |statements| Rule { statements, comment: Some("own".to_owned()) };
    let plain = |statements| Rule { statements, comment: None };
    let fields = vec![Field::IpDaddr, Field::L4Proto, Field::ThDport];
    let to_map = NatTarget::Map { fields, map: "d".to_owned(), ipv6: false };
    let fixed = NatTarget::Fixed("fd00::2".parse().expect("an address"), Some(80));
    vec![
        // ip daddr 10.0.0.0/8 fib daddr type local ct state established,related
        // meta mark set meta mark | 0x4000 counter
        // dnat ip to ip daddr . meta l4proto . th dport map @d comment "own"
        (
            "nft-rule-1",
            owned(vec![
                net(Field::IpDaddr, "10.0.0.0/8"),
                matches(Match::FibDaddrLocal { negate: false }),
                matches(Match::CtEstablished { negate: false }),
                Statement::SetMark { mask: 0x4000, value: 0x4000 },
                Statement::Counter,
                Statement::Dnat(to_map),
            ]),
        ),
        // ip6 daddr fd00::/63 oifname "cw0" meta l4proto tcp ct original proto-dst != 80
        // ct mark set 7 dnat ip6 to [fd00::2]:80
        (
            "nft-rule-2",
            plain(vec![
                net(Field::Ip6Daddr, "fd00::/63"),
                cmp(Field::OifName, false, name("cw0")),
                cmp(Field::L4Proto, false, RegValue::Proto(6)),
                cmp(Field::CtOriginalProtoDst, true, RegValue::Port(80)),
                Statement::SetCtMark { mask: u32::MAX, value: 7 },
                Statement::Dnat(fixed),
            ]),
        ),
        // ct status dnat ct direction reply meta mark & 0xff != 1 drop
        (
            "nft-rule-4",
            plain(vec![
                matches(Match::CtStatusDnat { negate: false }),
                matches(Match::CtDirection { reply: true }),
                matches(Match::Bits { field: Field::Mark, mask: 0xff, negate: true, value: 1 }),
                Statement::Verdict(Verdict::Drop),
            ]),
        ),
    ]
}

/// Reads a rule as if the kernel had numbered it.
fn rule_of(bytes: &[u8]) -> Rule {
    let mut bytes = bytes.to_vec();
    bytes.extend(written(|out| out.u64(RULE_HANDLE, 9)));
    let read = read_rule(Family::Inet, Attributes(&bytes)).expect("a rule");
    assert_eq!((read.table.as_str(), read.handle), ("t", 9));
    read.rule
}

#[test]
fn rules_of_nft_read_as_the_ir_says_them() {
    for (name, rule) in captured_rules() {
        assert_eq!(rule_of(&captured(name)), rule, "{name}");
    }
    let dumped = captured("kernel-rule-1");
    let read = read_rule(Family::Inet, Attributes(&dumped)).expect("a rule");
    assert_eq!(read.rule, captured_rules().remove(0).1);
    assert_eq!((read.table.as_str(), read.chain.as_str(), read.handle), ("t", "pre", 4));
}

/// ip6 daddr fd00::/63 oifname "cw0" fib daddr type local counter meta l4proto tcp
/// ct original proto-dst != 80 ct state ! established,related ct mark set 7 goto x comment "own"
#[test]
fn a_rule_is_written_byte_for_byte_as_nft_writes_it() {
    let statements = vec![
        net(Field::Ip6Daddr, "fd00::/63"),
        cmp(Field::OifName, false, name("cw0")),
        matches(Match::FibDaddrLocal { negate: false }),
        Statement::Counter,
        cmp(Field::L4Proto, false, RegValue::Proto(6)),
        cmp(Field::CtOriginalProtoDst, true, RegValue::Port(80)),
        matches(Match::CtEstablished { negate: true }),
        Statement::SetCtMark { mask: u32::MAX, value: 7 },
        Statement::Verdict(Verdict::Goto("x".to_owned())),
    ];
    let rule = Rule { statements, comment: Some("own".to_owned()) };
    let bytes = written(|out| write_rule(out, &id(), "pre", &rule).expect("a rule"));
    assert_eq!(bytes, captured("nft-rule-exact"));
}

/// ether saddr 02:00:00:00:00:01 iifname "veth0" ip saddr . th dport != @c masquerade fully-random
///
/// nft 1.0.6 loads the Ethernet type together with the address and compares both at once.
#[test]
fn what_is_not_said_as_we_say_it_is_kept() {
    let statements = rule_of(&captured("nft-rule-3")).statements;
    let (known, other): (Vec<_>, Vec<_>) =
        statements.into_iter().partition(|one| !matches!(one, Statement::Other(..)));
    let iifname = cmp(Field::IifName, false, name("veth0"));
    assert_eq!(known, [iifname, Statement::Masquerade { random: true }]);
    assert_eq!(other.len(), 7);
}

#[test]
fn chains_are_those_of_nft_and_of_the_kernel() {
    let chain = base_chain();
    assert_eq!(written(|out| write_chain(out, &id(), &chain)), captured("nft-chain"));
    let read = read_chain(Attributes(&captured("kernel-chain")));
    assert_eq!(read, Some(("t".to_owned(), chain)));
}

#[test]
fn sets_are_those_of_nft_and_of_the_kernel() {
    for (number, set, name) in [(1, map(), "map"), (2, ranges(), "set")] {
        let bytes = written(|out| write_spec(out, &id(), &set, number).expect("a set"));
        let theirs = captured(&format!("nft-{name}"));
        // nft adds how the type was spelled.
        assert_eq!(without(&bytes, SET_USERDATA), without(&theirs, SET_USERDATA));
        let read = read_spec(Attributes(&captured(&format!("kernel-{name}"))));
        assert_eq!(read, Some(("t".to_owned(), set)));
    }
}

fn elements_bytes(set: &SetSpec, elements: &[Element]) -> Vec<u8> {
    let write = |out: &mut Writer| {
        write_list(out, (&id(), set), &mut elements.iter(), ElementFields::Whole)
            .expect("elements");
    };
    written(write)
}

fn elements_of(set: &SetSpec, bytes: &[u8]) -> Vec<Element> {
    let mut raw = Vec::new();
    set::read_elements(Attributes(bytes), set, &mut raw);
    set::elements(set, raw)
}

#[test]
fn elements_are_those_of_nft_and_of_the_kernel() {
    for (set, element, name) in
        [(map(), map_element(), "map-element"), (ranges(), range_element(), "set-element")]
    {
        let bytes = elements_bytes(&set, std::slice::from_ref(&element));
        let theirs = captured(&format!("nft-{name}"));
        let none = u16::MAX;
        assert_eq!(without(&bytes, none), without(&theirs, SET_ID_OF_ELEMENTS));
        assert_eq!(elements_of(&set, &captured(&format!("kernel-{name}"))), [element]);
    }
}

/// A batch with all that was captured.
fn captured_batch() -> Batch {
    let chain = || "pre".to_owned();
    let elements = |set, element| Op::AddElements {
        table: id(),
        set,
        elements: vec![element],
        exclusive: true,
    };
    let mut ops = vec![
        Op::AddTable(id()),
        Op::AddChain(id(), base_chain()),
        Op::AddSet(id(), map()),
        elements(map(), map_element()),
        elements(ranges(), range_element()),
        Op::FlushChain(id(), chain()),
        Op::DeleteElements { table: id(), set: map(), elements: vec![map_element()] },
    ];
    let rules = captured_rules().into_iter();
    ops.extend(rules.map(|(_, rule)| Op::AddRule { table: id(), chain: chain(), rule }));
    Batch { ops, generation: Some(7) }
}

/// An independent reader finds the same attributes, and writes the same bytes.
#[test]
fn another_codec_reads_what_we_write() {
    let batch = captured_batch();
    let bytes = super::batch::encode(&batch, 1).expect("a batch").bytes;
    let (mut at, mut seen) = (0, 0);
    while at < bytes.len() {
        let read =
            NetlinkMessage::<NetfilterMessage>::deserialize(&bytes[at..]).expect("a message");
        let len = usize::try_from(read.header.length).expect("a length");
        // It drops the attributes of a batch's begin, and of a concatenation's description the
        // nesting flag (so no such set is in the batch).
        if seen > 0 {
            let mut again = vec![0; read.buffer_len()];
            read.serialize(&mut again);
            assert_eq!(again, bytes[at..at + len], "{read:?}");
        }
        (at, seen) = (at + len, seen + 1);
    }
    assert_eq!(seen, batch.ops.len() + 2);
}

fn value(kind: DataType) -> BoxedStrategy<RegValue> {
    match kind {
        DataType::Ipv4Addr => any::<u32>().prop_map(|bits| RegValue::V4(bits.into())).boxed(),
        DataType::Ipv6Addr => any::<u128>().prop_map(|bits| RegValue::V6(bits.into())).boxed(),
        DataType::InetProto => any::<u8>().prop_map(RegValue::Proto).boxed(),
        DataType::InetService => any::<u16>().prop_map(RegValue::Port).boxed(),
        DataType::Mark => any::<u32>().prop_map(RegValue::Mark).boxed(),
        DataType::Number => any::<u32>().prop_map(RegValue::Number).boxed(),
        DataType::EtherAddr => any::<[u8; 6]>().prop_map(RegValue::Mac).boxed(),
        DataType::IfName => (0..1000u32).prop_map(|n| name(&format!("veth{n}"))).boxed(),
    }
}

fn field() -> impl Strategy<Value = Field> {
    prop::sample::select(vec![
        Field::IpSaddr,
        Field::IpDaddr,
        Field::Ip6Saddr,
        Field::Ip6Daddr,
        Field::EtherSaddr,
        Field::L4Proto,
        Field::ThSport,
        Field::ThDport,
        Field::VniHigh,
        Field::VniLow,
        Field::IifName,
        Field::OifName,
        Field::Mark,
        Field::CtMark,
        Field::CtOriginalIpDaddr,
        Field::CtOriginalIp6Daddr,
        Field::CtOriginalProtoDst,
        Field::Random { modulus: 7, offset: 0x7_0000 },
        Field::Turn { modulus: 2, offset: 0 },
        Field::SourceHash { ipv6: false, modulus: 1024, seed: 1 },
        Field::SourceHash { ipv6: true, modulus: 1024, seed: 0 },
    ])
}

/// Constants at the end of a concatenation.
fn constants() -> impl Strategy<Value = Vec<Field>> {
    prop::collection::vec(any::<u32>().prop_map(Field::Const), 0..3)
}

/// Fields that one packet can have.
fn fields() -> impl Strategy<Value = Vec<Field>> {
    let kinds = (prop::collection::vec(field(), 1..5), any::<bool>(), constants());
    kinds.prop_map(|(mut fields, ipv6, constants)| {
        for field in &mut fields {
            *field = match (*field, ipv6) {
                (Field::Ip6Saddr, false) => Field::IpSaddr,
                (Field::Ip6Daddr, false) => Field::IpDaddr,
                (Field::IpSaddr, true) => Field::Ip6Saddr,
                (Field::IpDaddr, true) => Field::Ip6Daddr,
                (field, _) => field,
            };
        }
        fields.extend(constants);
        fields
    })
}

/// Fields of any packet, for the port of a target.
fn ports() -> impl Strategy<Value = Vec<Field>> {
    let field = prop::sample::select(vec![Field::L4Proto, Field::ThDport, Field::CtMark]);
    prop::collection::vec(field, 1..4)
}

/// A network without host bits.
fn network(field: Field, negate: bool, address: IpAddr, prefix: u8) -> Match {
    let net = IpNetwork::new(address, prefix).expect("a prefix");
    let net = IpNetwork::new(net.network(), prefix).expect("a prefix");
    Match::Net { field, negate, net }
}

fn condition() -> impl Strategy<Value = Match> {
    let compared = (field(), any::<bool>()).prop_flat_map(|(field, negate)| {
        value(field.data_type()).prop_map(move |value| Match::Cmp { field, negate, value })
    });
    let net4 = (any::<bool>(), any::<bool>(), any::<u32>(), 0..32u8);
    let net4 = net4.prop_map(|(source, negate, bits, prefix)| {
        let field = if source { Field::IpSaddr } else { Field::IpDaddr };
        network(field, negate, Ipv4Addr::from_bits(bits).into(), prefix)
    });
    let net6 = (any::<bool>(), any::<bool>(), any::<u128>(), 0..128u8);
    let net6 = net6.prop_map(|(source, negate, bits, prefix)| {
        let field = if source { Field::Ip6Saddr } else { Field::Ip6Daddr };
        network(field, negate, Ipv6Addr::from_bits(bits).into(), prefix)
    });
    let bits = (any::<bool>(), any::<u32>(), any::<bool>(), any::<u32>());
    let bits = bits.prop_map(|(ct, mask, negate, value)| {
        let field = if ct { Field::CtMark } else { Field::Mark };
        Match::Bits { field, mask, negate, value }
    });
    let in_set = (fields(), any::<bool>()).prop_map(|(fields, negate)| Match::InSet {
        fields,
        set: "s".to_owned(),
        negate,
    });
    let flag = (0..7u8, any::<bool>()).prop_map(|(kind, on)| match kind {
        0 => Match::NfProto { ipv6: on },
        1 => Match::FibDaddrLocal { negate: on },
        2 => Match::CtStatusDnat { negate: on },
        3 => Match::CtEstablished { negate: on },
        4 => Match::CtInvalid,
        5 => Match::FibSaddrLocal { negate: on },
        _ => Match::CtDirection { reply: on },
    });
    prop_oneof![compared, net4, net6, bits, in_set, flag]
}

fn target() -> impl Strategy<Value = NatTarget> {
    let fixed = (any::<IpAddr>(), any::<Option<u16>>())
        .prop_map(|(address, port)| NatTarget::Fixed(address, port));
    let map = (fields(), any::<bool>()).prop_map(|(fields, ipv6)| NatTarget::Map {
        fields,
        map: "m".to_owned(),
        ipv6,
    });
    let port = prop_oneof![
        any::<u16>().prop_map(NatPort::Fixed),
        ports().prop_map(|fields| NatPort::Map { fields, map: "p".to_owned() }),
    ];
    let apart = (fields(), any::<bool>(), port).prop_map(|(fields, ipv6, port)| NatTarget::Apart {
        fields,
        map: "m".to_owned(),
        ipv6,
        port,
    });
    prop_oneof![fixed, map, apart]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        Just(Verdict::Return),
        Just(Verdict::Jump("a".to_owned())),
        Just(Verdict::Goto("b".to_owned())),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    let vmap = fields().prop_map(|fields| Statement::VerdictMap { fields, map: "m".to_owned() });
    let other = any::<u32>()
        .prop_map(|number| Statement::Other("limit".to_owned(), written(|out| out.u32(3, number))));
    let mark = (any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(ct, mask, value)| {
        if ct { Statement::SetCtMark { mask, value } } else { Statement::SetMark { mask, value } }
    });
    let update = (fields(), any::<u32>()).prop_map(|(fields, timeout)| Statement::Update {
        fields,
        set: "s".to_owned(),
        timeout_ms: timeout.into(),
    });
    prop_oneof![
        1 => update,
        6 => condition().prop_map(Statement::Match),
        1 => Just(Statement::Counter),
        1 => mark,
        1 => any::<bool>().prop_map(|random| Statement::Masquerade { random }),
        1 => target().prop_map(Statement::Dnat),
        1 => target().prop_map(Statement::Snat),
        1 => vmap,
        1 => verdict().prop_map(Statement::Verdict),
        1 => other,
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(vec![Family::Inet, Family::Ip, Family::Ip6, Family::Bridge])
}

proptest! {
    #[test]
    fn a_rule_reads_back_as_it_was_written(
        family in family(),
        statements in prop::collection::vec(statement(), 0..6),
        comment in prop::option::of("[ -~]{0,128}"),
    ) {
        let rule = Rule { statements, comment };
        let id = TableId { family, name: "t".to_owned() };
        let bytes = written(|out| {
            write_rule(out, &id, "c", &rule).expect("a rule");
            out.u64(RULE_HANDLE, 1);
        });
        let read = read_rule(family, Attributes(&bytes)).expect("a rule");
        let mut rule = rule;
        if family == Family::Inet {
            Statement::without_implied(&mut rule.statements);
        }
        prop_assert_eq!(read.rule, rule);
    }

    #[test]
    fn noise_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_without_panic(
        which in 0..6usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let names = ["chain", "map", "set", "map-element", "set-element", "rule-1"];
        let mut bytes = captured(&format!("kernel-{}", names[which]));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        read_all(&bytes);
    }
}

fn read_all(bytes: &[u8]) {
    for message in Messages(bytes) {
        assert!(message.payload.len() <= bytes.len());
    }
    let all = Attributes(bytes);
    let plain = spec("s", &[DataType::Ipv4Addr], None, true);
    for family in [Family::Inet, Family::Bridge] {
        drop(read_rule(family, all));
    }
    drop(read_chain(all));
    drop(read_spec(all));
    for set in [map(), ranges(), plain] {
        let mut raw = Vec::new();
        set::read_elements(all, &set, &mut raw);
        set::repeats(&mut raw);
        drop(set::elements(&set, raw));
    }
}
