//! Stand-ins for servers outside, on loopback.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::LocalSet;

use crate::{Question, Upstream};

/// What a stand-in sends for a question, each after so many milliseconds; nothing: it is silent.
pub(crate) type Sends = Vec<(u64, Message)>;

/// A server that answers as a test says.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    asked: Rc<Cell<usize>>,
    ports: Rc<RefCell<BTreeSet<u16>>>,
    answer: Behaviour,
}

type Behaviour = Rc<RefCell<Box<dyn Fn(&Message) -> Sends>>>;

/// Runs a test on a thread as the server has it.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

impl StandIn {
    /// Answers over UDP alone.
    pub(crate) async fn start(answer: impl Fn(&Message) -> Sends + 'static) -> Self {
        let socket = Rc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let asked = Rc::new(Cell::new(0));
        let ports = Rc::new(RefCell::new(BTreeSet::new()));
        let answer: Behaviour = Rc::new(RefCell::new(Box::new(answer)));
        let own = Self {
            address: socket.local_addr().unwrap(),
            asked: Rc::clone(&asked),
            ports: Rc::clone(&ports),
            answer: Rc::clone(&answer),
        };
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                asked.set(asked.get() + 1);
                ports.borrow_mut().insert(from.port());
                for (after, message) in answer.borrow()(&question) {
                    let socket = Rc::clone(&socket);
                    tokio::task::spawn_local(async move {
                        // Even a sleep of nothing lasts until the clock's next millisecond.
                        if after > 0 {
                            tokio::time::sleep(Duration::from_millis(after)).await;
                        }
                        // Who asked may be gone.
                        drop(socket.send_to(&message.to_vec().unwrap(), from).await);
                    });
                }
            }
        });
        own
    }

    /// And over TCP, on the same port.
    pub(crate) async fn also_tcp(self, answer: impl Fn(&Message) -> Message + 'static) -> Self {
        let listener = TcpListener::bind(self.address).await.unwrap();
        tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = answer(&Message::from_vec(&question).unwrap()).to_vec().unwrap();
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        self
    }

    /// Behaves differently from here on.
    pub(crate) fn change(&self, answer: impl Fn(&Message) -> Sends + 'static) {
        *self.answer.borrow_mut() = Box::new(answer);
    }

    /// How many datagrams it was sent.
    pub(crate) fn asked(&self) -> usize {
        self.asked.get()
    }

    /// From how many ports.
    pub(crate) fn ports(&self) -> usize {
        self.ports.borrow().len()
    }

    pub(crate) fn upstream(&self) -> Upstream {
        self.address.to_string().parse().unwrap()
    }
}

/// An address that refuses: its port was free a moment ago.
pub(crate) async fn refusing() -> Upstream {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.local_addr().unwrap().to_string().parse().unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn question(text: &str) -> Question {
    Question { name: name(text), record_type: RecordType::A, class: DNSClass::IN }
}

/// An answer of `count` addresses, good for a minute.
pub(crate) fn addresses(question: &Message, count: u8) -> Message {
    let mut message = code(question, ResponseCode::NoError);
    for number in 0..count {
        let data = RData::A(A::new(192, 0, 2, number));
        message.add_answer(Record::from_rdata(question.queries[0].name().clone(), 60, data));
    }
    message
}

/// An answer of this code alone.
pub(crate) fn code(question: &Message, code: ResponseCode) -> Message {
    let mut message = question.clone();
    message.edns = None;
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    message
}

/// One address, at once.
pub(crate) fn good(question: &Message) -> Sends {
    vec![(0, addresses(question, 1))]
}

/// Nothing.
pub(crate) fn silent(_: &Message) -> Sends {
    Vec::new()
}
