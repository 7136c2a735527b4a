//! nftables rendering of a [`Plan`]: tables `ip causeway_services` and `ip6 causeway_services`.
//!
//! The rules are few and follow from the [`PlanContext`](crate::plan::PlanContext); services, endpoints and
//! policies are elements of maps and sets, so a change is elements alone and the kernel validates
//! nothing again. (One verdict map with an element per service costs 10 ms per change at 45,000:
//! the kernel walks it.) Every rule is one that `nft list ruleset` of 1.0.6 can print, and what it
//! prints loads again with the same meaning: a lookup whose result feeds another lookup makes it
//! abort, a map from numbers to an address with a port and a bare constant in a lookup are not
//! loaded.
//!
//! ```text
//! guard (filter, -300)  iifname != lo ip daddr 127.0.0.0/8 drop       (localhost node ports, CVE-2020-8558)
//! translated (filter, 0) ip daddr 127.0.0.0/8 iifname != lo ct direction original drop
//! replies (filter, -90) ip daddr 127.0.0.0/8 ct direction reply mark 0x1000        (for the guard of links)
//! output (nat, -100)    ip daddr @cluster-ips mark; jump services     (the node itself is outside the cluster)
//! prerouting (-100)     jump services
//! services              ip daddr @cluster-ips goto cluster
//!                       ip daddr . meta l4proto . th dport @externals goto external
//!                       meta l4proto . th dport @nodeports [ip daddr @nodeport-ips] fib daddr type local goto nodeport
//!                       ip daddr in the service networks drop          (row 15, S-20)
//! cluster               ip saddr not in the cluster networks mark; goto pool
//! external, nodeport    what @host-ports or @host-port-addresses has: return, it is a container's host port
//! external              @restricted and not @allowed drop; @local-policy goto external-local; mark; goto pool
//! external-local        from this node or ip saddr @containers: mark, goto pool
//!                       from the cluster networks: goto pool; goto pool-local
//! pool                  ip daddr . meta l4proto . th dport vmap @own
//!                       dnat to ip daddr . meta l4proto . th dport . numgen random mod N offset N<<16 map @endpoints
//!                            : ip daddr . meta l4proto . th dport map @ports
//!                       ... N = 1..16; @drops drop; reject
//! postrouting (nat, 100) mark & 0x4000 != 0, not in the cluster networks, ip saddr @containers,
//!                       ip daddr @containers, ip saddr . ip daddr not @hairpin: clear the bit, return
//!                       mark & 0x4000 != 0: clear the bit, masquerade
//!                       ct status dnat ip saddr . ip daddr @hairpin masquerade
//! ```
//!
//! The bucket of an endpoint is `N << 16 | i`, so that the rule for another number of endpoints
//! finds nothing and the next one is tried. More than 16 endpoints have a chain for their number,
//! which all services with as many share. Pools with session affinity, round robin, source hash or
//! endpoints with several ports have chains of their own, see module `own`. `nodeport` mirrors `external` with keys
//! `meta l4proto . th dport` and maps `nodeport-*`; `*-local` are the pools of policy `Local`, which
//! end in drop. `containers` are those of this node; it is empty if all are in the cluster networks. The mark is bit 0x4000 alone, cleared before masquerading.

mod chains;
mod change;
mod content;
mod diff;
mod layout;
mod own;
#[cfg(test)]
mod tests;

use causeway_model::IpFamily;

use self::content::{Content, Shared};
pub(crate) use self::diff::table as difference;
use crate::plan::{Delta, Plan};
use crate::{Batch, TableId, TableState};

/// What the tables hold beyond the plan: how often shared elements and chains are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableMirror {
    shared: Shared,
}

/// The tables of a plan as the kernel reads them back (handles 0): for tests, dumps and diffs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `ip causeway_services`
    pub v4: TableState,
    /// `ip6 causeway_services`
    pub v6: TableState,
}

/// The table of a family.
pub fn table(family: IpFamily) -> TableId {
    layout::table(family)
}

impl TableMirror {
    /// The mirror of tables that hold the plan already.
    pub fn new(plan: &Plan) -> Self {
        Self { shared: content(plan).shared }
    }

    /// The transaction that makes both tables from nothing, replacing whatever is there.
    pub fn full(plan: &Plan) -> (Self, Batch) {
        let content = content(plan);
        let mirror = Self { shared: content.shared.clone() };
        let ops = change::create(&plan.facts, content);
        (mirror, Batch { ops, generation: None })
    }

    /// The transaction for a change of the plan. Every prefix of it keeps references valid (I5).
    /// Empty if nothing that the kernel holds changes.
    pub fn change(&mut self, delta: &Delta) -> Batch {
        let before =
            delta.services.iter().filter_map(|(key, old, _)| Some((key, &**old.as_ref()?)));
        let after = delta.services.iter().filter_map(|(key, _, new)| Some((key, &**new.as_ref()?)));
        let (mut before, mut after) = (Content::of(before), Content::of(after));
        if let Some((old, new)) = delta.here.as_deref() {
            before.here(old);
            after.here(new);
        }
        Batch { ops: change::replace(&mut self.shared, before, after), generation: None }
    }
}

fn content(plan: &Plan) -> Content {
    let mut content = Content::of(plan.services.iter().map(|(key, service)| (key, &**service)));
    content.here(&plan.here);
    content
}

/// The tables of a plan.
pub fn compile(plan: &Plan) -> Tables {
    diff::tables(&plan.facts, content(plan))
}

/// The transaction that turns what exists into what is wanted, element by element: adoption
/// and repair without a gap. Dynamic sets keep their elements. Empty if equal (I4).
///
/// `actual` holds an empty table if one is absent. A table whose sets or base chains have
/// another shape, as from another version, is recreated as a whole.
pub fn diff(actual: Option<&Tables>, wanted: &Tables) -> Batch {
    let none = Tables::default();
    let actual = actual.unwrap_or(&none);
    let mut ops = diff::table(&layout::table(IpFamily::V4), &actual.v4, &wanted.v4);
    ops.extend(diff::table(&layout::table(IpFamily::V6), &actual.v6, &wanted.v6));
    Batch { ops, generation: None }
}
