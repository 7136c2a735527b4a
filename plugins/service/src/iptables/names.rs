//! Names of the chains and comments that host ports have in iptables. Pure.

use std::fmt::Write as _;

use causeway_host::RecordKey;
use sha2::{Digest, Sha512};

/// Chain of all host ports.
pub(crate) const DNAT_CHAIN: &str = "CNI-HOSTPORT-DNAT";
/// What an attachment's chain starts with.
pub(crate) const DNAT_PREFIX: &str = "CNI-DN-";
/// Length of a chain's name.
const CHAIN_LENGTH: usize = 28;
/// Longest comment of the comment match.
const COMMENT_LENGTH: usize = 255;

/// How an attachment's rules are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Its chain.
    pub chain: String,
    /// Comment of the jumps to it.
    pub comment: String,
}

impl Names {
    /// For interface `eth0` upstream's names: the chain from network and container id, the comment
    /// `dnat name: ".." id: ".."`. Upstream has no place for the interface, so that a second
    /// attachment of a container to a network takes the first one's chain; other interfaces are
    /// part of both names here.
    pub(crate) fn of(key: &RecordKey) -> Self {
        let RecordKey { network, container_id, ifname } = key;
        // A slash is in no network name and no id.
        let (hashed, more) = if ifname == "eth0" {
            (format!("{network}{container_id}"), String::new())
        } else {
            (format!("{network}{container_id}/{ifname}"), format!(" if: \"{ifname}\""))
        };
        let digest = Sha512::digest(hashed);
        let mut chain = DNAT_PREFIX.to_owned();
        for byte in digest.iter().take(CHAIN_LENGTH / 2) {
            write!(chain, "{byte:02x}").expect("writing to a String");
        }
        chain.truncate(CHAIN_LENGTH);
        let prefix = Self::comment_prefix(network);
        let mut comment = format!("{prefix}\"{container_id}\"{more}");
        if comment.len() > COMMENT_LENGTH {
            let fits = |at: &usize| comment.is_char_boundary(*at);
            let end = (0..=COMMENT_LENGTH - 3).rev().find(fits).unwrap_or(0);
            comment.truncate(end);
            comment.push_str("...");
        }
        Self { chain, comment }
    }

    /// What the comments of a network's attachments start with.
    pub(crate) fn comment_prefix(network: &str) -> String {
        format!("dnat name: \"{network}\" id: ")
    }
}
