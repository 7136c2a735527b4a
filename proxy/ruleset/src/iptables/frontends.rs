//! Addresses and node ports, and the rules that send them to the chains of their service port.
//!
//! Few of them stand in the top chain itself, as in the tutorials. Many are spread over chains by
//! network or range of ports: a packet passes tens of rules instead of thousands, and a change
//! writes one of these chains instead of all rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::{IpFamily, ObjectKey, Protocol};
use ipnetwork::IpNetwork;

use super::edit::Edit;
use super::port::Port;
use super::{Table, names, rule};
use crate::plan::{At, Frontend, PlanContext, ServicePlan};

/// So many stand in the top chain.
const FLAT_MAX: usize = 32;
/// Node ports of one chain.
const PORTS_MASK: u16 = !31;

/// A service with rules.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) key: ObjectKey,
    pub(super) plan: Arc<ServicePlan>,
}

/// A frontend: service, number of its port plan, number of the frontend.
#[derive(Clone, Debug)]
pub(super) struct FrontendRule {
    pub(super) owner: Arc<Owner>,
    pub(super) port: usize,
    pub(super) frontend: usize,
}

/// An address and port.
pub(super) type Address = (IpAddr, u16, Protocol);
/// A node port.
pub(super) type NodePort = (Protocol, u16);

/// Rules of the top chains of both tables.
#[derive(Debug, Default)]
pub(super) struct ChainRules {
    pub(super) nat: Vec<String>,
    pub(super) filter: Vec<String>,
}

/// Something that a connection goes to.
pub(super) trait Slot: Copy + Ord {
    /// The least slot of the same chain.
    fn bucket(self) -> Self;
    /// Name of the bucket's chain.
    fn chain(self) -> String;
    /// Condition of the bucket.
    fn covers(self) -> String;
    /// Condition of one slot, before and after the comment.
    fn condition(self) -> (String, String);
    /// What follows the last rule of a group of slots.
    fn close(self, frontend: &Frontend, lines: &mut ChainRules);
    /// Whether the slots are of one group.
    fn same_group(self, other: Self) -> bool;
}

/// The seats of one kind of slot.
#[derive(Clone, Debug)]
pub(super) struct FrontendTable<S> {
    rules: BTreeMap<S, FrontendRule>,
    buckets: BTreeMap<S, u32>,
}

impl<S> Default for FrontendTable<S> {
    fn default() -> Self {
        Self { rules: BTreeMap::new(), buckets: BTreeMap::new() }
    }
}

impl<S: Slot> FrontendTable<S> {
    pub(super) fn insert(&mut self, slot: S, rule: FrontendRule) {
        if self.rules.insert(slot, rule).is_none() {
            *self.buckets.entry(slot.bucket()).or_insert(0) += 1;
        }
    }

