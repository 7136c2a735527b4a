//! Expressions of the kernel's rule machine, one variant per kind that Causeway uses.
//!
//! An expression with an attribute that is not listed here stays [`Expr::Other`], bytes and all.

use causeway_ruleset::Verdict;

use super::value::{read_data, read_verdict, write_data, write_verdict};
use crate::uapi::{DYNSET_UPDATE, EXPR_DATA, EXPR_NAME, HASH_JENKINS, LIST_ELEM, NAT_F_IMPLIED};
use crate::wire::{Attribute, Attributes, Writer};

/// One expression. Registers are numbered as the kernel dumps them, see [`super::register`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    Payload {
        base: u32,
        offset: u32,
        len: u32,
        reg: u32,
    },
    Meta {
        key: u32,
        reg: u32,
    },
    MetaSet {
        key: u32,
        reg: u32,
    },
    Ct {
        key: u32,
        direction: Option<u8>,
        reg: u32,
    },
    CtSet {
        key: u32,
        reg: u32,
    },
    Fib {
        result: u32,
        flags: u32,
        reg: u32,
    },
    Bitwise {
        reg: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Cmp {
        reg: u32,
        negate: bool,
        data: Vec<u8>,
    },
    Lookup {
        set: String,
        reg: u32,
        dreg: Option<u32>,
        invert: bool,
    },
    Immediate {
        reg: u32,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Nat {
        source: bool,
        family: u32,
        address: u32,
        port: Option<u32>,
        flags: u32,
    },
    Masq {
        flags: u32,
    },
    Numgen {
        reg: u32,
        modulus: u32,
        random: bool,
        offset: u32,
    },
    Hash {
        sreg: u32,
        reg: u32,
        len: u32,
        modulus: u32,
        seed: u32,
    },
    Reject {
        kind: u32,
        code: u8,
    },
    /// `update`, with a timeout in milliseconds.
    Dynset {
        set: String,
        key: u32,
        timeout: u64,
    },
    Counter,
    Other(String, Vec<u8>),
}

impl Expr {
    fn name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::MetaSet { .. } => "meta",
            Self::Ct { .. } | Self::CtSet { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Bitwise { .. } => "bitwise",
            Self::Cmp { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Nat { .. } => "nat",
            Self::Masq { .. } => "masq",
            Self::Numgen { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Reject { .. } => "reject",
            Self::Dynset { .. } => "dynset",
            Self::Counter => "counter",
            Self::Other(name, _) => name,
        }
    }

    /// Appends the expression as an element of a list.
    pub(crate) fn write(&self, out: &mut Writer) {
        let element = out.nest(LIST_ELEM);
        out.string(EXPR_NAME, self.name());
        let data = out.nest(EXPR_DATA);
        self.write_attributes(out);
        out.end_nest(data);
        out.end_nest(element);
    }

    fn write_attributes(&self, out: &mut Writer) {
        match self {
            Self::Payload { base, offset, len, reg } => {
                u32s(out, &[(1, *reg), (2, *base), (3, *offset), (4, *len)]);
            }
            Self::Meta { key, reg } => u32s(out, &[(2, *key), (1, *reg)]),
            Self::MetaSet { key, reg } => u32s(out, &[(2, *key), (3, *reg)]),
            Self::Ct { key, direction, reg } => {
                u32s(out, &[(2, *key), (1, *reg)]);
                direction.iter().for_each(|direction| out.u8(3, *direction));
            }
            Self::CtSet { key, reg } => u32s(out, &[(2, *key), (4, *reg)]),
            Self::Fib { result, flags, reg } => u32s(out, &[(3, *flags), (2, *result), (1, *reg)]),
            Self::Bitwise { reg, mask, xor } => {
                u32s(out, &[(1, *reg), (2, *reg)]);
                out.u32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                write_data(out, 4, mask);
                write_data(out, 5, xor);
            }
            Self::Cmp { reg, negate, data } => {
                u32s(out, &[(1, *reg), (2, u32::from(*negate))]);
                write_data(out, 3, data);
            }
            Self::Lookup { set, reg, dreg, invert } => {
                write_lookup(out, set, (*reg, *dreg), *invert);
            }
            Self::Immediate { reg, data } => {
                out.u32(1, *reg);
                write_data(out, 2, data);
            }
            Self::Verdict(verdict) => {
                out.u32(1, 0);
                write_verdict(out, 2, verdict);
            }
            Self::Nat { source, family, address, port, flags } => {
                u32s(out, &[(1, u32::from(!*source)), (2, *family), (3, *address)]);
                port.iter().for_each(|port| out.u32(5, *port));
                if *flags != 0 {
                    out.u32(7, *flags);
                }
            }
            Self::Masq { flags } if *flags != 0 => out.u32(1, *flags),
            Self::Numgen { reg, modulus, random, offset } => {
                u32s(out, &[(1, *reg), (2, *modulus), (3, u32::from(*random)), (4, *offset)]);
            }
            Self::Hash { sreg, reg, len, modulus, seed } => {
                u32s(out, &[(1, *sreg), (2, *reg), (3, *len), (4, *modulus)]);
                u32s(out, &[(5, *seed), (7, HASH_JENKINS)]);
            }
            Self::Reject { kind, code } => {
                out.u32(1, *kind);
                out.u8(2, *code);
            }
            Self::Dynset { set, key, timeout } => {
                u32s(out, &[(4, *key), (3, DYNSET_UPDATE)]);
                out.string(1, set);
                out.u64(6, *timeout);
            }
            // A counter begins at zero.
            Self::Masq { .. } | Self::Counter => {}
            Self::Other(_, bytes) => out.raw(bytes),
        }
    }

    /// Reads one element of a list.
    pub(crate) fn read(element: Attribute<'_>) -> Self {
        let name = element.nested().get(EXPR_NAME).and_then(|name| name.string());
        let name = name.unwrap_or_default();
        let data = element.nested().get(EXPR_DATA).map(|data| data.value).unwrap_or_default();
        let known = match name.as_str() {
            "payload" => payload(data),
            "meta" => meta(data),
            "ct" => ct(data),
            "fib" => fib(data),
            "bitwise" => bitwise(data),
            "cmp" => cmp(data),
            "lookup" => lookup(data),
            "immediate" => immediate(data),
            "nat" => nat(data),
            "masq" => masq(data),
            "numgen" => numgen(data),
            "hash" => hash(data),
            "reject" => reject(data),
            "dynset" => dynset(data),
            "counter" => only(data, &[1, 2, 3]).map(|_| Self::Counter),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(name, data.to_vec()))
    }
}

fn write_lookup(out: &mut Writer, set: &str, (reg, dreg): (u32, Option<u32>), invert: bool) {
    out.u32(2, reg);
    dreg.iter().for_each(|dreg| out.u32(3, *dreg));
    out.string(1, set);
    if invert {
        out.u32(5, 1);
    }
}

fn u32s(out: &mut Writer, attributes: &[(u16, u32)]) {
    for (kind, value) in attributes {
        out.u32(*kind, *value);
    }
}

/// The attributes, if none but these kinds is there.
fn only<'a>(data: &'a [u8], kinds: &[u16]) -> Option<Attributes<'a>> {
    let attributes = Attributes(data);
    let mut all = attributes;
    all.all(|attribute| kinds.contains(&attribute.kind)).then_some(attributes)
}

