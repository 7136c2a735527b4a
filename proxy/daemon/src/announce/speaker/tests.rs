use std::net::{Ipv4Addr, Ipv6Addr};

use causeway_kernel::{ArpFrame, NdpFrame, NdpKind, solicited_node};

use super::*;
use crate::testing::ip;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const MINUTE: Duration = Duration::from_secs(60);
const ETH0: u32 = 2;
const ETH1: u32 = 3;
const V4: &str = "10.1.0.5";
const V6: &str = "fd00::5";

fn interface(index: u32, mac: Mac, networks: &[&str]) -> Interface {
    Interface {
        index,
        name: format!("eth{}", index - ETH0),
        mac,
        networks: networks.iter().map(|text| text.parse().expect("a network")).collect(),
        gateways: vec![ip("10.1.0.1"), ip("fe80::1")],
        unfit: None,
    }
}

fn interfaces() -> Interfaces {
    let all = vec![
        interface(ETH0, OWN, &["10.1.0.3/24", "fd00::3/64"]),
        interface(ETH1, Mac([2, 0, 0, 0, 0, 9]), &["10.2.0.3/24"]),
    ];
    Interfaces { all, ..Interfaces::default() }
}

/// A speaker with its time, from 0 on.
struct Talk {
    speaker: Speaker,
    began: Instant,
    now: Instant,
    /// What was said, with the time.
    said: Vec<(Duration, Sending)>,
}

impl Talk {
    fn holding(addresses: &[&str]) -> Self {
        let now = crate::clock::now();
        let mut speaker = Speaker::new(Some(MINUTE));
        speaker.look(interfaces(), now);
        let mut talk = Self { speaker, began: now, now, said: Vec::new() };
        talk.hold(addresses);
        talk
    }

    fn hold(&mut self, addresses: &[&str]) {
        self.speaker.hold(&addresses.iter().map(|text| ip(text)).collect(), self.now);
    }

    /// Lets so much time go by.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.speaker.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let at = self.now - self.began;
            let said = self.speaker.speak(self.now);
            self.said.extend(said.into_iter().map(|sending| (at, sending)));
        }
        self.now = end;
    }

    fn hear(&mut self, link: u32, frame: &Frame) -> Option<Frame> {
        let answer = self.speaker.hear(link, frame, self.now);
        answer.map(|sending| {
            assert_eq!(sending.link, link);
            sending.frame
        })
    }

    /// When all neighbours were told of `address`, in milliseconds.
    fn announcements(&self, address: &str) -> Vec<u128> {
        let first = Frame::gratuitous(ip(address), OWN).remove(0);
        let times = self.said.iter().filter(|(_, sending)| sending.frame == first);
        times.map(|(at, _)| at.as_millis()).collect()
    }

    fn how(&self, address: &str) -> (Option<String>, Option<String>) {
        let state = self.speaker.state(self.now).remove(&ip(address)).expect("it is held");
        (state.interface, state.reason)
    }
}

/// A neighbour asks for `target`.
fn asks(target: &str) -> Frame {
    let from = if ip(target).is_ipv4() { "10.1.0.9" } else { "fd00::9" };
    Frame::question(ip(from), OTHER, ip(target), None).expect("of one family")
}

#[test]
fn neighbours_are_asked_first_and_told_then() {
    let mut talk = Talk::holding(&[V4, V6]);
    talk.pass(Duration::from_secs(6));
    let probes = |address: &str| -> Vec<u128> {
        let probe = Frame::probe(ip(address), OWN);
        let times = talk.said.iter().filter(|(_, sending)| sending.frame == probe);
        times.map(|(at, _)| at.as_millis()).collect()
    };
    assert_eq!((probes(V4), probes(V6)), (vec![0, 60, 120], vec![0]));
    assert_eq!(talk.announcements(V4), [200, 1300, 2400, 3500, 4600]);
    assert_eq!(talk.announcements(V6), [80, 1180, 2280, 3380, 4480]);
    assert!(talk.said.iter().all(|(_, sending)| sending.link == ETH0));
    assert_eq!(talk.how(V4), (Some("eth0".to_owned()), None));
    let counts = talk.speaker.state(talk.now)[&ip(V4)].counts;
    assert_eq!(counts, HeldCounts { requests: 0, responses: 0, gratuitous: 5 });
}

