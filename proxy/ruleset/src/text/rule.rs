//! Rules as nft prints them.

use super::value::{duration, mark, target, value, verdict};
use crate::{Family, Field, Match, NatPort, NatTarget, RegValue, Rule, Statement};

/// A rule in nft's syntax, its comment last.
pub fn rule(family: Family, rule: &Rule) -> String {
    let transport = Transport::of(rule);
    let mut words = Vec::new();
    for (at, statement) in rule.statements.iter().enumerate() {
        if transport.is_some_and(|transport| transport.at == at) {
            continue;
        }
        let name = transport.filter(|transport| transport.at < at).map_or("th", |one| one.name);
        words.extend(say(family, statement, name));
    }
    if let Some(comment) = &rule.comment {
        words.push(format!("comment \"{comment}\""));
    }
    words.extend(rule.statements.iter().filter_map(unknown));
    words.join(" ")
}

/// `meta l4proto tcp ... th dport` is `tcp dport` in nft's listing.
#[derive(Clone, Copy)]
struct Transport {
    at: usize,
    name: &'static str,
}

impl Transport {
    fn of(rule: &Rule) -> Option<Self> {
        let found = rule.statements.iter().enumerate().find_map(|(at, one)| {
            let Statement::Match(Match::Cmp { field: Field::L4Proto, negate: false, value }) = one
            else {
                return None;
            };
            let RegValue::Proto(proto) = value else { return None };
            Some((at, name_of(*proto)?))
        });
        let (at, name) = found?;
        let ports = |field: &Field| matches!(field, Field::ThSport | Field::ThDport);
        let used = rule.statements[at..].iter().any(|one| one.fields().iter().any(ports));
        used.then_some(Self { at, name })
    }
}

fn name_of(proto: u8) -> Option<&'static str> {
    match proto {
        6 => Some("tcp"),
        17 => Some("udp"),
        33 => Some("dccp"),
        132 => Some("sctp"),
        136 => Some("udplite"),
        _ => None,
    }
}

/// The kernel's `nft_notrack`: without attributes there is nothing to say but its name.
fn is_notrack(name: &str, bytes: &[u8]) -> bool {
    name == "notrack" && bytes.is_empty()
}

/// What nft's language cannot say, as a remark.
fn unknown(statement: &Statement) -> Option<String> {
    let Statement::Other(name, bytes) = statement else { return None };
    if is_notrack(name, bytes) {
        return None;
    }
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Some(format!("# unknown: {name} {hex}"))
}

fn say(family: Family, statement: &Statement, transport: &str) -> Option<String> {
    Some(match statement {
        Statement::Match(condition) => matches(condition, transport),
        Statement::Counter => "counter".to_owned(),
        Statement::SetMark { mask, value } => set_mark("meta mark", *mask, *value),
        Statement::SetCtMark { mask, value } => set_mark("ct mark", *mask, *value),
        Statement::Masquerade { random: false } => "masquerade".to_owned(),
        Statement::Masquerade { random: true } => "masquerade fully-random".to_owned(),
        Statement::Dnat(to) => nat("dnat", family, to, transport),
        Statement::Snat(to) => nat("snat", family, to, transport),
        Statement::VerdictMap { fields, map } => {
            format!("{} vmap @{map}", concat(fields, transport))
        }
        Statement::Update { fields, set, timeout_ms } => {
            let key = concat(fields, transport);
            format!("update @{set} {{ {key} timeout {} }}", duration(*timeout_ms))
        }
        Statement::Reject => "reject".to_owned(),
        Statement::Verdict(one) => verdict(one),
        Statement::Other(name, bytes) if is_notrack(name, bytes) => name.clone(),
        Statement::Other(..) => return None,
    })
}

