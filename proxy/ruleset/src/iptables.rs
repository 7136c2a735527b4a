//! iptables rendering of a [`Plan`]: chains `CW-*` in the layout that the tutorials teach, as input
//! of `iptables-restore --noflush -w` (and `ip6tables-restore`).

use causeway_model::IpFamily;

use crate::plan::{Delta, Plan};

/// What iptables holds of the plan: names and texts of our chains, hashed.
#[derive(Clone, Debug, Default)]
pub struct Mirror {}

/// Input of one `iptables-restore` call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Which of the two programs.
    pub family: IpFamily,
    /// Its input, ending in `COMMIT`. Empty where there is nothing to do.
    pub text: String,
}

impl Mirror {
    /// Scripts that make all our chains whole, whatever of them is there (`saved`: output of
    /// `iptables-save` of each family, from which stale `CW-` chains are found and removed). The
    /// jumps from the built-in chains come first in them, once each.
    pub fn full(_plan: &Plan, _saved: &[(IpFamily, &str)]) -> (Self, Vec<Script>) {
        todo!()
    }

    /// Scripts for a change: only chains that are others now.
    pub fn change(&mut self, _plan: &Plan, _delta: &Delta) -> Vec<Script> {
        todo!()
    }

    /// Whether output of `iptables-save` holds every chain and jump that this mirror stands for.
    pub fn is_whole(&self, _saved: &[(IpFamily, &str)]) -> bool {
        todo!()
    }
}

/// Scripts that remove every chain, rule and jump of ours that `saved` holds; none where there is
/// nothing.
pub fn cleanup(_saved: &[(IpFamily, &str)]) -> Vec<Script> {
    todo!()
}
