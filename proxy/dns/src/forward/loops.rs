//! Upstreams that lead back to us (row D-32): each is sent a name that nobody else knows; if our own
//! listener is asked for it, the upstream is not asked any more.

use std::rc::Rc;
use std::time::Duration;

use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::time::timeout;

use crate::upstream::ask;
use crate::{Question, random};

use super::{Forwarder, Wanted, flight};

/// A name that went round comes back within this.
const ROUND: Duration = Duration::from_secs(2);

/// Upstreams that lead back are tried again so often: the host's resolver may have changed.
const AGAIN: Duration = Duration::from_secs(10);

impl Forwarder {
    /// Looks for loops; for when the upstreams or our own addresses have changed.
    pub(crate) fn probe_loops(self: &Rc<Self>) {
        let count = {
            let state = &mut *self.state.borrow_mut();
            let count = state.upstreams.len();
            let names = (0..count).map(|server| (server, random_name()));
            state.loop_probes = names.collect();
            state.came_back.clear();
            state.next_loop_probe = self.now() + AGAIN;
            count
        };
        for server in 0..count {
            tokio::task::spawn_local(probe(Rc::clone(self), server));
        }
    }

    /// Whether this is one of the names that were sent out; the upstream that it was sent to loops.
    pub(crate) fn came_back(&self, question: &Question) -> bool {
        if question.record_type != RecordType::HINFO {
            return false;
        }
        let state = &mut *self.state.borrow_mut();
        let mut sent = state.loop_probes.iter();
        let Some(server) =
            sent.find(|(_, name)| **name == question.name).map(|(server, _)| *server)
        else {
            return false;
        };
        if !state.judge.loops(server) {
            let upstream = &state.upstreams[server];
            tracing::warn!(%upstream, "this DNS server leads back to us; it is not asked");
        }
        state.judge.set_loops(server, true);
        state.came_back.insert(server);
        true
    }
}

async fn probe(forwarder: Rc<Forwarder>, server: usize) {
    let found = {
        let state = forwarder.state.borrow();
        let name = state.loop_probes.get(&server).cloned();
        name.zip(state.upstreams.get(server).cloned())
    };
    let Some((name, upstream)) = found else { return };
    let Ok(address) = flight::socket_address(&upstream) else { return };
    let question =
        Question { name: name.clone(), record_type: RecordType::HINFO, class: DNSClass::IN };
    let wanted = Wanted { question, dnssec_ok: false, checking_disabled: false };
    // What is answered does not matter, nor whether anything is.
    let asked = timeout(ROUND, ask(address, &wanted.outgoing(), &forwarder.counters.stray)).await;
    tracing::trace!(%upstream, ?asked, "looked for a loop");
    let state = &mut *forwarder.state.borrow_mut();
    if state.loop_probes.get(&server) == Some(&name) && !state.came_back.contains(&server) {
        state.judge.set_loops(server, false);
    }
}

/// `<number>.<number>.`, which no zone has.
fn random_name() -> Name {
    let labels: [String; 2] =
        std::array::from_fn(|_| u64::from_ne_bytes(random::bytes()).to_string());
    Name::from_labels(labels.iter().map(String::as_bytes)).unwrap_or_default()
}
