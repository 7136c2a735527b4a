mod connections;
mod names;
mod outages;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::fixture::{index, settings};
use crate::testing::{StandIn, name};

use super::*;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.20, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: default}
spec: {type: ExternalName, externalName: www.example.com}
";

/// Listens on a port of its own of `127.0.0.1` and `::1`, and is asked there.
struct Running {
    server: Server,
    v4: SocketAddr,
    v6: SocketAddr,
}

fn services(text: &str) -> Vec<Change> {
    let index = index(text);
    let keys: BTreeSet<ObjectKey> = index.services().keys().cloned().collect();
    let names = |key: &ObjectKey| Some(ServiceNames::of(&index.resolve(key).expect("it is there")));
    keys.into_iter().map(|key| Change::Service(key.clone(), names(&key))).collect()
}

/// A free port: nobody else in this namespace listens at it.
fn port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn config(upstreams: &[&StandIn]) -> (Config, SocketAddr, SocketAddr) {
    let port = port();
    let (v4, v6) = (
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
    );
    let config = Config {
        zone: settings(),
        listen: BTreeMap::from([(v4, Outside::Forward), (v6, Outside::NoAaaa)]),
        sources: Sources::List(upstreams.iter().map(|one| one.upstream()).collect()),
        clients: Vec::new(),
        stale: Stale::Never,
    };
    (config, v4, v6)
}

impl Running {
    /// Not synced yet.
    async fn unsynced(upstreams: &[&StandIn]) -> Self {
        let (config, v4, v6) = config(upstreams);
        let own = Self { server: Server::start(config).unwrap(), v4, v6 };
        own.server.update(services(SERVICES));
        // The first look says which upstreams there are.
        let count = upstreams.len();
        own.wait(move |problems| problems.upstreams.len() == count).await;
        // And the look for loops, which tests do not count.
        while upstreams.iter().any(|one| one.asked() == 0) {
            yield_now().await;
        }
        own
    }

    async fn start(upstreams: &[&StandIn]) -> Self {
        Self::unsynced(upstreams).await.synced().await
    }

    /// Once it says so itself.
    async fn synced(self) -> Self {
        self.server.synced();
        let start = Instant::now();
        while udp(self.v4, "web.default.svc.cluster.local.", RecordType::A).await.answers.is_empty()
        {
            assert!(start.elapsed() < DEADLINE);
        }
        self
    }

    async fn wait(&self, is: impl Fn(&Problems) -> bool) -> Problems {
        let mut problems = self.server.problems();
        let found = timeout(DEADLINE, problems.wait_for(|problems| is(problems))).await;
        found.expect("in time").expect("the server runs").clone()
    }
}

fn bytes(text: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), record_type));
    message.to_vec().unwrap()
}

async fn udp(server: SocketAddr, text: &str, record_type: RecordType) -> Message {
    datagram(server, &bytes(text, record_type)).await
}

async fn datagram(server: SocketAddr, question: &[u8]) -> Message {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(question).await.unwrap();
    let mut answer = [0; 4096];
    let length = timeout(DEADLINE, socket.recv(&mut answer)).await.expect("an answer").unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

/// Sends questions, all in one piece.
async fn send(stream: &mut TcpStream, questions: &[(&str, RecordType)]) {
    let mut all = Vec::new();
    for (text, record_type) in questions {
        let question = bytes(text, *record_type);
        all.extend(u16::try_from(question.len()).unwrap().to_be_bytes());
        all.extend(question);
    }
    stream.write_all(&all).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Message {
    let read = async {
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    };
    timeout(DEADLINE, read).await.expect("an answer")
}

async fn tcp(server: SocketAddr, text: &str, record_type: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    send(&mut stream, &[(text, record_type)]).await;
    receive(&mut stream).await
}

fn asked_name(message: &Message) -> String {
    message.queries[0].name.to_string()
}

fn code_of(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// A thread that has ended is noticed, also while others can still ask it.
#[test]
fn the_end_of_the_thread_is_noticed() {
    let server = Server::start(config(&[]).0).expect("a server");
    let asker = server.asker();
    assert!(!server.has_ended());
    server.send(Command::Stop);
    let mut problems = server.problems();
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async { while problems.changed().await.is_ok() {} });
    assert!(server.has_ended());
    drop(asker);
}
