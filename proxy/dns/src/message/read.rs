//! Bytes of a client to a request, or to what it is answered at once.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::write::{Head, error};
use super::{Edns, Question, Request};

/// Bytes before the question.
const HEADER: usize = 12;

/// The type of OPT.
const OPT: u16 = 41;

/// A message that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// RCODE of the answer.
    pub code: ResponseCode,
    /// The whole answer; `None` if there must be none: the message is an answer itself (two servers
    /// would go on for ever), or too short to have an id.
    pub answer: Option<Vec<u8>>,
}

/// Reads a message of a client. Cookies and other options are skipped unread, and so is what follows
/// the last record.
///
/// # Errors
/// No query with one question that can be read: FORMERR; another opcode: NOTIMP; another version of
/// EDNS than 0: BADVERS (RFC 1035 section 4.1, RFC 6891 section 6.1.3, RFC 9619, row D-44).
pub fn read(bytes: &[u8]) -> Result<Request, Refusal> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(Refusal { code: ResponseCode::FormErr, answer: None });
    };
    if header[2] & 0x80 != 0 {
        return Err(Refusal { code: ResponseCode::FormErr, answer: None });
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut head = Head {
        id: u16::from_be_bytes([header[0], header[1]]),
        opcode: header[2] >> 3 & 0xF,
        recursion_desired: header[2] & 1 != 0,
        checking_disabled: header[3] & 0x10 != 0,
        edns: None,
    };
    let asked = if count(4) == 0 { None } else { question(bytes) };
    let refuse = |head: &Head, code| {
        let question = asked.as_ref().map(|(question, _)| question);
        Refusal { code, answer: Some(error(head, question, code)) }
    };
    if head.opcode != 0 {
        return Err(refuse(&head, ResponseCode::NotImp));
    }
    let Some((question, rest)) = asked.as_ref().filter(|_| count(4) == 1) else {
        return Err(refuse(&head, ResponseCode::FormErr));
    };
    let before = usize::from(count(6)) + usize::from(count(8));
    let Some(edns) = edns(&body[*rest..], before, count(10).into()) else {
        return Err(refuse(&head, ResponseCode::FormErr));
    };
    head.edns = edns.map(|edns| edns.dnssec_ok);
    if edns.is_some_and(|edns| edns.version != 0) {
        return Err(refuse(&head, ResponseCode::BADVERS));
    }
    Ok(Request {
        id: head.id,
        question: question.clone(),
        recursion_desired: head.recursion_desired,
        checking_disabled: head.checking_disabled,
        edns,
    })
}

/// The first question, and how many bytes of the message's body it takes.
fn question(bytes: &[u8]) -> Option<(Question, usize)> {
    let mut decoder = BinDecoder::new(bytes);
    decoder.read_slice(HEADER).ok()?;
    let name = Name::read(&mut decoder).ok()?;
    let record_type = RecordType::read(&mut decoder).ok()?;
    let class = DNSClass::read(&mut decoder).ok()?;
    Some((Question { name, record_type, class }, decoder.index() - HEADER))
}

/// The OPT record behind the question: after `before` records of other sections, one of so many in
/// the additional section. `None` if a record cannot be read, or OPT stands where it must not.
fn edns(bytes: &[u8], before: usize, additional: usize) -> Option<Option<Edns>> {
    let mut rest = bytes;
    let mut found = None;
    for index in 0..before + additional {
        let root = rest.first() == Some(&0);
        let after_name = skip_name(rest)?;
        let (fixed, data) = after_name.split_first_chunk::<10>()?;
        let length = u16::from_be_bytes([fixed[8], fixed[9]]);
        rest = data.get(length.into()..)?;
        if u16::from_be_bytes([fixed[0], fixed[1]]) != OPT {
            continue;
        }
        if index < before || !root || found.is_some() {
            return None;
        }
        let payload = u16::from_be_bytes([fixed[2], fixed[3]]);
        found = Some(Edns { payload, version: fixed[5], dnssec_ok: fixed[6] & 0x80 != 0 });
    }
    Some(found)
}

/// What follows a name; where a pointer leads does not matter.
fn skip_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        match length {
            0 => return Some(rest),
            1..=63 => bytes = rest.get(usize::from(*length)..)?,
            0xC0.. => return rest.get(1..),
            _ => return None,
        }
    }
}
