//! Statements to expressions, as nft compiles the same text.

use std::net::IpAddr;

use causeway_ruleset::{DataType, Family, Field, Match, NatPort, NatTarget, RegValue, Statement};
use ipnetwork::IpNetwork;

use super::expr::Expr;
use super::{Invalid, register, value};
use crate::uapi::{
    ARPHRD_ETHER, CT_DIRECTION, CT_DST_IP, CT_DST_IP6, CT_MARK, CT_PROTO_DST, CT_STATE,
    CT_STATE_ESTABLISHED, CT_STATE_INVALID, CT_STATUS, CT_STATUS_DNAT, ETH_P_IP, ETH_P_IPV6,
    FIB_ADDRTYPE, FIB_F_DADDR, FIB_F_SADDR, META_IIFNAME, META_IIFTYPE, META_L4PROTO, META_MARK,
    META_NFPROTO, META_OIFNAME, META_PROTOCOL, NAT_F_FULLY_RANDOM, NFPROTO_IPV4, NFPROTO_IPV6,
    PAYLOAD_LINK, PAYLOAD_NETWORK, PAYLOAD_TRANSPORT, PORT_UNREACH, PORT_UNREACH6,
    REJECT_ICMP_UNREACH, RTN_LOCAL,
};

const REG_VERDICT: u32 = 0;
/// First slot of a port that is looked up beside an address of any family.
const PORT_SLOT: u32 = 4;

/// What the rule has established about the packet so far through the dependencies of fields. An
/// explicit [`Match::NfProto`] does not count: so a rule reads back as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    family: Family,
    ipv6: Option<bool>,
    ether: bool,
}

impl Context {
    pub(crate) fn new(family: Family) -> Self {
        Self { family, ipv6: None, ether: false }
    }

    /// Expressions of a statement.
    pub(crate) fn encode(&mut self, statement: &Statement) -> Result<Vec<Expr>, Invalid> {
        let mut out = Vec::new();
        match statement {
            Statement::Match(condition) => self.condition(&mut out, condition)?,
            Statement::Counter => out.push(Expr::Counter),
            Statement::SetMark { mask, value } => {
                set_mark(&mut out, Expr::Meta { key: META_MARK, reg: register(0) }, *mask, *value);
                out.push(Expr::MetaSet { key: META_MARK, reg: register(0) });
            }
            Statement::SetCtMark { mask, value } => {
                set_mark(&mut out, ct(CT_MARK, None, register(0)), *mask, *value);
                out.push(Expr::CtSet { key: CT_MARK, reg: register(0) });
            }
            Statement::Masquerade { random } => {
                out.push(Expr::Masq { flags: if *random { NAT_F_FULLY_RANDOM } else { 0 } });
            }
            Statement::Dnat(target) => self.nat(&mut out, target, false)?,
            Statement::Snat(target) => self.nat(&mut out, target, true)?,
            Statement::VerdictMap { fields, map } => {
                self.load(&mut out, fields)?;
                out.push(lookup(map, Some(REG_VERDICT), false));
            }
            Statement::Update { fields, set, timeout_ms } => {
                self.load(&mut out, fields)?;
                let (set, key, timeout) = (set.clone(), register(0), *timeout_ms);
                out.push(Expr::Dynset { set, key, timeout });
            }
            Statement::Reject => out.push(self.reject()?),
            Statement::Verdict(verdict) => out.push(Expr::Verdict(verdict.clone())),
            Statement::Other(name, bytes) => out.push(Expr::Other(name.clone(), bytes.clone())),
        }
        Ok(out)
    }

