//! The bytes of the sled store: keys and values, each value with a CRC-32 of its own at its end.
//!
//! sled splits a leaf at 17 entries, and its open is linear in the number of pages. So leases are
//! kept 16 addresses to an entry and the index of owners in 1024 buckets: 60,000 leases are some
//! 5,000 entries. Integers are big-endian, so that keys sort like addresses.
//!
//! | key | value |
//! |---|---|
//! | `m` | format, network, [`State`] |
//! | `l` family block | the slots of 16 consecutive addresses: leased or cooling down |
//! | `u` family block | a bit for each of 2048 consecutive addresses: leased or cooling down |
//! | `o` bucket | the addresses of the owners whose hash falls into the bucket |

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::net::IpAddr;

use fnv::FnvHasher;

use crate::range::{Family, number};
use crate::store::{Damage, Lease, Owner, State};

/// The format of everything here. Another number is refused (row F25: wrong version).
const FORMAT: u32 = 1;

/// log2 of the addresses in a block of slots.
const SLOT_BITS: u32 = 4;
/// log2 of the addresses in a bitmap.
const MAP_BITS: u32 = 11;
/// Bytes of a bitmap.
const MAP_BYTES: usize = 1 << (MAP_BITS - 3);
/// Number of owner buckets.
const BUCKETS: u64 = 1024;

pub(crate) const META_KEY: &[u8] = b"m";

/// What is not free about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It is leased.
    Leased(Lease),
    /// It is free; since when, `CLOCK_BOOTTIME` in milliseconds.
    Cooling(u64),
}

/// The slots of one block, by offset.
pub(crate) type Slots = BTreeMap<u8, Slot>;

fn family_byte(family: Family) -> u8 {
    match family {
        Family::V4 => b'4',
        Family::V6 => b'6',
    }
}

fn family_from(byte: u8) -> Result<Family, Damage> {
    match byte {
        b'4' => Ok(Family::V4),
        b'6' => Ok(Family::V6),
        other => Err(Damage(format!("family byte {other:#04x}"))),
    }
}

fn block_key(kind: u8, family: Family, block: u128) -> Vec<u8> {
    let mut key = vec![kind, family_byte(family)];
    let bytes = block.to_be_bytes();
    key.extend_from_slice(match family {
        Family::V4 => &bytes[12..],
        Family::V6 => &bytes,
    });
    key
}

/// The number of a block of slots, and the offset of `address` in it.
pub(crate) fn slot_of(address: u128) -> (u128, u8) {
    (address >> SLOT_BITS, low(address, SLOT_BITS))
}

fn low(address: u128, bits: u32) -> u8 {
    u8::try_from(address & ((1 << bits) - 1)).unwrap_or(u8::MAX)
}

/// Key of a block of slots.
pub(crate) fn slots_key(family: Family, block: u128) -> Vec<u8> {
    block_key(b'l', family, block)
}

/// The addresses that the bitmap with this key marks as taken.
///
/// # Errors
/// Not a bitmap.
pub(crate) fn map_addresses(key: &[u8], value: &[u8]) -> Result<Vec<IpAddr>, Damage> {
    let (family, block) = block_of(b'u', key)?;
    let map = Map::decode(value)?;
    let base = block << MAP_BITS;
    let taken = (base..=base | ((1 << MAP_BITS) - 1)).filter(|number| map.is_taken(*number));
    Ok(taken.map(|number| family.address(number)).collect())
}

/// First key of all blocks of slots, and the first key after them.
pub(crate) fn all_slots() -> std::ops::Range<&'static [u8]> {
    b"l"..b"m"
}

/// Family and first address of the block with this key.
pub(crate) fn slots_base(key: &[u8]) -> Result<(Family, u128), Damage> {
    let (family, block) = block_of(b'l', key)?;
    Ok((family, block << SLOT_BITS))
}

fn block_of(kind: u8, key: &[u8]) -> Result<(Family, u128), Damage> {
    let wrong = || Damage(format!("key {key:02x?}"));
    let [first, family, block @ ..] = key else { return Err(wrong()) };
    if *first != kind {
        return Err(wrong());
    }
    let family = family_from(*family)?;
    let block = match family {
        Family::V4 => block.try_into().map(|b| u128::from(u32::from_be_bytes(b))).ok(),
        Family::V6 => block.try_into().map(u128::from_be_bytes).ok(),
    };
    Ok((family, block.ok_or_else(wrong)?))
}

