//! FNV-1a: a hash that is the same in every process, for searches and compact indices. Equal hashes
//! of different things are expected everywhere it is used.

/// A hash under way.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Takes in a text and its end.
    pub(crate) fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash of what was taken in.
    pub(crate) fn value(&self) -> u64 {
        // The low bits of FNV mix badly; ranges are cut out of them.
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
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