    fn condition(&mut self, out: &mut Vec<Expr>, condition: &Match) -> Result<(), Invalid> {
        match condition {
            Match::Cmp { field, negate, value } => {
                if value.data_type() != field.data_type() {
                    return Err(Invalid(format!("{field:?} cannot be compared with {value:?}")));
                }
                self.load(out, &[*field])?;
                out.push(cmp(*negate, value::bytes(value)?));
            }
            Match::Net { field, negate, net } => self.net(out, *field, *negate, *net)?,
            Match::Bits { field, mask, negate, value } => {
                if field.data_type() != DataType::Mark {
                    return Err(Invalid(format!("{field:?} is not a mark")));
                }
                self.load(out, &[*field])?;
                masked(out, *mask, *negate, *value);
            }
            Match::InSet { fields, set, negate } => {
                self.load(out, fields)?;
                out.push(lookup(set, None, *negate));
            }
            Match::NfProto { ipv6 } => out.extend(nfproto(*ipv6)),
            Match::FibDaddrLocal { negate } => fib_local(out, FIB_F_DADDR, *negate),
            Match::FibSaddrLocal { negate } => fib_local(out, FIB_F_SADDR, *negate),
            Match::CtStatusDnat { negate } => {
                out.push(ct(CT_STATUS, None, register(0)));
                masked(out, CT_STATUS_DNAT, !*negate, 0);
            }
            Match::CtEstablished { negate } => {
                out.push(ct(CT_STATE, None, register(0)));
                masked(out, CT_STATE_ESTABLISHED, !*negate, 0);
            }
            Match::CtInvalid => {
                out.push(ct(CT_STATE, None, register(0)));
                masked(out, CT_STATE_INVALID, true, 0);
            }
            Match::CtDirection { reply } => {
                out.push(ct(CT_DIRECTION, None, register(0)));
                out.push(cmp(false, vec![u8::from(*reply)]));
            }
        }
        Ok(())
    }

    /// A prefix of whole bytes is a shorter load; any other is masked.
    fn net(
        &mut self,
        out: &mut Vec<Expr>,
        field: Field,
        negate: bool,
        net: IpNetwork,
    ) -> Result<(), Invalid> {
        let network = RegValue::from(net.network());
        if network.data_type() != field.data_type() {
            return Err(Invalid(format!("{field:?} cannot be compared with {net}")));
        }
        let Some(offset) = network_offset(field) else {
            return Err(Invalid(format!("{field:?} is not an address of the packet")));
        };
        self.depend(out, &[field])?;
        let mut bytes = value::bytes(&network)?;
        let prefix = usize::from(net.prefix());
        let len = if prefix == 0 || prefix % 8 != 0 { bytes.len() } else { prefix / 8 };
        bytes.truncate(len);
        out.push(Expr::Payload {
            base: PAYLOAD_NETWORK,
            offset,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            reg: register(0),
        });
        if len * 8 != prefix {
            let mask = match net.mask() {
                IpAddr::V4(mask) => mask.octets().to_vec(),
                IpAddr::V6(mask) => mask.octets().to_vec(),
            };
            out.push(Expr::Bitwise { reg: register(0), xor: vec![0; mask.len()], mask });
        }
        out.push(cmp(negate, bytes));
        Ok(())
    }

