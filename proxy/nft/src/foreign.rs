//! Tables of other programs, as far as it matters whether they drop what is forwarded.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_ruleset::forward::{Action, Condition, ForeignRule, ForeignTable, Keeper, Pattern};
use causeway_ruleset::{Family, Hook, Verdict};
use ipnetwork::IpNetwork;

use crate::Result;
use crate::client::Client;
use crate::codec::expr::Expr;
use crate::codec::object::read_chain;
use crate::codec::{family_name, family_number};
use crate::error::failed;
use crate::uapi::{
    CT_STATE, CT_STATE_ESTABLISHED, CT_STATUS, CT_STATUS_DNAT, DATA_VALUE, ELEM_KEY,
    ELEM_LIST_ELEMENTS, ELEM_LIST_SET, ELEM_LIST_TABLE, GETCHAIN, GETRULE, GETSETELEM,
    META_IIFNAME, META_NFPROTO, META_OIFNAME, NFPROTO_IPV4, NFPROTO_IPV6, PAYLOAD_NETWORK,
    RULE_CHAIN, RULE_EXPRESSIONS, RULE_TABLE,
};
use crate::wire::{Attributes, Writer};

/// `NF_CT_STATE_BIT(IP_CT_NEW)`
const CT_STATE_NEW: u32 = 8;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`
const CT_STATE_OPEN: u32 = CT_STATE_ESTABLISHED & 2;
/// Bit of the state in `struct xt_conntrack_mtinfo3`, where its flags are, and its mask.
const XT_STATE: u16 = 1;
const XT_FLAGS: usize = 146;
const XT_INVERTED: usize = 148;
const XT_STATES: usize = 150;

impl Client {
    /// Tables that have a chain at the forward hook whose policy is drop; none of ours has. One dump
    /// if there is none.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn forward_drops(&mut self) -> Result<Vec<ForeignTable>> {
        let mut tables: BTreeMap<(u8, String), ForeignTable> = BTreeMap::new();
        let link = self.link().map_err(|source| failed("list all chains", source))?;
        let dumped = link.dump(
            (GETCHAIN, 0),
            |_| {},
            |message| match message {
                None => tables.clear(),
                Some(message) => {
                    let Some(family) = family_of(message.family()) else { return };
                    let Some((name, chain)) = read_chain(message.attributes()) else { return };
                    let Some(base) = chain.base else { return };
                    if base.hook != Hook::Forward || !base.policy_drop {
                        return;
                    }
                    let table =
                        tables.entry((message.family(), name.clone())).or_insert_with(|| {
                            let (keeper, chains) = (Keeper::Nftables, BTreeMap::new());
                            ForeignTable { family, name, keeper, chains, dropping: BTreeSet::new() }
                        });
                    table.dropping.insert(chain.name);
                }
            },
        );
        dumped.map_err(|source| failed("list all chains", source))?;
        let mut all = Vec::new();
        for mut table in tables.into_values() {
            self.fill(&mut table).map_err(|source| {
                failed(format!("read table {} {}", family_name(table.family), table.name), source)
            })?;
            all.push(table);
        }
        Ok(all)
    }

    /// Reads chains and rules of a table.
    fn fill(&mut self, table: &mut ForeignTable) -> io::Result<()> {
        let family = family_number(table.family);
        let name = table.name.clone();
        let mut names = Vec::new();
        self.link()?.dump(
            (GETCHAIN, family),
            |_| {},
            |message| match message {
                None => names.clear(),
                Some(message) => {
                    let read = read_chain(message.attributes());
                    names.extend(read.filter(|(of, _)| *of == name).map(|(_, chain)| chain.name));
                }
            },
        )?;
        let mut rules: Vec<(String, Vec<Expr>)> = Vec::new();
        let of_table = |out: &mut Writer| out.string(RULE_TABLE, &name);
        self.link()?.dump((GETRULE, family), of_table, |message| match message {
            None => rules.clear(),
            Some(message) => {
                rules.extend(read_rule(message.attributes(), &name));
            }
        })?;
        table.chains = names.into_iter().map(|name| (name, Vec::new())).collect();
        for (chain, exprs) in rules {
            let mut states = |set: &str| self.states(family, &name, set);
            let rule = convert(&exprs, &mut states);
            table.chains.entry(chain).or_default().push(rule);
        }
        Ok(())
    }

    /// Connection states that a set holds, as bits.
    fn states(&mut self, family: u8, table: &str, set: &str) -> Option<u32> {
        let mut bits = Some(0);
        let attributes = |out: &mut Writer| {
            out.string(ELEM_LIST_TABLE, table);
            out.string(ELEM_LIST_SET, set);
        };
        let dumped = self.link().ok()?.dump((GETSETELEM, family), attributes, |message| {
            let Some(message) = message else {
                bits = Some(0);
                return;
            };
            let list = message.attributes().get(ELEM_LIST_ELEMENTS);
            for element in list.into_iter().flat_map(|list| list.nested()) {
                let key = element.nested().get(ELEM_KEY);
                let value = key.and_then(|key| key.nested().get(DATA_VALUE));
                let state = value.and_then(|value| value.value.try_into().ok());
                bits = bits.zip(state.map(u32::from_ne_bytes)).map(|(all, one)| all | one);
            }
        });
        dumped.ok().and(bits)
    }
}

fn read_rule(attributes: Attributes<'_>, table: &str) -> Option<(String, Vec<Expr>)> {
    if attributes.get(RULE_TABLE)?.string()? != table {
        return None;
    }
    let list = attributes.get(RULE_EXPRESSIONS);
    let exprs = list.map(|list| list.nested().map(Expr::read).collect()).unwrap_or_default();
    Some((attributes.get(RULE_CHAIN)?.string()?, exprs))
}

fn family_of(number: u8) -> Option<Family> {
    [Family::Ip, Family::Ip6, Family::Inet]
        .into_iter()
        .find(|family| family_number(*family) == number)
}

/// What a register holds.
#[derive(Clone, Copy, Debug)]
enum Loaded {
    In,
    Out,
    Address {
        source: bool,
        ipv6: bool,
        prefix: Option<u8>,
    },
    Protocol,
    State {
        mask: u32,
    },
    /// Whether the connection is translated.
    Status {
        mask: u32,
    },
    Unknown,
}

/// What the expressions of a rule ask and do. `states` reads a set of connection states.
fn convert(exprs: &[Expr], states: &mut dyn FnMut(&str) -> Option<u32>) -> ForeignRule {
    let mut registers: BTreeMap<u32, Loaded> = BTreeMap::new();
    let mut rule = ForeignRule { conditions: Vec::new(), action: Action::Continue };
    for expr in exprs {
        let held = |reg: &u32| registers.get(reg).copied().unwrap_or(Loaded::Unknown);
        match expr {
            Expr::Payload { base, offset, len, reg } => {
                registers.insert(*reg, payload((*base, *offset, *len)));
            }
            Expr::Meta { key, reg } => {
                registers.insert(*reg, meta(*key));
            }
            Expr::Ct { key, direction, reg } => {
                registers.insert(*reg, ct(*key, *direction));
            }
            Expr::Bitwise { reg, mask, xor } => {
                let masked = masked(held(reg), mask, xor);
                registers.insert(*reg, masked);
            }
            Expr::Cmp { reg, negate, data } => {
                rule.conditions.push(compare(held(reg), *negate, data));
            }
            Expr::Lookup { set, reg, dreg: None, invert } => {
                let whole = matches!(held(reg), Loaded::State { mask: u32::MAX });
                let bits = if whole { states(set) } else { None };
                rule.conditions.push(match bits {
                    Some(bits) => state(bits, *invert),
                    None => Condition::Unknown,
                });
            }
            Expr::Verdict(verdict) => rule.action = action(verdict),
            Expr::Reject { .. } => rule.action = Action::Drop,
            Expr::Counter | Expr::MetaSet { .. } | Expr::CtSet { .. } | Expr::Immediate { .. } => {}
            Expr::Other(name, bytes) => other(name, Attributes(bytes), &mut rule),
            Expr::Lookup { .. } => {
                rule.conditions.push(Condition::Unknown);
                rule.action = Action::Unknown;
            }
            Expr::Fib { reg, .. } | Expr::Numgen { reg, .. } | Expr::Hash { reg, .. } => {
                registers.insert(*reg, Loaded::Unknown);
            }
            Expr::Nat { .. } | Expr::Masq { .. } | Expr::Dynset { .. } => {
                rule.conditions.push(Condition::Unknown);
            }
        }
    }
    rule
}

fn meta(key: u32) -> Loaded {
    match key {
        META_IIFNAME => Loaded::In,
        META_OIFNAME => Loaded::Out,
        META_NFPROTO => Loaded::Protocol,
        _ => Loaded::Unknown,
    }
}

fn ct(key: u32, direction: Option<u8>) -> Loaded {
    match (key, direction) {
        (CT_STATE, None) => Loaded::State { mask: u32::MAX },
        (CT_STATUS, None) => Loaded::Status { mask: u32::MAX },
        _ => Loaded::Unknown,
    }
}

fn payload(place: (u32, u32, u32)) -> Loaded {
    let (source, ipv6) = match place {
        (PAYLOAD_NETWORK, 12, 1..=4) => (true, false),
        (PAYLOAD_NETWORK, 16, 1..=4) => (false, false),
        (PAYLOAD_NETWORK, 8, 1..=16) => (true, true),
        (PAYLOAD_NETWORK, 24, 1..=16) => (false, true),
        _ => return Loaded::Unknown,
    };
    Loaded::Address { source, ipv6, prefix: None }
}

fn masked(held: Loaded, mask: &[u8], xor: &[u8]) -> Loaded {
    if xor.iter().any(|byte| *byte != 0) {
        return Loaded::Unknown;
    }
    if let Loaded::Address { source, ipv6, prefix: None } = held {
        let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        let whole = mask.iter().take_while(|byte| **byte == 0xff);
        let first: u32 = whole.map(|byte| byte.count_ones()).sum();
        let rest = mask.iter().find(|byte| **byte != 0xff).map_or(0, |byte| byte.leading_ones());
        let prefix = u8::try_from(ones).ok().filter(|_| ones == first + rest);
        if prefix.is_some() {
            return Loaded::Address { source, ipv6, prefix };
        }
    }
    let Ok(mask) = mask.try_into().map(u32::from_ne_bytes) else { return Loaded::Unknown };
    match held {
        Loaded::State { mask: u32::MAX } => Loaded::State { mask },
        Loaded::Status { mask: u32::MAX } => Loaded::Status { mask },
        Loaded::State { .. }
        | Loaded::Status { .. }
        | Loaded::In
        | Loaded::Out
        | Loaded::Address { .. }
        | Loaded::Protocol
        | Loaded::Unknown => Loaded::Unknown,
    }
}

fn compare(held: Loaded, negate: bool, data: &[u8]) -> Condition {
    match held {
        Loaded::In => match pattern(data) {
            Some(device) => Condition::In { device, negate },
            None => Condition::Unknown,
        },
        Loaded::Out => match pattern(data) {
            Some(device) => Condition::Out { device, negate },
            None => Condition::Unknown,
        },
        Loaded::Address { source, ipv6, prefix } => match network(ipv6, prefix, data) {
            Some(net) if source => Condition::Source { net, negate },
            Some(net) => Condition::Destination { net, negate },
            None => Condition::Unknown,
        },
        Loaded::Protocol => match data {
            [NFPROTO_IPV4] => Condition::Ipv6(negate),
            [NFPROTO_IPV6] => Condition::Ipv6(!negate),
            _ => Condition::Unknown,
        },
        // `state & mask != 0` is one of them; `== 0`, none of them.
        Loaded::State { mask } if mask != u32::MAX && data.iter().all(|byte| *byte == 0) => {
            state(mask, !negate)
        }
        Loaded::State { mask: u32::MAX } => match data.try_into() {
            Ok(bits) => state(u32::from_ne_bytes(bits), negate),
            Err(_) => Condition::Unknown,
        },
        // What containers send each other by their own addresses is not.
        Loaded::Status { mask: CT_STATUS_DNAT } if data.iter().all(|byte| *byte == 0) => {
            Condition::State { new: !negate, established: !negate }
        }
        Loaded::State { .. } | Loaded::Status { .. } | Loaded::Unknown => Condition::Unknown,
    }
}

fn state(bits: u32, negate: bool) -> Condition {
    Condition::State {
        new: (bits & CT_STATE_NEW != 0) != negate,
        established: (bits & CT_STATE_OPEN != 0) != negate,
    }
}

/// A name ends with a zero; what does not is how names begin.
fn pattern(data: &[u8]) -> Option<Pattern> {
    let end = data.iter().position(|byte| *byte == 0);
    let text = String::from_utf8(data.get(..end.unwrap_or(data.len()))?.to_vec()).ok()?;
    Some(Pattern { text, prefix: end.is_none() })
}

fn network(ipv6: bool, prefix: Option<u8>, data: &[u8]) -> Option<IpNetwork> {
    let prefix = prefix.or_else(|| u8::try_from(data.len() * 8).ok())?;
    let mut bytes = data.to_vec();
    bytes.resize(if ipv6 { 16 } else { 4 }, 0);
    let ip: IpAddr = match ipv6 {
        true => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        false => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
    };
    IpNetwork::new(ip, prefix).ok()
}

fn action(verdict: &Verdict) -> Action {
    match verdict {
        Verdict::Accept => Action::Accept,
        Verdict::Drop => Action::Drop,
        Verdict::Return => Action::Return,
        Verdict::Jump(chain) => Action::Jump(chain.clone()),
        Verdict::Goto(chain) => Action::Goto(chain.clone()),
    }
}

/// Expressions that our own rules do not have; `match` and `target` are extensions of iptables.
fn other(name: &str, attributes: Attributes<'_>, rule: &mut ForeignRule) {
    let extension = attributes.get(1).and_then(|name| name.string()).unwrap_or_default();
    match (name, extension.as_str()) {
        ("log" | "last" | "notrack" | "dup" | "flow_offload", _) | ("match", "comment") => {}
        ("match", "conntrack") => rule.conditions.push(conntrack(attributes)),
        (
            "target",
            "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "TRACE" | "SECMARK" | "CONNSECMARK"
            | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "HL" | "AUDIT" | "SET",
        ) => {}
        ("reject", _) | ("target", "REJECT") => rule.action = Action::Drop,
        ("immediate" | "target" | "queue" | "tproxy" | "synproxy", _) => {
            rule.action = Action::Unknown;
        }
        _ => rule.conditions.push(Condition::Unknown),
    }
}

/// `-m conntrack` if it asks for the state alone (`struct xt_conntrack_mtinfo3`).
fn conntrack(attributes: Attributes<'_>) -> Condition {
    let info = attributes.get(3).map(|info| info.value).unwrap_or_default();
    let half = |at: usize| {
        let bytes = info.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u16::from_ne_bytes)
    };
    match (half(XT_FLAGS), half(XT_INVERTED), half(XT_STATES)) {
        (Some(XT_STATE), Some(inverted), Some(states)) => {
            state(states.into(), inverted & XT_STATE != 0)
        }
        _ => Condition::Unknown,
    }
}