fn matches(condition: &Match, transport: &str) -> String {
    let not = |negate: bool| if negate { "!= " } else { "" };
    match condition {
        Match::Cmp { field, negate, value: to } => {
            let to = match (field, to) {
                (Field::VniHigh, RegValue::Port(bits)) => format!("0x{bits:x}"),
                (Field::VniLow, RegValue::Proto(bits)) => format!("0x{bits:x}"),
                _ => value(to),
            };
            format!("{} {}{to}", name(*field, transport), not(*negate))
        }
        Match::Net { field, negate, net } => {
            let max = if net.is_ipv4() { 32 } else { 128 };
            let (field, not) = (name(*field, transport), not(*negate));
            match net.prefix() {
                prefix if prefix == max => format!("{field} {not}{}", net.network()),
                prefix => format!("{field} {not}{}/{prefix}", net.network()),
            }
        }
        Match::Bits { field, mask, negate, value } => {
            let sign = if *negate { "!=" } else { "==" };
            format!("{} & {} {sign} {}", name(*field, transport), mark(*mask), mark(*value))
        }
        Match::InSet { fields, set, negate } => {
            format!("{} {}@{set}", concat(fields, transport), not(*negate))
        }
        Match::NfProto { ipv6 } => {
            format!("meta nfproto {}", if *ipv6 { "ipv6" } else { "ipv4" })
        }
        Match::FibDaddrLocal { negate } => format!("fib daddr type {}local", not(*negate)),
        Match::FibSaddrLocal { negate } => format!("fib saddr type {}local", not(*negate)),
        Match::CtStatusDnat { negate } => {
            format!("ct status {}dnat", if *negate { "! " } else { "" })
        }
        Match::CtEstablished { negate } => {
            format!("ct state {}established,related", if *negate { "! " } else { "" })
        }
        Match::CtInvalid => "ct state invalid".to_owned(),
        Match::CtDirection { reply } => {
            format!("ct direction {}", if *reply { "reply" } else { "original" })
        }
    }
}

fn concat(fields: &[Field], transport: &str) -> String {
    fields.iter().map(|field| name(*field, transport)).collect::<Vec<_>>().join(" . ")
}

fn name(field: Field, transport: &str) -> String {
    let name = match field {
        Field::IpSaddr => "ip saddr",
        Field::IpDaddr => "ip daddr",
        Field::Ip6Saddr => "ip6 saddr",
        Field::Ip6Daddr => "ip6 daddr",
        Field::EtherSaddr => "ether saddr",
        Field::L4Proto => "meta l4proto",
        Field::ThSport => return format!("{transport} sport"),
        Field::ThDport => return format!("{transport} dport"),
        Field::VniHigh => "@th,96,16",
        Field::VniLow => "@th,112,8",
        Field::IifName => "iifname",
        Field::OifName => "oifname",
        Field::Mark => "meta mark",
        Field::CtMark => "ct mark",
        Field::CtOriginalIpDaddr => "ct original ip daddr",
        Field::CtOriginalIp6Daddr => "ct original ip6 daddr",
        Field::CtOriginalProtoDst => "ct original proto-dst",
        Field::Random { modulus, offset } => return numgen("random", modulus, offset),
        Field::Turn { modulus, offset } => return numgen("inc", modulus, offset),
        Field::SourceHash { ipv6, modulus, seed } => {
            let family = if ipv6 { "ip6" } else { "ip" };
            return format!("jhash {family} saddr mod {modulus} seed 0x{seed:x}");
        }
        Field::Const(constant) => {
            let constant = mark(constant);
            return format!("meta mark & {constant} | {constant}");
        }
    };
    name.to_owned()
}

fn numgen(mode: &str, modulus: u32, offset: u32) -> String {
    let offset = if offset == 0 { String::new() } else { format!(" offset {offset}") };
    format!("numgen {mode} mod {modulus}{offset}")
}

/// nft says `and`, `xor`, `or` if the kernel has one mask and one exclusive or.
fn set_mark(what: &str, mask: u32, value: u32) -> String {
    if mask == u32::MAX {
        return format!("{what} set {}", mark(value));
    }
    let or = value & mask;
    let xor = value & !mask;
    let and = !mask | or;
    let mut text = format!("{what} set {what}");
    for (sign, operand, neutral) in [('&', and, u32::MAX), ('^', xor, 0), ('|', or, 0)] {
        if operand != neutral {
            text.push_str(&format!(" {sign} {}", mark(operand)));
        }
    }
    text
}

fn nat(verb: &str, family: Family, to: &NatTarget, transport: &str) -> String {
    let (ipv6, to) = match to {
        NatTarget::Fixed(address, port) => (address.is_ipv6(), target(*address, *port)),
        NatTarget::Map { fields, map, ipv6 } => {
            (*ipv6, format!("{} map @{map}", concat(fields, transport)))
        }
        NatTarget::Apart { fields, map, ipv6, port } => {
            let port = match port {
                NatPort::Fixed(port) => port.to_string(),
                NatPort::Map { fields, map } => format!("{} map @{map}", concat(fields, transport)),
            };
            (*ipv6, format!("{} map @{map}:{port}", concat(fields, transport)))
        }
    };
    match family {
        Family::Inet if ipv6 => format!("{verb} ip6 to {to}"),
        Family::Inet => format!("{verb} ip to {to}"),
        Family::Ip | Family::Ip6 | Family::Bridge => format!("{verb} to {to}"),
    }
}
