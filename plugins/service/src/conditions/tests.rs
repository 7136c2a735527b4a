use causeway_ruleset::{Field, Key, Match, RegValue, Statement};

use super::Conditions;

fn parse(key: &'static str, words: &[&str]) -> Result<Option<Conditions>, cni_plugin::Error> {
    Conditions::parse(key, &words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
}

fn v4(words: &[&str]) -> Conditions {
    parse("conditionsV4", words).unwrap().unwrap()
}

fn matches(conditions: &Conditions) -> Vec<Match> {
    let unwrap = |statement| {
        let Statement::Match(inner) = statement else { panic!("{statement:?}") };
        inner
    };
    conditions.statements("c").into_iter().map(unwrap).collect()
}

fn net(field: Field, negate: bool, net: &str) -> Match {
    Match::Net { field, negate, net: net.parse().unwrap() }
}

fn cmp(field: Field, negate: bool, value: RegValue) -> Match {
    Match::Cmp { field, negate, value }
}

#[test]
fn common_matches_become_comparisons() {
    assert_eq!(
        matches(&v4(&["ip", "saddr", "!=", "10.0.0.0/8"])),
        [net(Field::IpSaddr, true, "10.0.0.0/8")]
    );
    assert_eq!(
        matches(&v4(&["ip daddr 192.0.2.1 iifname \"eth0\""])),
        [
            cmp(Field::IpDaddr, false, RegValue::V4([192, 0, 2, 1].into())),
            cmp(Field::IifName, false, RegValue::IfName("eth0".into())),
        ]
    );
    assert_eq!(
        matches(&v4(&["tcp", "sport", "ne", "53", "meta", "mark", "and", "0xff00", "==", "0x100"])),
        [
            cmp(Field::L4Proto, false, RegValue::Proto(6)),
            cmp(Field::ThSport, true, RegValue::Port(53)),
            Match::Bits { field: Field::Mark, mask: 0xff00, negate: false, value: 0x100 },
        ]
    );
    assert_eq!(
        matches(&v4(&["fib daddr type local meta l4proto udp"])),
        [Match::FibDaddrLocal { negate: false }, cmp(Field::L4Proto, false, RegValue::Proto(17)),]
    );
    let v6 = parse("conditionsV6", &["ip6 saddr 2001:db8::/32"]).unwrap().unwrap();
    assert_eq!(matches(&v6), [net(Field::Ip6Saddr, false, "2001:db8::/32")]);
}

#[test]
fn several_values_become_a_set_of_disjoint_ranges() {
    let conditions = v4(&["ip saddr {10.0.0.0/8,10.1.0.0/16, 192.0.2.1 } tcp dport 8000-8010"]);
    let sets = conditions.sets("c");
    let shape: Vec<_> = sets.iter().map(|(set, _)| (set.name.as_str(), set.interval)).collect();
    assert_eq!(shape, [("c-0", true), ("c-2", true)]);
    let v4 = |bytes: [u8; 4]| vec![RegValue::V4(bytes.into())];
    let keys: Vec<_> = sets.first().unwrap().1.iter().map(|element| element.key.clone()).collect();
    assert_eq!(
        keys,
        [
            Key::Range(v4([10, 0, 0, 0]), v4([10, 255, 255, 255])),
            Key::Range(v4([192, 0, 2, 1]), v4([192, 0, 2, 1])),
        ]
    );
    let in_set = Match::InSet { fields: vec![Field::IpSaddr], set: "c-0".into(), negate: false };
    assert_eq!(matches(&conditions).first(), Some(&in_set));
}

#[test]
fn the_id_follows_the_text_and_not_its_spacing() {
    assert_eq!(v4(&["ip saddr 10.0.0.1"]).id(), v4(&["ip", "saddr", "10.0.0.1"]).id());
    assert_ne!(v4(&["ip saddr 10.0.0.1"]).id(), v4(&["ip saddr 10.0.0.2"]).id());
    assert_eq!(parse("conditionsV4", &[""]).unwrap(), None);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (words, token) in [
        (&["ip", "ttl", "5"][..], "ttl"),
        (&["limit", "rate", "1/second"], "limit"),
        (&["ip saddr example"], "example"),
        (&["ip saddr 2001:db8::1"], "2001:db8::1"),
        (&["iifname eth*"], "eth*"),
        (&["tcp dport 70000"], "70000"),
        (&["tcp dport 20-10"], "20-10"),
        (&["ip saddr { 10.0.0.1 10.0.0.2 }"], "10.0.0.2"),
        (&["fib saddr type local"], "saddr"),
        (&["ip6 saddr ::1"], "saddr"),
    ] {
        let error = parse("conditionsV4", words).unwrap_err();
        assert_eq!(error.code.number(), 2, "{words:?}");
        let wanted = format!("conditionsV4: {token:?} is not supported");
        assert!(error.msg.starts_with(&wanted), "{words:?}: {}", error.msg);
    }
    let missing = parse("conditionsV4", &["ip saddr"]).unwrap_err();
    assert!(missing.msg.contains("missing at the end"), "{}", missing.msg);
}
