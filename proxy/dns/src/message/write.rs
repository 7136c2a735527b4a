//! Answers to bytes, within what the client takes.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, RecordData};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use super::names::Names;
use super::{Question, Reply, Request, UDP_PAYLOAD};

/// What carries the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A datagram: 512 bytes, or what an OPT record of the query allows, at most [`UDP_PAYLOAD`].
    Udp,
    /// A message of a stream: 65,535 bytes.
    Tcp,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records of the answer and authority sections that did not fit; at least so many, since a reply
    /// has no more than show that.
    pub left_out: usize,
    /// TC: the client is told to ask again over TCP.
    pub truncated: bool,
}

/// The answer in bytes.
pub fn write(request: &Request, reply: &Reply, limit: Limit) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_into(&mut out, request, reply, limit);
    out
}

/// The same in place of what stands in `out`.
///
/// Over UDP records that do not fit set TC. Over TCP they do not, since some resolvers make SERVFAIL
/// of it (row D-41): of a reply in random order a random part is left. Records of the additional
/// section are left out without a word (RFC 2181 section 9).
pub fn write_into(out: &mut Vec<u8>, request: &Request, reply: &Reply, limit: Limit) -> Written {
    let head = Head {
        id: request.id,
        opcode: 0,
        recursion_desired: request.recursion_desired,
        checking_disabled: request.checking_disabled,
        edns: request.edns.map(|edns| edns.dnssec_ok),
    };
    let size = match (limit, request.edns) {
        (Limit::Tcp, _) => usize::from(u16::MAX),
        (Limit::Udp, None) => 512,
        (Limit::Udp, Some(edns)) => edns.payload.clamp(512, UDP_PAYLOAD).into(),
    };
    out.clear();
    let mut writer = Writer::new(out, size);
    writer.begin(&head, Some(&request.question), reply.code);
    let answers = writer.section(&reply.answers);
    let complete = answers == reply.answers.len();
    let authority = if complete { writer.section(&reply.authority) } else { 0 };
    let all = reply.answers.len() + reply.authority.len();
    let left_out = all - answers - authority;
    let additional = if left_out == 0 { writer.section(&reply.additional) } else { 0 };
    let truncated = left_out > 0 && limit == Limit::Udp;
    writer.out[2] |= if reply.authoritative { 4 } else { 0 } | if truncated { 2 } else { 0 };
    writer.end([answers, authority, additional], reply.code);
    Written { left_out, truncated }
}

/// An answer of this code to a query that is not one (row D-44).
pub(super) fn error(head: &Head, question: Option<&Question>, code: ResponseCode) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut writer = Writer::new(&mut out, 512);
    writer.begin(head, question, code);
    writer.end([0; 3], code);
    out
}

/// What an answer repeats of its query beside the question.
pub(super) struct Head {
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    /// DO of the query's OPT record. If it has one, the answer has one (row D-40), with this bit as it
    /// came (RFC 3225 section 3).
    pub(super) edns: Option<bool>,
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    names: Names,
    /// Bytes that records may take.
    size: usize,
    edns: Option<bool>,
}

/// An OPT record without options.
const OPT_LENGTH: usize = 11;

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, size: usize) -> Self {
        Self { out, names: Names::default(), size, edns: None }
    }

    /// Header and question. RA is always set: without it and AA resolvers take the server for a lame
    /// one (row D-44).
    fn begin(&mut self, head: &Head, question: Option<&Question>, code: ResponseCode) {
        self.out.extend_from_slice(&head.id.to_be_bytes());
        self.out.push(0x80 | head.opcode << 3 | u8::from(head.recursion_desired));
        self.out.push(0x80 | u8::from(head.checking_disabled) << 4 | code.low());
        self.out.extend_from_slice(&[0, u8::from(question.is_some()), 0, 0, 0, 0, 0, 0]);
        if let Some(question) = question {
            self.names.write(self.out, &question.name);
            self.out.extend_from_slice(&u16::from(question.record_type).to_be_bytes());
            self.out.extend_from_slice(&u16::from(question.class).to_be_bytes());
        }
        self.edns = head.edns;
        if self.edns.is_some() {
            self.size -= OPT_LENGTH;
        }
    }

    /// As many records as fit; how many they are.
    fn section(&mut self, records: &[Record]) -> usize {
        let fits = |record: &&Record| self.record(record);
        records.iter().take_while(fits).count()
    }

    /// Whether the record fits.
    fn record(&mut self, record: &Record) -> bool {
        let (start, mark) = (self.out.len(), self.names.mark());
        self.names.write(self.out, &record.name);
        self.out.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
        self.out.extend_from_slice(&u16::from(record.dns_class).to_be_bytes());
        self.out.extend_from_slice(&record.ttl.to_be_bytes());
        let at = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        let fine = self.data(&record.data);
        let length = u16::try_from(self.out.len() - at - 2);
        if let (true, Ok(length), true) = (fine, length, self.out.len() <= self.size) {
            self.out[at..at + 2].copy_from_slice(&length.to_be_bytes());
            return true;
        }
        self.out.truncate(start);
        self.names.back_to(mark);
        false
    }

    /// Whether the data can be written. Names are compressed in the types of RFC 1035 alone
    /// (RFC 3597 section 4).
    #[expect(clippy::wildcard_enum_match_arm, reason = "types that come from other servers alone")]
    fn data(&mut self, data: &RData) -> bool {
        match data {
            RData::A(address) => self.out.extend_from_slice(&address.octets()),
            RData::AAAA(address) => self.out.extend_from_slice(&address.octets()),
            RData::CNAME(name) => self.names.write(self.out, name),
            RData::NS(name) => self.names.write(self.out, name),
            RData::PTR(name) => self.names.write(self.out, name),
            RData::MX(mx) => {
                self.out.extend_from_slice(&mx.preference.to_be_bytes());
                self.names.write(self.out, &mx.exchange);
            }
            RData::SRV(srv) => {
                for number in [srv.priority, srv.weight, srv.port] {
                    self.out.extend_from_slice(&number.to_be_bytes());
                }
                self.names.write_in_full(self.out, &srv.target);
            }
            RData::SOA(soa) => {
                self.names.write(self.out, &soa.mname);
                self.names.write(self.out, &soa.rname);
                self.out.extend_from_slice(&soa.serial.to_be_bytes());
                for number in [soa.refresh, soa.retry, soa.expire] {
                    self.out.extend_from_slice(&number.to_be_bytes());
                }
                self.out.extend_from_slice(&soa.minimum.to_be_bytes());
            }
            other => {
                let mut bytes = Vec::new();
                let mut encoder = BinEncoder::new(&mut bytes);
                encoder.set_name_encoding(NameEncoding::Uncompressed);
                if !other.is_update() && other.emit(&mut encoder).is_err() {
                    return false;
                }
                self.out.extend_from_slice(&bytes);
            }
        }
        true
    }

    /// OPT, and the counts of the sections.
    fn end(self, [answers, authority, additional]: [usize; 3], code: ResponseCode) {
        let opt = usize::from(self.edns.is_some());
        if let Some(dnssec_ok) = self.edns {
            let [high, low] = UDP_PAYLOAD.to_be_bytes();
            let flags = u8::from(dnssec_ok) << 7;
            self.out.extend_from_slice(&[0, 0, 41, high, low, code.high(), 0, flags, 0, 0, 0]);
        }
        for (at, count) in [(6, answers), (8, authority), (10, additional + opt)] {
            // Each record takes eleven bytes of 65,535 at least.
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}
