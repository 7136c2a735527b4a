//! Pace, and what becomes of an earlier overlay.

use causeway_kernel::{AddressSpec, LinkChange, Mac, VxlanAttributes};

use super::*;

#[test]
fn pauses_double_up_to_the_longest() {
    let millis = |count| PAUSE.pause(count).as_millis();
    assert_eq!([0, 1, 2, 3, 5, 6, 1000].map(millis), [0, 20, 40, 80, 320, 500, 500]);
    assert_eq!(RETRY.pause(1), Duration::from_millis(500));
    assert_eq!(RETRY.pause(u32::MAX), PERIOD);
}

/// A keeper in a network namespace of its own, whose node is 172.18.0.2 on `lo`.
fn thread() -> (OverlayThread, tokio::sync::mpsc::Receiver<Event>) {
    // SAFETY: `unshare` takes no pointers, and network namespaces are per thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
    let netlink = Netlink::open().unwrap();
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    netlink.change_link(1, &up).unwrap();
    let address = AddressSpec { address: "172.18.0.2/24".parse().unwrap(), nodad: true };
    netlink.add_address(1, &address).unwrap();
    let (events, told) = tokio::sync::mpsc::channel(16);
    let thread = OverlayThread {
        config: OverlayConfig {
            mode: Mode::Vxlan { id: 1, port: 8472, direct: false },
            cluster: vec!["10.0.0.0/16".parse().unwrap()],
            no_tx_checksum: false,
            guarded: false,
            follow: false,
        },
        events,
        incoming: channel().1,
        woken: UnixStream::pair().unwrap().0,
        kernel: None,
        guard: guard::Guard::default(),
        rules: None,
        target: Some(OverlayTarget {
            node: "n1".to_owned(),
            ips: vec!["172.18.0.2".parse().unwrap()],
            subnets: vec!["10.0.1.0/24".parse().unwrap()],
            peers: Vec::new(),
            complete: true,
        }),
        settled: None,
        state: OverlayState::default(),
        interest: causeway_kernel::Interest::default(),
        looks: Schedule::at_once(PACE, clock::now()),
        repairs: 0,
        failures: Retry::default(),
    };
    (thread, told)
}

/// Rows: O-12
#[test]
fn devices_of_other_settings_go_once_all_nodes_are_known() {
    let (mut thread, _told) = thread();
    let netlink = Netlink::open().unwrap();
    let other = VxlanAttributes {
        id: 2,
        group: None,
        dev: Some(1),
        local: Some("172.18.0.2".parse().unwrap()),
        port: 8472,
        ttl: 0,
        learning: false,
        strange: false,
    };
    netlink.add_vxlan_at("cwov2", 1450, Mac([2, 0, 0, 0, 0, 2]), &other).unwrap();
    let there = |name: &str| netlink.link(name).unwrap().is_some();
    let complete = |thread: &mut OverlayThread, complete: bool| {
        thread.target.as_mut().unwrap().complete = complete;
        thread.settle().unwrap();
    };
    complete(&mut thread, false);
    assert!(there("cwov1") && there("cwov2"), "nothing goes while nodes may be missing");
    complete(&mut thread, true);
    assert!(there("cwov1") && !there("cwov2"), "left of other settings");
    assert_eq!(thread.state.repairs, 0, "nobody else changed anything");
}

/// Rows: RH12
#[test]
fn the_ports_guard_is_written_once_and_follows_the_tunnel() {
    let (mut thread, _told) = thread();
    let mut client = causeway_nft::Client::open().unwrap();
    thread.settle().unwrap();
    let mut wanted = thread.settled.clone().unwrap().0;
    let mut keep = |wanted: &Wanted, sources: &[&str]| {
        let sources = sources.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect();
        let before = client.generation().unwrap();
        thread.guard.keep(&Wanted { sources, ..wanted.clone() }).unwrap();
        let tables = [false, true].map(|ipv6| {
            let id = causeway_ruleset::tunnel::table(ipv6);
            let found = client.table(&id).unwrap();
            found.map(|state| state.sets["peers"].1.len())
        });
        (client.generation().unwrap() != before, tables)
    };
    assert_eq!(keep(&wanted, &[]), (false, [Some(0), None]), "as the first look left it");
    assert_eq!(keep(&wanted, &["172.18.0.3", "172.18.0.4"]), (true, [Some(2), None]));
    assert_eq!(keep(&wanted, &["172.18.0.3", "172.18.0.4"]), (false, [Some(2), None]));
    assert_eq!(keep(&wanted, &["172.18.0.4"]), (true, [Some(1), None]));
    let link = wanted.link.as_mut().unwrap();
    link.local = "fd00::2".parse().unwrap();
    assert_eq!(keep(&wanted, &["fd00::3"]), (true, [None, Some(1)]));
    assert_eq!(keep(&wanted, &["fd00::3"]), (false, [None, Some(1)]));
    wanted.link = None;
    assert_eq!(keep(&wanted, &[]), (true, [None, None]));
    assert_eq!(keep(&wanted, &[]), (false, [None, None]));
}

#[test]
fn after_failures_changes_wake_it_less_and_less() {
    let (mut thread, _told) = thread();
    thread.target.as_mut().unwrap().ips = vec!["172.18.0.9".parse().unwrap()];
    for wanted in [20, 40, 80] {
        let before = clock::now();
        assert!(thread.look());
        let pause = thread.looks.earliest().saturating_duration_since(before);
        assert!(pause >= Duration::from_millis(wanted), "{pause:?} after a failure");
    }
}

#[test]
fn looks_at_changes_leave_time_for_others() {
    let (mut thread, _told) = thread();
    for _ in 0..3 {
        let began = clock::now();
        assert!(thread.look());
        let ended = clock::now();
        let rest = thread.looks.earliest().saturating_duration_since(ended);
        // What lies between our clock and its own is little beside nine times the look.
        assert!(
            rest * 2 >= (ended - began).min(PAUSE.longest),
            "{rest:?} after {:?}",
            ended - began
        );
        assert!(rest <= PAUSE.longest, "{rest:?}");
    }
    assert_eq!((thread.repairs, thread.failures.failures()), (0, 0), "nothing failed");
}
