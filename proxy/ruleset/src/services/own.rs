//! Chains of pools that more than chance decides for: session affinity, round robin, source hash.
//!
//! ```text
//! ip saddr . ID . EP . PORT @affinity  update @affinity { the same timeout T }  dnat to EP:PORT
//! numgen random mod n == 0             update @affinity { ip saddr . ID . EP . PORT timeout T }  dnat to EP:PORT
//! numgen random mod n - 1 == 0         ...
//! ```
//!
//! The first kind, one rule an endpoint, finds where a client went before; it goes with its
//! endpoint, so the client moves at once. The second kind chooses: with `numgen inc` in the place
//! of chance the same rules go round strictly, as each rule sees just the connections that those
//! before it leave.

use causeway_model::{Balance, IpFamily, ObjectKey};

use super::layout::{Set, rule, saddr};
use crate::plan::{Pool, PortPlan, Target};
use crate::{Const, Field, Match, NatTarget, RegValue, Rule, Statement, name};

/// A pool with a chain of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    pub(super) service: &'a ObjectKey,
    pub(super) port: &'a PortPlan,
    pub(super) pool: Pool,
    pub(super) targets: &'a [Target],
}

impl Own<'_> {
    /// What makes the service port unlike all others.
    fn identity(&self) -> [&str; 4] {
        let ObjectKey { namespace, name } = self.service;
        [namespace, name, &self.port.name, self.port.protocol.name()]
    }

    /// Name of the chain.
    pub(super) fn chain(&self) -> String {
        let prefix = match self.pool {
            Pool::Cluster => "balance",
            Pool::Local => "balance-local",
        };
        name::pool(prefix, &self.identity())
    }

    /// What a client's entries have in common at all frontends of the service port (row 26).
    fn id(&self) -> u32 {
        let [high, _] = halves(name::hash_parts(&self.identity()));
        high
    }

    fn affinity_key(&self, target: &Target) -> Vec<Field> {
        let address = match target.address {
            std::net::IpAddr::V4(address) => Const::V4(address),
            std::net::IpAddr::V6(address) => Const::V6(address),
        };
        let constants = [Const::Mark(self.id()), address, Const::Port(target.port)];
        [saddr(self.port.family)].into_iter().chain(constants.map(Field::Const)).collect()
    }

    /// The statements that send a connection to a target.
    fn send(&self, target: &Target) -> Vec<Statement> {
        let mut statements = Vec::new();
        if let Some(seconds) = self.port.affinity {
            statements.push(Statement::Update {
                fields: self.affinity_key(target),
                set: affinity_set(self.port.family),
                timeout_ms: u64::from(seconds) * 1000,
            });
        }
        let to = NatTarget::Fixed(target.address, Some(target.port));
        statements.push(Statement::Dnat(to));
        statements
    }
}

/// The rules of the chain.
pub(super) fn rules(own: &Own<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    if own.port.affinity.is_some() {
        rules.extend(own.targets.iter().map(|target| {
            let known = Statement::Match(Match::InSet {
                fields: own.affinity_key(target),
                set: affinity_set(own.port.family),
                negate: false,
            });
            rule([known].into_iter().chain(own.send(target)))
        }));
    }
    let left = (1..=u32::try_from(own.targets.len()).unwrap_or(u32::MAX)).rev();
    rules.extend(left.zip(own.targets).map(|(left, target)| {
        let chosen = (left > 1).then(|| number_is_zero(own.port.balance, left));
        rule(chosen.into_iter().chain(own.send(target)))
    }));
    rules
}

fn number_is_zero(balance: Balance, modulus: u32) -> Statement {
    let field = match balance {
        Balance::Random | Balance::SourceHash => Field::Random { modulus, offset: 0 },
        Balance::RoundRobin => Field::Turn { modulus, offset: 0 },
    };
    Statement::Match(Match::Cmp { field, negate: false, value: RegValue::Mark(0) })
}

fn affinity_set(family: IpFamily) -> String {
    Set::Affinity.spec(family).name
}

fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}
