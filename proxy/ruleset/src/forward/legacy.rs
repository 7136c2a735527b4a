//! What `iptables-legacy-save -t filter` prints.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use super::{Action, Condition, ForeignRule, ForeignTable, Keeper, Pattern};
use crate::Family;
use crate::iptables::{SavedLine, saved_lines, words};

/// Reads the table `filter` from what the program printed. What it does not understand of a rule is
/// a condition that may or may not hold.
pub fn parse_legacy(text: &str, ipv6: bool, suffix: bool) -> ForeignTable {
    let mut chains: BTreeMap<String, Vec<ForeignRule>> = BTreeMap::new();
    let mut dropping = BTreeSet::new();
    for (_, line) in saved_lines(text).filter(|(table, _)| *table == "filter") {
        match line {
            SavedLine::Chain { name, policy } => {
                chains.entry(name.to_owned()).or_default();
                if name == "FORWARD" && policy == "DROP" {
                    dropping.insert(name.to_owned());
                }
            }
            SavedLine::Rule { chain, rule } => {
                let words = words(rule);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                chains.entry(chain.to_owned()).or_default().push(self::rule(&words));
            }
        }
    }
    ForeignTable {
        family: if ipv6 { Family::Ip6 } else { Family::Ip },
        name: "filter".to_owned(),
        keeper: Keeper::Legacy { suffix },
        chains,
        dropping,
    }
}

fn rule(mut words: &[&str]) -> ForeignRule {
    let mut conditions = Vec::new();
    let mut action = Action::Continue;
    loop {
        let negate = words.first() == Some(&"!");
        if negate {
            words = &words[1..];
        }
        let [option, rest @ ..] = words else { break };
        let value = rest.first().copied().unwrap_or_default();
        match *option {
            "-s" | "-d" => conditions.push(address(*option == "-s", value, negate)),
            "-i" => conditions.push(Condition::In { device: pattern(value), negate }),
            "-o" => conditions.push(Condition::Out { device: pattern(value), negate }),
            "--ctstate" | "--state" => conditions.push(state(value, negate)),
            "-m" if matches!(value, "comment" | "conntrack" | "state") => {}
            "--comment" => {}
            "-j" => {
                action = target(value);
                break;
            }
            "-g" => {
                action = Action::Goto(value.to_owned());
                break;
            }
            _ => conditions.push(Condition::Unknown),
        }
        // Options that are not known have any number of values.
        let next = rest.iter().skip(1).position(|word| word.starts_with('-') || *word == "!");
        words = next.and_then(|next| rest.get(next + 1..)).unwrap_or_default();
    }
    ForeignRule { conditions, action }
}

fn address(source: bool, value: &str, negate: bool) -> Condition {
    match value.parse::<IpNetwork>() {
        Ok(net) if source => Condition::Source { net, negate },
        Ok(net) => Condition::Destination { net, negate },
        Err(_) => Condition::Unknown,
    }
}

fn pattern(value: &str) -> Pattern {
    match value.strip_suffix('+') {
        Some(text) => Pattern { text: text.to_owned(), prefix: true },
        None => Pattern { text: value.to_owned(), prefix: false },
    }
}

fn state(value: &str, negate: bool) -> Condition {
    let among = |state: &str| value.split(',').any(|one| one == state);
    Condition::State { new: among("NEW") != negate, established: among("ESTABLISHED") != negate }
}

/// A target that decides, one that goes on, or a chain.
fn target(value: &str) -> Action {
    match value {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "TRACE" | "SECMARK" | "CONNSECMARK"
        | "CLASSIFY" | "DSCP" | "TOS" | "TTL" | "HL" | "AUDIT" | "SET" => Action::Continue,
        "QUEUE" | "NFQUEUE" => Action::Unknown,
        chain => Action::Jump(chain.to_owned()),
    }
}
