use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;

use super::names::Names;
use super::{Edns, Limit, Question, Refusal, Reply, Request, UDP_PAYLOAD, read, write, write_into};
use crate::fixture::{name, question, request, sent};

const WEB: &str = "web.default.svc.cluster.local.";

/// A query of one question with what follows it, in bytes.
fn query(flags: [u8; 2], counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xAB, 0xCD, flags[0], flags[1]];
    bytes.extend(counts.iter().flat_map(|count| [0, *count]));
    bytes.extend_from_slice(rest);
    bytes
}

const QUESTION: &[u8] = b"\x03WeB\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";

/// OPT of this version, with a cookie.
fn opt(version: u8) -> Vec<u8> {
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let fixed = [0, 0, 41, 0x10, 0, 0, version, 0x80, 0, 0, 12];
    [&fixed[..], &cookie].concat()
}

fn refused(bytes: &[u8]) -> (Refusal, Message) {
    let refusal = read(bytes).expect_err("a refusal");
    let answer = Message::from_vec(refusal.answer.as_ref().expect("an answer")).expect("a message");
    (refusal, answer)
}

fn addresses(count: u32) -> Reply {
    let mut reply = Reply::of(ResponseCode::NoError, true);
    let record = |number: u32| {
        let address = A((0x0A00_0000 + number).into());
        Record::from_rdata(name(WEB), 5, RData::A(address))
    };
    reply.answers = (0..count).map(record).collect();
    reply
}

#[test]
fn a_query_is_read_with_its_options_skipped() {
    let bytes = [QUESTION, &opt(0)].concat();
    let request = read(&query([1, 0x10], [1, 0, 0, 1], &bytes)).expect("a query");
    assert_eq!(request.id, 0xABCD);
    assert!(request.recursion_desired && request.checking_disabled);
    assert!(request.question.name.eq_case(&name("WeB.default.svc.cluster.local.")));
    assert_eq!(request.question.record_type, RecordType::A);
    let edns = request.edns.expect("OPT");
    assert_eq!((edns.payload, edns.version, edns.dnssec_ok), (4096, 0, true));
    let plain = read(&query([0, 0], [1, 0, 0, 0], QUESTION)).expect("a query");
    assert!(!plain.recursion_desired && !plain.checking_disabled && plain.edns.is_none());
}

/// Rows: D-44
#[test]
fn every_error_repeats_id_flags_and_question_and_says_that_recursion_is_there() {
    let two = [QUESTION, QUESTION].concat();
    let new = [QUESTION, &opt(1)].concat();
    let twice = [QUESTION, &opt(0), &opt(0)].concat();
    let cut = [QUESTION, &opt(0)[..14]].concat();
    let asked = |counts, rest: &[u8]| query([1, 0x10], counts, rest);
    let cases = [
        (query([0x29, 0x10], [1, 0, 0, 0], QUESTION), ResponseCode::NotImp),
        (query([0x11, 0x10], [1, 0, 0, 0], QUESTION), ResponseCode::NotImp),
        (query([0x79, 0x10], [1, 9, 9, 9], QUESTION), ResponseCode::NotImp),
        (asked([2, 0, 0, 0], &two), ResponseCode::FormErr),
        (asked([1, 0, 0, 1], &new), ResponseCode::BADVERS),
        (asked([1, 0, 0, 2], &twice), ResponseCode::FormErr),
        (asked([1, 0, 0, 1], &cut), ResponseCode::FormErr),
        (asked([1, 0, 0, 1], QUESTION), ResponseCode::FormErr),
        // OPT belongs into the additional section.
        (asked([1, 1, 0, 0], &[QUESTION, &opt(0)].concat()), ResponseCode::FormErr),
    ];
    for (bytes, code) in cases {
        let (refusal, answer) = refused(&bytes);
        assert_eq!(refusal.code, code);
        // The reader takes 16 for BADSIG, which has the same number.
        assert_eq!(u16::from(answer.response_code), u16::from(code));
        assert_eq!(answer.id, 0xABCD);
        assert_eq!(answer.message_type, MessageType::Response);
        assert_eq!(answer.op_code, OpCode::from_u8(bytes[2] >> 3 & 0xF));
        assert!(answer.recursion_desired && answer.recursion_available && answer.checking_disabled);
        assert_eq!(answer.queries.len(), 1, "{code}");
        let sent = &refusal.answer.expect("an answer")[12..12 + QUESTION.len()];
        assert_eq!(sent, QUESTION, "in the case that was asked");
        let version = answer.edns.as_ref().map(|edns| edns.version());
        assert_eq!(version, (code == ResponseCode::BADVERS).then_some(0));
    }
}

