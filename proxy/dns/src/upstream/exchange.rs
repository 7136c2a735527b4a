//! One question to one server: by UDP, and by TCP if the answer is cut off.
//!
//! Id and port are fresh for each question (row D-55): a connected socket of its own, on which the
//! kernel lets nobody else's datagrams in. No socket lives longer than its question, so a change of
//! routes or a server that came back concerns the next one at once (row D-49).

use std::io;
use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};

use crate::counters::Counter;
use crate::{Reply, random};

use super::wire::{Came, Outgoing};

/// What a server made of a question. A silent one is waited for as long as the caller does.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It answered.
    Reply {
        /// What.
        reply: Reply,
        /// In so many bytes.
        bytes: usize,
    },
    /// It lives, and its answer is of no use: cut off while its TCP port is dead (row D-42), or not a
    /// DNS message.
    Useless,
    /// Refused or unreachable.
    Gone(io::Error),
    /// It was not asked: this process has no descriptor or memory left.
    Unasked(io::Error),
}

/// Asks `server`. Datagrams that are no answer are dropped and counted in `stray`; the wait goes on.
pub(crate) async fn ask(server: SocketAddr, outgoing: &Outgoing, stray: &Counter) -> Asked {
    let asked = once(server, outgoing, stray).await;
    match &asked {
        // An old server that does not know OPT (RFC 6891 section 7).
        Asked::Reply { reply, .. } if outgoing.edns && dislikes_edns(reply.code) => {
            let plain = Outgoing { edns: false, ..outgoing.clone() };
            once(server, &plain, stray).await
        }
        Asked::Reply { .. } | Asked::Useless | Asked::Gone(_) | Asked::Unasked(_) => asked,
    }
}

fn dislikes_edns(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS)
}

/// An error of this process or machine, not of the server that was to be asked.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|raw| ours.iter().any(|one| one.raw_os_error() == raw))
}

async fn once(server: SocketAddr, outgoing: &Outgoing, stray: &Counter) -> Asked {
    match by_udp(server, outgoing, stray).await {
        Ok(Some(asked)) => asked,
        Ok(None) => by_tcp(server, outgoing).await.unwrap_or(Asked::Useless),
        Err(error) if is_local(&error) => Asked::Unasked(error),
        Err(error) => Asked::Gone(error),
    }
}

/// `None`: the answer is cut off.
async fn by_udp(
    server: SocketAddr,
    outgoing: &Outgoing,
    stray: &Counter,
) -> io::Result<Option<Asked>> {
    let socket = connected(server)?;
    let id = random::id();
    socket.send(&outgoing.bytes(id)).await?;
    loop {
        // Readiness to read does not tell of a refused port: the kernel reports it as an error alone.
        if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
            return Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::Other.into()));
        }
        let (came, bytes) = match receive(&socket, outgoing, id) {
            Ok(came) => came,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        match came {
            Came::Reply(reply) => return Ok(Some(Asked::Reply { reply, bytes })),
            Came::Broken => return Ok(Some(Asked::Useless)),
            Came::Cut => return Ok(None),
            Came::Stray => stray.add(),
        }
    }
}

/// Not in the task's own memory, of which there may be a thousand.
fn receive(socket: &UdpSocket, outgoing: &Outgoing, id: u16) -> io::Result<(Came, usize)> {
    let mut buffer = [0; 4096];
    let length = socket.try_recv(&mut buffer)?;
    Ok((outgoing.came(id, &buffer[..length]), length))
}

/// A socket with a random port, which the kernel chooses.
fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, &server)?;
    UdpSocket::from_std(socket.into())
}

async fn by_tcp(server: SocketAddr, outgoing: &Outgoing) -> io::Result<Asked> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random::id();
    let question = outgoing.bytes(id);
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(&question);
    stream.write_all(&message).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(match outgoing.came(id, &answer) {
        Came::Reply(reply) => Asked::Reply { reply, bytes: answer.len() },
        Came::Cut | Came::Stray | Came::Broken => Asked::Useless,
    })
}
