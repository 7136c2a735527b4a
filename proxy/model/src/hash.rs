//! FNV-1a: a hash that is the same in every process, for searches and compact indices. Equal hashes
//! of different things are expected everywhere it is used.

use std::hash::Hasher as _;

use fnv::FnvHasher;

/// A hash under way.
#[derive(Default)]
pub(crate) struct Fnv(FnvHasher);

impl Fnv {
    /// Takes in a text and its end.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.write(text.as_bytes());
        self.0.write(&[0xff]);
    }

    /// The hash of what was taken in.
    pub(crate) fn value(&self) -> u64 {
        let hash = self.0.finish();
        // The low bits of FNV mix badly; ranges are cut out of them.
        (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Health-check ports of services are cut out of it, and stay across versions.
    #[test]
    fn values_never_change() {
        let mut hash = Fnv::default();
        assert_eq!(hash.value(), 37_560_289_290_734_390);
        hash.text("default");
        hash.text("web");
        assert_eq!(hash.value(), 27_789_697_014_933_802);
    }
}
