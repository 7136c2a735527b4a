//! Which nodes may be deleted: those that are gone for good and are in the cluster store still.

use crate::state::State;

/// What is said of a node that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none of this name.
    Unknown,
    /// It is gone, and still has its parts of the cluster network.
    Gone,
    /// It stays: why, with the remedy.
    Stays(String),
}

/// What a node is by what this one knows. `held`: its record is missing, and it may live.
pub(super) fn standing(state: &State, name: &str, held: bool) -> Standing {
    if name == state.node.name {
        let remedy = match state.cluster {
            Some(_) => {
                "to take it out of the cluster, stop causewayd here and run `causewayd leave`"
            }
            None => "to remove what causewayd made here, stop it and run `causewayd cleanup`",
        };
        return Standing::Stays(format!("it is this node, which lives; {remedy}"));
    }
    let Some(peer) = state.peers.get(name) else { return Standing::Unknown };
    if let Some(path) = &state.settings.peers_file {
        return Standing::Stays(format!("it comes from {}: remove it there", path.display()));
    }
    if held {
        return Standing::Stays(
            "it was heard of before the cluster store was away and may live; try again in a minute"
                .to_owned(),
        );
    }
    match peer.record {
        Some(_) => Standing::Stays(
            "it lives; stop causewayd there and run `causewayd leave` on it".to_owned(),
        ),
        None => Standing::Gone,
    }
}
