//! `conditionsV4` and `conditionsV6` in nft's syntax: the common matches, parsed into the rule IR.
//!
//! Upstream hands the words to `nft`. Here no program is run, so a word outside this grammar is an
//! error that names it:
//!
//! ```text
//! match    = field [ "==" | "eq" | "!=" | "ne" ] values
//! field    = "ip" saddr|daddr | "ip6" saddr|daddr | [ "meta" ] iifname|oifname|iif|oif
//!          | tcp|udp|sctp|th sport|dport | [ "meta" ] mark [ "&"|"and" MASK ] | "ct" mark [..]
//!          | "meta" l4proto | "ip" protocol | "fib" daddr type local
//! values   = VALUE | "{" VALUE { "," VALUE } "}"
//! VALUE    = address | network | address-address | port | port-port | name | number
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_ruleset::{DataType, Element, Field, Key, Match, RegValue, SetSpec, Statement};
use cni_plugin::{Code, Error};
use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use crate::mapping::Protocol;

/// Parsed conditions of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conditions {
    matches: Vec<Condition>,
    id: String,
    tokens: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Exactly(Match),
    OneOf { field: Field, negate: bool, ranges: Vec<(RegValue, RegValue)> },
}

impl Conditions {
    /// The conditions that `words` (each one or more tokens) of configuration key `key` say, or
    /// `None` if there are none.
    ///
    /// # Errors
    /// Code 2 naming the first token that is not understood.
    pub(crate) fn parse(key: &'static str, words: &[String]) -> Result<Option<Self>, Error> {
        let tokens = tokenize(words);
        if tokens.is_empty() {
            return Ok(None);
        }
        let mut parser = Parser { key, tokens: &tokens, at: 0, out: Vec::new() };
        while parser.at < tokens.len() {
            parser.condition()?;
        }
        let digest = Sha256::digest(tokens.join(" "));
        let id = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Self { matches: parser.out, id, tokens }))
    }

    /// What [`Conditions::parse`] makes these conditions of.
    pub(crate) fn words(&self) -> &[String] {
        &self.tokens
    }

    /// A name for these conditions, derived from their text: eight hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The sets that [`Conditions::statements`] looks up, named `<prefix>-<number>`.
    pub(crate) fn sets(&self, prefix: &str) -> Vec<(SetSpec, Vec<Element>)> {
        self.matches
            .iter()
            .enumerate()
            .filter_map(|(number, condition)| match condition {
                Condition::Exactly(_) => None,
                Condition::OneOf { field, ranges, .. } => {
                    let interval = !matches!(field.data_type(), DataType::IfName);
                    Some((set(prefix, number, *field, interval), elements(ranges, interval)))
                }
            })
            .collect()
    }

    /// The conditions as statements of a rule.
    pub(crate) fn statements(&self, prefix: &str) -> Vec<Statement> {
        self.matches
            .iter()
            .enumerate()
            .map(|(number, condition)| {
                Statement::Match(match condition {
                    Condition::Exactly(exactly) => exactly.clone(),
                    Condition::OneOf { field, negate, .. } => Match::InSet {
                        fields: vec![*field],
                        set: format!("{prefix}-{number}"),
                        negate: *negate,
                    },
                })
            })
            .collect()
    }
}

fn set(prefix: &str, number: usize, field: Field, interval: bool) -> SetSpec {
    SetSpec {
        name: format!("{prefix}-{number}"),
        key: vec![field.data_type()],
        target: None,
        interval,
        dynamic: false,
        timeout_ms: None,
    }
}

fn elements(ranges: &[(RegValue, RegValue)], interval: bool) -> Vec<Element> {
    let key = |(from, to): &(RegValue, RegValue)| {
        if interval {
            Key::Range(vec![from.clone()], vec![to.clone()])
        } else {
            Key::Exact(vec![from.clone()])
        }
    };
    ranges.iter().map(|range| Element { key: key(range), value: None, comment: None }).collect()
}

fn tokenize(words: &[String]) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in words {
        let mut spaced = String::new();
        for letter in word.chars() {
            match letter {
                '{' | '}' | ',' | '&' => spaced.extend([' ', letter, ' ']),
                // Quotes are how nft's own listing writes interface names.
                '"' => spaced.push(' '),
                _ => spaced.push(letter),
            }
        }
        tokens.extend(spaced.split_whitespace().map(str::to_owned));
    }
    tokens
}

