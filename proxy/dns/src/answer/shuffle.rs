//! An even order of addresses for each answer (row D-41).

/// An irrational part of 2^64 (the golden ratio): its multiples lie evenly, however many there are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Numbers that follow from a seed.
#[derive(Debug)]
pub(super) struct Shuffle {
    seed: u64,
    state: u64,
}

impl Shuffle {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// Brings so many of the items to the front, chosen and ordered at random (Fisher and Yates). Of
    /// seeds that count up each item comes first equally often, more evenly than by chance: of 10,000
    /// answers with 15 items chance alone is off by a tenth.
    pub(super) fn order<T>(&mut self, items: &mut [T], front: usize) {
        for place in 0..front.min(items.len()) {
            let number = if place == 0 { self.seed.wrapping_mul(GOLDEN) } else { self.next() };
            items.swap(place, place + part(number, items.len() - place));
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A number below `count`, in proportion.
fn part(number: u64, count: usize) -> usize {
    let product = u128::from(number) * u128::try_from(count).unwrap_or(0);
    usize::try_from(product >> 64).unwrap_or(0)
}