    fn nat(
        &mut self,
        out: &mut Vec<Expr>,
        target: &NatTarget,
        source: bool,
    ) -> Result<(), Invalid> {
        let (ipv6, port) = match target {
            NatTarget::Fixed(address, port) => {
                let data = value::bytes(&RegValue::from(*address))?;
                out.push(Expr::Immediate { reg: register(0), data });
                if let Some(port) = port {
                    out.push(Expr::Immediate {
                        reg: register(4),
                        data: port.to_be_bytes().to_vec(),
                    });
                }
                (address.is_ipv6(), port.map(|_| register(4)))
            }
            NatTarget::Map { fields, map, ipv6 } => {
                self.load(out, fields)?;
                out.push(lookup(map, Some(register(0)), false));
                (*ipv6, Some(register(if *ipv6 { 4 } else { 1 })))
            }
            NatTarget::Apart { fields, map, ipv6, port } => {
                self.load(out, fields)?;
                out.push(lookup(map, Some(register(0)), false));
                self.port_apart(out, port)?;
                (*ipv6, Some(register(PORT_SLOT)))
            }
        };
        let family = u32::from(if ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 });
        out.push(Expr::Nat { source, family, address: register(0), port, flags: 0 });
        Ok(())
    }

    fn port_apart(&mut self, out: &mut Vec<Expr>, port: &NatPort) -> Result<(), Invalid> {
        match port {
            NatPort::Fixed(port) => {
                let data = port.to_be_bytes().to_vec();
                out.push(Expr::Immediate { reg: register(PORT_SLOT), data });
            }
            NatPort::Map { fields, map } => {
                self.load_from(out, fields, PORT_SLOT)?;
                let reg = register(PORT_SLOT);
                out.push(Expr::Lookup { set: map.clone(), reg, dreg: Some(reg), invert: false });
            }
        }
        Ok(())
    }

    /// Loads fields into registers one after the other, dependencies first.
    fn load(&mut self, out: &mut Vec<Expr>, fields: &[Field]) -> Result<(), Invalid> {
        self.load_from(out, fields, 0)
    }

    /// The same into the registers from a slot on.
    fn load_from(
        &mut self,
        out: &mut Vec<Expr>,
        fields: &[Field],
        mut slot: u32,
    ) -> Result<(), Invalid> {
        self.depend(out, fields)?;
        for field in fields {
            load_of(out, *field, register(slot))?;
            slot += u32::try_from(value::padded(field.data_type()) / 4).unwrap_or(0);
        }
        Ok(())
    }

    fn reject(&self) -> Result<Expr, Invalid> {
        let code = match self.family {
            Family::Ip => PORT_UNREACH,
            Family::Ip6 => PORT_UNREACH6,
            Family::Inet | Family::Bridge => {
                return Err(Invalid("reject: in tables of one IP family only".to_owned()));
            }
        };
        Ok(Expr::Reject { kind: REJECT_ICMP_UNREACH, code })
    }

    /// A field of a header is only there if the packet has that header.
    fn depend(&mut self, out: &mut Vec<Expr>, fields: &[Field]) -> Result<(), Invalid> {
        let of = |kind| {
            move |field: &Field| network_offset(*field).is_some() && field.data_type() == kind
        };
        if fields.iter().any(of(DataType::Ipv4Addr)) && fields.iter().any(of(DataType::Ipv6Addr)) {
            return Err(Invalid(format!("{fields:?}: no packet is both IPv4 and IPv6")));
        }
        for field in fields {
            if *field == Field::EtherSaddr && self.family != Family::Bridge && !self.ether {
                self.ether = true;
                out.push(Expr::Meta { key: META_IIFTYPE, reg: register(0) });
                out.push(cmp(false, ARPHRD_ETHER.to_ne_bytes().to_vec()));
            }
            if network_offset(*field).is_none() {
                continue;
            }
            let ipv6 = field.data_type() == DataType::Ipv6Addr;
            if self.ipv6 == Some(ipv6) {
                continue;
            }
            self.ipv6 = Some(ipv6);
            match self.family {
                Family::Inet => out.extend(nfproto(ipv6)),
                Family::Bridge => {
                    let protocol = if ipv6 { ETH_P_IPV6 } else { ETH_P_IP };
                    out.push(Expr::Meta { key: META_PROTOCOL, reg: register(0) });
                    out.push(cmp(false, protocol.to_be_bytes().to_vec()));
                }
                Family::Ip | Family::Ip6 => {}
            }
        }
        Ok(())
    }
}

/// Offset in the network header of a field that lies there.
fn network_offset(field: Field) -> Option<u32> {
    match field {
        Field::IpSaddr => Some(12),
        Field::IpDaddr => Some(16),
        Field::Ip6Saddr => Some(8),
        Field::Ip6Daddr => Some(24),
        Field::EtherSaddr
        | Field::L4Proto
        | Field::ThSport
        | Field::ThDport
        | Field::VniHigh
        | Field::VniLow
        | Field::IifName
        | Field::OifName
        | Field::Mark
        | Field::CtMark
        | Field::CtOriginalIpDaddr
        | Field::CtOriginalIp6Daddr
        | Field::CtOriginalProtoDst
        | Field::Random { .. }
        | Field::Turn { .. }
        | Field::SourceHash { .. }
        | Field::Const(_) => None,
    }
}

