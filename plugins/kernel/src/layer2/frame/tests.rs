use super::*;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// What Linux 6.18 sent as `10.1.0.9` for `10.1.0.5`.
const WHO_HAS: &str = "ffffffffffff 020000000002 0806 0001 0800 06 04 0001
    020000000002 0a010009 000000000000 0a010005";
/// What Linux 6.18 sent as `fd00::9` for `fd00::5`.
const SOLICITED: &str = "3333ff000005 020000000002 86dd 60000000 0020 3a ff
    fd000000000000000000000000000009 ff0200000000000000000001ff000005
    8700 7d88 00000000 fd000000000000000000000000000005 0101 020000000002";

#[test]
fn a_request_is_read_and_answered_to_its_sender() {
    let asked = Frame::decode(&hex(WHO_HAS)).expect("a request");
    assert_eq!(asked.encode(), hex(WHO_HAS));
    assert_eq!(asked.target(), IpAddr::from(v4("10.1.0.5")));
    assert_eq!(asked.sender(), (Some(v4("10.1.0.9").into()), OTHER));
    assert_eq!(asked.probed(), None);
    let answer = asked.answer(OWN).expect("it asks");
    let reply = "020000000002 020000000001 0806 0001 0800 06 04 0002
        020000000001 0a010005 020000000002 0a010009";
    assert_eq!(answer.encode(), hex(reply));
    assert_eq!(answer.answer(OTHER), None);
    assert_eq!(answer.claim(), Some((v4("10.1.0.5").into(), OWN)));
}

#[test]
fn a_solicitation_is_read_and_answered_with_s_and_o() {
    let asked = Frame::decode(&hex(SOLICITED)).expect("a solicitation");
    assert_eq!(asked.encode(), hex(SOLICITED));
    let answer = asked.answer(OWN).expect("it asks");
    let Frame::Ndp(advertisement) = &answer else { panic!("{answer:?}") };
    assert_eq!((advertisement.to, advertisement.destination), (OTHER, v6("fd00::9")));
    assert_eq!((advertisement.source, advertisement.target), (v6("fd00::5"), v6("fd00::5")));
    assert_eq!(advertisement.kind, NdpKind::Advertisement { solicited: true, overrides: true });
    let bytes = answer.encode();
    // Type 136 with S and O, and the option of a target.
    assert_eq!((bytes[54], bytes[58], &bytes[78..80]), (136, 0x60, &[2, 1][..]));
    assert_eq!(Frame::decode(&bytes), Some(answer));
}

/// A sender without address gets an answer too: an ARP probe from the target, duplicate detection by
/// telling all.
#[test]
fn probes_are_answered() {
    let probe = Frame::probe(v4("10.1.0.5").into(), OTHER);
    assert_eq!(probe.probed(), Some((v4("10.1.0.5").into(), OTHER)));
    assert_eq!((probe.claim(), probe.sender().0), (None, None));
    let Some(Frame::Arp(reply)) = probe.answer(OWN) else { panic!("no reply") };
    assert_eq!((reply.to, reply.sender, reply.target), (OTHER, v4("10.1.0.5"), v4("0.0.0.0")));

    let probe = Frame::probe(v6("fd00::5").into(), OTHER);
    assert_eq!(probe.probed(), Some((v6("fd00::5").into(), OTHER)));
    let bytes = probe.encode();
    assert_eq!(bytes.len(), 14 + 40 + 24, "without the option of a source");
    assert_eq!(Frame::decode(&bytes), Some(probe.clone()));
    assert_eq!(probe.answer(OWN), Frame::gratuitous(v6("fd00::5").into(), OWN).pop());
}

/// Linux adds a nonce to it (RFC 7527), and sends it to the group of the target.
#[test]
fn duplicate_detection_of_linux_is_read() {
    let sent = "3333ff000002 020000000002 86dd 60000000 0020 3a ff
        00000000000000000000000000000000 ff0200000000000000000001ff000002
        8700 9939 00000000 fe80000000000000000000fffe000002 0e01 c068f28222f5";
    let asked = Frame::decode(&hex(sent)).expect("a solicitation");
    assert_eq!(asked.probed(), Some((v6("fe80::ff:fe00:2").into(), OTHER)));
}