#[test]
fn only_what_is_armed_on_an_interface_is_answered_there() {
    let mut talk = Talk::holding(&[V4, V6]);
    assert_eq!(talk.hear(ETH0, &asks(V4)), None, "not before neighbours were asked");
    talk.pass(Duration::from_secs(1));
    for address in [V4, V6] {
        let asked = asks(address);
        assert_eq!(talk.hear(ETH0, &asked), asked.answer(OWN));
        assert_eq!(talk.hear(ETH1, &asked), None, "another segment");
    }
    for other in ["10.1.0.3", "10.1.0.6", "fd00::6"] {
        assert_eq!(talk.hear(ETH0, &asks(other)), None);
    }
    // A router that checks what it knows asks the address itself, from a link-local one (row L-31).
    let Frame::Ndp(check) = asks(V6) else { panic!("IPv6") };
    let target: Ipv6Addr = check.target;
    for (to, destination) in [(OWN, target), (check.to, solicited_node(target))] {
        let source = "fe80::9".parse().expect("an address");
        let check = Frame::Ndp(NdpFrame { to, source, destination, ..check.clone() });
        let Some(Frame::Ndp(answer)) = talk.hear(ETH0, &check) else { panic!("{check:?}") };
        assert_eq!(answer.kind, NdpKind::Advertisement { solicited: true, overrides: true });
    }
    for address in [V4, V6] {
        let probe = Frame::probe(ip(address), OTHER);
        assert_eq!(talk.hear(ETH0, &probe), probe.answer(OWN), "another one's probe");
    }
    let counts = talk.speaker.state(talk.now)[&ip(V4)].counts;
    assert_eq!((counts.requests, counts.responses), (2, 2));
    assert!(talk.speaker.heard()["eth0"].is_some());
    talk.hold(&[V6]);
    assert_eq!(talk.hear(ETH0, &asks(V4)), None, "silence at once");
    assert!(talk.hear(ETH0, &asks(V6)).is_some());
}

#[test]
fn an_address_that_a_neighbour_has_is_not_announced() {
    let reply = |mac, address: &str| {
        Frame::probe(ip(address), OWN).answer(mac).expect("a probe is answered")
    };
    for address in [V4, V6] {
        let mut talk = Talk::holding(&[address]);
        talk.pass(Duration::from_millis(70));
        assert_eq!(talk.hear(ETH0, &reply(OTHER, address)), None);
        let (armed, reason) = talk.how(address);
        assert_eq!(armed, None);
        assert!(reason.is_some_and(|text| text.contains("02:00:00:00:00:02 on eth0")));
        talk.pass(Duration::from_secs(59));
        assert!(talk.announcements(address).is_empty());
        assert_eq!(talk.hear(ETH0, &asks(address)), None);
        // It is gone after a minute.
        talk.pass(Duration::from_secs(3));
        assert_eq!(talk.announcements(address).len(), 2);
    }
    // Two that probe at once: neither takes it (RFC 5227, section 2.1.1).
    let mut talk = Talk::holding(&[V4]);
    talk.hear(ETH0, &Frame::probe(ip(V4), OTHER));
    assert_eq!(talk.how(V4).0, None);
    let mut talk = Talk::holding(&[V4]);
    talk.hear(ETH1, &reply(OTHER, V4));
    talk.hear(ETH0, &reply(OWN, V4));
    talk.pass(Duration::from_secs(1));
    assert_eq!(talk.how(V4).0.as_deref(), Some("eth0"), "another segment, and itself");
}

/// A machine that says that it has the address while it is held.
fn claim_of(address: &str) -> Frame {
    Frame::gratuitous(ip(address), OTHER).remove(0)
}

#[test]
fn a_foreign_claim_is_told_of_once_an_hour_and_answered() {
    for address in [V4, V6] {
        let mut talk = Talk::holding(&[address]);
        talk.pass(Duration::from_secs(300));
        let mut told = 0;
        for round in 0..70 {
            talk.said.clear();
            let claimed = (talk.now - talk.began).as_millis();
            // Some say it twice in a row.
            talk.hear(ETH0, &claim_of(address));
            told += talk.speaker.claims(talk.now).len();
            talk.pass(Duration::from_millis(900));
            talk.hear(ETH0, &claim_of(address));
            talk.pass(Duration::from_millis(49_100));
            let answered = talk.announcements(address);
            assert!(answered[0] - claimed <= 1000, "{round}: {answered:?} after {claimed}");
        }
        assert_eq!(told, 1);
        let (interface, reason) = talk.how(address);
        assert_eq!(interface.as_deref(), Some("eth0"));
        let reason = reason.expect("it is said");
        assert!(reason.contains("02:00:00:00:00:02 on eth0 claims"), "{reason}");
        talk.pass(CLAIM);
        assert_eq!(talk.how(address), (Some("eth0".to_owned()), None));
        talk.hear(ETH0, &claim_of(address));
        assert_eq!(talk.speaker.claims(talk.now), [(ip(address), OTHER)]);
    }
}