/// Key of the bitmap with number `block`.
pub(crate) fn map_key(family: Family, block: u128) -> Vec<u8> {
    block_key(b'u', family, block)
}

/// The number of the bitmap that holds `address`.
pub(crate) fn map_of(address: u128) -> u128 {
    address >> MAP_BITS
}

/// Which of 2048 addresses are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map(Vec<u8>);

impl Map {
    /// Nothing taken.
    pub(crate) fn new() -> Self {
        Self(vec![0; MAP_BYTES])
    }

    /// # Errors
    /// Not a bitmap.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let body = open(bytes)?;
        if body.len() != MAP_BYTES {
            return Err(Damage(format!("bitmap of {} bytes", body.len())));
        }
        Ok(Self(body.to_vec()))
    }

    /// The bytes, or `None` when nothing is taken.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        self.0.iter().any(|byte| *byte != 0).then(|| seal(self.0.clone()))
    }

    fn place(address: u128) -> (usize, u8) {
        let offset = usize::try_from(address & ((1 << MAP_BITS) - 1)).unwrap_or(0);
        (offset / 8, 1 << (offset % 8))
    }

    /// Marks `address` as taken or free.
    pub(crate) fn set(&mut self, address: u128, taken: bool) {
        let (byte, bit) = Self::place(address);
        if taken {
            self.0[byte] |= bit;
        } else {
            self.0[byte] &= !bit;
        }
    }

    fn is_taken(&self, address: u128) -> bool {
        let (byte, bit) = Self::place(address);
        self.0[byte] & bit != 0
    }

    /// The lowest free address of this bitmap's block from `first` to `last`.
    pub(crate) fn free(&self, first: u128, last: u128) -> Option<u128> {
        let end = last.min(first | ((1 << MAP_BITS) - 1));
        let mut next = first;
        while next <= end {
            let (byte, bit) = Self::place(next);
            if bit == 1 && self.0[byte] == u8::MAX {
                next = next.checked_add(8)?;
                continue;
            }
            if self.0[byte] & bit == 0 {
                return Some(next);
            }
            next = next.checked_add(1)?;
        }
        None
    }

    /// The first address after the block that holds `address`.
    pub(crate) fn after(address: u128) -> Option<u128> {
        (address | ((1 << MAP_BITS) - 1)).checked_add(1)
    }
}

/// Key of the bucket of `container_id`. The interface is not part of the hash: leases of old
/// host-local directories have none.
pub(crate) fn owner_key(container_id: &str) -> Vec<u8> {
    let bucket = hash(container_id.as_bytes()) % BUCKETS;
    let mut key = vec![b'o'];
    key.extend_from_slice(&bucket.to_be_bytes()[6..]);
    key
}

