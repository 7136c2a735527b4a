//! Questions of this process, answered exactly as those of clients are.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::{mpsc, oneshot};

use super::Command;
use super::desk::{Client, Desk, Handled, Outside};
use crate::Limit;

/// A question.
#[derive(Debug)]
pub(super) struct Ask {
    message: Vec<u8>,
    reply: oneshot::Sender<Lookup>,
}

/// The answer that a client would get over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// `NOERROR`, `NXDOMAIN`, ..
    pub code: String,
    /// The answer section, as a zone file has it.
    pub records: Vec<String>,
}

/// Asks a server that runs.
#[derive(Clone, Debug)]
pub struct Asker(pub(super) mpsc::UnboundedSender<Command>);

impl Asker {
    /// What a name is answered; `None` if the server has ended, or the name cannot be asked.
    pub async fn ask(&self, name: Name, record_type: RecordType) -> Option<Lookup> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, record_type));
        let (reply, answer) = oneshot::channel();
        let ask = Ask { message: message.to_vec().ok()?, reply };
        self.0.send(Command::Ask(ask)).ok()?;
        answer.await.ok()
    }
}

/// Answers, at once or later.
pub(super) fn answer(desk: &Rc<Desk>, ask: Ask) {
    let client = Client {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        limit: Limit::Tcp,
        outside: Outside::Forward,
    };
    let mut out = Vec::new();
    match desk.take(&ask.message, client, &mut out) {
        Handled::Now => give(ask.reply, &out),
        Handled::Later(later) => {
            let desk = Rc::clone(desk);
            tokio::task::spawn_local(async move { give(ask.reply, &later.answer(&desk).await) });
        }
        Handled::Never => {}
    }
}

/// Whoever asked may be gone.
fn give(reply: oneshot::Sender<Lookup>, message: &[u8]) {
    let Ok(message) = Message::from_vec(message) else { return };
    let code = format!("{:?}", message.metadata.response_code).to_uppercase();
    let records = message.answers.iter().map(ToString::to_string).collect();
    drop(reply.send(Lookup { code, records }));
}
