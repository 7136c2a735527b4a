//! Questions for names without conntrack: table `ip causeway_names`, or `ip6`.
//!
//! An entry for each question would fill the table of a busy node, and of two questions from one
//! socket that race to make theirs one is dropped (kubernetes#56903). Nothing translates what goes to
//! these addresses, so nothing needs to be remembered. One set and two chains beside the services'
//! tables, the same for both backends; a kernel without nf_tables remembers the questions.
//!
//! ```text
//! prerouting (filter, -300)  udp dport 53 ip daddr @servers notrack
//! output     (filter, -300)  udp dport 53 ip daddr @servers notrack
//!                            udp sport 53 ip saddr @servers notrack
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::address_table;
use crate::{
    BaseChain, ChainSpec, Family, Field, Hook, Match, RegValue, Rule, Statement, TableId,
    TableState,
};

/// UDP
const UDP: u8 = 17;
/// TCP
const TCP: u8 = 6;
/// Port of DNS.
const PORT: u16 = 53;
/// Priority of `raw`: before conntrack.
const RAW: i32 = -300;
/// Name of the set.
const SERVERS: &str = "servers";

/// The table of a family.
pub fn table(ipv6: bool) -> TableId {
    let family = if ipv6 { Family::Ip6 } else { Family::Ip };
    TableId { family, name: "causeway_names".to_owned() }
}

/// What the table holds if names are answered at these addresses, all of one family; `None`: there
/// is none.
pub fn state(ipv6: bool, servers: &BTreeSet<IpAddr>) -> Option<TableState> {
    if servers.is_empty() {
        return None;
    }
    let (saddr, daddr) = match ipv6 {
        false => (Field::IpSaddr, Field::IpDaddr),
        true => (Field::Ip6Saddr, Field::Ip6Daddr),
    };
    let (set, elements) = address_table::set(SERVERS, ipv6, servers);
    let asked = [UDP, TCP].map(|protocol| rule(protocol, Field::ThDport, daddr));
    let answered = [UDP, TCP].map(|protocol| rule(protocol, Field::ThSport, saddr));
    let chains = [
        chain("prerouting", Hook::Prerouting, asked.to_vec()),
        chain("output", Hook::Output, [asked, answered].concat()),
    ];
    let named = chains.map(|chain| (chain.0.name.clone(), chain));
    Some(TableState { chains: named.into(), sets: [(set.name.clone(), (set, elements))].into() })
}

fn chain(name: &str, hook: Hook, rules: Vec<Rule>) -> (ChainSpec, Vec<(u64, Rule)>) {
    let base = BaseChain { kind: "filter".to_owned(), hook, priority: RAW, policy_drop: false };
    let spec = ChainSpec { name: name.to_owned(), base: Some(base) };
    (spec, rules.into_iter().map(|rule| (0, rule)).collect())
}

fn rule(protocol: u8, port: Field, address: Field) -> Rule {
    let equal = |field, value| Statement::Match(Match::Cmp { field, negate: false, value });
    let known = Match::InSet { fields: vec![address], set: SERVERS.to_owned(), negate: false };
    Rule {
        statements: vec![
            equal(Field::L4Proto, RegValue::Proto(protocol)),
            equal(port, RegValue::Port(PORT)),
            Statement::Match(known),
            Statement::Other("notrack".to_owned(), Vec::new()),
        ],
        comment: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    #[test]
    fn what_is_asked_and_answered_is_not_tracked() {
        let servers = ["10.0.1.1", "10.96.0.10"].map(|ip| ip.parse().expect("an address"));
        let state = state(false, &servers.into()).expect("a table");
        let shown = text::table(&table(false), &state);
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "set servers { type ipv4_addr elements = { 10.0.1.1, 10.96.0.10 } }",
            "chain prerouting { type filter hook prerouting priority raw; policy accept; udp dport \
             53 ip daddr @servers notrack tcp dport 53 ip daddr @servers notrack }",
            "udp sport 53 ip saddr @servers notrack tcp sport 53 ip saddr @servers notrack }",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        assert_eq!(super::state(true, &BTreeSet::new()), None);
    }
}
