//! Expressions to statements: the inverse of [`super::encode`].
//!
//! A statement is only taken if lowering it gives these very expressions again, so nothing is
//! lost: what does not fit is kept as [`Statement::Other`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_ruleset::{DataType, Family, Field, Match, NatPort, NatTarget, RegValue, Statement};
use ipnetwork::IpNetwork;

use super::encode::Context;
use super::expr::Expr;
use super::value;
use crate::uapi::{
    CT_DIRECTION, CT_DST_IP, CT_DST_IP6, CT_MARK, CT_PROTO_DST, CT_STATE, CT_STATE_ESTABLISHED,
    CT_STATE_INVALID, CT_STATUS, FIB_F_SADDR, META_IIFNAME, META_L4PROTO, META_MARK, META_NFPROTO,
    META_OIFNAME, NFPROTO_IPV6, PAYLOAD_LINK, PAYLOAD_NETWORK, PAYLOAD_TRANSPORT,
};
use crate::wire::Attributes;

/// Statements of a rule in a table of this family. `raw` names an expression by its bytes.
pub(crate) fn decode(
    family: Family,
    exprs: &[Expr],
    raw: impl Fn(usize) -> (String, Vec<u8>),
) -> Vec<Statement> {
    let kept: Vec<usize> = (0..exprs.len()).filter(|&at| !changes_nothing(&exprs[at])).collect();
    let exprs = &same_registers(kept.iter().map(|&at| exprs[at].clone()).collect());
    let mut context = Context::new(family);
    let mut out = Vec::new();
    let mut at = 0;
    while at < exprs.len() {
        match take(&mut context, &exprs[at..]) {
            Some((statement, used)) => {
                out.push(statement);
                at += used;
            }
            None => {
                let (name, bytes) = raw(kept[at]);
                out.push(Statement::Other(name, bytes));
                at += 1;
            }
        }
    }
    if family == Family::Inet {
        Statement::without_implied(&mut out);
    }
    out
}

/// nft 1.1.7 turns the byte order of a single byte when it looks up ranges.
fn changes_nothing(expr: &Expr) -> bool {
    let Expr::Other(name, bytes) = expr else { return false };
    let number = |kind| Attributes(bytes).get(kind).and_then(|attribute| attribute.u32());
    name == "byteorder" && number(1) == number(2) && number(4) == Some(1)
}

/// The source of a hash in the register of its result, as we load it: nft takes another one, which
/// nothing else reads.
fn same_registers(mut exprs: Vec<Expr>) -> Vec<Expr> {
    for at in 1..exprs.len() {
        let [before, after] = &mut exprs[at - 1..=at] else { break };
        if let (Expr::Payload { reg: loaded, .. }, Expr::Hash { sreg, reg, .. }) = (before, after)
            && loaded == sreg
        {
            (*loaded, *sreg) = (*reg, *reg);
        }
    }
    exprs
}

/// The statement that begins here, and how many expressions it takes.
fn take(context: &mut Context, exprs: &[Expr]) -> Option<(Statement, usize)> {
    // The dependencies of a field come first: two expressions each, two at most. Fewer hidden
    // ones are tried last, so that a dependency is not taken for a match of its own.
    for hidden in [4, 2, 0] {
        let Some(statement) = exprs.get(hidden..).and_then(propose) else { continue };
        let mut after = *context;
        let Ok(encoded) = after.encode(&statement) else { continue };
        if encoded.len() > hidden && exprs.starts_with(&encoded) {
            *context = after;
            return Some((statement, encoded.len()));
        }
    }
    None
}