    pub(super) fn remove(&mut self, slot: S) {
        if self.rules.remove(&slot).is_none() {
            return;
        }
        let bucket = slot.bucket();
        if let Some(count) = self.buckets.get_mut(&bucket) {
            *count -= 1;
            if *count == 0 {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// Whether all rules stand in the top chain.
    pub(super) fn flat(&self) -> bool {
        self.rules.len() <= FLAT_MAX
    }

    /// The rules of the top chains, after the chains of the touched buckets are in `edit`.
    pub(super) fn render(
        &self,
        facts: &PlanContext,
        touched: &BTreeSet<S>,
        was_flat: bool,
        edit: &mut Edit<'_>,
    ) -> ChainRules {
        if self.flat() {
            for bucket in touched.iter().chain(self.buckets.keys()) {
                edit.delete(Table::Nat, bucket.chain());
                edit.delete(Table::Filter, bucket.chain());
            }
            return self.lines(facts, self.rules.iter());
        }
        let all = was_flat.then(|| self.buckets.keys().copied().collect::<BTreeSet<_>>());
        for bucket in all.as_ref().unwrap_or(touched) {
            let in_bucket =
                self.rules.range(*bucket..).take_while(|(slot, _)| slot.bucket() == *bucket);
            let ChainRules { nat, filter } = self.lines(facts, in_bucket);
            edit.put_unless_empty(Table::Nat, bucket.chain(), nat);
            edit.put_unless_empty(Table::Filter, bucket.chain(), filter);
        }
        let mut lines = ChainRules::default();
        for bucket in self.buckets.keys() {
            let chain = bucket.chain();
            let line = format!("{} -j {chain}", bucket.covers());
            if edit.will_have(Table::Filter, &chain) {
                lines.filter.push(line.clone());
            }
            lines.nat.push(line);
        }
        lines
    }

    fn lines<'a>(
        &self,
        facts: &PlanContext,
        rules: impl Iterator<Item = (&'a S, &'a FrontendRule)>,
    ) -> ChainRules
    where
        S: 'a,
    {
        let mut lines = ChainRules::default();
        let mut rules = rules.peekable();
        while let Some((slot, rule)) = rules.next() {
            let plan = &rule.owner.plan.ports[rule.port];
            let frontend = &plan.frontends[rule.frontend];
            let port = Port { facts, key: &rule.owner.key, plan };
            let (before, after) = slot.condition();
            let comment = rule::comment(&format!("{} {}", port.name(), what(frontend.at)));
            let write = |(send, last): (String, bool)| match last {
                true => format!("{before} {comment} {after} {send}"),
                false => format!("{before} {after} {send}"),
            };
            let sends = port.sends(frontend);
            let count = sends.len();
            lines.nat.extend(sends.into_iter().zip(1..).map(|(send, n)| write((send, n == count))));
            for refusal in port.refusals(frontend) {
                lines.filter.push(refused(&before, &after, &comment, &refusal));
            }
            if !rules.peek().is_some_and(|(next, _)| next.same_group(*slot)) {
                slot.close(frontend, &mut lines);
            }
        }
        lines
    }
}

/// Sources come first in a rule.
fn refused(before: &str, after: &str, comment: &str, refusal: &str) -> String {
    match refusal.strip_prefix("-s ").and_then(|rest| rest.split_once(' ')) {
        Some((source, target)) => format!("-s {source} {before} {comment} {after} {target}"),
        None => format!("{before} {comment} {after} {refusal}"),
    }
}

fn what(at: At) -> &'static str {
    match at {
        At::Cluster(..) => "cluster IP",
        At::External(..) => "external IP",
        At::NodePort(_) => "node port",
    }
}

impl Slot for Address {
    fn bucket(self) -> Self {
        (net_of(self.0).network(), 0, Protocol::Tcp)
    }

    fn chain(self) -> String {
        names::net(self.0)
    }

    fn covers(self) -> String {
        format!("-d {}", rule::net(net_of(self.0)))
    }

    fn condition(self) -> (String, String) {
        let (address, port, protocol) = self;
        let protocol = rule::protocol(protocol);
        let before = format!("-d {} -p {protocol}", rule::host(address));
        (before, format!("-m {protocol} --dport {port}"))
    }

    /// A cluster address is a service's alone: other ports of it are nobody's, also if the
    /// address is local (row 14).
    fn close(self, frontend: &Frontend, lines: &mut ChainRules) {
        if let At::Cluster(address, _) = frontend.at {
            let to = rule::host(address);
            lines.nat.push(format!("-d {to} -j ACCEPT"));
            lines.filter.push(format!("-d {to} {}", rule::reject(IpFamily::of(address))));
        }
    }

    fn same_group(self, other: Self) -> bool {
        self.0 == other.0
    }
}

impl Slot for NodePort {
    fn bucket(self) -> Self {
        (self.0, self.1 & PORTS_MASK)
    }

    fn chain(self) -> String {
        names::node_ports(self.0, self.1)
    }

    fn covers(self) -> String {
        let (protocol, first) = (rule::protocol(self.0), self.1);
        format!("-p {protocol} -m {protocol} --dport {first}:{}", first | !PORTS_MASK)
    }

    fn condition(self) -> (String, String) {
        let protocol = rule::protocol(self.0);
        (format!("-p {protocol}"), format!("-m {protocol} --dport {}", self.1))
    }

    fn close(self, _frontend: &Frontend, _lines: &mut ChainRules) {}

    fn same_group(self, _other: Self) -> bool {
        false
    }
}

/// The addresses that share a chain: the last 8 bits apart.
fn net_of(address: IpAddr) -> IpNetwork {
    let prefix = if address.is_ipv4() { 24 } else { 120 };
    IpNetwork::new(address, prefix)
        .and_then(|net| IpNetwork::new(net.network(), prefix))
        .expect("the prefix fits the family")
}
