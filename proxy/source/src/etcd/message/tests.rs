use prost::Message;

use super::*;

fn hex(message: &impl Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that `protoc --encode` of version 3.21 makes of the same messages with etcd's
/// definitions.
///
/// Rows: RA1
#[test]
fn messages_are_those_of_etcds_definitions() {
    let txn = TxnRequest::new()
        .when([
            Compare::mod_revision("k", CompareResult::Less, 300),
            Compare::create_revision("k", CompareResult::Equal, 0),
            Compare::value("k", CompareResult::Equal, "v"),
            Compare::lease("k", CompareResult::Greater, 7),
        ])
        .and_then([RequestOp::put("k", "v", 7), RequestOp::delete("d")])
        .or_else([RequestOp::get(RangeRequest {
            limit: 9,
            revision: 5,
            ..RangeRequest::prefix("p/").keys_only()
        })]);
    assert_eq!(
        hex(&txn),
        concat!(
            "0a0a080210021a016b30ac02",
            "0a0710011a016b2800",
            "0a0810031a016b3a0176",
            "0a09080110041a016b4007",
            "120a12080a016b120176180712051a030a0164",
            "1a100a0e0a02702f12027030180920054001"
        )
    );
    let watch = WatchCreateRequest {
        key: b"a".to_vec(),
        range_end: b"b".to_vec(),
        start_revision: 6,
        progress_notify: true,
    };
    let create = WatchRequest { request_union: Some(watch_request::Request::Create(watch)) };
    assert_eq!(hex(&create), "0a0a0a016112016218062001");
    let progress = watch_request::Request::Progress(WatchProgressRequest {});
    assert_eq!(hex(&WatchRequest { request_union: Some(progress) }), "1a00");
}

/// As above, with fields that are not read here.
///
/// Rows: RA1
#[test]
fn answers_are_read_as_etcd_writes_them() {
    let pair = KeyValue {
        key: b"k".to_vec(),
        create_revision: 2,
        mod_revision: 3,
        value: b"v".to_vec(),
        lease: 5,
    };
    let header = |revision| Some(ResponseHeader { revision });
    let range = RangeResponse { header: header(1), kvs: vec![pair], more: true };
    let responses = [
        response_op::Response::Range(range),
        response_op::Response::Put(PutResponse { header: header(1) }),
        response_op::Response::DeleteRange(DeleteRangeResponse { header: None, deleted: 6 }),
    ];
    let responses = responses.map(|response| ResponseOp { response: Some(response) }).to_vec();
    let txn = TxnResponse { header: header(300), succeeded: true, responses };
    let bytes = "0a090801100218ac02200410011a1a0a180a021801120e0a016b1002180320042a01763005180120091a061204\
                 0a0218011a041a021006";
    assert_eq!(TxnResponse::decode(&*unhex(bytes)), Ok(txn));
    let deleted = KeyValue { key: b"k".to_vec(), mod_revision: 3, ..KeyValue::default() };
    let watch = WatchResponse {
        header: header(8),
        created: true,
        canceled: true,
        compact_revision: 9,
        cancel_reason: "c".into(),
        events: vec![Event { r#type: EventType::Delete.into(), kv: Some(deleted) }],
    };
    let bytes = "0a021808100118012001280932016338015a0e080112050a016b18031a030a0178";
    assert_eq!(WatchResponse::decode(&*unhex(bytes)), Ok(watch));
}

/// Rows: RA1
#[test]
fn leases_and_tokens_are_those_of_etcds_definitions() {
    assert_eq!(hex(&LeaseGrantRequest { ttl: 2 }), "0802");
    assert_eq!(hex(&LeaseRequest { id: 300 }), "08ac02");
    let granted = LeaseGrantResponse { id: 1, error: "e".into() };
    assert_eq!(LeaseGrantResponse::decode(&*unhex("10011802220165")), Ok(granted));
    let alive = LeaseKeepAliveResponse { ttl: 2 };
    assert_eq!(LeaseKeepAliveResponse::decode(&*unhex("10011802")), Ok(alive));
    let left = LeaseTimeToLive { ttl: 2, granted_ttl: 3 };
    assert_eq!(LeaseTimeToLive::decode(&*unhex("1001180220032a016b")), Ok(left));
    let asked = AuthenticateRequest { name: "n".into(), password: "p".into() };
    assert_eq!(hex(&asked), "0a016e120170");
    let token = AuthenticateResponse::decode(&*unhex("0a021801120174")).unwrap();
    assert_eq!(token.token, "t");
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}
