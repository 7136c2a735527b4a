//! Source-hash balancing: sources to buckets as the kernel does it, buckets to endpoints so that
//! few of them move when endpoints come and go.

use std::net::IpAddr;

use crate::name;
use crate::plan::Target;

/// Seed of the kernel's hash: `jhash ip saddr mod M seed SEED`. Digits of pi, no secret.
pub const SEED: u32 = 0x243f_6a88;

/// Buckets of a pool of up to [`FEW_TARGETS`] endpoints.
pub const FEW_BUCKETS: u32 = 1024;

/// Buckets of a larger pool.
pub const MANY_BUCKETS: u32 = 16_384;

/// With more endpoints, a tenth of [`FEW_BUCKETS`] for each is too coarse for equal shares.
pub const FEW_TARGETS: usize = 100;

/// How many buckets a pool of so many endpoints has.
pub fn buckets(targets: usize) -> u32 {
    if targets > FEW_TARGETS { MANY_BUCKETS } else { FEW_BUCKETS }
}

/// The bucket of a source among `buckets`: what nft's `jhash ip saddr mod BUCKETS seed SEED` (or
/// `ip6 saddr`) yields on this machine (`nft_jhash_eval` in net/netfilter/nft_hash.c).
pub fn bucket(source: IpAddr, buckets: u32) -> u32 {
    seeded_bucket(source, buckets, SEED)
}

/// The bucket of a source under another seed.
pub(crate) fn seeded_bucket(source: IpAddr, buckets: u32, seed: u32) -> u32 {
    let hash = match source {
        IpAddr::V4(address) => jhash(&address.octets(), seed),
        IpAddr::V6(address) => jhash(&address.octets(), seed),
    };
    scale(hash, buckets)
}

/// The owner of each of `buckets` buckets, as index into `targets`: the one that scores highest
/// (rendezvous hashing), so one that leaves gives its own buckets away and nothing else moves.
/// Empty if there are no targets.
pub fn table(targets: &[Target], buckets: u32) -> Vec<u16> {
    if targets.is_empty() {
        return Vec::new();
    }
    let hashes = targets.iter().map(target_hash).collect::<Vec<_>>();
    (0..u64::from(buckets)).map(|bucket| owner(bucket, &hashes)).collect()
}

/// Among equal scores the first.
fn owner(bucket: u64, hashes: &[u64]) -> u16 {
    let bucket = mix(bucket);
    let mut best = (mix(hashes[0] ^ bucket), 0);
    for (hash, index) in hashes.iter().zip(0..=u16::MAX).skip(1) {
        let score = mix(hash ^ bucket);
        if score > best.0 {
            best = (score, index);
        }
    }
    best.1
}

fn target_hash(target: &Target) -> u64 {
    let mut input = match target.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    input.extend_from_slice(&target.port.to_be_bytes());
    name::hash(&input)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators): every input bit reaches every output bit. Large pools need 16 million scores.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// `reciprocal_scale` of include/linux/math.h.
fn scale(value: u32, limit: u32) -> u32 {
    u32::try_from((u64::from(value) * u64::from(limit)) >> 32).expect("below the limit")
}

/// `jhash` of include/linux/jhash.h. The kernel reads whole blocks in the machine's byte order and
/// the rest byte by byte from the lowest.
fn jhash(key: &[u8], seed: u32) -> u32 {
    let length = u32::try_from(key.len()).expect("an address is short");
    let start = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    let mut state = [start; 3];
    let mut rest = key;
    while rest.len() > 12 {
        let (block, after) = rest.split_at(12);
        for (word, bytes) in state.iter_mut().zip(block.chunks_exact(4)) {
            let bytes = bytes.try_into().expect("four bytes");
            *word = word.wrapping_add(u32::from_ne_bytes(bytes));
        }
        jhash_mix(&mut state);
        rest = after;
    }
    if rest.is_empty() {
        return state[2];
    }
    for (word, bytes) in state.iter_mut().zip(rest.chunks(4)) {
        let part = bytes.iter().rev().fold(0, |part, byte| part << 8 | u32::from(*byte));
        *word = word.wrapping_add(part);
    }
    jhash_final(&mut state);
    state[2]
}

fn jhash_mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: &mut u32, z: &mut u32, rotation| {
        *x = x.wrapping_sub(*z) ^ z.rotate_left(rotation);
        *z = z.wrapping_add(*y);
    };
    step(a, b, c, 4);
    step(b, c, a, 6);
    step(c, a, b, 8);
    step(a, b, c, 16);
    step(b, c, a, 19);
    step(c, a, b, 4);
}

fn jhash_final([a, b, c]: &mut [u32; 3]) {
    let step =
        |x: &mut u32, y: &u32, rotation| *x = (*x ^ *y).wrapping_sub(y.rotate_left(rotation));
    step(c, b, 14);
    step(a, c, 11);
    step(b, a, 25);
    step(c, b, 16);
    step(a, c, 4);
    step(b, a, 14);
    step(c, b, 24);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nft's `jhash ip saddr mod 16384 seed 0x243f6a88` yields on Linux 6.18, x86-64.
    #[test]
    fn sources_fall_where_the_kernel_puts_them() {
        let bucket = |source: &str| bucket(source.parse().unwrap(), MANY_BUCKETS);
        assert_eq!(bucket("10.0.0.1"), 0x0ebe);
        assert_eq!(bucket("10.0.0.2"), 0x2b99);
        assert_eq!(bucket("192.168.7.9"), 0x26ef);
        assert_eq!(bucket("fd00::1"), 0x1e0c);
        assert_eq!(bucket("2001:db8::1234:5678"), 0x0d99);
    }

    fn targets(count: u16) -> Vec<Target> {
        let address = |i: u16| {
            let [high, low] = i.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        (0..count).map(|i| Target { address: address(i), port: 80, here: true }).collect()
    }

    #[test]
    fn buckets_are_shared_evenly() {
        for count in [2, 3, 10, 40, 100, 101, 500] {
            let targets = targets(count);
            let table = table(&targets, buckets(targets.len()));
            let fair = table.len() / targets.len();
            for index in 0..count {
                let share = table.iter().filter(|owner| **owner == index).count();
                assert!(share > 0 && share < fair * 3, "{index} of {count}: {share} of {fair}");
            }
        }
    }

    #[test]
    fn one_that_leaves_gives_away_its_own_buckets_alone() {
        let all = targets(10);
        let full = table(&all, FEW_BUCKETS);
        for gone in 0..all.len() {
            let mut rest = all.clone();
            rest.remove(gone);
            let moved = full
                .iter()
                .zip(table(&rest, FEW_BUCKETS))
                .filter(|(before, after)| all[usize::from(**before)] != rest[usize::from(*after)]);
            let moved = moved.count();
            assert_eq!(moved, full.iter().filter(|owner| usize::from(**owner) == gone).count());
            assert!(moved > 60 && moved < 150, "{moved} of 1024 moved, a tenth is 102");
        }
    }

    #[test]
    fn nothing_and_one() {
        assert!(table(&[], FEW_BUCKETS).is_empty());
        assert_eq!(table(&targets(1), FEW_BUCKETS), [0; 1024]);
    }
}
