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
//! before it leave. Where the affinity set is full a rule that remembers ends early, so the same
//! choices follow once more without.
//!
//! Source hash is one rule, `dnat to jhash ip saddr mod M seed SEED map @hash-...`; with affinity it
//! is a choice, `jhash ip saddr mod M seed SEED . EP . PORT @hash-members-...`.

use std::net::IpAddr;

use causeway_model::{Balance, IpFamily, ObjectKey};

use super::layout::{Set, rule, saddr};
use crate::plan::{Pool, PortPlan, Target};
use crate::{
    Const, Element, ElementValue, Field, Key, Match, NatTarget, RegValue, Rule, Statement, name,
    spread,
};

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
        let [address, port] = constants(target);
        vec![saddr(self.port.family), Field::Const(Const::Mark(self.id())), address, port]
    }

    /// The statements that send a connection to a target; `remember` is for how long, in seconds.
    fn send(&self, target: &Target, remember: Option<u32>) -> Vec<Statement> {
        let remember = remember.map(|seconds| Statement::Update {
            fields: self.affinity_key(target),
            set: Set::Affinity.name().to_owned(),
            timeout_ms: u64::from(seconds) * 1000,
        });
        let dnat = Statement::Dnat(NatTarget::Fixed(target.address, Some(target.port)));
        remember.into_iter().chain([dnat]).collect()
    }

    fn hashes(&self) -> bool {
        self.port.balance == Balance::SourceHash && self.targets.len() > 1
    }

    /// The set or map that says which target has which bucket.
    fn buckets(&self) -> Option<Set> {
        let name = |kind: &str| {
            let local = if self.pool == Pool::Local { "-local" } else { "" };
            name::pool(&format!("{kind}{local}"), &self.identity())
        };
        self.hashes().then(|| match self.port.affinity {
            None => Set::Hash(name("hash")),
            Some(_) => Set::HashMembers(name("hash-members")),
        })
    }

    fn hash(&self) -> Field {
        let modulus = spread::buckets(self.targets.len());
        let ipv6 = self.port.family == IpFamily::V6;
        Field::SourceHash { ipv6, modulus, seed: spread::SEED }
    }

    /// One rule a target that chooses it.
    fn choices(&self, remember: Option<u32>) -> Vec<Rule> {
        let left = (1..=u32::try_from(self.targets.len()).unwrap_or(u32::MAX)).rev();
        let choice = |(left, target)| {
            let condition = match self.buckets() {
                Some(set) => {
                    let fields = [self.hash()].into_iter().chain(constants(target)).collect();
                    let set = set.name().to_owned();
                    Some(Statement::Match(Match::InSet { fields, set, negate: false }))
                }
                None => (left > 1).then(|| number_is_zero(self.port.balance, left)),
            };
            rule(condition.into_iter().chain(self.send(target, remember)))
        };
        left.zip(self.targets).map(choice).collect()
    }
}

/// The rules of the chain.
pub(super) fn rules(own: &Own<'_>) -> Vec<Rule> {
    let Some(seconds) = own.port.affinity else {
        return match own.buckets() {
            Some(map) => {
                let (fields, map) = (vec![own.hash()], map.name().to_owned());
                let to = NatTarget::Map { fields, map, ipv6: own.port.family == IpFamily::V6 };
                vec![rule([Statement::Dnat(to)])]
            }
            None => own.choices(None),
        };
    };
    let again = own.targets.iter().map(|target| {
        let known = Statement::Match(Match::InSet {
            fields: own.affinity_key(target),
            set: Set::Affinity.name().to_owned(),
            negate: false,
        });
        rule([known].into_iter().chain(own.send(target, Some(seconds))))
    });
    let mut rules = again.collect::<Vec<_>>();
    rules.extend(own.choices(Some(seconds)));
    rules.extend(own.choices(None));
    rules
}

/// The set or map of buckets, with its elements.
pub(super) fn elements(own: &Own<'_>) -> Option<(Set, Vec<Element>)> {
    let set = own.buckets()?;
    let owners = spread::table(own.targets, spread::buckets(own.targets.len()));
    let element = |(bucket, owner): (u32, u16)| {
        let target = own.targets.get(usize::from(owner))?;
        let data = [target.address.into(), RegValue::Port(target.port)];
        let bucket = RegValue::Mark(bucket);
        let (key, value) = match own.port.affinity {
            Some(_) => ([bucket].into_iter().chain(data).collect(), None),
            None => (vec![bucket], Some(ElementValue::Data(data.to_vec()))),
        };
        Some(Element { key: Key::Exact(key), value, comment: None })
    };
    let elements = (0..).zip(owners).filter_map(element).collect();
    Some((set, elements))
}

/// A target as components of a key.
fn constants(target: &Target) -> [Field; 2] {
    let address = match target.address {
        IpAddr::V4(address) => Const::V4(address),
        IpAddr::V6(address) => Const::V6(address),
    };
    [Field::Const(address), Field::Const(Const::Port(target.port))]
}

fn number_is_zero(balance: Balance, modulus: u32) -> Statement {
    let field = match balance {
        Balance::Random | Balance::SourceHash => Field::Random { modulus, offset: 0 },
        Balance::RoundRobin => Field::Turn { modulus, offset: 0 },
    };
    Statement::Match(Match::Cmp { field, negate: false, value: RegValue::Mark(0) })
}

fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}