#[test]
fn a_question_that_cannot_be_read_is_a_format_error_without_one() {
    let endless = b"\xC0\x0C\0\x01\0\x01";
    let forward = b"\xC0\x20\0\x01\0\x01";
    let long = [&[63][..], &[b'a'; 63]].concat().repeat(4);
    let reserved = b"\x80\0\0\x01\0\x01";
    let cases: [&[u8]; 6] = [endless, forward, &long, reserved, &QUESTION[..20], b""];
    for rest in cases {
        let (refusal, answer) = refused(&query([1, 0], [1, 0, 0, 0], rest));
        assert_eq!(refusal.code, ResponseCode::FormErr, "{rest:?}");
        assert_eq!((answer.id, answer.queries.len()), (0xABCD, 0));
    }
    let (_, answer) = refused(&query([1, 0], [0, 0, 0, 0], b""));
    assert_eq!(answer.response_code, ResponseCode::FormErr, "no question at all");
}

#[test]
fn answers_and_scraps_are_not_answered() {
    let silent = Refusal { code: ResponseCode::FormErr, answer: None };
    let response = query([0x81, 0x80], [1, 0, 0, 0], QUESTION);
    assert_eq!(read(&response), Err(silent.clone()));
    for length in 0..12 {
        assert_eq!(read(&response[..length]), Err(silent.clone()));
    }
}

/// Rows: D-40
#[test]
fn of_thirty_addresses_twenty_nine_fit_when_the_query_has_no_opt() {
    let asked = question(WEB, RecordType::A);
    let plain = request(asked.clone(), None);
    let bytes = write(&plain, &addresses(30), Limit::Udp);
    assert!(bytes.len() <= 512);
    let answer = sent(&plain, &addresses(30), Limit::Udp);
    assert_eq!((answer.answers.len(), answer.truncation), (29, true));
    assert!(answer.edns.is_none());
    let answer = sent(&plain, &addresses(29), Limit::Udp);
    assert_eq!((answer.answers.len(), answer.truncation), (29, false));
    // What the client takes, between 512 and 1,232.
    for (payload, fit) in [(0, 28), (512, 28), (700, 40), (1232, 73), (4096, 73), (65_535, 73)] {
        let with = request(asked.clone(), Some(payload));
        let bytes = write(&with, &addresses(200), Limit::Udp);
        assert!(bytes.len() <= payload.clamp(512, UDP_PAYLOAD).into());
        let answer = sent(&with, &addresses(200), Limit::Udp);
        assert_eq!((answer.answers.len(), answer.truncation), (fit, true), "{payload}");
        assert_eq!(answer.edns.expect("OPT").max_payload(), UDP_PAYLOAD);
    }
}

#[test]
fn one_tcp_message_holds_what_fits_without_tc() {
    let asked = request(question(WEB, RecordType::A), None);
    let mut out = Vec::new();
    let written = write_into(&mut out, &asked, &addresses(4093), Limit::Tcp);
    assert_eq!((written.left_out, written.truncated), (0, false));
    let written = write_into(&mut out, &asked, &addresses(5000), Limit::Tcp);
    assert_eq!((written.left_out, written.truncated), (907, false));
    let answer = Message::from_vec(&out).expect("a message");
    assert_eq!((answer.answers.len(), answer.truncation), (4093, false));

    let mut reply = Reply::of(ResponseCode::NoError, true);
    let data = |number: u16| RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, number));
    reply.answers = (0..3000).map(|n| Record::from_rdata(name(WEB), 5, data(n))).collect();
    let asked = request(question(WEB, RecordType::AAAA), None);
    assert_eq!(sent(&asked, &reply, Limit::Tcp).answers.len(), 2338);
}

#[test]
fn each_name_costs_the_same_however_many_there_are() {
    let cost = |count: usize| {
        let (mut names, mut out) = (Names::default(), Vec::new());
        for number in 0..count {
            names.write(&mut out, &name(&format!("h-{number}.{WEB}")));
            names.write(&mut out, &name(WEB));
        }
        (names.looked_at.get(), out.len())
    };
    let ((few, short), (many, long)) = (cost(1000), cost(4000));
    assert!(many < 5 * few && long < 5 * short, "{few} {many}, {short} {long}");
    assert!(long < 4000 * 12, "each name is a label and a pointer");
}

/// Rows: D-19
#[test]
fn names_keep_the_case_of_the_question_and_are_pointers_where_they_stand_already() {
    let asked = request(question("wEb.Default.svc.cluster.local.", RecordType::A), None);
    let mut reply = Reply::of(ResponseCode::NoError, true);
    let own = asked.question.name.clone();
    let target = name("db.Default.svc.cluster.local.");
    let other_case = name("x.DEFAULT.svc.cluster.local.");
    reply.answers = vec![
        Record::from_rdata(own, 5, RData::CNAME(CNAME(target.clone()))),
        Record::from_rdata(target, 5, RData::CNAME(CNAME(other_case.clone()))),
        Record::from_rdata(other_case, 5, RData::A(A::new(10, 0, 0, 1))),
    ];
    let bytes = write(&asked, &reply, Limit::Udp);
    let read = Message::from_vec(&bytes).expect("a message");
    let case = |name: &Name| name.to_ascii();
    assert_eq!(case(read.queries[0].name()), "wEb.Default.svc.cluster.local.");
    let owners: Vec<_> = read.answers.iter().map(|record| case(&record.name)).collect();
    let expected = [
        "wEb.Default.svc.cluster.local.",
        "db.Default.svc.cluster.local.",
        "x.DEFAULT.svc.cluster.local.",
    ];
    assert_eq!(owners, expected);
    // Question, then owner and `db` with one pointer each, then owner, `x`, `DEFAULT` and a pointer,
    // then owner and address.
    let fixed = 10;
    let records = (2 + fixed + 5) + (2 + fixed + 12) + (2 + fixed + 4);
    assert_eq!(bytes.len(), 12 + 31 + 4 + records);
}

