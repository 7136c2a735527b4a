#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open and grow with the kernel"
)]

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::*;
use crate::testing::enter;

mod services;

const CLIENT: (&str, u16) = ("192.0.2.9", 40_000);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tuple(from: (&str, u16), to: (&str, u16), protocol: Protocol) -> Vec<Tuple> {
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
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    assert!(ask(family, ConntrackMessage::New(attributes), flags).is_empty());
}

/// Asks the kernel by another implementation than ours.
fn ask(
    family: NetfilterProtoFamily,
    message: ConntrackMessage,
    flags: u16,
) -> Vec<Vec<ConntrackAttribute>> {
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_NETFILTER).expect("netfilter netlink");
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).expect("a request");
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().expect("an answer");
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(rest).expect("netlink");
            let length = usize::try_from(answer.header.length).expect("a length");
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => answers.push(attributes),
                NetlinkPayload::Done(_) => return answers,
                NetlinkPayload::Error(error) if error.code.is_none() => return answers,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Original source and destination ports of the UDP entries.
fn udp_ports() -> Vec<(u16, u16)> {
    let mut all = Vec::new();
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        for entry in ask(family, ConntrackMessage::Get(Vec::new()), NLM_F_DUMP) {
            let original = entry.iter().find_map(|attribute| match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
                _ => None,
            });
            let ports = original.expect("a tuple").iter().find_map(|part| match part {
                Tuple::Proto(parts) => match parts.as_slice() {
                    [
                        ProtoTuple::Protocol(Protocol::Udp),
                        ProtoTuple::SourcePort(from),
                        ProtoTuple::DestinationPort(to),
                    ] => Some((*from, *to)),
                    _ => None,
                },
                _ => None,
            });
            all.extend(ports);
        }
    }
    all
}

fn udp_left() -> Vec<u16> {
    let mut ports: Vec<u16> = udp_ports().into_iter().map(|(_, to)| to).collect();
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
    let count = |family, filter: Option<Filter>| {
        let mut count = 0;
        let request = wire::dump(family, filter);
        connection.exchange("count", &request, 1, |_| count += 1).expect("a dump");
        count
    };
    let host_port = FlowFilter::HostPort { address: None, ipv6: false, port: 9053 };
    assert_eq!(count(Family::V4, Some(host_port.for_the_kernel())), 1);
    let host_port =
        FlowFilter::HostPort { address: Some(ip("192.0.2.2")), ipv6: false, port: 8053 };
    assert_eq!(count(Family::V4, Some(host_port.for_the_kernel())), 1);
    let container = FlowFilter::Container { address: ip("10.1.0.2"), port: 53 };
    assert_eq!(count(Family::V4, Some(container.for_the_kernel())), 2);
    // By its port alone.
    let container = FlowFilter::Container { address: ip("fd01::2"), port: 53 };
    assert_eq!(count(Family::V6, Some(container.for_the_kernel())), 1);
    assert_eq!(count(Family::V4, Some(Filter::default())), 3, "UDP");
    assert_eq!(count(Family::V4, None), 4, "everything");
}

#[test]
fn what_is_left_of_an_exchange_is_no_answer_to_the_next() {
    enter();
    table();
    let connection = Connection::open().expect("a socket").expect("netfilter netlink");
    // Three entries and an end, none of which is read.
    let dump = wire::dump(Family::V4, Some(Filter::default()));
    let asked = connection.exchange("dump", &dump, 0, |_| panic!("nothing is read"));
    assert_eq!(asked.expect("sent"), 0);
    let filters = [FlowFilter::HostPort { address: None, ipv6: false, port: 1 }];
    let flows = UdpFlows { connection };
    assert_eq!(flows.delete(&filters).expect("none of that port"), 0);
    let filters = [FlowFilter::HostPort { address: None, ipv6: false, port: 9053 }];
    assert_eq!(flows.delete(&filters).expect("deleted"), 1);
    assert_eq!(udp_left(), [8053, 8053, 8053]);
}