struct Parser<'a> {
    key: &'static str,
    tokens: &'a [String],
    at: usize,
    out: Vec<Condition>,
}

impl Parser<'_> {
    fn condition(&mut self) -> Result<(), Error> {
        let field = self.field()?;
        let Some(field) = field else { return Ok(()) };
        let mask = self.mask(field)?;
        let negate = self.negation();
        let values = self.values(field)?;
        if let Some(mask) = mask {
            return match values.as_slice() {
                [(RegValue::Mark(value), to)] if *to == RegValue::Mark(*value) => {
                    let value = *value;
                    self.exactly(Match::Bits { field, mask, negate, value });
                    Ok(())
                }
                _ => Err(self.unknown()),
            };
        }
        self.out.push(condense(field, negate, values));
        Ok(())
    }

    /// The field that the next tokens name, `None` if they were a complete match.
    fn field(&mut self) -> Result<Option<Field>, Error> {
        let first = self.next()?;
        let ipv6 = self.key == "conditionsV6";
        let field = match (first.as_str(), self.peek()) {
            ("meta", Some("l4proto")) | ("ip", Some("protocol")) => Field::L4Proto,
            ("ip", Some("saddr")) if !ipv6 => Field::IpSaddr,
            ("ip", Some("daddr")) if !ipv6 => Field::IpDaddr,
            ("ip6", Some("saddr")) if ipv6 => Field::Ip6Saddr,
            ("ip6", Some("daddr")) if ipv6 => Field::Ip6Daddr,
            ("ct", Some("mark")) => Field::CtMark,
            ("meta", Some("mark")) => Field::Mark,
            ("meta", Some("iifname" | "iif")) => Field::IifName,
            ("meta", Some("oifname" | "oif")) => Field::OifName,
            ("tcp" | "udp" | "sctp" | "th", Some(port @ ("sport" | "dport"))) => {
                let field = if port == "sport" { Field::ThSport } else { Field::ThDport };
                if let Some(protocol) = Protocol::parse(&first) {
                    let value = RegValue::Proto(protocol.number());
                    self.exactly(Match::Cmp { field: Field::L4Proto, negate: false, value });
                }
                field
            }
            ("fib", Some("daddr")) => return self.fib().map(|()| None),
            ("iifname" | "iif", _) => return Ok(Some(Field::IifName)),
            ("oifname" | "oif", _) => return Ok(Some(Field::OifName)),
            ("mark", _) => return Ok(Some(Field::Mark)),
            ("ip" | "ip6" | "ct" | "meta" | "tcp" | "udp" | "sctp" | "th" | "fib", Some(_)) => {
                self.at += 1;
                return Err(self.unknown());
            }
            _ => return Err(self.unknown()),
        };
        self.at += 1;
        Ok(Some(field))
    }

    fn fib(&mut self) -> Result<(), Error> {
        for wanted in ["daddr", "type", "local"] {
            if self.next()? != wanted {
                return Err(self.unknown());
            }
        }
        self.exactly(Match::FibDaddrLocal { negate: false });
        Ok(())
    }

    fn mask(&mut self, field: Field) -> Result<Option<u32>, Error> {
        if !matches!(field, Field::Mark | Field::CtMark)
            || !matches!(self.peek(), Some("&" | "and"))
        {
            return Ok(None);
        }
        self.at += 1;
        let token = self.next()?;
        number(&token).map(Some).ok_or_else(|| self.unknown())
    }

    fn negation(&mut self) -> bool {
        let negate = matches!(self.peek(), Some("!=" | "ne"));
        if negate || matches!(self.peek(), Some("==" | "eq")) {
            self.at += 1;
        }
        negate
    }

    fn values(&mut self, field: Field) -> Result<Vec<(RegValue, RegValue)>, Error> {
        if self.peek() != Some("{") {
            return Ok(vec![self.value(field)?]);
        }
        self.at += 1;
        let mut values = Vec::new();
        loop {
            values.push(self.value(field)?);
            match self.next()?.as_str() {
                "," => {}
                "}" => return Ok(values),
                _ => return Err(self.unknown()),
            }
        }
    }

    fn value(&mut self, field: Field) -> Result<(RegValue, RegValue), Error> {
        let token = self.next()?;
        value(field, &token).ok_or_else(|| self.unknown())
    }

    fn exactly(&mut self, exactly: Match) {
        self.out.push(Condition::Exactly(exactly));
    }

    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Result<String, Error> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token.ok_or_else(|| {
            Error::new(
                Code::UnsupportedField,
                format!(
                    "{}: a value is missing at the end of {:?}",
                    self.key,
                    self.tokens.join(" ")
                ),
            )
        })
    }

    /// The token just read does not belong to the grammar.
    fn unknown(&self) -> Error {
        let token = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let token = token.map_or("", String::as_str);
        Error::new(
            Code::UnsupportedField,
            format!(
                "{}: {token:?} is not supported; use matches of ip or ip6 addresses, interface \
                 names, ports and marks",
                self.key
            ),
        )
        .details(self.tokens.join(" "))
    }
}

