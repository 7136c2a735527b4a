use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterProtoFamily};

use super::*;
use crate::testing::enter;

mod services;

const CLIENT: (&str, u16) = ("192.0.2.9", 40_000);

fn tuple(from: (&str, u16), to: (&str, u16), protocol: Protocol) -> Vec<Tuple> {
    let ip = |text: &str| text.parse().expect("an address");
    vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(ip(from.0)), IPTuple::DestinationAddress(ip(to.0))]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(protocol),
            ProtoTuple::SourcePort(from.1),
            ProtoTuple::DestinationPort(to.1),
        ]),
    ]
}

/// Puts a translated flow into the table: `client` to `host`, answered by `container`.
fn flow(client: (&str, u16), host: (&str, u16), container: (&str, u16), protocol: Protocol) {
    let family =
        if host.0.contains(':') { NetfilterProtoFamily::IPv6 } else { NetfilterProtoFamily::IPv4 };
    let mut attributes = vec![
        ConntrackAttribute::CtaTupleOrig(tuple(client, host, protocol)),
        ConntrackAttribute::CtaTupleReply(tuple(container, client, protocol)),
        ConntrackAttribute::CtaTimeout(120),
    ];
    if protocol == Protocol::Tcp {
        // CTA_PROTOINFO { CTA_PROTOINFO_TCP { STATE 3 } }: the kernel asks for it.
        let state = [12, 0, 1, 0x80, 5, 0, 1, 0, 3, 0, 0, 0].to_vec();
        attributes.push(ConntrackAttribute::Other(netlink_packet_core::DefaultNla::new(
            4 | 1 << 15,
            state,
        )));
    }
    let message = NetfilterMessage::new(
        NetfilterHeader::new(family, 0, 0),
        ConntrackMessage::New(attributes),
    );
    let connection = Connection::open().expect("a socket").expect("netfilter netlink");
    connection
        .request(&message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        .expect("a conntrack entry");
}

fn udp_left() -> Vec<u16> {
    let connection = Connection::open().expect("a socket").expect("netfilter netlink");
    let mut ports = Vec::new();
    for family in Family::BOTH {
        for flow in connection.flows(family, None).expect("a dump") {
            ports.extend(flow.original.destination_port);
        }
    }
    ports.sort_unstable();
    ports
}

fn delete_udp_flows(filters: &[FlowFilter]) -> Result<usize> {
    UdpFlows::open()?.expect("netfilter netlink").delete(filters)
}

/// Four UDP flows and a TCP flow.
fn table() {
    flow(CLIENT, ("192.0.2.1", 8053), ("10.1.0.2", 53), Protocol::Udp);
    flow(("192.0.2.9", 40_001), ("192.0.2.2", 8053), ("10.1.0.2", 53), Protocol::Udp);
    flow(CLIENT, ("192.0.2.1", 9053), ("10.1.0.3", 53), Protocol::Udp);
    flow(("fd00::9", 40_000), ("fd00::1", 8053), ("fd01::2", 53), Protocol::Udp);
    flow(CLIENT, ("192.0.2.1", 8053), ("10.1.0.2", 53), Protocol::Tcp);
}

#[test]
fn no_filters_delete_nothing() {
    enter();
    table();
    assert_eq!(delete_udp_flows(&[]).expect("nothing to do"), 0);
    assert_eq!(udp_left(), [8053, 8053, 8053, 9053]);
}

#[test]
fn a_host_port_is_forgotten_in_its_family_only() {
    enter();
    table();
    let filter = FlowFilter::HostPort { address: None, ipv6: false, port: 8053 };
    assert_eq!(delete_udp_flows(&[filter]).expect("deleted"), 2);
    assert_eq!(udp_left(), [8053, 9053]);
    assert_eq!(delete_udp_flows(&[filter]).expect("nothing is left"), 0);
    let filter = FlowFilter::HostPort { address: None, ipv6: true, port: 8053 };
    assert_eq!(delete_udp_flows(&[filter]).expect("deleted"), 1);
    assert_eq!(udp_left(), [9053]);
}

#[test]
fn a_host_address_restricts_a_host_port() {
    enter();
    table();
    let address = Some("192.0.2.2".parse().expect("an address"));
    let filter = FlowFilter::HostPort { address, ipv6: false, port: 8053 };
    assert_eq!(delete_udp_flows(&[filter]).expect("deleted"), 1);
    assert_eq!(udp_left(), [8053, 8053, 9053]);
}

#[test]
fn a_container_is_forgotten_by_its_own_address_and_port() {
    enter();
    table();
    let container =
        |ip: &str| FlowFilter::Container { address: ip.parse().expect("an address"), port: 53 };
    assert_eq!(delete_udp_flows(&[container("10.1.0.2")]).expect("deleted"), 2);
    assert_eq!(udp_left(), [8053, 9053]);
    // Several filters of one family: picked here instead of in the kernel.
    let filters = [
        container("10.1.0.3"),
        container("10.1.0.4"),
        container("fd01::2"),
        FlowFilter::HostPort { address: None, ipv6: false, port: 1 },
    ];
    assert_eq!(delete_udp_flows(&filters).expect("deleted"), 2);
    assert!(udp_left().is_empty());
}

#[test]
fn the_kernel_filters_by_the_request() {
    enter();
    table();
    let connection = Connection::open().expect("a socket").expect("netfilter netlink");
    let filter = FlowFilter::HostPort { address: None, ipv6: false, port: 9053 };
    let flows = connection.dump(Family::V4, Some(&filter)).expect("a filtered dump");
    assert_eq!(flows.len(), 1, "{flows:?}");
    let container =
        FlowFilter::Container { address: "fd01::2".parse().expect("an address"), port: 53 };
    assert_eq!(connection.dump(Family::V6, Some(&container)).expect("filtered by port").len(), 1);
    assert_eq!(connection.dump(Family::V4, None).expect("a dump of UDP").len(), 3);
    assert_eq!(connection.dump_all(Family::V4).expect("a dump").len(), 3);
}