fn u32_of(attributes: Attributes<'_>, kind: u16) -> Option<u32> {
    attributes.get(kind)?.u32()
}

/// Some(None) if absent, None if damaged.
fn optional(attributes: Attributes<'_>, kind: u16) -> Option<Option<u32>> {
    match attributes.get(kind) {
        None => Some(None),
        Some(attribute) => attribute.u32().map(Some),
    }
}

fn data_of(attributes: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    read_data(attributes.get(kind)?.nested()).map(<[u8]>::to_vec)
}

fn payload(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3, 4])?;
    Some(Expr::Payload {
        base: u32_of(all, 2)?,
        offset: u32_of(all, 3)?,
        len: u32_of(all, 4)?,
        reg: u32_of(all, 1)?,
    })
}

fn meta(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3])?;
    let key = u32_of(all, 2)?;
    match (optional(all, 1)?, optional(all, 3)?) {
        (Some(reg), None) => Some(Expr::Meta { key, reg }),
        (None, Some(reg)) => Some(Expr::MetaSet { key, reg }),
        _ => None,
    }
}

fn ct(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3, 4])?;
    let key = u32_of(all, 2)?;
    let direction = match all.get(3) {
        None => None,
        Some(attribute) => Some(attribute.u8()?),
    };
    match (optional(all, 1)?, optional(all, 4)?) {
        (Some(reg), None) => Some(Expr::Ct { key, direction, reg }),
        (None, Some(reg)) if direction.is_none() => Some(Expr::CtSet { key, reg }),
        _ => None,
    }
}

