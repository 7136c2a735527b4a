//! The bytes of a question to an upstream, and which bytes are its answer.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};

use crate::{Question, Reply};

/// What we take by UDP: the size that fits through any path (DNS flag day 2020).
const PAYLOAD: u16 = 1232;

/// A question to an upstream, without its id.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// What is asked.
    pub(crate) question: Question,
    /// DO of the client.
    pub(crate) dnssec_ok: bool,
    /// CD of the client.
    pub(crate) checking_disabled: bool,
    /// With OPT; servers that answer FORMERR to it are asked again without.
    pub(crate) edns: bool,
}

/// What a datagram or message is to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// The answer.
    Reply(Reply),
    /// The answer, cut off: it is of no use but to ask by TCP.
    Cut,
    /// Another id, another question, no response, no DNS message.
    Stray,
    /// Our id and question, and then something that cannot be read.
    Broken,
}

impl Outgoing {
    /// The message with this id.
    pub(crate) fn bytes(&self, id: u16) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.checking_disabled;
        let mut query = Query::query(self.question.name.clone(), self.question.record_type);
        query.set_query_class(self.question.class);
        message.add_query(query);
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD).set_dnssec_ok(self.dnssec_ok);
            message.set_edns(edns);
        }
        // A question alone always fits; an empty message would be answered by nobody.
        message.to_vec().unwrap_or_default()
    }

    /// What these bytes are to this question.
    pub(crate) fn came(&self, id: u16, bytes: &[u8]) -> Came {
        if bytes.len() < 12 || bytes[..2] != id.to_be_bytes() || bytes[2] & 0x80 == 0 {
            return Came::Stray;
        }
        let message = match Message::from_vec(bytes) {
            Ok(message) => message,
            Err(_) => return if self.cut_or_broken(bytes) { Came::Broken } else { Came::Stray },
        };
        let failed = !matches!(
            message.metadata.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        );
        match &message.queries[..] {
            [query] if self.is_question(query) => {}
            // Some servers leave the question out of an error; the id is ours.
            [] if failed => {}
            _ => return Came::Stray,
        }
        if message.metadata.truncation {
            return Came::Cut;
        }
        Came::Reply(Reply {
            code: message.metadata.response_code,
            authoritative: false,
            answers: message.answers,
            authority: message.authorities,
            additional: message.additionals,
        })
    }

    fn is_question(&self, query: &Query) -> bool {
        query.name() == &self.question.name
            && query.query_type() == self.question.record_type
            && query.query_class() == self.question.class
    }

    /// Whether a message that cannot be read as a whole begins with our question.
    fn cut_or_broken(&self, bytes: &[u8]) -> bool {
        let own = self.bytes(0);
        let end = self.question.name.len() + usize::from(!self.question.name.is_root());
        // A header, the name, type and class.
        let end = (12 + end + 4).min(own.len());
        bytes.len() >= end && bytes[12..end].eq_ignore_ascii_case(&own[12..end])
    }
}

/// What a server is asked to show that it lives: the servers of the root, which any resolver knows.
pub(crate) fn alive() -> Question {
    Question { name: Name::root(), record_type: RecordType::NS, class: DNSClass::IN }
}

#[cfg(test)]
mod tests;