/// What these expressions look like without dependencies. The caller checks.
fn propose(exprs: &[Expr]) -> Option<Statement> {
    match exprs.first()? {
        Expr::Counter => return Some(Statement::Counter),
        Expr::Masq { flags } => return Some(Statement::Masquerade { random: *flags != 0 }),
        Expr::Verdict(verdict) => return Some(Statement::Verdict(verdict.clone())),
        Expr::Immediate { data, .. } => return immediate(data, exprs),
        Expr::Reject { .. } => return Some(Statement::Reject),
        Expr::Fib { flags, .. } => {
            let Expr::Cmp { negate, .. } = exprs.get(1)? else { return None };
            let negate = *negate;
            return Some(Statement::Match(match *flags {
                FIB_F_SADDR => Match::FibSaddrLocal { negate },
                _ => Match::FibDaddrLocal { negate },
            }));
        }
        Expr::Payload { .. }
        | Expr::Meta { .. }
        | Expr::MetaSet { .. }
        | Expr::Ct { .. }
        | Expr::CtSet { .. }
        | Expr::Bitwise { .. }
        | Expr::Cmp { .. }
        | Expr::Lookup { .. }
        | Expr::Nat { .. }
        | Expr::Numgen { .. }
        | Expr::Hash { .. }
        | Expr::Dynset { .. }
        | Expr::Other(..) => {}
    }
    special(exprs).or_else(|| net(exprs)).or_else(|| fields(exprs))
}

fn immediate(data: &[u8], exprs: &[Expr]) -> Option<Statement> {
    let mark = || data.try_into().ok().map(u32::from_ne_bytes);
    match exprs.get(1..)? {
        [Expr::MetaSet { .. }, ..] => Some(Statement::SetMark { mask: u32::MAX, value: mark()? }),
        [Expr::CtSet { .. }, ..] => Some(Statement::SetCtMark { mask: u32::MAX, value: mark()? }),
        [Expr::Nat { source, .. }, ..] => {
            Some(nat(*source, NatTarget::Fixed(address(data)?, None)))
        }
        [Expr::Immediate { data: port, .. }, Expr::Nat { source, .. }, ..] => {
            let port = u16::from_be_bytes(port.as_slice().try_into().ok()?);
            Some(nat(*source, NatTarget::Fixed(address(data)?, Some(port))))
        }
        _ => None,
    }
}

/// Matches on what is not a field.
fn special(exprs: &[Expr]) -> Option<Statement> {
    let condition = match exprs {
        [Expr::Meta { key: META_NFPROTO, .. }, Expr::Cmp { data, .. }, ..] => {
            Match::NfProto { ipv6: data == &[NFPROTO_IPV6] }
        }
        [Expr::Ct { key: CT_DIRECTION, .. }, Expr::Cmp { data, .. }, ..] => {
            Match::CtDirection { reply: data == &[1] }
        }
        [Expr::Ct { key: CT_STATUS, .. }, Expr::Bitwise { .. }, Expr::Cmp { negate, .. }, ..] => {
            Match::CtStatusDnat { negate: !*negate }
        }
        [
            Expr::Ct { key: CT_STATE, .. },
            Expr::Bitwise { mask, .. },
            Expr::Cmp { negate, .. },
            ..,
        ] => match u32::from_ne_bytes(mask.as_slice().try_into().ok()?) {
            CT_STATE_ESTABLISHED => Match::CtEstablished { negate: !*negate },
            CT_STATE_INVALID => Match::CtInvalid,
            _ => return None,
        },
        _ => return None,
    };
    Some(Statement::Match(condition))
}

/// A prefix: a load that is cut short, or a mask.
fn net(exprs: &[Expr]) -> Option<Statement> {
    let Expr::Payload { base: PAYLOAD_NETWORK, offset, len, .. } = exprs.first()? else {
        return None;
    };
    let (mut bytes, negate, prefix) = match exprs.get(1..)? {
        [Expr::Cmp { data, negate, .. }, ..] => (data.clone(), *negate, data.len() * 8),
        [Expr::Bitwise { mask, .. }, Expr::Cmp { data, negate, .. }, ..] => {
            let ones = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
            (data.clone(), *negate, usize::try_from(ones).ok()?)
        }
        _ => return None,
    };
    let field = address_field(*offset, bytes.len())?;
    let whole = field.data_type().len();
    if prefix >= whole * 8 || usize::try_from(*len).ok()? > whole {
        return None;
    }
    bytes.resize(whole, 0);
    let net = IpNetwork::new(address(&bytes)?, u8::try_from(prefix).ok()?).ok()?;
    Some(Statement::Match(Match::Net { field, negate, net }))
}

