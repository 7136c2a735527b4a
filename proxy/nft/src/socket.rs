//! The netlink socket: send, receive, wait for the answer.

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::wire::{Head, Message, Messages, Writer};

/// More than the kernel puts into one datagram of a dump (32 KiB), and than one rule or element
/// can hold (64 KiB).
const RECEIVE_BUFFER: usize = 128 * 1024;
/// What sockets get anyway (`net.core.wmem_default`).
const SEND_BUFFER: usize = 200 * 1024;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// A dump that something interrupts is repeated so often.
pub(crate) const DUMP_TRIES: u32 = 16;

/// A connection to nfnetlink.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    buffer: Vec<u8>,
    seq: u32,
    send_buffer: usize,
}

/// An answer of the kernel to a message of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) seq: u32,
    /// Positive errno; 0 is an acknowledgement.
    pub(crate) errno: i32,
}

impl Link {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        // Errors come without the message that they are about.
        socket.set_cap_ack(true)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let buffer = Vec::with_capacity(RECEIVE_BUFFER);
        Ok(Self { socket, buffer, seq: 0, send_buffer: SEND_BUFFER })
    }

    /// The number that the kernel knows this socket by.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Reserves sequence numbers; answers with the first.
    pub(crate) fn reserve(&mut self, count: usize) -> u32 {
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fit_send_buffer(bytes.len())?;
        let sent = retry(|| self.socket.send(bytes, 0))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// A transaction is one datagram: the socket must hold it whole.
    fn fit_send_buffer(&mut self, len: usize) -> io::Result<()> {
        let wanted = len + 1024;
        if wanted <= self.send_buffer {
            return Ok(());
        }
        let value = libc::c_int::try_from(wanted)
            .map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let force = set_option(&self.socket, libc::SO_SNDBUFFORCE, value);
        force.or_else(|_| set_option(&self.socket, libc::SO_SNDBUF, value))?;
        self.send_buffer = wanted;
        Ok(())
    }

    /// Answers of a batch up to that of `last`. They lie ready when sending returns, so nothing is
    /// waited for; `complete` says whether the last one was among them.
    pub(crate) fn answers(&mut self, first: u32, last: u32) -> io::Result<(Vec<Answer>, bool)> {
        let mut answers = Vec::new();
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((answers, false));
                }
                // Some answers did not fit; what did is still there.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(error),
            }
            for message in Messages(&self.buffer) {
                let of_batch = message.seq.wrapping_sub(first) <= last.wrapping_sub(first);
                if !of_batch || message.kind != NLMSG_ERROR {
                    continue;
                }
                answers.push(Answer { seq: message.seq, errno: errno(message.payload)? });
                if message.seq == last {
                    return Ok((answers, true));
                }
            }
        }
    }

    /// One request with one answer message.
    pub(crate) fn get(
        &mut self,
        (kind, family): (u16, u8),
        attributes: impl Fn(&mut Writer),
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.request((kind, 0, family), &attributes, &mut each).map(|_| ())
    }

    /// A dump. Repeated when a commit came in between; `each` gets `None` before every try.
    pub(crate) fn dump(
        &mut self,
        (kind, family): (u16, u8),
        attributes: impl Fn(&mut Writer),
        mut each: impl FnMut(Option<Message<'_>>),
    ) -> io::Result<()> {
        for _ in 0..DUMP_TRIES {
            each(None);
            let head = (kind, NLM_F_DUMP, family);
            match self.request(head, &attributes, &mut |message| each(Some(message))) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// Sends a request and reads up to its end; true if the dump was interrupted.
    fn request(
        &mut self,
        (kind, flags, family): (u16, u16, u8),
        attributes: &impl Fn(&mut Writer),
        each: &mut impl FnMut(Message<'_>),
    ) -> io::Result<bool> {
        let seq = self.reserve(1);
        let mut out = Writer::default();
        let flags = NLM_F_REQUEST | flags;
        let message = out.message(Head { kind, flags, seq, family, res_id: 0 });
        attributes(&mut out);
        out.end_message(message);
        self.send(&out.into_bytes())?;
        let mut interrupted = false;
        loop {
            self.receive(0)?;
            for message in Messages(&self.buffer) {
                if message.seq != seq {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match errno(message.payload)? {
                            0 => Ok(interrupted),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    _ => {
                        each(message);
                        if flags & NLM_F_DUMP == 0 {
                            return Ok(false);
                        }
                    }
                }
            }
        }
    }

    fn receive(&mut self, flags: libc::c_int) -> io::Result<()> {
        let Self { socket, buffer, .. } = self;
        let len = retry(|| {
            buffer.clear();
            socket.recv(buffer, flags | libc::MSG_TRUNC)
        })?;
        if len > buffer.len() {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        Ok(())
    }
}

/// Positive errno of an `NLMSG_ERROR` or `NLMSG_DONE`.
fn errno(payload: &[u8]) -> io::Result<i32> {
    let bytes = payload.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let number = bytes.map(i32::from_ne_bytes).and_then(i32::checked_neg);
    number.filter(|number| *number >= 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sets an option of level `SOL_SOCKET`, whose type is `T`.
pub(crate) fn set_option<T>(socket: &Socket, option: libc::c_int, value: T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: `value` outlives the call and `len` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
