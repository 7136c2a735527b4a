//! An even order of addresses for each answer (row D-41).

/// Numbers that follow from a seed.
#[derive(Debug)]
pub(super) struct Shuffle {
    state: u64,
}

impl Shuffle {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Each order is as likely as any other (Fisher and Yates).
    pub(super) fn order<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A number below `count`. The upper half of a product is even to one in 2^32 for lists of this
    /// length.
    fn below(&mut self, count: usize) -> usize {
        let product = u128::from(self.next()) * u128::try_from(count).unwrap_or(0);
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
