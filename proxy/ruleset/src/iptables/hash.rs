//! Source-hash balancing: five digits of a source make its bucket.
//!
//! Of an IPv4 address a digit is a hash by `xt_cluster`, each with another seed. Of an IPv6 address
//! that match hashes the first 32 bits alone (it takes a count of words for one of bytes), which all
//! containers have in common; there a digit is two bits, from where addresses of one place differ.

use std::net::{IpAddr, Ipv6Addr};

use causeway_model::IpFamily;

use crate::spread;

/// Buckets: five digits of four values.
pub const BUCKETS: u32 = 1024;

/// Values of a digit. `xt_cluster` has up to 32, but of masks above 32 `iptables-restore` refuses
/// what `iptables-save` prints: whoever restores a saved ruleset would be left without one.
pub(super) const VALUES: u32 = 4;

/// Seeds of the hashes. Digits of pi, no secret.
const SEEDS: [u32; 5] = [spread::SEED, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xa409_3822];

/// Where the bits of IPv6 digits are: the lowest of the interface, then of the subnet.
const SHIFTS: [u32; 5] = [0, 2, 4, 6, 64];

/// A digit of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Digit {
    /// A hash with this seed.
    Hash(u32),
    /// Two bits, from this one on.
    Bits(u32),
}

/// The bucket of a source: what the rules of a source-hash service compute (`xt_cluster_mt` in
/// net/netfilter/xt_cluster.c is a hash of the source address alone).
pub fn bucket(source: IpAddr) -> u32 {
    let digits = digits(IpFamily::of(source)).into_iter();
    digits.map(|digit| digit.of(source)).fold(0, |bucket, value| bucket * VALUES + value)
}

/// The digits, the highest first.
pub(super) fn digits(family: IpFamily) -> [Digit; 5] {
    match family {
        IpFamily::V4 => SEEDS.map(Digit::Hash),
        IpFamily::V6 => SHIFTS.map(Digit::Bits),
    }
}

impl Digit {
    fn of(self, source: IpAddr) -> u32 {
        match (self, source) {
            (Self::Bits(shift), IpAddr::V6(source)) => {
                let bits = source.to_bits() >> shift & u128::from(VALUES - 1);
                u32::try_from(bits).expect("two bits")
            }
            (Self::Hash(seed), _) => spread::seeded_bucket(source, VALUES, seed),
            (Self::Bits(_), IpAddr::V4(_)) => 0,
        }
    }

    /// Conditions of which one holds if the value is in the mask.
    pub(super) fn conditions(self, mask: u32) -> Vec<String> {
        match self {
            Self::Hash(seed) => vec![format!(
                "-m cluster --cluster-local-nodemask 0x{mask:08x} --cluster-total-nodes {VALUES} \
                 --cluster-hash-seed 0x{seed:08x}"
            )],
            Self::Bits(shift) => {
                let at = |bits: u32| Ipv6Addr::from_bits(u128::from(bits) << shift);
                let values = (0..VALUES).filter(|value| mask >> value & 1 == 1);
                values.map(|value| format!("-s {}/{}", at(value), at(VALUES - 1))).collect()
            }
        }
    }
}
