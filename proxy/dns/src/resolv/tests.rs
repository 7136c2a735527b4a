use proptest::prelude::*;

use super::*;

fn read(content: &str) -> ResolvConf {
    let own = BTreeSet::from(["10.1.0.1:53".parse().unwrap()]);
    ResolvConf::read("/etc/resolv.conf", content, &own)
}

fn names(found: &ResolvConf) -> Vec<String> {
    found.upstreams.iter().map(ToString::to_string).collect()
}

/// Rows: D-47
#[test]
fn one_strange_line_costs_that_line_alone() {
    let found = read(
        "# comment\n; comment\nvendor-thing 5\nnameserver fe80::1%eth0\t \nnameserver\t1.2.3.4 # ours\n\
         options ndots:5 no-aaaa\noptions frobnicate:2 rotate\nnameserver one.one.one.one\n\
         search a b\n\n   nameserver 2001:db8::53  \r\nnameserver\nnameserver fe80::2\n",
    );
    assert_eq!(names(&found), ["fe80::1%eth0", "1.2.3.4", "2001:db8::53"]);
    assert_eq!(
        found.warnings,
        [
            "/etc/resolv.conf:3: unknown line \"vendor-thing\" is skipped",
            "/etc/resolv.conf:7: unknown option \"frobnicate:2\" is skipped",
            "/etc/resolv.conf:8: nameserver \"one.one.one.one\" is no address and is skipped",
            "/etc/resolv.conf:12: nameserver \"\" is no address and is skipped",
            "/etc/resolv.conf:13: nameserver fe80::2 needs a link (%eth0) and is skipped",
        ]
    );
    assert!(!found.stub);
    assert_eq!(found.upstreams[0].socket_address(7).to_string(), "[fe80::1%7]:53");
}

#[test]
fn own_addresses_doubles_and_the_sixteenth_are_left_out() {
    let found = read("nameserver 10.1.0.1\nnameserver 8.8.8.8\nnameserver 8.8.8.8\n");
    assert_eq!(names(&found), ["8.8.8.8"]);
    assert!(found.warnings[0].contains("own address"), "{:?}", found.warnings);

    let many: String = (1..=16).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
    let found = read(&many);
    assert_eq!(found.upstreams.len(), 15);
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].contains("192.0.2.16"), "{:?}", found.warnings);
}

#[test]
fn the_stub_of_systemd_is_told() {
    assert!(read("nameserver 127.0.0.53\noptions edns0 trust-ad\n").stub);
    assert!(read("nameserver 127.0.0.54").stub);
    assert!(!read("nameserver 127.0.0.1").stub);
}

#[test]
fn a_given_server_may_have_a_port() {
    let parse = |text: &str| text.parse::<Upstream>().map(|upstream| upstream.to_string());
    for good in ["1.2.3.4", "1.2.3.4:5353", "::1", "[::1]:5353", "fe80::1%eth0", "[fe80::1%2]:54"] {
        assert_eq!(parse(good).as_deref(), Ok(good));
    }
    assert_eq!(parse("[::1]:53").as_deref(), Ok("::1"));
    for bad in
        ["", "dns", "1.2.3.4:0", "1.2.3.4:99999", "1.2.3.4%eth0", "fe80::1%", "[::1", "0.0.0.0"]
    {
        let why = parse(bad).unwrap_err();
        assert!(why.contains("give ADDR or ADDR:PORT"), "{bad}: {why}");
    }
}

proptest! {
    /// Whatever stands around it, a good line is found.
    #[test]
    fn a_good_line_is_found_among_any_others(
        before in prop::collection::vec("[^\n\r]{0,40}", 0..20),
        blanks in "[ \t]{1,4}",
    ) {
        let noise = before.iter().filter(|line| !line.contains("nameserver"));
        let noise: String = noise.map(|line| format!("{line}\n")).collect();
        let found = read(&format!("{noise}nameserver{blanks}192.0.2.1{blanks}\n{noise}"));
        prop_assert_eq!(names(&found), ["192.0.2.1"]);
    }
}
