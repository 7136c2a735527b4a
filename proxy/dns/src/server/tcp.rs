//! Connections: many questions on each, side by side, answers in any order (row D-51, RFC 7766).
//!
//! A connection is a task of its own, so that one that is slow or talks nonsense holds up itself alone
//! (row D-35). It ends after [`IDLE`] without a question, in order: what has come is answered, then our
//! half is closed, and what still comes is read, since a socket closed over unread bytes resets the
//! connection and takes answers on their way with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Limit;

use super::desk::{Client, Desk, Handled, Outside};

/// A connection without a whole question ends after this; so does one that takes no answer.
const IDLE: Duration = Duration::from_secs(5);

/// So long a closing connection may still send.
const LINGER: Duration = Duration::from_secs(1);

/// Connections of one address.
const EACH: usize = 100;

/// Connections of all; beyond, the oldest one goes.
const ALL: usize = 2000;

/// Questions of one connection that wait for other servers; more are read when one is answered.
const WAITING: usize = 100;

/// Longer questions are none.
const LONGEST: usize = 4096;

/// Questions of one connection that are answered before others have their turn.
const TURN: usize = 8;

/// When there are no file descriptors, or no memory.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections of all listeners.
#[derive(Default)]
pub(super) struct Connections {
    each: BTreeMap<IpAddr, usize>,
    all: usize,
    /// Oldest first, with those that have ended.
    order: VecDeque<AbortHandle>,
}

/// Takes connections until it is aborted; no error of accept ends it (row D-50).
pub(super) async fn serve(
    listener: TcpListener,
    desk: Rc<Desk>,
    outside: Outside,
    connections: Rc<RefCell<Connections>>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => admit(stream, from, (&desk, outside), &connections),
            Err(error) => {
                desk.counters.accept_errors.add();
                if !is_of_the_client(&error) {
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Errors of a connection that ended before it was taken; the next one may be good.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn admit(
    stream: TcpStream,
    from: SocketAddr,
    (desk, outside): (&Rc<Desk>, Outside),
    connections: &Rc<RefCell<Connections>>,
) {
    let address = from.ip().to_canonical();
    if !desk.knows(address) {
        desk.counters.strangers.add();
        return;
    }
    let Some(place) = Admitted::take(connections, address, desk) else { return };
    let client = Client { address, limit: Limit::Tcp, outside };
    let desk = Rc::clone(desk);
    let task = tokio::task::spawn_local(async move {
        let _place = place;
        let (reader, writer) = stream.into_split();
        // A connection that broke is over; nobody is left to tell.
        drop(Connection::new(reader, writer, desk, client).run().await);
    });
    let all = &mut *connections.borrow_mut();
    if all.order.len() >= 2 * ALL {
        all.order.retain(|other| !other.is_finished());
    }
    all.order.push_back(task.abort_handle());
}

/// One of the hundred that an address may have.
struct Admitted {
    connections: Rc<RefCell<Connections>>,
    address: IpAddr,
    desk: Rc<Desk>,
}

impl Admitted {
    fn take(
        connections: &Rc<RefCell<Connections>>,
        address: IpAddr,
        desk: &Rc<Desk>,
    ) -> Option<Self> {
        let all = &mut *connections.borrow_mut();
        let own = all.each.entry(address).or_default();
        if *own >= EACH {
            desk.counters.too_many.add();
            return None;
        }
        *own += 1;
        all.all += 1;
        while all.all > ALL
            && let Some(oldest) = all.order.pop_front()
        {
            if !oldest.is_finished() {
                desk.counters.too_many.add();
                oldest.abort();
                break;
            }
        }
        desk.counters.connections[0].add();
        desk.counters.connections[1].set(all.all as u64);
        Some(Self { connections: Rc::clone(connections), address, desk: Rc::clone(desk) })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let all = &mut *self.connections.borrow_mut();
        all.all -= 1;
        if let Some(own) = all.each.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                all.each.remove(&self.address);
            }
        }
        self.desk.counters.connections[1].set(all.all as u64);
    }
}

/// One connection.
struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    desk: Rc<Desk>,
    client: Client,
    /// What has come and is no whole question yet.
    bytes: Vec<u8>,
    /// Answers to be written.
    out: Vec<u8>,
    waiting: JoinSet<Vec<u8>>,
}

impl Connection {
    fn new(reader: OwnedReadHalf, writer: OwnedWriteHalf, desk: Rc<Desk>, client: Client) -> Self {
        let (bytes, out, waiting) = (Vec::new(), Vec::new(), JoinSet::new());
        Self { reader, writer, desk, client, bytes, out, waiting }
    }

    /// Until the client closes, is silent, or breaks off.
    async fn run(mut self) -> io::Result<()> {
        let mut open = true;
        let mut last = Instant::now();
        loop {
            if self.take()? {
                last = Instant::now();
                self.flush().await?;
                yield_now().await;
                continue;
            }
            self.flush().await?;
            if !open && self.waiting.is_empty() {
                return self.close().await;
            }
            let reads = open && self.waiting.len() < WAITING;
            let idle = open && self.waiting.is_empty();
            tokio::select! {
                biased;
                Some(answer) = self.waiting.join_next() => {
                    push(&mut self.out, &answer.unwrap_or_default());
                    last = Instant::now();
                }
                more = self.reader.read_buf(&mut self.bytes), if reads => open = more? > 0,
                () = sleep_until(last + IDLE), if idle => open = false,
            }
        }
    }

    /// Takes whole questions that have come, as many as others have to wait for; whether there was one.
    fn take(&mut self) -> io::Result<bool> {
        let mut at = 0;
        let mut answer = Vec::new();
        for _ in 0..TURN {
            let Some((length, rest)) = self.bytes[at..].split_first_chunk::<2>() else { break };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some(question) = rest.get(..length) else { break };
            if self.waiting.len() >= WAITING {
                break;
            }
            at += 2 + length;
            match self.desk.take(question, self.client, &mut answer) {
                Handled::Now => push(&mut self.out, &answer),
                Handled::Later(later) => {
                    let desk = Rc::clone(&self.desk);
                    self.waiting.spawn_local(async move { later.answer(&desk).await });
                }
                Handled::Never => {}
            }
        }
        self.bytes.drain(..at);
        Ok(at > 0)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            timeout(IDLE, self.writer.write_all(&self.out)).await??;
            self.out.clear();
        }
        Ok(())
    }

    async fn close(mut self) -> io::Result<()> {
        self.writer.shutdown().await?;
        let mut rest = [0; 512];
        let all = async {
            while self.reader.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        timeout(LINGER, all).await?
    }
}

/// A message of a stream: its length before it.
fn push(out: &mut Vec<u8>, answer: &[u8]) {
    if let (Ok(length), false) = (u16::try_from(answer.len()), answer.is_empty()) {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(answer);
    }
}

#[cfg(test)]
mod tests;