/// One value or one network as a comparison, anything else as a set of disjoint ranges.
fn condense(field: Field, negate: bool, mut ranges: Vec<(RegValue, RegValue)>) -> Condition {
    ranges.sort();
    let ranges = merge(ranges);
    if let [(from, to)] = ranges.as_slice() {
        if from == to {
            return Condition::Exactly(Match::Cmp { field, negate, value: from.clone() });
        }
        if let Some(net) = network(from, to) {
            return Condition::Exactly(Match::Net { field, negate, net });
        }
    }
    Condition::OneOf { field, negate, ranges }
}

/// Sets of ranges take no overlapping ones.
fn merge(sorted: Vec<(RegValue, RegValue)>) -> Vec<(RegValue, RegValue)> {
    let mut out: Vec<(RegValue, RegValue)> = Vec::new();
    for (from, to) in sorted {
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.clone().max(to),
            _ => out.push((from, to)),
        }
    }
    out
}

fn network(from: &RegValue, to: &RegValue) -> Option<IpNetwork> {
    let (from, prefix) = match (from, to) {
        (RegValue::V4(from), RegValue::V4(to)) => {
            (IpAddr::V4(*from), u8::try_from((from.to_bits() ^ to.to_bits()).leading_zeros()).ok()?)
        }
        (RegValue::V6(from), RegValue::V6(to)) => {
            (IpAddr::V6(*from), u8::try_from((from.to_bits() ^ to.to_bits()).leading_zeros()).ok()?)
        }
        _ => return None,
    };
    let net = IpNetwork::new(from, prefix).ok()?;
    let exact = net.network() == from && last(&net) == *to;
    exact.then_some(net)
}

fn last(net: &IpNetwork) -> RegValue {
    match net {
        IpNetwork::V4(net) => RegValue::V4(net.broadcast()),
        IpNetwork::V6(net) => RegValue::V6(net.broadcast()),
    }
}

fn value(field: Field, token: &str) -> Option<(RegValue, RegValue)> {
    match field.data_type() {
        DataType::Ipv4Addr => {
            address(token, &|text| text.parse::<Ipv4Addr>().ok().map(RegValue::V4))
                .filter(|(from, _)| matches!(from, RegValue::V4(_)))
        }
        DataType::Ipv6Addr => {
            address(token, &|text| text.parse::<Ipv6Addr>().ok().map(RegValue::V6))
                .filter(|(from, _)| matches!(from, RegValue::V6(_)))
        }
        DataType::InetService => range(token, &|text| text.parse().ok().map(RegValue::Port)),
        DataType::InetProto => range(token, &|text| {
            let named = Protocol::parse(text).map(Protocol::number);
            named.or_else(|| text.parse().ok()).map(RegValue::Proto)
        }),
        DataType::Mark => range(token, &|text| number(text).map(RegValue::Mark)),
        DataType::IfName => {
            // A trailing `*` is nft's prefix match.
            let plain = token.len() <= 15 && !token.contains(['*', '/', '{', '}', ',']);
            let name = RegValue::IfName(token.to_owned());
            plain.then(|| (name.clone(), name))
        }
        DataType::EtherAddr | DataType::Number => None,
    }
}

type Read<'a> = &'a dyn Fn(&str) -> Option<RegValue>;

fn address(token: &str, read: Read<'_>) -> Option<(RegValue, RegValue)> {
    if token.contains('/') {
        let net: IpNetwork = token.parse().ok()?;
        return Some((RegValue::from(net.network()), last(&net)));
    }
    range(token, read)
}

fn range(token: &str, read: Read<'_>) -> Option<(RegValue, RegValue)> {
    let (from, to) = token.split_once('-').unwrap_or((token, token));
    let (from, to) = (read(from)?, read(to)?);
    (from <= to).then_some((from, to))
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
