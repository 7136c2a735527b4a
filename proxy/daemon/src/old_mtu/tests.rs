use super::*;

fn attached(name: &str, address: &str, bridge: &str, mtu: u32) -> Attached {
    let addresses = vec![address.parse().expect("an address")];
    Attached { name: name.to_owned(), addresses, bridge: bridge.to_owned(), mtu }
}

fn named(attached: &[Attached], limits: &Limits) -> Vec<String> {
    let of_line = |line: String| line.split(':').next().unwrap_or_default().to_owned();
    larger(attached, limits).into_iter().map(of_line).collect()
}

/// Rows: RD10
#[test]
fn whoever_has_more_than_the_way_carries_is_named() {
    let all = [
        attached("n/b/eth0", "10.0.1.3", "cw0", 1450),
        attached("n/a/eth0", "10.0.1.2", "cw0", 1450),
        attached("n/new/eth0", "10.0.1.4", "cw0", 1350),
        attached("shop/c/eth0", "10.4.0.2", "br0", 1500),
        attached("l2/d/eth0", "10.9.0.2", "l2", 1450),
    ];
    let cluster = vec!["10.0.0.0/16".parse().expect("a network")];
    let mut limits = Limits { cluster, ..Limits::default() };
    assert_eq!(named(&all, &limits), [""; 0]);
    limits.overlay = Some(1350);
    let line = |name: &str, limit: u32| {
        format!("attachment {name} has MTU 1450, but the path to other nodes has {limit}")
    };
    assert_eq!(named(&all, &limits), [line("n/a/eth0", 1350), line("n/b/eth0", 1350)]);
    limits.bridges = [("l2".to_owned(), 1400)].into();
    let wanted = [line("l2/d/eth0", 1400), line("n/a/eth0", 1350), line("n/b/eth0", 1350)];
    assert_eq!(named(&all, &limits), wanted);
    limits.overlay = Some(1500);
    assert_eq!(named(&all, &limits), [line("l2/d/eth0", 1400)]);
    let many: Vec<_> =
        (0..30).map(|n| attached(&format!("l2/{n}/eth0"), "10.9.0.2", "l2", 1450)).collect();
    assert_eq!(named(&many, &limits).len(), NAMED + 1);
}
