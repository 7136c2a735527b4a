//! iptables rendering of a [`Plan`]: chains `CW-*` in the layout that the tutorials teach, as input
//! of `iptables-restore --noflush -w` (and `ip6tables-restore`). Programs that the caller needs:
//! these two, `iptables-save` and `ip6tables-save`.
//!
//! ```text
//! raw PREROUTING          -> CW-FIREWALL   guard of 127.0.0.0/8 (row 47), IPv4 only
//! filter INPUT            -> CW-FIREWALL   and of what was translated to it
//! mangle PREROUTING       -> CW-REPLIES    marks replies to 127.0.0.0/8 for the guard of links
//! nat PREROUTING, OUTPUT  -> CW-SERVICES   addresses and ports; last -m addrtype --dst-type LOCAL
//!                                          -> CW-NODEPORTS
//! nat POSTROUTING         -> CW-POSTROUTING   what is marked: mark off, MASQUERADE
//! filter INPUT, FORWARD, OUTPUT (new, not DNATed) -> CW-FILTER   REJECT and DROP
//! filter FORWARD          -> CW-FORWARD    what is marked, and DNATed connections, pass (row 51)
//!
//! CW-SVC-*  CW-SVL-*      the endpoints of pool Cluster, of pool Local
//! CW-SEP-*                an endpoint that may reach itself, or keeps clients
//! CW-EXT-*  CW-FW-*       by origin (external policy Local); by allowed source
//! CW-NET-*  CW-NP-*       many addresses or node ports, by network of 256, by 32 ports
//! CW-HSH-*                source-hash: a node of the tree of buckets
//! CW-MARK-MASQ  CW-MARK-OUTSIDE    mark 0x4000; mark sources outside the cluster networks
//! CW-MARK-PRIVATE  CW-HERE         mark this node's containers outside them; take the mark off
//!                                  towards containers of this node
//! ```
//!
//! Table nat decides: what it does not send to an endpoint it accepts, so that no later rule sends
//! it elsewhere. Table filter refuses what came through without DNAT, at the address it was sent
//! to; REJECT is not a target of table nat. Its rules for a cluster address stand as long as the
//! service, so there is no moment at which a packet leaves for the default route.
//!
//! A change writes only chains that have changed. Up to 32 addresses and ports stand in
//! CW-SERVICES itself; more are spread over chains by network, so that neither packets nor changes
//! pay for all services. (Rules inserted and deleted one by one in one long chain would write less,
//! and cost every packet the length of the chain.)
//!
//! Session affinity is `xt_recent`: one list per endpoint, shared by all frontends of the service
//! port. A list holds `ip_list_tot` clients (100 unless the module was loaded with more) and forgets
//! who was seen longest ago. Source-hash is a tree of chains over 1024 buckets, given to endpoints as in
//! [`crate::spread`]; [`hash_bucket`] computes the bucket: of IPv4 sources by `xt_cluster`, of IPv6
//! sources from bits of the address. The buckets differ from those of the nftables backend.
//!
//! If REJECT answers, the kernel must have a route to the address (the default route): a packet
//! without one is refused by routing, before table filter.

mod edit;
mod family_state;
mod fixed;
mod frontends;
mod hash;
mod lines;
mod names;
mod port;
mod rule;
mod saved;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use causeway_model::IpFamily;

use crate::plan::{Delta, Plan};
pub use hash::{BUCKETS as HASH_BUCKETS, bucket as hash_bucket};
pub use lines::{SavedLine, saved_lines, words};

use family_state::FamilyState;

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// What iptables holds of the plan: names and texts of our chains, hashed.
#[derive(Clone, Debug)]
pub struct ChainMirror {
    families: [FamilyState; 2],
}

/// Input of one `iptables-restore` call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Which of the two programs.
    pub family: IpFamily,
    /// Its input, ending in `COMMIT`. Empty if there is nothing to do.
    pub text: String,
}

impl ChainMirror {
    /// Scripts that make all our chains whole, whatever of them is there (`saved`: output of
    /// `iptables-save` of each family, from which stale `CW-` chains are found and removed). The
    /// jumps from the built-in chains come first in them, once each.
    pub fn full(plan: &Plan, saved: &[(IpFamily, &str)]) -> (Self, Vec<Script>) {
        let mut scripts = Vec::new();
        let families = FAMILIES.map(|family| {
            let (state, text) = FamilyState::full(family, plan, &saved_of(saved, family));
            scripts.push(Script { family, text });
            state
        });
        (Self { families }, scripts)
    }

    /// Scripts for a change: only chains that have changed. None of a family without change.
    pub fn change(&mut self, plan: &Plan, delta: &Delta) -> Vec<Script> {
        let mut scripts = Vec::new();
        for state in &mut self.families {
            let text = state.change(plan, delta);
            if !text.is_empty() {
                scripts.push(Script { family: state.family(), text });
            }
        }
        scripts
    }

    /// Whether both stand for the same chains with the same rules.
    pub fn is_like(&self, other: &Self) -> bool {
        self.families.iter().zip(&other.families).all(|(state, other)| state.is_like(other))
    }

    /// Whether output of `iptables-save` holds every chain, with as many rules as it was given, and
    /// every jump that this mirror stands for. A family without output is not whole.
    pub fn is_whole(&self, saved: &[(IpFamily, &str)]) -> bool {
        self.families.iter().all(|state| state.is_whole(&saved_of(saved, state.family())))
    }
}

/// Scripts that remove every chain, rule and jump of ours that `saved` holds; none if there is
/// nothing.
pub fn cleanup(saved: &[(IpFamily, &str)]) -> Vec<Script> {
    let of_family =
        |family| Script { family, text: family_state::cleanup(&saved_of(saved, family)) };
    FAMILIES.into_iter().map(of_family).filter(|script| !script.text.is_empty()).collect()
}

fn saved_of(saved: &[(IpFamily, &str)], family: IpFamily) -> saved::Saved {
    let mine = saved.iter().filter(|(other, _)| *other == family);
    let text = mine.map(|(_, text)| *text).collect::<Vec<_>>().join("\n");
    saved::parse(&text)
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
}

impl Table {
    const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

type ChainName = (Table, Box<str>);
/// Rules of chains, without `-A CHAIN `.
type Chains = BTreeMap<ChainName, Vec<String>>;
