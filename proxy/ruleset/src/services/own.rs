//! Chains of pools that more than chance decides for: session affinity, round robin, source hash,
//! and endpoints with several ports.
//!
//! ```text
//! ip saddr . TARGET @affinity    update @affinity { ip saddr . TARGET timeout T }  meta l4proto P dnat to EP:PORT
//! numgen random mod n == 0       update @affinity { ip saddr . TARGET timeout T }  meta l4proto P dnat to EP:PORT
//! numgen random mod n - 1 == 0   ...
//! ```
//!
//! TARGET is a number that stands for the service port with one of its endpoints, see
//! [`Own::number`]. The protocol is compared, though only packets of this one come here, as nft
//! loads no port in a `dnat` without it.
//!
//! The first kind, one rule per endpoint, finds where a client went before; it goes with its
//! endpoint, so the client moves at once. The second kind chooses: with `numgen inc` in the place
//! of chance the same rules go round strictly, as each rule sees just the connections that those
//! before it leave. If the affinity set is full a rule that remembers ends early, so the same
//! choices follow once more without.
//!
//! Source hash is one rule, `dnat to jhash ip saddr mod M seed SEED . meta l4proto map @hash-... : PORT`;
//! with affinity or several ports it is a choice, `jhash ip saddr mod M seed SEED . TARGET
//! @hash-members-...`.

use causeway_model::{Balance, IpFamily, ObjectKey};

use super::layout::{Set, rule, saddr};
use crate::plan::{Pool, PortPlan, Target};
use crate::{
    Element, ElementValue, Field, Key, Match, NatPort, NatTarget, RegValue, Rule, Statement, name,
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

    /// What stands for the service port with a target, the same at all its frontends (row 26). If
    /// two of them have one number a client that one of them knows counts as known to both, which
    /// only decides which endpoint it gets.
    fn number(&self, target: &Target) -> u32 {
        let [namespace, name, port, protocol] = self.identity();
        let (address, to_port) = (target.address.to_string(), target.port.to_string());
        let parts = [namespace, name, port, protocol, &address, &to_port];
        let [high, _] = halves(name::hash_parts(&parts));
        high.max(1)
    }

    fn affinity_key(&self, target: &Target) -> Vec<Field> {
        vec![saddr(self.port.family), Field::Const(self.number(target))]
    }

    /// The statements that send a connection to a target; `remember` is for how long, in seconds.
    fn send(&self, target: &Target, remember: Option<u32>) -> Vec<Statement> {
        let remember = remember.map(|seconds| Statement::Update {
            fields: self.affinity_key(target),
            set: Set::Affinity.name().to_owned(),
            timeout_ms: u64::from(seconds) * 1000,
        });
        let dnat = Statement::Dnat(NatTarget::Fixed(target.address, Some(target.port)));
        remember.into_iter().chain([self.protocol(), dnat]).collect()
    }

    fn protocol(&self) -> Statement {
        let value = RegValue::Proto(self.port.protocol.number());
        Statement::Match(Match::Cmp { field: Field::L4Proto, negate: false, value })
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
        self.hashes().then(|| match (self.port.affinity, one_port(self.targets)) {
            (None, Some(_)) => Set::Hash(name("hash")),
            (Some(_), _) | (_, None) => Set::HashMembers(name("hash-members")),
        })
    }

    fn hash(&self) -> Field {
        let modulus = spread::buckets(self.targets.len());
        let ipv6 = self.port.family == IpFamily::V6;
        Field::SourceHash { ipv6, modulus, seed: spread::SEED }
    }

    /// One rule per target that chooses it.
    fn choices(&self, remember: Option<u32>) -> Vec<Rule> {
        let left = (1..=u32::try_from(self.targets.len()).unwrap_or(u32::MAX)).rev();
        let choice = |(left, target)| {
            let condition = match self.buckets() {
                Some(set) => {
                    let fields = vec![self.hash(), Field::Const(self.number(target))];
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
        let (Some(Set::Hash(map)), Some(port)) = (own.buckets(), one_port(own.targets)) else {
            return own.choices(None);
        };
        let (fields, port) = (vec![own.hash(), Field::L4Proto], NatPort::Fixed(port));
        let to = NatTarget::Apart { fields, map, ipv6: own.port.family == IpFamily::V6, port };
        return vec![rule([own.protocol(), Statement::Dnat(to)])];
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
        let (rest, value) = if matches!(set, Set::Hash(_)) {
            let value = ElementValue::Data(vec![target.address.into()]);
            (RegValue::Proto(own.port.protocol.number()), Some(value))
        } else {
            (RegValue::Mark(own.number(target)), None)
        };
        let key = Key::Exact(vec![RegValue::Number(bucket), rest]);
        Some(Element { key, value, comment: None })
    };
    let elements = (0..).zip(owners).filter_map(element).collect();
    Some((set, elements))
}

/// The port of all targets; `None` if they have several.
pub(super) fn one_port(targets: &[Target]) -> Option<u16> {
    let port = targets.first()?.port;
    targets.iter().all(|target| target.port == port).then_some(port)
}

fn number_is_zero(balance: Balance, modulus: u32) -> Statement {
    let field = match balance {
        Balance::Random | Balance::SourceHash => Field::Random { modulus, offset: 0 },
        Balance::RoundRobin => Field::Turn { modulus, offset: 0 },
    };
    Statement::Match(Match::Cmp { field, negate: false, value: RegValue::Number(0) })
}

fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}