fn load_of(out: &mut Vec<Expr>, field: Field, reg: u32) -> Result<(), Invalid> {
    const ORIGINAL: Option<u8> = Some(0);
    let payload = |base, offset| Expr::Payload {
        base,
        offset,
        len: u32::try_from(field.data_type().len()).unwrap_or(0),
        reg,
    };
    let expr = match field {
        Field::IpSaddr => payload(PAYLOAD_NETWORK, 12),
        Field::IpDaddr => payload(PAYLOAD_NETWORK, 16),
        Field::Ip6Saddr => payload(PAYLOAD_NETWORK, 8),
        Field::Ip6Daddr => payload(PAYLOAD_NETWORK, 24),
        Field::EtherSaddr => payload(PAYLOAD_LINK, 6),
        Field::ThSport => payload(PAYLOAD_TRANSPORT, 0),
        Field::ThDport => payload(PAYLOAD_TRANSPORT, 2),
        Field::VniHigh => payload(PAYLOAD_TRANSPORT, 12),
        Field::VniLow => payload(PAYLOAD_TRANSPORT, 14),
        Field::L4Proto => Expr::Meta { key: META_L4PROTO, reg },
        Field::IifName => Expr::Meta { key: META_IIFNAME, reg },
        Field::OifName => Expr::Meta { key: META_OIFNAME, reg },
        Field::Mark => Expr::Meta { key: META_MARK, reg },
        Field::CtMark => ct(CT_MARK, None, reg),
        Field::CtOriginalIpDaddr => ct(CT_DST_IP, ORIGINAL, reg),
        Field::CtOriginalIp6Daddr => ct(CT_DST_IP6, ORIGINAL, reg),
        Field::CtOriginalProtoDst => ct(CT_PROTO_DST, ORIGINAL, reg),
        Field::Random { modulus, offset } => Expr::Numgen { reg, modulus, random: true, offset },
        Field::Turn { modulus, offset } => Expr::Numgen { reg, modulus, random: false, offset },
        Field::SourceHash { ipv6, modulus, seed } => {
            let (offset, len) = if ipv6 { (8, 16) } else { (12, 4) };
            out.push(Expr::Payload { base: PAYLOAD_NETWORK, offset, len, reg });
            Expr::Hash { sreg: reg, reg, len, modulus, seed }
        }
        Field::Const(value) => {
            out.push(Expr::Meta { key: META_MARK, reg });
            let (mask, xor) = (vec![0; 4], value.to_ne_bytes().to_vec());
            Expr::Bitwise { reg, mask, xor }
        }
    };
    out.push(expr);
    Ok(())
}

fn fib_local(out: &mut Vec<Expr>, flags: u32, negate: bool) {
    out.push(Expr::Fib { result: FIB_ADDRTYPE, flags, reg: register(0) });
    out.push(cmp(negate, RTN_LOCAL.to_ne_bytes().to_vec()));
}

fn ct(key: u32, direction: Option<u8>, reg: u32) -> Expr {
    Expr::Ct { key, direction, reg }
}

fn cmp(negate: bool, data: Vec<u8>) -> Expr {
    Expr::Cmp { reg: register(0), negate, data }
}

fn lookup(set: &str, dreg: Option<u32>, invert: bool) -> Expr {
    Expr::Lookup { set: set.to_owned(), reg: register(0), dreg, invert }
}

fn nfproto(ipv6: bool) -> [Expr; 2] {
    let protocol = if ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
    [Expr::Meta { key: META_NFPROTO, reg: register(0) }, cmp(false, vec![protocol])]
}

fn masked(out: &mut Vec<Expr>, mask: u32, negate: bool, value: u32) {
    out.push(bitwise(mask, 0));
    out.push(cmp(negate, value.to_ne_bytes().to_vec()));
}

fn bitwise(mask: u32, xor: u32) -> Expr {
    let (mask, xor) = (mask.to_ne_bytes().to_vec(), xor.to_ne_bytes().to_vec());
    Expr::Bitwise { reg: register(0), mask, xor }
}

/// Old bits are loaded only if some are kept.
fn set_mark(out: &mut Vec<Expr>, load: Expr, mask: u32, value: u32) {
    if mask == u32::MAX {
        out.push(Expr::Immediate { reg: register(0), data: value.to_ne_bytes().to_vec() });
    } else {
        out.push(load);
        out.push(bitwise(!mask, value));
    }
}
