//! Changes to our tables by other processes, as the kernel reports them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use causeway_ruleset::TableId;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::codec::family_number;
use crate::error::failed;
use crate::socket::{retry, set_option};
use crate::subscriptions::{Heard, Slot, Subscriptions};
use crate::uapi::{GEN_PROC_NAME, GEN_PROC_PID, NEWGEN, OF_TABLE};
use crate::wire::{Message, Messages};
use crate::{Client, Result};

/// More than one datagram of notifications.
const RECEIVE_BUFFER: usize = 128 * 1024;
/// Room for notifications that wait; if it does not suffice, [`Monitor::changes`] says yes.
const QUEUE: libc::c_int = 1 << 20;
/// `linux/filter.h`
const BPF_LOAD_WORD: u16 = 0x20;
const BPF_JUMP_EQUAL: u16 = 0x15;
const BPF_RETURN: u16 = 0x06;
/// Offset of the port in `struct nlmsghdr`.
const PORT_OFFSET: u32 = 12;

/// A subscription to changes of some tables by anybody but one [`Client`]. Readable when something
/// changed in nf_tables, then to be drained with [`Monitor::changes`].
#[derive(Debug)]
pub struct Monitor {
    slot: Arc<Slot>,
    /// For [`Monitor::again`].
    subscriptions: Subscriptions,
    buffer: Vec<u8>,
    tables: Vec<TableId>,
    port: u32,
}

/// A change of our tables that is not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Name and process id of who made it, if the kernel reported it.
    pub by: Option<(String, u32)>,
    /// Notifications were lost, so there may have been a change.
    pub lost: bool,
}

impl Monitor {
    /// Subscribes to changes of `tables`, in the calling thread's network namespace, that do not
    /// come from `client`. Those of the client are not even queued, and during its large
    /// transactions not even made: see [`Client::pause`].
    ///
    /// # Errors
    /// No nf_tables in this kernel, or no permission.
    pub fn open(client: &Client, tables: Vec<TableId>) -> Result<Self> {
        Self::subscribed(client.port()?, &client.subscriptions, tables)
    }

    /// Opens a subscription to the same changes, for when this one fails.
    ///
    /// # Errors
    /// Of what it returns: see [`Monitor::open`].
    pub fn again(&self) -> impl Fn() -> Result<Self> + Send + Sync + use<> {
        let (tables, port) = (self.tables.clone(), self.port);
        let subscriptions = self.subscriptions.clone();
        move || Self::subscribed(port, &subscriptions, tables.clone())
    }

    fn subscribed(port: u32, subscriptions: &Subscriptions, tables: Vec<TableId>) -> Result<Self> {
        let slot = subscribe(port).and_then(|socket| subscriptions.add(socket));
        let slot = slot.map_err(|source| failed("watch for changes", source))?;
        let buffer = Vec::with_capacity(RECEIVE_BUFFER);
        Ok(Self { slot, subscriptions: subscriptions.clone(), buffer, tables, port })
    }

    /// Reads all that waits, without blocking. Answers with the first change of the tables that is
    /// not the client's, if there was one.
    ///
    /// # Errors
    /// Reading failed in a way other than lost messages.
    pub fn changes(&mut self) -> Result<Option<Change>> {
        let mut seen = Seen::default();
        loop {
            let Self { slot, buffer, .. } = self;
            let received = retry(|| {
                buffer.clear();
                slot.socket.recv(buffer, libc::MSG_DONTWAIT)
            });
            match received {
                Ok(_) => Messages(&self.buffer).for_each(|message| self.read(message, &mut seen)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.with_missed(seen.change);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    seen.change.get_or_insert_default().lost = true;
                }
                Err(source) => return Err(failed("read changes", source)),
            }
        }
    }

    /// What was read, and what was missed while the subscription was aside.
    fn with_missed(&self, change: Option<Change>) -> Result<Option<Change>> {
        match self.slot.take() {
            Heard::All => Ok(change),
            Heard::NotAll => Ok(Some(Change { lost: true, ..change.unwrap_or_default() })),
            Heard::Nothing => {
                let source = io::Error::other("the kernel refused to subscribe again");
                Err(failed("read changes", source))
            }
        }
    }

    fn read(&self, message: Message<'_>, seen: &mut Seen) {
        if message.port == self.port {
            return;
        }
        if message.kind == NEWGEN {
            // It ends a transaction, and is the only message that names its author.
            let Some(change) = seen.change.as_mut().filter(|_| seen.unnamed) else { return };
            change.by = author(message);
            seen.unnamed = false;
        } else if self.is_ours(message) && seen.change.is_none() {
            seen.change = Some(Change::default());
            seen.unnamed = true;
        }
    }

    fn is_ours(&self, message: Message<'_>) -> bool {
        let name = message.attributes().get(OF_TABLE).and_then(|name| name.string());
        self.tables.iter().any(|table| {
            family_number(table.family) == message.family() && name.as_ref() == Some(&table.name)
        })
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.slot.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> i32 {
        self.slot.socket.as_raw_fd()
    }
}

#[derive(Debug, Default)]
struct Seen {
    change: Option<Change>,
    /// Its author has not been told yet.
    unnamed: bool,
}

fn author(message: Message<'_>) -> Option<(String, u32)> {
    let attributes = message.attributes();
    let name = attributes.get(GEN_PROC_NAME)?.string()?;
    Some((name, attributes.get(GEN_PROC_PID)?.u32()?))
}

fn subscribe(without: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    let force = set_option(&socket, libc::SO_RCVBUFFORCE, QUEUE);
    force.or_else(|_| set_option(&socket, libc::SO_RCVBUF, QUEUE))?;
    ignore(&socket, without)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Keeps notifications of one socket's transactions from being queued: a datagram holds those of
/// one transaction, and a large one would overflow the queue.
fn ignore(socket: &Socket, port: u32) -> io::Result<()> {
    let code = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        code(BPF_LOAD_WORD, 0, 0, PORT_OFFSET),
        // Loads are of network byte order; the header is of this machine's.
        code(BPF_JUMP_EQUAL, 0, 1, port.to_be()),
        code(BPF_RETURN, 0, 0, 0),
        code(BPF_RETURN, 0, 0, u32::MAX),
    ];
    let len = u16::try_from(program.len()).unwrap_or(0);
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    set_option(socket, libc::SO_ATTACH_FILTER, program)
}
