use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::fixture::{own, settings, zone};
use crate::{Answer, Limit, answer, read, write};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
";

#[test]
fn a_query_in_bytes_is_answered_in_bytes() {
    let zone = zone(settings(), WEB);
    let query = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03weB\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let request = read(query).expect("a query");
    let Answer::Own(reply) = answer(&zone, &request.question, 1) else { panic!("not ours") };
    let bytes = write(&request, &reply, Limit::Udp);
    let mut expected = query.to_vec();
    expected[2..4].copy_from_slice(&[0x85, 0x80]);
    expected[7] = 1;
    expected.extend_from_slice(b"\xC0\x0C\0\x01\0\x01\0\0\0\x05\0\x04\x0A\x60\0\x01");
    assert_eq!(bytes, expected);
    assert_eq!(Message::from_vec(&bytes).unwrap().answers, reply.answers);
    assert_eq!(
        own(&zone, "no.default.svc.cluster.local", RecordType::A).code,
        ResponseCode::NXDomain
    );
}
