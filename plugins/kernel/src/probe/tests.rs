use std::net::Ipv6Addr;

use crate::layer2::{ArpFrame, NdpFrame};

use super::*;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// As from the wire.
fn read(frame: &Frame) -> Option<(IpAddr, Mac)> {
    Frame::decode(&frame.encode()).as_ref().and_then(claim)
}

fn probe(own: Mac, address: &str) -> Frame {
    Frame::probe(address.parse().expect("an address"), own)
}

/// A probe seen by another host claims the address that it asks for.
///
/// Rows: RB4
#[test]
fn probes_are_read_as_they_are_written() {
    for address in ["10.0.0.9", "fd00::1:2:9"] {
        let expected = (address.parse().expect("an address"), OWN);
        assert_eq!(read(&probe(OWN, address)), Some(expected));
    }
}

/// Rows: RB4
#[test]
fn answers_tell_who_has_the_address() {
    let reply = probe(OWN, "10.0.0.9").answer(OTHER).expect("an answer");
    assert!(matches!(reply, Frame::Arp(ArpFrame { reply: true, .. })));
    assert_eq!(read(&reply), Some(("10.0.0.9".parse().expect("an address"), OTHER)));
    let target: Ipv6Addr = "fd00::9".parse().expect("an address");
    let advertisement = probe(OWN, "fd00::9").answer(OTHER).expect("an answer");
    assert_eq!(read(&advertisement), Some((target.into(), OTHER)));
    // Who has an address of his own and looks for another one does not claim that.
    let Frame::Ndp(looking) = probe(OTHER, "fd00::9") else { panic!("not IPv6") };
    let source: Ipv6Addr = "fd00::2".parse().expect("an address");
    let looking = Frame::Ndp(NdpFrame { source, ..looking });
    assert_ne!(read(&looking).map(|(address, _)| address), Some(target.into()));
    for bytes in [reply.encode(), advertisement.encode()] {
        for length in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes[..length]), None, "{length} bytes");
        }
    }
}

/// One bit of a message that is another one makes it no message.
///
/// Rows: RB4
#[test]
fn the_checksum_is_that_of_rfc_4443() {
    let whole = probe(OWN, "fd00::9").encode();
    assert!(Frame::decode(&whole).is_some());
    let mut broken = whole;
    *broken.last_mut().expect("bytes") ^= 1;
    assert_eq!(Frame::decode(&broken), None);
}
