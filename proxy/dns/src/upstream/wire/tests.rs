use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record};

use proptest::prelude::*;

use super::*;

fn asked() -> Outgoing {
    let name = Name::from_ascii("www.example.").unwrap();
    let question = Question { name, record_type: RecordType::A, class: DNSClass::IN };
    Outgoing { question, dnssec_ok: true, checking_disabled: true, edns: true }
}

/// An answer of one address, changed by `change`.
fn answer(change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::from_vec(&asked().bytes(7)).unwrap();
    message.metadata.message_type = MessageType::Response;
    let record = Record::from_rdata(asked().question.name, 60, RData::A(A::new(192, 0, 2, 1)));
    message.add_answer(record);
    change(&mut message);
    message.to_vec().unwrap()
}

#[test]
fn a_question_carries_what_changes_its_answer() {
    let message = Message::from_vec(&asked().bytes(7)).unwrap();
    assert!(message.metadata.recursion_desired && message.metadata.checking_disabled);
    let edns = message.edns.as_ref().expect("OPT");
    assert!(edns.flags().dnssec_ok);
    assert_eq!((message.metadata.id, edns.max_payload()), (7, 1232));
    let plain = Outgoing { edns: false, ..asked() };
    assert_eq!(Message::from_vec(&plain.bytes(7)).unwrap().edns, None);
}

#[test]
fn what_does_not_fit_the_question_is_no_answer() {
    let came = |bytes: &[u8]| asked().came(7, bytes);
    let good = answer(|_| ());
    assert!(matches!(came(&good), Came::Reply(reply) if reply.answers.len() == 1));
    assert_eq!(asked().came(8, &good), Came::Stray, "another id");
    assert_eq!(came(&asked().bytes(7)), Came::Stray, "a question");
    assert_eq!(came(&good[..11]), Came::Stray);
    assert_eq!(came(&[]), Came::Stray);
    let other = |change: fn(&mut Query)| answer(|message| change(&mut message.queries[0]));
    let strays = [
        other(|query| query.name = Name::from_ascii("wwv.example.").unwrap()),
        other(|query| query.query_type = RecordType::AAAA),
        other(|query| query.query_class = DNSClass::CH),
    ];
    for stray in strays {
        assert_eq!(came(&stray), Came::Stray);
    }
    let upper = other(|query| query.name = Name::from_ascii("WWW.example.").unwrap());
    assert!(matches!(came(&upper), Came::Reply(_)), "case does not matter");
}

#[test]
fn cut_broken_and_empty_answers_are_told_apart() {
    let came = |bytes: &[u8]| asked().came(7, bytes);
    assert_eq!(came(&answer(|message| message.metadata.truncation = true)), Came::Cut);
    let good = answer(|_| ());
    assert_eq!(came(&good[..good.len() - 13]), Came::Broken, "our question, then half a record");
    let mut foreign = good.clone();
    foreign[14] ^= 1;
    assert_eq!(came(&foreign[..good.len() - 13]), Came::Stray);
    let without = |code| {
        answer(|message| {
            message.queries.clear();
            message.answers.clear();
            message.metadata.response_code = code;
        })
    };
    assert!(matches!(came(&without(ResponseCode::Refused)), Came::Reply(_)));
    assert_eq!(came(&without(ResponseCode::NoError)), Came::Stray);
}

proptest! {
    /// Bytes of strangers, and our answer with bytes of theirs in it.
    #[test]
    fn any_bytes_are_something(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        at in 0_usize..60,
    ) {
        let answered = matches!(asked().came(7, &bytes), Came::Reply(_));
        prop_assert!(!answered || bytes.starts_with(&[0, 7]));
        let mut mixed = answer(|_| ());
        mixed.truncate(at);
        mixed.extend(&bytes);
        asked().came(7, &mixed);
    }
}
