//! What the kernel should hold: traffic plan, typed rule IR, names, changes, text dump, packet trace,
//! renderers for nftables and iptables.
//!
//! Pure (invariant I1). The IR says what nft's language says, one variant per thing that Causeway
//! uses; `causeway-nft` turns it into netlink and back, [`text`] into nft's syntax.
#![forbid(unsafe_code)]

pub mod address_table;
mod change;
pub mod forward;
pub mod iptables;
mod ir;
pub mod name;
pub mod owned;
pub mod plan;
pub mod services;
pub mod spread;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod trace;
pub mod tunnel;
mod types;
pub mod untracked;

/// The mark bit of replies to connections from 127.0.0.0/8. Links have a guard that lets nothing else
/// in for these addresses; on a bridge it sees packets after the NAT of `bridge-nf-call-iptables`.
/// `causeway-kernel` has the same.
pub const LOCALHOST_REPLY: u32 = 0x1000;

/// What plans speak of.
pub use causeway_model as model;
pub use change::{Batch, Op};
pub use ir::{
    BaseChain, ChainSpec, DYNAMIC_SIZE, DataType, Element, ElementValue, Family, Field, Hook, Key,
    MapTarget, Match, NatPort, NatTarget, RegValue, Rule, SetSpec, Statement, TableId, TableState,
    Verdict,
};