/// The address whose first bytes are loaded. Offset 12 and 16 lie in IPv6 addresses too; a load
/// of more than four bytes can only be one.
fn address_field(offset: u32, len: usize) -> Option<Field> {
    match offset {
        12 if len <= 4 => Some(Field::IpSaddr),
        16 if len <= 4 => Some(Field::IpDaddr),
        8 => Some(Field::Ip6Saddr),
        24 => Some(Field::Ip6Daddr),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into())
}

/// Loads of fields and what follows them.
fn fields(exprs: &[Expr]) -> Option<Statement> {
    let (fields, rest) = loads(exprs);
    let first = *fields.first()?;
    Some(match rest {
        [Expr::Lookup { set, dreg: None, invert, .. }, ..] => {
            Statement::Match(Match::InSet { fields, set: set.clone(), negate: *invert })
        }
        [Expr::Dynset { set, timeout, .. }, ..] => {
            Statement::Update { fields, set: set.clone(), timeout_ms: *timeout }
        }
        [Expr::Lookup { set, dreg: Some(0), .. }, ..] => {
            Statement::VerdictMap { fields, map: set.clone() }
        }
        [Expr::Lookup { set, dreg: Some(_), .. }, Expr::Nat { source, family, .. }, ..] => {
            let ipv6 = *family == u32::from(NFPROTO_IPV6);
            nat(*source, NatTarget::Map { fields, map: set.clone(), ipv6 })
        }
        [Expr::Lookup { set, dreg: Some(_), .. }, after @ ..] => apart(fields, set, after)?,
        [Expr::Cmp { negate, data, .. }, ..] => {
            let value = whole_value(first.data_type(), data)?;
            Statement::Match(Match::Cmp { field: first, negate: *negate, value })
        }
        [Expr::Bitwise { mask, xor, .. }, after @ ..] => {
            let mask = u32::from_ne_bytes(mask.as_slice().try_into().ok()?);
            let xor = u32::from_ne_bytes(xor.as_slice().try_into().ok()?);
            match after {
                [Expr::MetaSet { .. }, ..] => Statement::SetMark { mask: !mask, value: xor },
                [Expr::CtSet { .. }, ..] => Statement::SetCtMark { mask: !mask, value: xor },
                [Expr::Cmp { negate, data, .. }, ..] => {
                    let value = u32::from_ne_bytes(data.as_slice().try_into().ok()?);
                    let (field, negate) = (first, *negate);
                    Statement::Match(Match::Bits { field, mask, negate, value })
                }
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// An address that a map yields, with a port from elsewhere.
fn apart(fields: Vec<Field>, map: &str, exprs: &[Expr]) -> Option<Statement> {
    let (port, rest) = match exprs {
        [Expr::Immediate { data, .. }, rest @ ..] => {
            (NatPort::Fixed(u16::from_be_bytes(data.as_slice().try_into().ok()?)), rest)
        }
        _ => match loads(exprs) {
            (fields, [Expr::Lookup { set, .. }, rest @ ..]) => {
                (NatPort::Map { fields, map: set.clone() }, rest)
            }
            _ => return None,
        },
    };
    let [Expr::Nat { source, family, .. }, ..] = rest else { return None };
    let (map, ipv6) = (map.to_owned(), *family == u32::from(NFPROTO_IPV6));
    Some(nat(*source, NatTarget::Apart { fields, map, ipv6, port }))
}

/// The fields that are loaded here, and what comes after them.
fn loads(mut exprs: &[Expr]) -> (Vec<Field>, &[Expr]) {
    let mut fields = Vec::new();
    loop {
        let (field, rest) = match exprs {
            [Expr::Payload { len, .. }, Expr::Hash { modulus, seed, .. }, rest @ ..] => {
                (Field::SourceHash { ipv6: *len == 16, modulus: *modulus, seed: *seed }, rest)
            }
            [Expr::Meta { key: META_MARK, .. }, Expr::Bitwise { mask, xor, .. }, rest @ ..]
                if is_constant(mask, rest) =>
            {
                let Ok(value) = <[u8; 4]>::try_from(xor.as_slice()) else { return (fields, exprs) };
                (Field::Const(u32::from_ne_bytes(value)), rest)
            }
            [one, rest @ ..] => match field_of(one) {
                Some(field) => (field, rest),
                None => return (fields, exprs),
            },
            [] => return (fields, exprs),
        };
        fields.push(field);
        exprs = rest;
    }
}

/// Whether a mark of which no bit is kept is looked up, not compared or set.
fn is_constant(mask: &[u8], rest: &[Expr]) -> bool {
    let other = matches!(rest, [Expr::Cmp { .. } | Expr::MetaSet { .. } | Expr::CtSet { .. }, ..]);
    mask == [0; 4] && !other
}

fn whole_value(kind: DataType, data: &[u8]) -> Option<RegValue> {
    if data.len() == kind.len() { value::parse(kind, data) } else { None }
}

fn field_of(expr: &Expr) -> Option<Field> {
    Some(match expr {
        Expr::Payload { base, offset, len, .. } => match (*base, *offset, *len) {
            (PAYLOAD_NETWORK, 12, 4) => Field::IpSaddr,
            (PAYLOAD_NETWORK, 16, 4) => Field::IpDaddr,
            (PAYLOAD_NETWORK, 8, 16) => Field::Ip6Saddr,
            (PAYLOAD_NETWORK, 24, 16) => Field::Ip6Daddr,
            (PAYLOAD_LINK, 6, 6) => Field::EtherSaddr,
            (PAYLOAD_TRANSPORT, 0, 2) => Field::ThSport,
            (PAYLOAD_TRANSPORT, 2, 2) => Field::ThDport,
            (PAYLOAD_TRANSPORT, 12, 2) => Field::VniHigh,
            (PAYLOAD_TRANSPORT, 14, 1) => Field::VniLow,
            _ => return None,
        },
        Expr::Meta { key: META_L4PROTO, .. } => Field::L4Proto,
        Expr::Meta { key: META_IIFNAME, .. } => Field::IifName,
        Expr::Meta { key: META_OIFNAME, .. } => Field::OifName,
        Expr::Meta { key: META_MARK, .. } => Field::Mark,
        Expr::Ct { key: CT_MARK, .. } => Field::CtMark,
        Expr::Ct { key: CT_DST_IP, .. } => Field::CtOriginalIpDaddr,
        Expr::Ct { key: CT_DST_IP6, .. } => Field::CtOriginalIp6Daddr,
        Expr::Ct { key: CT_PROTO_DST, .. } => Field::CtOriginalProtoDst,
        Expr::Numgen { modulus, random: true, offset, .. } => {
            Field::Random { modulus: *modulus, offset: *offset }
        }
        Expr::Numgen { modulus, random: false, offset, .. } => {
            Field::Turn { modulus: *modulus, offset: *offset }
        }
        Expr::Meta { .. }
        | Expr::MetaSet { .. }
        | Expr::Ct { .. }
        | Expr::CtSet { .. }
        | Expr::Fib { .. }
        | Expr::Bitwise { .. }
        | Expr::Cmp { .. }
        | Expr::Lookup { .. }
        | Expr::Immediate { .. }
        | Expr::Verdict(_)
        | Expr::Nat { .. }
        | Expr::Masq { .. }
        | Expr::Hash { .. }
        | Expr::Reject { .. }
        | Expr::Dynset { .. }
        | Expr::Counter
        | Expr::Other(..) => return None,
    })
}

fn nat(source: bool, target: NatTarget) -> Statement {
    if source { Statement::Snat(target) } else { Statement::Dnat(target) }
}
