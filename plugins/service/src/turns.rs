//! Attachments of one container that publish one host port: go-cni hands the same mappings to all
//! networks of a container. The earliest ADD serves; the next one takes over with its DEL. Pure.

use causeway_host::RecordKey;

use crate::mapping::Binding;
use crate::record::Record;

/// `record` with the mappings that it carries out itself while all of `siblings`, records of the same
/// container, are there.
pub(crate) fn in_force(
    key: &RecordKey,
    record: &Record,
    siblings: &[(RecordKey, Record)],
) -> Record {
    let earlier = |other: &&(RecordKey, Record)| {
        let (its_key, its) = *other;
        its_key != key && !its.again.leaving && (its.again.turn, its_key) < (record.again.turn, key)
    };
    let earlier: Vec<&Record> = siblings.iter().filter(earlier).map(|(_, its)| its).collect();
    let mut own = record.clone();
    own.bindings.retain(|one| !earlier.iter().any(|its| serves(its, record, one)));
    own
}

/// The turn of an attachment that is added beside `siblings`.
pub(crate) fn next(siblings: &[(RecordKey, Record)]) -> u32 {
    siblings.iter().map(|(_, its)| its.again.turn).max().map_or(0, |last| last.saturating_add(1))
}

/// Whether `its` carries out mapping `one` of `own` too: for the same packets, by the same backend.
fn serves(its: &Record, own: &Record, one: &Binding) -> bool {
    let ipv6 = one.target.is_ipv6();
    let words = |record: &Record| match ipv6 {
        false => (record.conditions_v4.clone(), record.again.conditions_v4.clone()),
        true => (record.conditions_v6.clone(), record.again.conditions_v6.clone()),
    };
    let unconditional = words(its) == (None, Vec::new());
    its.backend == own.backend
        && (unconditional || words(its) == words(own))
        && its.bindings.iter().any(|binding| binding.serves(one))
}

#[cfg(test)]
mod tests;
