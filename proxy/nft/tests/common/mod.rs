//! A namespace of one's own, and rulesets to try.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use causeway_nft::Client;
use causeway_ruleset::{
    BaseChain, Batch, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key,
    MapTarget, Match, NatPort, NatTarget, Op, RegValue, Rule, SetSpec, Statement, TableId, Verdict,
};

/// Moves the calling thread into a new network namespace; it is gone with the thread.
pub(crate) fn enter_netns() {
    // SAFETY: `unshare` takes no pointers, and network namespaces are per thread.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare(CLONE_NEWNET) needs root: {}", std::io::Error::last_os_error());
}

pub(crate) fn client() -> Client {
    enter_netns();
    Client::open().expect("nf_tables")
}

pub(crate) fn table(family: Family, name: &str) -> TableId {
    TableId { family, name: name.to_owned() }
}

pub(crate) fn batch(ops: Vec<Op>) -> Batch {
    Batch { ops, generation: None }
}

pub(crate) fn set(
    name: &str,
    key: &[DataType],
    target: Option<MapTarget>,
    interval: bool,
) -> SetSpec {
    SetSpec {
        name: name.to_owned(),
        key: key.to_vec(),
        target,
        interval,
        dynamic: false,
        timeout_ms: None,
    }
}

pub(crate) fn element(key: Vec<RegValue>, value: Option<ElementValue>, comment: &str) -> Element {
    let comment = (!comment.is_empty()).then(|| comment.to_owned());
    Element { key: Key::Exact(key), value, comment }
}

pub(crate) fn v4(text: &str) -> RegValue {
    RegValue::V4(text.parse().expect(text))
}

pub(crate) fn v6(text: &str) -> RegValue {
    RegValue::V6(text.parse().expect(text))
}

pub(crate) fn chain(name: &str, base: Option<(&str, Hook, i32)>) -> ChainSpec {
    let base = base.map(|(kind, hook, priority)| BaseChain {
        kind: kind.to_owned(),
        hook,
        priority,
        policy_drop: false,
    });
    ChainSpec { name: name.to_owned(), base }
}

pub(crate) fn rule(statements: Vec<Statement>) -> Rule {
    Rule { statements, comment: None }
}

const KEY4: [DataType; 3] = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
const KEY6: [DataType; 3] = [DataType::Ipv6Addr, DataType::InetProto, DataType::InetService];

/// Sets and maps of every shape that is used, with elements.
pub(crate) fn sets() -> Vec<(SetSpec, Vec<Element>)> {
    let mut all = maps();
    all.extend(plain_sets());
    all.extend(numbered_sets());
    all
}

fn maps() -> Vec<(SetSpec, Vec<Element>)> {
    let tcp = || RegValue::Proto(6);
    let port = RegValue::Port;
    let data = |values| Some(ElementValue::Data(values));
    let verdict = |verdict| Some(ElementValue::Verdict(verdict));
    let goto = || Verdict::Goto("other".to_owned());
    let to4 = || Some(MapTarget::Data(vec![DataType::Ipv4Addr, DataType::InetService]));
    let to6 = || Some(MapTarget::Data(vec![DataType::Ipv6Addr, DataType::InetService]));
    vec![
        (
            set("dispatch", &KEY4, Some(MapTarget::Verdict), false),
            vec![
                element(vec![v4("10.0.0.1"), tcp(), port(80)], verdict(goto()), "owner a"),
                element(vec![v4("10.0.0.1"), tcp(), port(81)], verdict(Verdict::Drop), ""),
            ],
        ),
        (
            set("to4", &KEY4, to4(), false),
            vec![element(
                vec![v4("10.0.0.1"), tcp(), port(80)],
                data(vec![v4("10.1.0.2"), port(8080)]),
                "1234abcd-0011223344556677 net/id/eth0",
            )],
        ),
        (
            set("to6", &KEY6, to6(), false),
            vec![element(
                vec![v6("fd00::1"), tcp(), port(80)],
                data(vec![v6("fd00::2"), port(8080)]),
                "",
            )],
        ),
    ]
}