fn fib(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3])?;
    Some(Expr::Fib { result: u32_of(all, 2)?, flags: u32_of(all, 3)?, reg: u32_of(all, 1)? })
}

fn bitwise(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3, 4, 5, 6])?;
    let reg = u32_of(all, 1)?;
    let (mask, xor) = (data_of(all, 4)?, data_of(all, 5)?);
    let len = usize::try_from(u32_of(all, 3)?).ok()?;
    let plain = u32_of(all, 2)? == reg && optional(all, 6)?.unwrap_or(0) == 0;
    (plain && mask.len() == len && xor.len() == len).then_some(Expr::Bitwise { reg, mask, xor })
}

fn cmp(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3])?;
    let negate = match u32_of(all, 2)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Expr::Cmp { reg: u32_of(all, 1)?, negate, data: data_of(all, 3)? })
}

fn lookup(data: &[u8]) -> Option<Expr> {
    // 4 numbers the set in its transaction, beside its name; the kernel does not dump it.
    let all = only(data, &[1, 2, 3, 4, 5])?;
    let invert = match optional(all, 5)? {
        None | Some(0) => false,
        Some(1) => true,
        Some(_) => return None,
    };
    Some(Expr::Lookup {
        set: all.get(1)?.string()?,
        reg: u32_of(all, 2)?,
        dreg: optional(all, 3)?,
        invert,
    })
}

fn immediate(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2])?;
    let value = all.get(2)?.nested();
    match (u32_of(all, 1)?, read_verdict(value)) {
        (0, Some(verdict)) => Some(Expr::Verdict(verdict)),
        (0, None) | (_, Some(_)) => None,
        (reg, None) => Some(Expr::Immediate { reg, data: read_data(value)?.to_vec() }),
    }
}

fn nat(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3, 4, 5, 6, 7])?;
    let source = match u32_of(all, 1)? {
        0 => true,
        1 => false,
        _ => return None,
    };
    let (address, port) = (u32_of(all, 3)?, optional(all, 5)?);
    // The kernel repeats the lower bounds as the upper ones if there is no range.
    let single = optional(all, 4)?.is_none_or(|max| max == address);
    let one_port = optional(all, 6)?.is_none_or(|max| Some(max) == port);
    let flags = optional(all, 7)?.unwrap_or(0) & !NAT_F_IMPLIED;
    let family = u32_of(all, 2)?;
    (single && one_port).then_some(Expr::Nat { source, family, address, port, flags })
}

fn masq(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1])?;
    Some(Expr::Masq { flags: optional(all, 1)?.unwrap_or(0) })
}

fn numgen(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2, 3, 4])?;
    let random = match u32_of(all, 3)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let offset = optional(all, 4)?.unwrap_or(0);
    Some(Expr::Numgen { reg: u32_of(all, 1)?, modulus: u32_of(all, 2)?, random, offset })
}

fn hash(data: &[u8]) -> Option<Expr> {
    // Without a seed the kernel drew one; an offset is nothing that we say.
    let all = only(data, &[1, 2, 3, 4, 5, 7])?;
    let jenkins = optional(all, 7)?.unwrap_or(HASH_JENKINS) == HASH_JENKINS;
    let expr = Expr::Hash {
        sreg: u32_of(all, 1)?,
        reg: u32_of(all, 2)?,
        len: u32_of(all, 3)?,
        modulus: u32_of(all, 4)?,
        seed: u32_of(all, 5)?,
    };
    jenkins.then_some(expr)
}

fn reject(data: &[u8]) -> Option<Expr> {
    let all = only(data, &[1, 2])?;
    Some(Expr::Reject { kind: u32_of(all, 1)?, code: all.get(2)?.u8()? })
}

fn dynset(data: &[u8]) -> Option<Expr> {
    // 2 numbers the set in its transaction; 8 pads; 9 is flags.
    let all = only(data, &[1, 2, 3, 4, 6, 8, 9])?;
    let plain = u32_of(all, 3)? == DYNSET_UPDATE && optional(all, 9)?.unwrap_or(0) == 0;
    let expr = Expr::Dynset {
        set: all.get(1)?.string()?,
        key: u32_of(all, 4)?,
        timeout: all.get(6)?.u64()?,
    };
    plain.then_some(expr)
}
