//! IR to bytes and back.

pub(crate) mod batch;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod expr;
pub(crate) mod object;
pub(crate) mod set;
#[cfg(test)]
mod tests;
pub(crate) mod value;

use causeway_ruleset::Family;

use crate::uapi::{NFPROTO_BRIDGE, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6};

/// What no kernel could be told: types that do not fit, names too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(pub(crate) String);

/// Number of the register that starts at a slot of four bytes, as the kernel dumps it: the four
/// registers of 16 bytes are 1 to 4, other slots count from 8.
pub(crate) fn register(slot: u32) -> u32 {
    if slot.is_multiple_of(4) { 1 + slot / 4 } else { 8 + slot }
}

pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::Inet => NFPROTO_INET,
        Family::Ip => NFPROTO_IPV4,
        Family::Ip6 => NFPROTO_IPV6,
        Family::Bridge => NFPROTO_BRIDGE,
    }
}

pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::Inet => "inet",
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
        Family::Bridge => "bridge",
    }
}