fn plain_sets() -> Vec<(SetSpec, Vec<Element>)> {
    let port = RegValue::Port;
    let range = |from, to, comment: &str| Element {
        key: Key::Range(from, to),
        ..element(Vec::new(), None, comment)
    };
    vec![
        (
            set("nets", &[DataType::Ipv4Addr], None, true),
            vec![
                element(vec![v4("9.0.0.1")], None, "one"),
                range(vec![v4("10.0.0.0")], vec![v4("10.255.255.255")], "ten"),
                range(vec![v4("11.0.0.0")], vec![v4("11.0.0.9")], "next"),
                range(vec![v4("224.0.0.0")], vec![v4("255.255.255.255")], ""),
            ],
        ),
        (
            set("areas", &[DataType::Ipv4Addr, DataType::InetService], None, true),
            vec![
                element(vec![v4("10.0.0.1"), port(22)], None, ""),
                range(vec![v4("10.1.0.0"), port(80)], vec![v4("10.1.255.255"), port(90)], "area"),
            ],
        ),
        (
            set("names", &[DataType::IfName], None, false),
            vec![element(vec![RegValue::IfName("veth0".to_owned())], None, "owner b")],
        ),
        (
            set("ports", &[DataType::InetService], None, false),
            vec![element(vec![port(80)], None, ""), element(vec![port(443)], None, "")],
        ),
        (
            set("marks", &[DataType::Mark], None, false),
            vec![element(vec![RegValue::Mark(0x10)], None, "")],
        ),
        (
            set("spoof", &[DataType::IfName, DataType::EtherAddr, DataType::Ipv4Addr], None, false),
            vec![element(
                vec![
                    RegValue::IfName("veth0".to_owned()),
                    RegValue::Mac([2, 0, 0, 0, 0, 1]),
                    v4("10.0.0.1"),
                ],
                None,
                "owner c",
            )],
        ),
        (
            SetSpec {
                dynamic: true,
                timeout_ms: Some(30_000),
                ..set("affinity", &[DataType::Ipv4Addr, DataType::Mark], None, false)
            },
            vec![],
        ),
    ]
}

/// Maps that rules with numbers read.
fn numbered_sets() -> Vec<(SetSpec, Vec<Element>)> {
    let port = RegValue::Port;
    vec![
        (
            set(
                "numbered",
                &[DataType::Ipv4Addr, DataType::InetProto, DataType::InetService, DataType::Number],
                Some(MapTarget::Data(vec![DataType::Ipv4Addr])),
                false,
            ),
            vec![element(
                vec![v4("10.0.0.9"), RegValue::Proto(6), port(80), RegValue::Number(0x1_0000)],
                Some(ElementValue::Data(vec![v4("10.1.0.2")])),
                "",
            )],
        ),
        (
            set(
                "ports4",
                &[DataType::Ipv4Addr, DataType::InetProto, DataType::InetService],
                Some(MapTarget::Data(vec![DataType::InetService])),
                false,
            ),
            vec![element(
                vec![v4("10.0.0.9"), RegValue::Proto(6), port(80)],
                Some(ElementValue::Data(vec![port(8080)])),
                "",
            )],
        ),
        (
            set(
                "hashed",
                &[DataType::Number, DataType::InetProto],
                Some(MapTarget::Data(vec![DataType::Ipv4Addr])),
                false,
            ),
            vec![element(
                vec![RegValue::Number(3), RegValue::Proto(6)],
                Some(ElementValue::Data(vec![v4("10.1.0.2")])),
                "",
            )],
        ),
    ]
}

