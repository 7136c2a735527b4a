//! Who may send to the overlay's port: table `ip causeway_overlay`, or `ip6`, by the family of the
//! tunnels.
//!
//! A vxlan device takes what reaches its port from any sender, and hands it to containers. These
//! are one chain, one rule and one set beside the services' tables, the same for both backends.
//! Packets that are only forwarded do not pass the hook; those other than UDP leave the rule at
//! once. Other vxlans may use the same port, between other machines: only packets of ours are
//! meant, by the number in them.
//!
//! ```text
//! input (filter, -300)  udp dport 8472 @th,96,16 0x0 @th,112,8 0x1 ip saddr != @peers drop
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::address_table;
use crate::{
    BaseChain, ChainSpec, Family, Field, Hook, Match, RegValue, Rule, Statement, TableId,
    TableState, Verdict,
};

/// UDP
const UDP: u8 = 17;
/// Priority of `raw`.
const RAW: i32 = -300;

/// The table of a family.
pub fn table(ipv6: bool) -> TableId {
    let family = if ipv6 { Family::Ip6 } else { Family::Ip };
    TableId { family, name: "causeway_overlay".to_owned() }
}

/// What the table holds if these peers, all of one family, may send to the port what is for the
/// vxlan of a number.
pub fn state(ipv6: bool, port: u16, id: u32, peers: &BTreeSet<IpAddr>) -> TableState {
    let saddr = if ipv6 { Field::Ip6Saddr } else { Field::IpSaddr };
    let (set, elements) = address_table::set("peers", ipv6, peers);
    let equal = |field, value| Statement::Match(Match::Cmp { field, negate: false, value });
    let [_, high, middle, low] = id.to_be_bytes();
    let high = u16::from_be_bytes([high, middle]);
    let known = Match::InSet { fields: vec![saddr], set: set.name.clone(), negate: true };
    let rule = Rule {
        statements: vec![
            equal(Field::L4Proto, RegValue::Proto(UDP)),
            equal(Field::ThDport, RegValue::Port(port)),
            equal(Field::VniHigh, RegValue::Port(high)),
            equal(Field::VniLow, RegValue::Proto(low)),
            Statement::Match(known),
            Statement::Verdict(Verdict::Drop),
        ],
        comment: Some("the overlay takes packets from nodes only".to_owned()),
    };
    let base = BaseChain {
        kind: "filter".to_owned(),
        hook: Hook::Input,
        priority: RAW,
        policy_drop: false,
    };
    let chain = ChainSpec { name: "input".to_owned(), base: Some(base) };
    TableState {
        chains: [(chain.name.clone(), (chain, vec![(0, rule)]))].into(),
        sets: [(set.name.clone(), (set, elements))].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;
    use crate::address_table::diff;
    use crate::text;

    fn peers(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Rows: RH12
    #[test]
    fn one_rule_asks_one_set() {
        let state = state(false, 8472, 0x10203, &peers(&["172.18.0.2", "172.18.0.3"]));
        let shown = text::table(&table(false), &state);
        assert_eq!(
            shown.split_whitespace().collect::<Vec<_>>().join(" "),
            "table ip causeway_overlay { set peers { type ipv4_addr elements = { 172.18.0.2, \
             172.18.0.3 } } chain input { type filter hook input priority raw; policy accept; udp \
             dport 8472 @th,96,16 0x102 @th,112,8 0x3 ip saddr != @peers drop comment \"the \
             overlay takes packets from nodes only\" } }"
        );
    }

    /// Rows: RH12
    #[test]
    fn i4_a_change_of_peers_is_elements_alone() {
        let id = table(true);
        let state = |peers| state(true, 8472, 1, peers);
        let (before, after) = (peers(&["fd00::2", "fd00::3"]), peers(&["fd00::3", "fd00::4"]));
        assert!(diff(&id, Some(&state(&before)), Some(&state(&before))).ops.is_empty());
        let ops = diff(&id, Some(&state(&before)), Some(&state(&after))).ops;
        assert!(matches!(&ops[..], [Op::DeleteElements { .. }, Op::AddElements { .. }]), "{ops:?}");
        assert_eq!(diff(&id, Some(&state(&after)), None).ops, [Op::DeleteTable(id.clone())]);
        assert!(diff(&id, None, None).ops.is_empty());
        assert!(matches!(diff(&id, None, Some(&state(&after))).ops[0], Op::AddTable(_)));
    }
}
