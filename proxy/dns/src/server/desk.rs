//! Where questions of both protocols are answered: from the zone at once, from other servers later.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnetwork::IpNetwork;

use crate::counters::Counters;
use crate::forward::{Forwarder, Looked, Pending, Wanted};
use crate::{
    Answer, Limit, Question, Reply, Request, Zone, answer_within, random, read, write_into,
};

/// What is done with AAAA questions for names outside (row D-61).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outside {
    /// They are asked of the upstreams like all others.
    #[default]
    Forward,
    /// They are NODATA at once: who asks here has no IPv6.
    NoAaaa,
}

/// How long "no IPv6 address" may be kept, seconds.
const NO_AAAA_TTL: u32 = 60;

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) limit: Limit,
    pub(super) outside: Outside,
}

/// What becomes of a message.
pub(super) enum Handled {
    /// The answer stands in the buffer that was given.
    Now,
    /// It comes from elsewhere.
    Later(Box<Later>),
    /// There is none.
    Never,
}

/// An answer that waits for other servers.
pub(super) struct Later {
    request: Request,
    /// Aliases of the zone that lead outside.
    aliases: Vec<Record>,
    pending: Pending,
    limit: Limit,
}

/// All that answers need; one for all listeners.
pub(super) struct Desk {
    pub(super) zone: RefCell<Zone>,
    pub(super) forwarder: Rc<Forwarder>,
    pub(super) clients: RefCell<Vec<IpNetwork>>,
    /// Own addresses, from which this server asks itself.
    pub(super) own: RefCell<BTreeSet<IpAddr>>,
    pub(super) counters: Arc<Counters>,
    /// Counted from somewhere, for even shares of all addresses (row D-41).
    answers: Cell<u64>,
}

impl Desk {
    pub(super) fn new(zone: Zone, forwarder: Rc<Forwarder>, counters: Arc<Counters>) -> Self {
        Self {
            zone: RefCell::new(zone),
            forwarder,
            clients: RefCell::default(),
            own: RefCell::default(),
            counters,
            answers: Cell::new(u64::from_ne_bytes(random::bytes())),
        }
    }

    /// Whether a client is answered: containers and nodes as told, this node always.
    pub(super) fn knows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback()
            || self.clients.borrow().iter().any(|network| network.contains(address))
            || self.own.borrow().contains(&address)
    }

    /// Takes a message; `out` is written over.
    pub(super) fn take(&self, bytes: &[u8], client: Client, out: &mut Vec<u8>) -> Handled {
        let protocol = usize::from(client.limit == Limit::Tcp);
        let request = match read(bytes) {
            Ok(request) => request,
            Err(refusal) => {
                self.counters.malformed[protocol].add();
                let Some(answer) = refusal.answer else { return Handled::Never };
                self.counters.response(refusal.code);
                *out = answer;
                return Handled::Now;
            }
        };
        let question = &request.question;
        self.counters.question(protocol, client.address.is_ipv6(), question.record_type);
        if !self.knows(client.address) {
            self.counters.strangers.add();
            return self.now(&request, &Reply::of(ResponseCode::Refused, false), client.limit, out);
        }
        self.answers.set(self.answers.get().wrapping_add(1));
        let zone = self.zone.borrow();
        let answered = answer_within(&zone, question, self.answers.get(), client.limit);
        let (aliases, target) = match answered {
            Answer::Own(reply) => return self.now(&request, &reply, client.limit, out),
            Answer::Forward => (Vec::new(), question.clone()),
            Answer::Chase { answers, target } => {
                (answers, Question { name: target, ..question.clone() })
            }
        };
        self.outside(Outer { request, aliases, target }, client, out)
    }

    /// A name outside.
    fn outside(&self, outer: Outer, client: Client, out: &mut Vec<u8>) -> Handled {
        let Outer { request, aliases, target } = outer;
        let aaaa = target.record_type == RecordType::AAAA;
        self.counters.outside[usize::from(aaaa)].add();
        if self.forwarder.came_back(&target) {
            let reply = Reply::of(ResponseCode::NXDomain, false);
            return self.now(&request, &reply, client.limit, out);
        }
        if aaaa && client.outside == Outside::NoAaaa {
            let reply = joined(&request, aliases, no_aaaa());
            return self.now(&request, &reply, client.limit, out);
        }
        let wanted = Wanted {
            question: target,
            dnssec_ok: request.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: request.checking_disabled,
        };
        match self.forwarder.look(&wanted, client.address) {
            Looked::Reply(reply) => {
                let reply = joined(&request, aliases, reply);
                self.now(&request, &reply, client.limit, out)
            }
            Looked::Pending(pending) => {
                let limit = client.limit;
                Handled::Later(Box::new(Later { request, aliases, pending, limit }))
            }
        }
    }

    fn now(&self, request: &Request, reply: &Reply, limit: Limit, out: &mut Vec<u8>) -> Handled {
        let written = write_into(out, request, reply, limit);
        self.counters.response(reply.code);
        if written.truncated {
            self.counters.truncated.add();
        } else if written.left_out > 0 {
            self.counters.left_out.add();
        }
        Handled::Now
    }
}

/// A question that leads outside.
struct Outer {
    request: Request,
    aliases: Vec<Record>,
    target: Question,
}

impl Later {
    /// The answer, within 4 s.
    pub(super) async fn answer(self, desk: &Desk) -> Vec<u8> {
        let reply = joined(&self.request, self.aliases, self.pending.reply().await);
        let mut out = Vec::with_capacity(512);
        desk.now(&self.request, &reply, self.limit, &mut out);
        out
    }
}

/// Aliases of the zone, then what stands at their end. If nobody knows that, the aliases alone are the
/// answer (row D-43).
fn joined(request: &Request, aliases: Vec<Record>, mut outside: Reply) -> Reply {
    if aliases.is_empty() {
        keep_case(&mut outside.answers, &request.question.name);
        return outside;
    }
    if outside.code == ResponseCode::ServFail {
        outside = Reply::of(ResponseCode::NoError, true);
    }
    let mut answers = aliases;
    answers.append(&mut outside.answers);
    Reply { authoritative: true, answers, ..outside }
}

/// A client that plays with the case of its question finds it in the answer (row D-19).
fn keep_case(records: &mut [Record], asked: &Name) {
    for record in records.iter_mut().filter(|record| record.name == *asked) {
        record.name.clone_from(asked);
    }
}

/// NODATA. The SOA is that of no server: it says for how long this may be kept (RFC 2308).
fn no_aaaa() -> Reply {
    let soa = SOA::new(Name::root(), Name::root(), 1, 7200, 1800, 86400, NO_AAAA_TTL);
    let mut record = Record::from_rdata(Name::root(), NO_AAAA_TTL, RData::SOA(soa));
    record.dns_class = DNSClass::IN;
    let mut reply = Reply::of(ResponseCode::NoError, false);
    reply.authority.push(record);
    reply
}