fn matches() -> Vec<Match> {
    let cmp = |field, value| Match::Cmp { field, negate: false, value };
    let not = |field, value| Match::Cmp { field, negate: true, value };
    let net = |field, net: &str, negate| Match::Net { field, negate, net: net.parse().expect(net) };
    let name = |name: &str| RegValue::IfName(name.to_owned());
    let in_set = |fields: &[Field], set: &str, negate| Match::InSet {
        fields: fields.to_vec(),
        set: set.to_owned(),
        negate,
    };
    vec![
        cmp(Field::IpSaddr, v4("10.0.0.1")),
        not(Field::IpDaddr, v4("10.0.0.1")),
        cmp(Field::Ip6Saddr, v6("fd00::1")),
        not(Field::Ip6Daddr, v6("fd00::1")),
        cmp(Field::EtherSaddr, RegValue::Mac([2, 0, 0, 0, 0, 1])),
        cmp(Field::L4Proto, RegValue::Proto(17)),
        cmp(Field::ThSport, RegValue::Port(53)),
        not(Field::ThDport, RegValue::Port(53)),
        cmp(Field::IifName, name("veth0")),
        not(Field::OifName, name("cw0")),
        cmp(Field::Mark, RegValue::Mark(0x4000)),
        cmp(Field::Random { modulus: 3, offset: 0 }, RegValue::Number(0)),
        not(Field::Random { modulus: 3, offset: 7 }, RegValue::Number(8)),
        cmp(Field::Turn { modulus: 2, offset: 0 }, RegValue::Number(1)),
        cmp(Field::CtMark, RegValue::Mark(0x4000)),
        cmp(Field::CtOriginalIpDaddr, v4("10.0.0.1")),
        cmp(Field::CtOriginalIp6Daddr, v6("fd00::1")),
        net(Field::IpSaddr, "10.0.0.0/8", false),
        net(Field::IpDaddr, "127.0.0.0/8", true),
        net(Field::IpDaddr, "10.64.0.0/10", true),
        net(Field::IpDaddr, "10.64.1.0/24", false),
        net(Field::Ip6Saddr, "fd00::/8", false),
        net(Field::Ip6Saddr, "fd00::/32", false),
        net(Field::Ip6Daddr, "fd00:1::/63", true),
        net(Field::Ip6Daddr, "fd00:1::/64", true),
        Match::Bits { field: Field::Mark, mask: 0x4000, negate: false, value: 0x4000 },
        Match::Bits { field: Field::CtMark, mask: 0xff00, negate: true, value: 0x100 },
        in_set(&[Field::IpSaddr], "nets", false),
        in_set(&[Field::IpSaddr], "nets", true),
        in_set(&[Field::IpDaddr, Field::ThDport], "areas", false),
        in_set(&[Field::OifName], "names", false),
        Match::NfProto { ipv6: false },
        Match::NfProto { ipv6: true },
        Match::FibDaddrLocal { negate: false },
        Match::FibDaddrLocal { negate: true },
        Match::FibSaddrLocal { negate: false },
        Match::FibSaddrLocal { negate: true },
        Match::CtStatusDnat { negate: false },
        Match::CtStatusDnat { negate: true },
        Match::CtEstablished { negate: false },
        Match::CtEstablished { negate: true },
        Match::CtInvalid,
        Match::CtDirection { reply: true },
        Match::CtDirection { reply: false },
    ]
}

fn statements() -> Vec<Statement> {
    let fields4 = vec![Field::IpDaddr, Field::L4Proto, Field::ThDport];
    let fields6 = vec![Field::Ip6Daddr, Field::L4Proto, Field::ThDport];
    vec![
        Statement::Counter,
        Statement::SetMark { mask: 0x4000, value: 0x4000 },
        Statement::SetMark { mask: 0xff00, value: 0x100 },
        Statement::SetMark { mask: 0x4000, value: 0 },
        Statement::SetMark { mask: u32::MAX, value: 7 },
        Statement::SetCtMark { mask: 0x4000, value: 0x4000 },
        Statement::SetCtMark { mask: u32::MAX, value: 7 },
        Statement::VerdictMap { fields: fields4, map: "dispatch".to_owned() },
        Statement::Dnat(NatTarget::Map { fields: fields6, map: "to6".to_owned(), ipv6: true }),
        Statement::Update {
            fields: vec![Field::IpSaddr, Field::Const(80)],
            set: "affinity".to_owned(),
            timeout_ms: 10_000,
        },
        Statement::Verdict(Verdict::Accept),
        Statement::Verdict(Verdict::Drop),
        Statement::Verdict(Verdict::Return),
        Statement::Verdict(Verdict::Jump("other".to_owned())),
        Statement::Verdict(Verdict::Goto("other".to_owned())),
    ]
}

