//! Names and owner comments. Every name of a kernel object comes from here.
//!
//! An owner comment identifies an attachment: `<network hash>-<attachment hash> <readable>`, at
//! most 128 bytes, which is what `nft` accepts for a comment. Hashes come first, so that
//! truncating the readable part never makes two owners equal; the network hash stands alone so
//! that GC finds the elements of one network by prefix.

/// Owner comment of an attachment, for rules and elements.
pub fn owner(network: &str, container_id: &str, ifname: &str) -> String {
    let _ = (network, container_id, ifname);
    todo!()
}

/// The prefix that every [`owner`] of `network` starts with.
pub fn owner_network_prefix(network: &str) -> String {
    let _ = network;
    todo!()
}