/// What tells the owners of one bucket apart, but for collisions.
pub(crate) fn owner_tag(container_id: &str) -> u32 {
    let bytes = hash(container_id.as_bytes()).to_be_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// FNV-1a, 64 bits, with a final mix, as its low bits alone are weak.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    let mut hash = hasher.finish();
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// The entries of a bucket: tag and address.
pub(crate) type Bucket = Vec<(u32, IpAddr)>;

/// # Errors
/// Not a bucket.
pub(crate) fn decode_bucket(bytes: &[u8]) -> Result<Bucket, Damage> {
    let mut read = Reader(open(bytes)?);
    let mut bucket = Vec::new();
    while !read.0.is_empty() {
        bucket.push((read.u32()?, read.address()?));
    }
    Ok(bucket)
}

/// The bytes, or `None` when the bucket is empty.
pub(crate) fn encode_bucket(bucket: &Bucket) -> Option<Vec<u8>> {
    if bucket.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for (tag, address) in bucket {
        bytes.extend_from_slice(&tag.to_be_bytes());
        put_address(&mut bytes, *address);
    }
    Some(seal(bytes))
}

/// Reads a block of slots whose first address is `base`.
///
/// # Errors
/// Not a block.
pub(crate) fn decode_slots(family: Family, base: u128, bytes: &[u8]) -> Result<Slots, Damage> {
    let mut read = Reader(open(bytes)?);
    let mut slots = Slots::new();
    while !read.0.is_empty() {
        let offset = read.u8()?;
        if offset >> SLOT_BITS != 0 {
            return Err(Damage(format!("slot offset {offset}")));
        }
        let slot = match read.u8()? {
            b'L' => Slot::Leased(Lease {
                address: family.address(base + u128::from(offset)),
                since: read.u64()?,
                boot_ms: read.u64()?,
                owner: Owner { container_id: read.text()?, ifname: read.text()? },
            }),
            b'C' => Slot::Cooling(read.u64()?),
            other => return Err(Damage(format!("slot kind {other:#04x}"))),
        };
        slots.insert(offset, slot);
    }
    Ok(slots)
}

/// The bytes, or `None` when every address of the block is free.
pub(crate) fn encode_slots(slots: &Slots) -> Option<Vec<u8>> {
    if slots.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for (offset, slot) in slots {
        bytes.push(*offset);
        match slot {
            Slot::Leased(lease) => {
                bytes.push(b'L');
                bytes.extend_from_slice(&lease.since.to_be_bytes());
                bytes.extend_from_slice(&lease.boot_ms.to_be_bytes());
                put_text(&mut bytes, &lease.owner.container_id);
                put_text(&mut bytes, &lease.owner.ifname);
            }
            Slot::Cooling(since) => {
                bytes.push(b'C');
                bytes.extend_from_slice(&since.to_be_bytes());
            }
        }
    }
    Some(seal(bytes))
}

/// The bytes of the entry [`META_KEY`].
pub(crate) fn encode_state(network: &str, state: &State) -> Vec<u8> {
    let mut bytes = FORMAT.to_be_bytes().to_vec();
    put_text(&mut bytes, network);
    put_text(&mut bytes, &state.boot);
    bytes.extend_from_slice(&state.generation.to_be_bytes());
    bytes.extend_from_slice(&state.leases.to_be_bytes());
    for (pool, address) in &state.cursors {
        bytes.extend_from_slice(&pool.to_be_bytes());
        put_address(&mut bytes, *address);
    }
    seal(bytes)
}

/// # Errors
/// Not the entry of `network` in this format.
pub(crate) fn decode_state(network: &str, bytes: &[u8]) -> Result<State, Damage> {
    let mut read = Reader(open(bytes)?);
    let format = read.u32()?;
    if format != FORMAT {
        return Err(Damage(format!("format {format}, this program reads format {FORMAT}")));
    }
    let name = read.text()?;
    if name != network {
        return Err(Damage(format!("the store of network {name}")));
    }
    let mut state = State {
        boot: read.text()?,
        generation: read.u64()?,
        leases: read.u64()?,
        cursors: BTreeMap::new(),
    };
    while !read.0.is_empty() {
        let pool = read.u16()?;
        state.cursors.insert(pool, read.address()?);
    }
    Ok(state)
}

fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_be_bytes());
    body
}

fn open(bytes: &[u8]) -> Result<&[u8], Damage> {
    let split = bytes.split_last_chunk::<4>();
    let (body, crc) = split.ok_or_else(|| Damage("a record shorter than its checksum".into()))?;
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return Err(Damage("a record whose checksum does not match".into()));
    }
    Ok(body)
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    // The kernel passes no environment string longer than 128 KiB.
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    let value = number(address).to_be_bytes();
    let family = Family::of(address);
    bytes.push(family_byte(family));
    bytes.extend_from_slice(match family {
        Family::V4 => &value[12..],
        Family::V6 => &value,
    });
}

/// Takes values off the front of a record.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) =
            self.0.split_first_chunk().ok_or_else(|| Damage("a record that ends early".into()))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Damage> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.take().map(u64::from_be_bytes)
    }

    fn address(&mut self) -> Result<IpAddr, Damage> {
        Ok(match family_from(self.u8()?)? {
            Family::V4 => Family::V4.address(u128::from(self.u32()?)),
            Family::V6 => Family::V6.address(self.take().map(u128::from_be_bytes)?),
        })
    }

    fn text(&mut self) -> Result<String, Damage> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let (text, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| Damage("a record that ends early".into()))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Damage("a text that is not UTF-8".into()))
    }
}

#[cfg(test)]
mod tests;