fn nat_rules(source: bool) -> Vec<Vec<Statement>> {
    let nat = |target| if source { Statement::Snat(target) } else { Statement::Dnat(target) };
    let tcp = || {
        let value = RegValue::Proto(6);
        Statement::Match(Match::Cmp { field: Field::L4Proto, negate: false, value })
    };
    let fields = vec![Field::IpDaddr, Field::L4Proto, Field::ThDport];
    vec![
        vec![nat(NatTarget::Fixed("10.1.0.2".parse().expect("an address"), None))],
        vec![nat(NatTarget::Fixed("fd00::2".parse().expect("an address"), None))],
        vec![tcp(), nat(NatTarget::Fixed("10.1.0.2".parse().expect("an address"), Some(80)))],
        vec![tcp(), nat(NatTarget::Fixed("fd00::2".parse().expect("an address"), Some(80)))],
        vec![nat(NatTarget::Map { fields: fields.clone(), map: "to4".to_owned(), ipv6: false })],
        vec![nat(NatTarget::Apart {
            fields: [&fields[..], &[Field::Random { modulus: 2, offset: 7 }]].concat(),
            map: "numbered".to_owned(),
            ipv6: false,
            port: NatPort::Map { fields, map: "ports4".to_owned() },
        })],
        vec![
            tcp(),
            nat(NatTarget::Apart {
                fields: vec![Field::Random { modulus: 4, offset: 0 }, Field::L4Proto],
                map: "hashed".to_owned(),
                ipv6: false,
                port: NatPort::Fixed(80),
            }),
        ],
    ]
}

/// Rules that together use every variant of the IR.
pub(crate) fn rules() -> Vec<(&'static str, Rule)> {
    let ct_port =
        Match::Cmp { field: Field::CtOriginalProtoDst, negate: false, value: RegValue::Port(80) };
    let tcp = Match::Cmp { field: Field::L4Proto, negate: false, value: RegValue::Proto(6) };
    let two = vec![
        Statement::Match(tcp.clone()),
        Statement::Match(ct_port),
        Statement::Counter,
        Statement::Verdict(Verdict::Accept),
    ];
    let sources = vec![
        Statement::Match(Match::Net {
            field: Field::IpSaddr,
            negate: false,
            net: "10.0.0.0/8".parse().expect("an address"),
        }),
        Statement::Match(Match::Net {
            field: Field::IpDaddr,
            negate: true,
            net: "10.0.0.0/8".parse().expect("an address"),
        }),
        Statement::Masquerade { random: true },
    ];
    let mut out = Vec::new();
    out.extend(matches().into_iter().map(|m| ("pre", rule(vec![Statement::Match(m)]))));
    out.extend(statements().into_iter().map(|s| ("pre", rule(vec![s]))));
    out.extend(nat_rules(false).into_iter().map(|statements| ("pre", rule(statements))));
    out.extend(nat_rules(true).into_iter().map(|statements| ("post", rule(statements))));
    out.push(("pre", Rule { comment: Some("owner d".to_owned()), ..rule(two) }));
    out.push(("post", rule(vec![Statement::Masquerade { random: false }])));
    out.push(("post", Rule { comment: Some("masq it".to_owned()), ..rule(sources) }));
    out
}

