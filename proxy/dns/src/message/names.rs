//! Names in a message that is being written: what stands there once is pointed to from then on.
//!
//! hickory-proto's own encoder ends compressing with the 120th name of a message, so that 4,093
//! addresses do not fit into one (row D-41); this one has no such end, and its cost for each name
//! is bounded.

use hickory_proto::rr::Name;

/// A pointer has 14 bits (RFC 1035 section 4.1.4).
const FARTHEST: usize = 0x3FFF;

/// How many places are remembered. Each name is compared with so many at most.
const PLACES: usize = 64;

/// The places of the names that were written, with their labels to the root.
#[derive(Debug, Default)]
pub(super) struct Names {
    places: Vec<Suffix>,
    /// Places looked at, which is what names cost beside their own length.
    #[cfg(test)]
    pub(super) looked_at: std::cell::Cell<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Suffix {
    /// Of the labels from here to the root.
    hash: u32,
    at: u16,
}

impl Names {
    /// How many places are remembered.
    pub(super) fn mark(&self) -> usize {
        self.places.len()
    }

    /// Forgets places that were remembered after the mark.
    pub(super) fn back_to(&mut self, mark: usize) {
        self.places.truncate(mark);
    }

    /// Writes a name, as a pointer as far as it stands there already in the same case (row D-19).
    pub(super) fn write(&mut self, out: &mut Vec<u8>, name: &Name) {
        let mut hashes = [0; 128];
        let count = hash_each(name, &mut hashes);
        for (index, (label, hash)) in name.iter().zip(&hashes[..count]).enumerate() {
            if let Some(at) = self.find(out, name, index, *hash) {
                out.extend_from_slice(&(0xC000 | at).to_be_bytes());
                return;
            }
            self.remember(out.len(), *hash);
            push_label(out, label);
        }
        out.push(0);
    }

    /// Writes a name in full: where pointers are not allowed (RFC 2782, RFC 3597). Others may point
    /// to it.
    pub(super) fn write_in_full(&mut self, out: &mut Vec<u8>, name: &Name) {
        let mut hashes = [0; 128];
        let count = hash_each(name, &mut hashes);
        for (label, hash) in name.iter().zip(&hashes[..count]) {
            self.remember(out.len(), *hash);
            push_label(out, label);
        }
        out.push(0);
    }

    fn remember(&mut self, at: usize, hash: u32) {
        if at <= FARTHEST && self.places.len() < PLACES {
            #[expect(clippy::cast_possible_truncation, reason = "compared with 14 bits above")]
            self.places.push(Suffix { hash, at: at as u16 });
        }
    }

    /// Where the labels of `name` from the one of this index on stand.
    fn find(&self, out: &[u8], name: &Name, index: usize, hash: u32) -> Option<u16> {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + self.places.len());
        let alike = self.places.iter().filter(|place| place.hash == hash);
        let mut alike = alike.filter(|place| stands(out, place.at.into(), name.iter().skip(index)));
        alike.next().map(|place| place.at)
    }
}

/// Whether these labels and then the root stand at a place. Pointers lead backwards only.
fn stands<'a>(out: &[u8], mut at: usize, labels: impl Iterator<Item = &'a [u8]>) -> bool {
    for label in labels {
        at = behind_pointers(out, at);
        let end = at + 1 + label.len();
        if out.get(at).copied().map(usize::from) != Some(label.len())
            || out.get(at + 1..end) != Some(label)
        {
            return false;
        }
        at = end;
    }
    out.get(behind_pointers(out, at)) == Some(&0)
}

fn behind_pointers(out: &[u8], mut at: usize) -> usize {
    while let Some([high, low]) = out.get(at..at + 2)
        && *high >= 0xC0
    {
        at = usize::from(high & 0x3F) << 8 | usize::from(*low);
    }
    at
}

fn push_label(out: &mut Vec<u8>, label: &[u8]) {
    // `Name` holds no label of more than 63 bytes.
    out.push(u8::try_from(label.len()).unwrap_or(0));
    out.extend_from_slice(label);
}

/// A hash for each label with those behind it; how many there are.
fn hash_each(name: &Name, hashes: &mut [u32; 128]) -> usize {
    let count = name.iter().len().min(hashes.len());
    let mut hash = 0x811C_9DC5_u32;
    for (label, place) in name.iter().rev().zip(hashes[..count].iter_mut().rev()) {
        for byte in label {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
        hash = (hash ^ 0x100).wrapping_mul(0x0100_0193);
        *place = hash;
    }
    count
}
