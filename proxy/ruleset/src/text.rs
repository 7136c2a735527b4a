//! nft syntax of the IR, for people, snapshots and `nft -c -f`.

use crate::{Batch, TableId, TableState};

/// The table as `nft list table` would print it (sorted; without handles).
pub fn table(id: &TableId, state: &TableState) -> String {
    let _ = (id, state);
    todo!()
}

/// The batch as input for `nft -f`.
pub fn batch(batch: &Batch) -> String {
    let _ = batch;
    todo!()
}