/// The owner of an address goes on though it was answered: two that answer each other for ever would
/// leave neighbours with either (RFC 5227, section 2.4).
#[test]
fn who_goes_on_claiming_an_address_has_it() {
    for address in [V4, V6] {
        let mut talk = Talk::holding(&[address]);
        talk.pass(Duration::from_secs(300));
        talk.hear(ETH0, &claim_of(address));
        talk.pass(Duration::from_secs(2));
        assert_eq!(talk.how(address).0.as_deref(), Some("eth0"));
        talk.hear(ETH0, &claim_of(address));
        let (interface, reason) = talk.how(address);
        assert_eq!(interface, None);
        let reason = reason.expect("it is said");
        assert!(reason.contains("02:00:00:00:00:02 on eth0 has this address"), "{reason}");
        talk.said.clear();
        assert_eq!(talk.hear(ETH0, &asks(address)), None);
        talk.pass(Duration::from_secs(59));
        assert!(talk.said.is_empty(), "silence for a minute");
        // Nobody answers then.
        talk.pass(Duration::from_secs(2));
        assert_eq!(talk.how(address).0.as_deref(), Some("eth0"));
    }
}

/// The announcements of 300 addresses in a minute are spread over it.
#[test]
fn announcements_are_repeated_and_spread() {
    let addresses: Vec<String> =
        (0..300_u32).map(|host| Ipv4Addr::from(0x0a01_0100 + host).to_string()).collect();
    let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut talk = Talk::holding(&[]);
    talk.speaker.look(
        Interfaces { all: vec![interface(ETH0, OWN, &["10.1.0.3/16"])], ..Interfaces::default() },
        talk.now,
    );
    talk.hold(&names);
    talk.pass(Duration::from_secs(1));
    // Paced: rows of 32, 20 ms apart.
    let mut rows = BTreeMap::new();
    for (at, sending) in &talk.said {
        let of = rows.entry(*at).or_insert_with(BTreeSet::new);
        let said = sending.frame.claim().or(sending.frame.probed());
        of.insert(said.map(|(address, _)| address));
    }
    assert!(rows.values().all(|row| row.len() <= ROW));
    let times: Vec<&Duration> = rows.keys().collect();
    let full = |at: &Duration| rows[at].len() == ROW;
    assert!(times.windows(2).all(|pair| !full(pair[0]) || *pair[1] - *pair[0] >= PAUSE));
    let first = names.iter().map(|name| talk.announcements(name)[0]).max();
    assert!(first.is_some_and(|at| at < 900), "{first:?}");

    talk.pass(Duration::from_secs(120));
    talk.said.clear();
    let from = talk.now - talk.began;
    talk.pass(MINUTE);
    let mut seconds = BTreeMap::new();
    for name in &names {
        let all = talk.announcements(name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        *seconds.entry((all[0] - from.as_millis()) / 1000).or_insert(0) += 1;
    }
    assert!(seconds.values().all(|count| *count <= 10), "{seconds:?}");
}

#[test]
fn repeating_can_be_off() {
    let now = crate::clock::now();
    let mut speaker = Speaker::new(None);
    speaker.look(interfaces(), now);
    speaker.hold(&[ip(V4)].into(), now);
    let mut talk = Talk { speaker, began: now, now, said: Vec::new() };
    talk.pass(Duration::from_secs(3600));
    assert_eq!(talk.announcements(V4).len(), 5);
    assert_eq!(talk.speaker.due(), None);
}

#[test]
fn gateways_and_who_asked_lately_are_taught() {
    let mut talk = Talk::holding(&["10.1.0.6"]);
    talk.pass(Duration::from_secs(10));
    // Another node holds it, and is asked for it.
    talk.hear(ETH0, &asks(V4));
    talk.hold(&["10.1.0.6", V4, V6]);
    talk.said.clear();
    talk.pass(Duration::from_secs(6));
    let count = |address: &str, target: &str, mac| {
        let frame = Frame::question(ip(address), OWN, ip(target), mac).expect("of one family");
        talk.said.iter().filter(|(_, sending)| sending.frame == frame).count()
    };
    assert_eq!(count(V4, "10.1.0.1", None), 2);
    assert_eq!(count(V6, "fe80::1", None), 2);
    assert_eq!(count(V4, "10.1.0.9", Some(OTHER)), 2);
    assert_eq!(count("10.1.0.6", "10.1.0.9", Some(OTHER)), 0);
}

#[test]
fn an_address_follows_carrier_and_hardware_address() {
    let mut talk = Talk::holding(&[V4]);
    talk.pass(Duration::from_secs(10));
    let mut lost = interfaces();
    lost.all[0].unfit = Some("eth0 has no carrier".to_owned());
    talk.speaker.look(lost, talk.now);
    assert_eq!(talk.how(V4), (None, Some("eth0 has no carrier".to_owned())));
    assert_eq!(talk.hear(ETH0, &asks(V4)), None);
    assert!(talk.speaker.listens().is_empty());
    talk.speaker.look(interfaces(), talk.now);
    assert_eq!(talk.hear(ETH0, &asks(V4)), None, "another may have taken it meanwhile");
    talk.pass(Duration::from_secs(10));
    assert!(talk.hear(ETH0, &asks(V4)).is_some());

    let mut other = interfaces();
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    other.all[0].mac = mac;
    talk.speaker.look(other, talk.now);
    let Some(Frame::Arp(ArpFrame { sender_mac, .. })) = talk.hear(ETH0, &asks(V4)) else {
        panic!("no answer");
    };
    assert_eq!(sender_mac, mac);
    let burst = talk.speaker.speak(talk.now);
    assert_eq!(burst[0].frame, Frame::gratuitous(ip(V4), mac).remove(0));
}

/// Another segment: another machine may have it there.
#[test]
fn an_address_that_moves_is_looked_for_first() {
    let mut talk = Talk::holding(&[V4]);
    talk.pass(Duration::from_secs(10));
    let mut moved = interfaces();
    moved.all[0].unfit = Some("eth0 has no carrier".to_owned());
    moved.all[1].networks = interfaces().all[0].networks.clone();
    talk.said.clear();
    talk.speaker.look(moved, talk.now);
    assert_eq!(talk.hear(ETH1, &asks(V4)), None);
    talk.pass(Duration::from_millis(190));
    let probe = Frame::probe(ip(V4), Mac([2, 0, 0, 0, 0, 9]));
    let said: Vec<(u32, &Frame)> =
        talk.said.iter().map(|(_, sending)| (sending.link, &sending.frame)).collect();
    assert_eq!(said, [(ETH1, &probe); 3]);
    talk.pass(Duration::from_secs(1));
    assert_eq!(talk.how(V4).0.as_deref(), Some("eth1"));
}

/// A switch passes nothing on at first, so that three questions in 200 ms may reach nobody.
#[test]
fn neighbours_are_asked_for_longer_after_carrier_was_lost() {
    let mut talk = Talk::holding(&[V4, V6]);
    talk.pass(Duration::from_secs(10));
    let mut lost = interfaces();
    lost.all[0].unfit = Some("eth0 has no carrier".to_owned());
    talk.speaker.look(lost, talk.now);
    talk.speaker.look(interfaces(), talk.now);
    talk.said.clear();
    let from = (talk.now - talk.began).as_millis();
    talk.pass(Duration::from_millis(3900));
    for address in [V4, V6] {
        let probe = Frame::probe(ip(address), OWN);
        let times = talk.said.iter().filter(|(_, sending)| sending.frame == probe);
        let times: Vec<u128> = times.map(|(at, _)| at.as_millis() - from).collect();
        assert_eq!(times, [0, 1000, 2000, 3000]);
        assert_eq!(talk.how(address).0, None);
    }
    talk.pass(Duration::from_millis(200));
    assert_eq!(talk.how(V6).0.as_deref(), Some("eth0"));
}

/// Of a link without IPv6, IPv4 works.
#[test]
fn a_family_that_cannot_be_heard_leaves_the_other_one() {
    let mut talk = Talk::holding(&[V4, V6]);
    talk.pass(Duration::from_secs(1));
    talk.speaker.avoid([((ETH0, true), "no group".to_owned())].into(), talk.now);
    assert_eq!(talk.how(V6), (None, Some("no group".to_owned())));
    assert_eq!(talk.how(V4), (Some("eth0".to_owned()), None));
    talk.speaker.look(interfaces(), talk.now);
    talk.pass(Duration::from_secs(1));
    assert_eq!(talk.how(V6), (Some("eth0".to_owned()), None));
}

/// Wi-Fi of some boards passes no broadcasts on: an interface where nobody asks is named.
#[test]
fn an_interface_where_nobody_asks_is_named() {
    let mut talk = Talk::holding(&[V4]);
    let look = |talk: &mut Talk| {
        talk.pass(Duration::from_secs(300));
        talk.speaker.look(interfaces(), talk.now);
        talk.speaker.silent(talk.now)
    };
    assert!(look(&mut talk).is_empty() && look(&mut talk).is_empty());
    assert_eq!(look(&mut talk), ["eth0"]);
    talk.hear(ETH0, &asks("10.1.0.77"));
    assert!(look(&mut talk).is_empty());
    assert_eq!(look(&mut talk), ["eth0"]);
}

#[test]
fn groups_are_those_of_held_addresses() {
    let talk = Talk::holding(&[V4, V6, "10.3.0.1"]);
    let target: Ipv6Addr = V6.parse().expect("an address");
    assert_eq!(talk.speaker.groups(), [(ETH0, target)].into());
    assert_eq!(talk.speaker.listens(), [(ETH0, false), (ETH0, true)].into());
    assert!(talk.how("10.3.0.1").1.is_some_and(|reason| reason.contains("no interface")));
}