#[test]
fn flags_and_sections_come_out_as_they_are() {
    let mut reply = Reply::of(ResponseCode::NXDomain, true);
    reply.authority = every_type();
    reply.additional = vec![Record::from_rdata(name(WEB), 5, RData::A(A::new(10, 0, 0, 1)))];
    for (authoritative, desired, disabled) in [(true, false, true), (false, true, false)] {
        reply.authoritative = authoritative;
        let mut asked = request(question(WEB, RecordType::A), Some(1232));
        asked.recursion_desired = desired;
        asked.checking_disabled = disabled;
        asked.edns = asked.edns.map(|edns| Edns { dnssec_ok: disabled, ..edns });
        let answer = sent(&asked, &reply, Limit::Udp);
        assert_eq!(answer.response_code, ResponseCode::NXDomain);
        assert!(answer.recursion_available && !answer.truncation && !answer.authentic_data);
        assert_eq!(answer.authoritative, authoritative);
        assert_eq!((answer.recursion_desired, answer.checking_disabled), (desired, disabled));
        assert_eq!(answer.edns.as_ref().map(|edns| edns.flags().dnssec_ok), Some(disabled));
        assert_eq!(answer.authorities, reply.authority);
        assert_eq!(answer.additionals, reply.additional);
    }
}

/// One record of each type that is written in a way of its own, and one that is not.
fn every_type() -> Vec<Record> {
    let target = || name("a.b.example.org.");
    let data = [
        RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
        RData::NS(NS(target())),
        RData::PTR(PTR(target())),
        RData::MX(MX::new(10, target())),
        RData::SRV(SRV::new(0, 50, 80, target())),
        RData::SOA(SOA::new(target(), name("h.example.org."), 9, 7200, 1800, 86_400, 5)),
        RData::TXT(TXT::from_bytes(vec![b"1.1.0", b"two"])),
        RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new())),
    ];
    data.into_iter().map(|data| Record::from_rdata(name("b.example.org."), 5, data)).collect()
}

#[test]
fn what_is_beside_the_answer_is_left_out_without_tc() {
    let asked = request(question(WEB, RecordType::SRV), None);
    let mut reply = addresses(27);
    reply.additional = addresses(10).answers;
    let answer = sent(&asked, &reply, Limit::Udp);
    assert!(!answer.truncation);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (27, 2));
}

fn any_question() -> impl Strategy<Value = Question> {
    let label = "[a-zA-Z0-9_-]{1,20}";
    (vec(label, 0..6), any::<u16>(), any::<u16>()).prop_map(|(labels, kind, class)| Question {
        name: name(&labels.join(".")),
        record_type: kind.into(),
        class: DNSClass::from(class),
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        match read(&bytes) {
            Ok(request) => prop_assert_eq!(request.id.to_be_bytes(), [bytes[0], bytes[1]]),
            Err(Refusal { answer: Some(answer), .. }) => {
                prop_assert!(answer.len() <= 512);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
                prop_assert!(Message::from_vec(&answer).is_ok());
            }
            Err(_) => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
        }
    }

    #[test]
    fn what_is_written_is_within_the_limit_and_read_back(
        question in any_question(),
        payload in proptest::option::of(any::<u16>()),
        count in 0_u32..200,
        tcp: bool,
    ) {
        let asked: Request = request(question, payload);
        let mut reply = addresses(count);
        reply.authority = every_type();
        let limit = if tcp { Limit::Tcp } else { Limit::Udp };
        let mut out = Vec::new();
        let written = write_into(&mut out, &asked, &reply, limit);
        let most = payload.map_or(512, |payload| payload.clamp(512, UDP_PAYLOAD));
        let most = if tcp { 65_535 } else { most.into() };
        prop_assert!(out.len() <= most);
        let answer = Message::from_vec(&out).expect("a message");
        let all = answer.answers.len() + answer.authorities.len() + written.left_out;
        prop_assert_eq!(all, reply.answers.len() + reply.authority.len());
        prop_assert_eq!(&answer.answers[..], &reply.answers[..answer.answers.len()]);
        prop_assert_eq!(answer.truncation, written.truncated);
        prop_assert_eq!(answer.edns.is_some(), payload.is_some());
        prop_assert!(answer.queries[0].name().eq_case(&asked.question.name));
    }
}
