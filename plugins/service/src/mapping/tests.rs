use std::net::IpAddr;

use cni_plugin::{CniResult, Interface, Ip};

use super::{Addresses, HostSide, Mapping, Protocol, bind};

fn ip(interface: Option<usize>, address: &str) -> Ip {
    Ip { interface, address: address.parse().unwrap(), gateway: None }
}

fn interface(name: &str, sandbox: &str) -> Interface {
    Interface { name: name.into(), sandbox: sandbox.into(), ..Interface::default() }
}

fn mapping(host: &str, host_port: u16, container_port: u16) -> Mapping {
    let host = HostSide::parse(host).unwrap();
    Mapping { protocol: Protocol::Tcp, host, host_port, container_port }
}

fn dual() -> Addresses {
    Addresses { v4: Some("10.1.0.2/24".parse().unwrap()), v6: Some("fd00::2/64".parse().unwrap()) }
}

fn check(mappings: &[Mapping], addresses: &Addresses, wanted: &[&str]) {
    let bindings = bind(mappings, addresses).unwrap();
    let got: Vec<String> =
        bindings.iter().map(|b| format!("{} -> {}", b.host_side(), b.target)).collect();
    assert_eq!(got, wanted);
}

#[test]
fn addresses_are_the_first_of_each_family_on_the_interface_or_without_index() {
    let result = CniResult {
        interfaces: vec![
            interface("br0", ""),
            interface("eth0", "/ns"),
            interface("eth1", "/ns"),
            interface("eth0", ""),
        ],
        ips: vec![
            ip(Some(0), "10.1.0.1/24"),
            ip(Some(2), "10.2.0.2/24"),
            ip(Some(3), "10.3.0.2/24"),
            ip(Some(1), "10.1.0.2/24"),
            ip(Some(1), "10.1.0.3/24"),
            ip(None, "fd00::2/64"),
        ],
        ..CniResult::default()
    };
    assert_eq!(Addresses::choose(&result, "eth0"), dual());
    let second = Addresses::choose(&result, "eth1");
    assert_eq!(second.v4.map(|net| net.ip()), Some(IpAddr::from([10, 2, 0, 2])));
}

#[test]
fn an_interface_index_out_of_range_counts_as_unknown() {
    let result = CniResult { ips: vec![ip(Some(9), "10.1.0.2/24")], ..CniResult::default() };
    assert_eq!(Addresses::choose(&result, "eth0").v4, dual().v4);
}

#[test]
fn host_ip_selects_the_family() {
    let all = ["8080/tcp -> 10.1.0.2:80", "8080/tcp -> [fd00::2]:80"];
    check(&[mapping("", 8080, 80)], &dual(), &all);
    check(&[mapping("0.0.0.0", 8080, 80)], &dual(), &all[..1]);
    check(&[mapping("::", 8080, 80)], &dual(), &all[1..]);
    check(&[mapping("192.0.2.1", 8080, 80)], &dual(), &["192.0.2.1:8080/tcp -> 10.1.0.2:80"]);
    check(
        &[mapping("2001:db8::1", 8080, 80)],
        &dual(),
        &["[2001:db8::1]:8080/tcp -> [fd00::2]:80"],
    );
    check(&[mapping("::ffff:192.0.2.1", 1, 2)], &dual(), &["192.0.2.1:1/tcp -> 10.1.0.2:2"]);
    assert_eq!(HostSide::parse("localhost"), None);
    assert_eq!(HostSide::parse("fe80::1%eth0"), None);
}

#[test]
fn a_mapping_without_address_of_its_family_is_left_out() {
    let v4 = Addresses { v6: None, ..dual() };
    check(&[mapping("::", 8080, 80), mapping("2001:db8::1", 8081, 81)], &v4, &[]);
    check(&[mapping("", 8080, 80)], &v4, &["8080/tcp -> 10.1.0.2:80"]);
    check(&[mapping("", 8080, 80)], &Addresses::default(), &[]);
}

#[test]
fn repeated_mappings_are_one_and_contradicting_ones_are_refused() {
    let v4 = Addresses { v6: None, ..dual() };
    let one = ["8080/tcp -> 10.1.0.2:80"];
    check(&[mapping("", 8080, 80), mapping("", 8080, 80)], &v4, &one);
    check(&[mapping("", 8080, 80), mapping("192.0.2.1", 8080, 80)], &v4, &one);
    check(&[mapping("192.0.2.1", 8080, 80), mapping("", 8080, 80)], &v4, &one);
    check(
        &[mapping("192.0.2.1", 8080, 80), mapping("192.0.2.2", 8080, 81)],
        &v4,
        &["192.0.2.1:8080/tcp -> 10.1.0.2:80", "192.0.2.2:8080/tcp -> 10.1.0.2:81"],
    );
    let error = bind(&[mapping("", 8080, 80), mapping("192.0.2.1", 8080, 81)], &v4).unwrap_err();
    assert_eq!(error.code.number(), 7);
    assert!(error.msg.contains("192.0.2.1:8080/tcp"), "{}", error.msg);
}

#[test]
fn protocols_match_in_any_case() {
    assert_eq!(Protocol::parse("TCP"), Some(Protocol::Tcp));
    assert_eq!(Protocol::parse("Sctp"), Some(Protocol::Sctp));
    assert_eq!(Protocol::parse("icmp"), None);
}
