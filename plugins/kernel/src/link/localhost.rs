//! A guard of this node's 127.0.0.0/8 that outlives the rules: a tc filter where packets come in.
//!
//! `route_localnet` on a link lets whoever is behind it send to 127.0.0.0/8. The rules that drop
//! this go with `nft flush ruleset`; a filter of the link stays. On a bridge it comes after the NAT
//! of `bridge-nf-call-iptables`, where replies to 127.0.0.1 look like what has to be dropped: rules
//! mark those with [`LOCALHOST_REPLY`]. Without the rules no reply is translated either.
//!
//! The program is classic BPF: every kernel since 4.5 takes it, without the system call that eBPF
//! needs.

use std::io;

use netlink_packet_core::{
    DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::{Error, Netlink, Result};

/// The bit of a packet's mark that says: a reply to a connection from 127.0.0.0/8.
pub const LOCALHOST_REPLY: u32 = 0x1000;

/// How our filter is recognised.
const PRIORITY: u32 = 197;
const HANDLE: u32 = 1;
/// `ETH_P_ALL`, in network byte order.
const ALL: u16 = 3_u16.to_be();
/// linux/pkt_cls.h
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// An instruction: code, jump if true, jump if false, operand.
type Instruction = (u16, u8, u8, u32);

/// What to load beside the packet's bytes (linux/filter.h).
const PROTOCOL: u32 = 0xffff_f000;
const MARK: u32 = PROTOCOL + 20;
const VLAN: u32 = PROTOCOL + 44;
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// Codes (linux/bpf_common.h): load a word, and, equal, any bit, return.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const EQUAL: u16 = 0x15;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Verdicts (linux/pkt_cls.h): on to the next filter, and drop.
const GO_ON: u32 = u32::MAX;
const DROP: u32 = 2;

/// Drops what says it comes from 127.0.0.0/8, which `route_localnet` lets in as well, and what goes
/// there without the mark. Of packets with several vlan tags the outer one counts: the kernel strips
/// those of vlan 0 and delivers what is inside.
const PROGRAM: [Instruction; 17] = [
    (LOAD, 0, 0, PROTOCOL),
    (EQUAL, 5, 0, 0x0800),
    (EQUAL, 1, 0, 0x8100),
    (EQUAL, 0, 11, 0x88a8),
    (LOAD, 0, 0, VLAN),
    (AND, 0, 0, 0x0fff),
    (EQUAL, 9, 8, 0),
    (LOAD, 0, 0, NETWORK_HEADER + 12),
    (AND, 0, 0, 0xff00_0000),
    (EQUAL, 6, 0, 0x7f00_0000),
    (LOAD, 0, 0, NETWORK_HEADER + 16),
    (AND, 0, 0, 0xff00_0000),
    (EQUAL, 0, 2, 0x7f00_0000),
    (LOAD, 0, 0, MARK),
    (ANY_BIT, 0, 1, LOCALHOST_REPLY),
    (RETURN, 0, 0, GO_ON),
    (RETURN, 0, 0, DROP),
];

impl Netlink {
    /// Drops what comes in by the link of `index` to or from 127.0.0.0/8, replies with the mark left
    /// out. One request if it is guarded already.
    ///
    /// # Errors
    /// `ENOENT` or `EOPNOTSUPP` if the kernel lacks `sch_ingress` or `cls_bpf`.
    pub fn guard_localhost(&self, index: u32) -> Result<()> {
        let action = format!("guard 127.0.0.0/8 from link {index} by a tc filter");
        let exclusive = NLM_F_CREATE | NLM_F_EXCL;
        let there = |error: Error| if error.is_exists() { Ok(()) } else { Err(error) };
        let filter = RouteNetlinkMessage::NewTrafficFilter(filter(index));
        if self.change(&action, &filter, exclusive).or_else(there).is_ok() {
            return Ok(());
        }
        // There is nothing yet that could hold a filter.
        let mut holder = message(index, TcHandle::CLSACT);
        holder.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        holder.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let holder = RouteNetlinkMessage::NewQueueDiscipline(holder);
        self.change(&action, &holder, exclusive).or_else(there)?;
        self.change(&action, &filter, exclusive).or_else(there)
    }

    /// Takes the guard of the link of `index` away. What held it stays, empty: a link that is up loses
    /// what is sent at the moment when that goes, and again when it comes back.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn unguard_localhost(&self, index: u32) -> Result<()> {
        self.had_guard(index).map(drop)
    }

    /// The same, and what held a guard goes as well if it holds nothing else.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn remove_guard(&self, index: u32) -> Result<()> {
        if !self.had_guard(index)? {
            return Ok(());
        }
        let action = format!("remove the clsact of link {index}");
        for side in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
            if self.has_filters(&action, index, side)? {
                return Ok(());
            }
        }
        let holder = message(index, TcHandle::CLSACT);
        match self.change(&action, &RouteNetlinkMessage::DelQueueDiscipline(holder), 0) {
            Err(error) if is_absence(&error) => Ok(()),
            done => done,
        }
    }

    /// Removes the filter; whether there was one.
    fn had_guard(&self, index: u32) -> Result<bool> {
        let action = format!("remove the tc filter of link {index} that guards 127.0.0.0/8");
        let filter = RouteNetlinkMessage::DelTrafficFilter(named(index));
        match self.change(&action, &filter, 0) {
            Err(error) if is_absence(&error) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Asks without the library, which decodes what filters of other programs contain.
    fn has_filters(&self, action: &str, index: u32, side: u16) -> Result<bool> {
        let failed = |source: io::Error| Error { action: action.to_owned(), source };
        let netns = self.netns().map_err(failed)?;
        let ask = || -> io::Result<bool> {
            let socket = Socket::new(NETLINK_ROUTE)?;
            let parent = TcHandle { major: u16::MAX, minor: side };
            let message = RouteNetlinkMessage::GetTrafficFilter(message(index, parent));
            let mut request = NetlinkMessage::from(message);
            request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            request.finalize();
            let mut bytes = vec![0; request.buffer_len()];
            request.serialize(&mut bytes);
            socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
            let (answer, _) = socket.recv_from_full()?;
            let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
            match kind.map(u16::from_ne_bytes) {
                Some(NLMSG_DONE) => Ok(false),
                Some(NLMSG_ERROR) | None => Err(io::ErrorKind::InvalidData.into()),
                Some(_) => Ok(true),
            }
        };
        netns.run(ask)?.map_err(failed)
    }
}

/// There is no such filter, holder or link, or the kernel has no filters at all.
fn is_absence(error: &Error) -> bool {
    let absent = [libc::ENOENT, libc::EINVAL, libc::ENODEV, libc::EOPNOTSUPP];
    error.raw().is_some_and(|raw| absent.contains(&raw))
}

fn message(index: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = parent;
    message
}

/// What names our filter.
fn named(index: u32) -> TcMessage {
    let parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
    let mut message = message(index, parent);
    message.header.handle = TcHandle::from(HANDLE);
    message.header.info = PRIORITY << 16 | u32::from(ALL);
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    message
}

fn filter(index: u32) -> TcMessage {
    let option =
        |kind, bytes| TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(kind, bytes)));
    let length = u16::try_from(PROGRAM.len()).unwrap_or(u16::MAX);
    let program = PROGRAM.iter().flat_map(|&(code, yes, no, operand)| {
        let [low, high] = code.to_ne_bytes();
        [low, high, yes, no].into_iter().chain(operand.to_ne_bytes())
    });
    let mut message = named(index);
    message.attributes.push(TcAttribute::Options(vec![
        option(TCA_BPF_OPS_LEN, length.to_ne_bytes().to_vec()),
        option(TCA_BPF_OPS, program.collect()),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    message
}
