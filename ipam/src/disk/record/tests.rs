//! Records come back as they were, and nothing else comes back at all.

use proptest::prelude::*;

use super::*;

fn lease(address: &str, id: &str) -> Lease {
    Lease {
        address: address.parse().unwrap(),
        owner: Owner { container_id: id.into(), ifname: "eth0".into() },
        since: 1_700_000_000,
        boot_ms: 12_345,
    }
}

#[test]
fn slots_come_back() {
    let long = "x".repeat(100_000);
    for (family, base, address) in
        [(Family::V4, 0x0a00_0110, "10.0.1.18"), (Family::V6, 0xfd00 << 112, "fd00::2")]
    {
        let mut slots = Slots::new();
        slots.insert(2, Slot::Leased(lease(address, &long)));
        slots.insert(15, Slot::Cooling(7));
        let bytes = encode_slots(&slots).unwrap();
        assert_eq!(decode_slots(family, base, &bytes).unwrap(), slots);
        let (block, offset) = slot_of(number(address.parse().unwrap()));
        assert_eq!((slots_base(&slots_key(family, block)).unwrap(), offset), ((family, base), 2));
    }
    assert_eq!(encode_slots(&Slots::new()), None);
}

#[test]
fn state_comes_back_for_its_network_and_format_only() {
    let state = State {
        boot: "b".into(),
        cursors: BTreeMap::from([
            (0, "10.0.0.9".parse().unwrap()),
            (7, "fd00::9".parse().unwrap()),
        ]),
        generation: 9,
        leases: 3,
    };
    let bytes = encode_state("net", &state);
    assert_eq!(decode_state("net", &bytes).unwrap(), state);
    assert!(decode_state("other", &bytes).unwrap_err().0.contains("network net"));
    let mut newer = bytes[..bytes.len() - 4].to_vec();
    newer[3] = 2;
    let error = decode_state("net", &seal(newer)).unwrap_err();
    assert_eq!(error.0, "format 2, this program reads format 1");
}

#[test]
fn a_map_finds_the_lowest_free_address() {
    let mut map = Map::new();
    let base = 5 << MAP_BITS;
    for n in 0..2048 {
        map.set(base + n, n != 1000 && n != 2047);
    }
    assert_eq!(map.free(base, u128::MAX), Some(base + 1000));
    assert_eq!(map.free(base + 1001, u128::MAX), Some(base + 2047));
    assert_eq!(map.free(base + 1001, base + 2046), None);
    assert_eq!(Map::after(base + 3), Some(base + 2048));
    assert_eq!(Map::after(u128::MAX), None);
    assert_eq!(Map::decode(&map.encode().unwrap()).unwrap(), map);
    assert_eq!(Map::new().encode(), None);
}

/// What lies on disks: another value would hide the leases of the build before.
#[test]
fn hashes_of_owners_never_change() {
    assert_eq!(hash(b""), 0xecba_3df2_c338_3c52);
    assert_eq!(hash(b"0123456789abcdef"), 0x52e0_01a3_d325_32b5);
    assert_eq!(owner_tag("0123456789abcdef"), 0x52e0_01a3);
}

proptest! {
    #[test]
    fn map_equals_a_list_of_flags(taken in proptest::collection::vec(any::<bool>(), 2048), first in 0_u128..2048, len in 0_u128..3000) {
        let mut map = Map::new();
        for (n, taken) in taken.iter().enumerate() {
            map.set(n as u128, *taken);
        }
        let last = first + len;
        let expected = (first..=last.min(2047)).find(|n| !taken[usize::try_from(*n).unwrap()]);
        prop_assert_eq!(map.free(first, last), expected);
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..80), sealed: bool) {
        let bytes = if sealed { seal(bytes) } else { bytes };
        drop(decode_state("n", &bytes));
        drop(decode_bucket(&bytes));
        drop(decode_slots(Family::V6, 0, &bytes));
        drop(Map::decode(&bytes));
        drop(slots_base(&bytes));
    }

    #[test]
    fn a_flipped_bit_is_noticed(bit in 0_usize..400) {
        let mut slots = Slots::new();
        slots.insert(3, Slot::Leased(lease("10.0.0.3", "0123456789abcdef")));
        let mut bytes = encode_slots(&slots).unwrap();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_slots(Family::V4, 0x0a00_0000, &bytes).is_err());
    }
}