/// A batch that makes a table with all [`sets`] and [`rules`].
pub(crate) fn everything(id: &TableId) -> Batch {
    let mut ops = vec![Op::AddTable(id.clone())];
    for chain in [
        chain("other", None),
        chain("pre", Some(("nat", Hook::Prerouting, -100))),
        chain("post", Some(("nat", Hook::Postrouting, 100))),
    ] {
        ops.push(Op::AddChain(id.clone(), chain));
    }
    for (set, elements) in sets() {
        ops.push(Op::AddSet(id.clone(), set.clone()));
        ops.push(Op::AddElements { table: id.clone(), set, elements, exclusive: true });
    }
    for (chain, rule) in rules() {
        ops.push(Op::AddRule { table: id.clone(), chain: chain.to_owned(), rule });
    }
    batch(ops)
}

/// A batch that makes a bridge table as the guard against spoofing has it.
pub(crate) fn guard(id: &TableId) -> Batch {
    let name = |name: &str| RegValue::IfName(name.to_owned());
    let mac = RegValue::Mac([2, 0, 0, 0, 0, 1]);
    let key = [DataType::IfName, DataType::EtherAddr, DataType::Ipv4Addr];
    let spoof = set("spoof", &key, None, false);
    let owned = element(vec![name("veth0"), mac.clone(), v4("10.0.0.1")], None, "owner c");
    let cmp = |field, negate, value| Statement::Match(Match::Cmp { field, negate, value });
    let known = Statement::Match(Match::InSet {
        fields: vec![Field::IifName, Field::EtherSaddr, Field::IpSaddr],
        set: "spoof".to_owned(),
        negate: true,
    });
    let drop = || Statement::Verdict(Verdict::Drop);
    let mut guard = chain("guard", Some(("filter", Hook::Prerouting, -300)));
    guard.base.as_mut().expect("a base chain").policy_drop = true;
    let rules = vec![
        rule(vec![known, drop()]),
        Rule {
            comment: Some("owner e".to_owned()),
            ..rule(vec![
                cmp(Field::IifName, false, name("veth1")),
                cmp(Field::EtherSaddr, true, mac),
                Statement::Counter,
                drop(),
            ])
        },
        rule(vec![cmp(Field::IpSaddr, false, v4("10.0.0.1")), drop()]),
        rule(vec![cmp(Field::Ip6Saddr, true, v6("fd00::1")), drop()]),
    ];
    let mut ops = vec![
        Op::AddTable(id.clone()),
        Op::AddSet(id.clone(), spoof.clone()),
        Op::AddElements { table: id.clone(), set: spoof, elements: vec![owned], exclusive: true },
        Op::AddChain(id.clone(), guard),
    ];
    ops.extend(rules.into_iter().map(|rule| Op::AddRule {
        table: id.clone(),
        chain: "guard".to_owned(),
        rule,
    }));
    batch(ops)
}

/// The real `nft`: this system's, and the newest one that `tests/deps.sh` finds.
pub(crate) fn nfts() -> [String; 2] {
    let newest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/nft-newest/nft");
    assert!(std::path::Path::new(newest).exists(), "{newest} is missing: run tests/deps.sh");
    ["nft".to_owned(), newest.to_owned()]
}

/// What a program `nft` lists, it loads into an empty kernel, and again on top of that. Leaves what
/// the first load made.
pub(crate) fn load_again(program: &str) {
    let listed = run(program, &["list", "ruleset"], "");
    for _ in 0..2 {
        run(program, &["flush", "ruleset"], "");
        run(program, &["-f", "-"], &listed);
    }
    let again = run(program, &["list", "ruleset"], "");
    run(program, &["-f", "-"], &again);
    run(program, &["-f", "-"], &listed);
    run(program, &["flush", "ruleset"], "");
    run(program, &["-f", "-"], &listed);
}

/// Runs the real `nft` in the calling thread's namespace.
pub(crate) fn nft(arguments: &[&str], input: &str) -> String {
    run("nft", arguments, input)
}

#[expect(clippy::disallowed_methods, reason = "nft is the oracle here, and ends by itself")]
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft is installed");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}\n{input}");
    String::from_utf8(output.stdout).expect("nft prints UTF-8")
}