#[test]
fn announcements_are_gratuitous() {
    let frames = Frame::gratuitous(v4("10.1.0.5").into(), OWN);
    let bytes: Vec<Vec<u8>> = frames.iter().map(Frame::encode).collect();
    let request = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001
        020000000001 0a010005 000000000000 0a010005";
    let reply = "ffffffffffff 020000000001 0806 0001 0800 06 04 0002
        020000000001 0a010005 020000000001 0a010005";
    assert_eq!(bytes, [hex(request), hex(reply)]);
    assert!(frames.iter().all(|frame| !frame.asks()));
    let frames = Frame::gratuitous(v6("fd00::5").into(), OWN);
    let [Frame::Ndp(frame)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((frame.to, frame.destination), (Mac([0x33, 0x33, 0, 0, 0, 1]), v6("ff02::1")));
    let bytes = frames[0].encode();
    // O without S; the option of a target.
    assert_eq!((bytes[54], bytes[58], &bytes[78..80]), (136, 0x20, &[2, 1][..]));
    assert_eq!(Frame::decode(&bytes), Some(frames[0].clone()));
}

#[test]
fn questions_teach_the_one_they_ask() {
    let teach = |address: IpAddr, target: IpAddr| Frame::question(address, OWN, target, None);
    let frame = teach(v4("10.1.0.5").into(), v4("10.1.0.1").into()).expect("of one family");
    assert!(frame.asks());
    assert_eq!(frame.claim(), Some((v4("10.1.0.5").into(), OWN)));
    let frame = teach(v6("fd00::5").into(), v6("fd00::1").into()).expect("of one family");
    assert_eq!(frame.claim(), Some((v6("fd00::5").into(), OWN)));
    assert_eq!(Frame::decode(&frame.encode()), Some(frame));
    let near = Frame::question(v4("10.1.0.5").into(), OWN, v4("10.1.0.1").into(), Some(OTHER));
    assert_eq!(near.map(|frame| frame.encode()[..6].to_vec()), Some(OTHER.0.to_vec()));
    assert_eq!(teach(v4("10.1.0.5").into(), v6("fd00::1").into()), None);
}

/// RFC 4861, sections 7.1.1 and 7.1.2, and what would send an answer to many.
#[test]
fn what_is_not_valid_is_nothing() {
    let refused = |text: &str, at: usize, value: u8| {
        let mut bytes = hex(text);
        bytes[at] = value;
        assert_eq!(Frame::decode(&bytes), None, "byte {at} of {text}");
    };
    // Hardware type, lengths, operation, a group as sender.
    for (at, value) in [(15, 2), (18, 8), (19, 16), (21, 3), (22, 0x33)] {
        refused(WHO_HAS, at, value);
    }
    // Version, extension header, hop limit, code, checksum, option of no length.
    for (at, value) in [(14, 0x40), (20, 0), (21, 254), (55, 1), (57, 0), (79, 0)] {
        refused(SOLICITED, at, value);
    }
    for length in 0..hex(SOLICITED).len() {
        assert_eq!(Frame::decode(&hex(SOLICITED)[..length]), None);
        assert_eq!(Frame::decode(&hex(WHO_HAS)[..length.min(41)]), None);
    }
    let base = |source: &str, destination: &str, kind, target: &str| NdpFrame {
        to: OWN,
        from: OTHER,
        source: v6(source),
        destination: v6(destination),
        kind,
        target: v6(target),
        link_address: Some(OTHER),
    };
    let solicited = NdpKind::Advertisement { solicited: true, overrides: true };
    for frame in [
        base("fd00::9", "ff02::1:ff00:5", NdpKind::Solicitation, "ff02::5"),
        base("::", "ff02::1:ff00:5", NdpKind::Solicitation, "fd00::5"),
        NdpFrame { link_address: None, ..base("::", "fd00::5", NdpKind::Solicitation, "fd00::5") },
        base("fd00::9", "ff02::1", solicited, "fd00::9"),
        NdpFrame {
            link_address: Some(Mac([0x33, 0, 0, 0, 0, 1])),
            ..base("fd00::9", "fd00::5", solicited, "fd00::9")
        },
    ] {
        assert_eq!(Frame::decode(&Frame::Ndp(frame.clone()).encode()), None, "{frame:?}");
    }
}

#[test]
fn groups_have_the_last_24_bits() {
    assert_eq!(solicited_node(v6("fd00::1:2345:6789")), v6("ff02::1:ff45:6789"));
    assert_eq!(multicast(v6("ff02::1:ff45:6789")), Mac([0x33, 0x33, 0xff, 0x45, 0x67, 0x89]));
}
