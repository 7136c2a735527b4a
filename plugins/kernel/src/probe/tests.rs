use super::*;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A probe seen by another host claims the address that it asks for.
///
/// Rows: RB4
#[test]
fn probes_are_read_as_they_are_written() {
    for address in ["10.0.0.9", "fd00::1:2:9"] {
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(claim(&probe(OWN, address)), Some((address, OWN)));
    }
}

/// Rows: RB4
#[test]
fn answers_tell_who_has_the_address() {
    let mut reply = arp_probe(OTHER, Ipv4Addr::new(10, 0, 0, 1));
    reply[21] = 2;
    reply[28..32].copy_from_slice(&[10, 0, 0, 9]);
    assert_eq!(claim(&reply), Some(("10.0.0.9".parse().expect("an address"), OTHER)));
    let target: Ipv6Addr = "fd00::9".parse().expect("an address");
    let mut advertisement = solicitation(OTHER, target);
    advertisement[54] = ADVERTISEMENT;
    assert_eq!(claim(&advertisement), Some((target.into(), OTHER)));
    // Who has an address of his own and looks for another one does not claim that.
    let mut looking = solicitation(OTHER, target);
    looking[22] = 0xfd;
    assert_eq!(claim(&looking), None);
    for length in 0..advertisement.len() {
        claim(&advertisement[..length]);
        claim(&reply[..length.min(reply.len())]);
    }
}

/// The sum over a message with its checksum is zero.
///
/// Rows: RB4
#[test]
fn the_checksum_is_that_of_rfc_4443() {
    let sum = |message: &[u8]| checksum(&[0; 16], &[0xff; 16], message);
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend([0x11; 16]);
    let first = sum(&message);
    message[2..4].copy_from_slice(&first);
    assert_eq!(sum(&message), [0, 0]);
}
