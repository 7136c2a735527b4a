//! Source-hash balancing by `xt_cluster`.

use std::net::IpAddr;

use crate::spread;

/// Buckets: four hashes of five values.
pub const BUCKETS: u32 = 625;

/// Values of a hash. More than five make masks above 32, which `iptables-restore` refuses though
/// `iptables-save` prints them: whoever restores a saved ruleset would be left without one.
pub(super) const VALUES: u32 = 5;

/// Seeds of the hashes. Digits of pi, no secret.
pub(super) const SEEDS: [u32; 4] = [spread::SEED, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];

/// The bucket of a source: what the rules of a source-hash service compute (`xt_cluster_mt` in
/// net/netfilter/xt_cluster.c: a hash of the source address alone).
pub fn bucket(source: IpAddr) -> u32 {
    let value = |seed| spread::seeded_bucket(source, VALUES, seed);
    SEEDS.into_iter().map(value).fold(0, |bucket, value| bucket * VALUES + value)
}

/// Sources whose hash has one of the values in the mask.
pub(super) fn matches(mask: u32, seed: u32) -> String {
    format!(
        "-m cluster --cluster-local-nodemask 0x{mask:08x} --cluster-total-nodes {VALUES} \
         --cluster-hash-seed 0x{seed:08x}"
    )
}
