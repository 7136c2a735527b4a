//! Values, verdicts and comments.

use std::net::{Ipv4Addr, Ipv6Addr};

use causeway_ruleset::{DataType, RegValue, Verdict};

use super::Invalid;
use crate::uapi::{
    DATA_VALUE, DATA_VERDICT, NF_ACCEPT, NF_DROP, NFT_GOTO, NFT_JUMP, NFT_RETURN, UDATA_COMMENT,
    VERDICT_CHAIN, VERDICT_CODE,
};
use crate::wire::{Attributes, Writer};

/// What `nft` accepts as a comment.
const COMMENT_MAX: usize = 128;
const IFNAMSIZ: usize = 16;

/// The value as the kernel compares it: network byte order, but marks and numbers in host order.
pub(crate) fn bytes(value: &RegValue) -> Result<Vec<u8>, Invalid> {
    Ok(match value {
        RegValue::V4(address) => address.octets().to_vec(),
        RegValue::V6(address) => address.octets().to_vec(),
        RegValue::Proto(proto) => vec![*proto],
        RegValue::Port(port) => port.to_be_bytes().to_vec(),
        RegValue::Mark(number) | RegValue::Number(number) => number.to_ne_bytes().to_vec(),
        RegValue::IfName(name) => {
            if name.len() >= IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
                return Err(Invalid(format!("interface name {name:?}: at most 15 bytes")));
            }
            let mut bytes = name.clone().into_bytes();
            bytes.resize(IFNAMSIZ, 0);
            bytes
        }
        RegValue::Mac(mac) => mac.to_vec(),
    })
}

/// The inverse of [`bytes`]; longer input is padding.
pub(crate) fn parse(kind: DataType, bytes: &[u8]) -> Option<RegValue> {
    let bytes = bytes.get(..kind.len())?;
    Some(match kind {
        DataType::Ipv4Addr => RegValue::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        DataType::Ipv6Addr => RegValue::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        DataType::InetProto => RegValue::Proto(*bytes.first()?),
        DataType::InetService => RegValue::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
        DataType::Mark => RegValue::Mark(u32::from_ne_bytes(bytes.try_into().ok()?)),
        DataType::Number => RegValue::Number(u32::from_ne_bytes(bytes.try_into().ok()?)),
        DataType::IfName => {
            let end = bytes.iter().position(|byte| *byte == 0)?;
            if bytes[end..].iter().any(|byte| *byte != 0) {
                return None;
            }
            RegValue::IfName(String::from_utf8(bytes[..end].to_vec()).ok()?)
        }
        DataType::EtherAddr => RegValue::Mac(bytes.try_into().ok()?),
    })
}

/// Bytes of a component in a register or in a concatenation.
pub(crate) fn padded(kind: DataType) -> usize {
    kind.len().next_multiple_of(4)
}

/// Bytes of a key or of data: one component as it is, several padded to registers.
pub(crate) fn concat_len(kinds: &[DataType]) -> usize {
    match kinds {
        [one] => one.len(),
        many => many.iter().copied().map(padded).sum(),
    }
}

/// A key or data, concatenated.
pub(crate) fn concat(kinds: &[DataType], values: &[RegValue]) -> Result<Vec<u8>, Invalid> {
    if !kinds.iter().copied().eq(values.iter().map(RegValue::data_type)) {
        return Err(Invalid(format!("{values:?} does not have the set's type {kinds:?}")));
    }
    let mut out = Vec::with_capacity(concat_len(kinds));
    for value in values {
        out.extend_from_slice(&bytes(value)?);
        if kinds.len() > 1 {
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    Ok(out)
}

/// The inverse of [`concat()`].
pub(crate) fn parse_concat(kinds: &[DataType], mut bytes: &[u8]) -> Option<Vec<RegValue>> {
    let mut out = Vec::with_capacity(kinds.len());
    for kind in kinds {
        out.push(parse(*kind, bytes)?);
        bytes = bytes.get(padded(*kind)..).unwrap_or_default();
    }
    Some(out)
}

/// `NFTA_DATA_VALUE` in a nest.
pub(crate) fn write_data(out: &mut Writer, kind: u16, value: &[u8]) {
    let nest = out.nest(kind);
    out.bytes(DATA_VALUE, value);
    out.end_nest(nest);
}

/// `NFTA_DATA_VERDICT` in a nest.
pub(crate) fn write_verdict(out: &mut Writer, kind: u16, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (NF_ACCEPT, None),
        Verdict::Drop => (NF_DROP, None),
        Verdict::Return => (NFT_RETURN, None),
        Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
    };
    let outer = out.nest(kind);
    let inner = out.nest(DATA_VERDICT);
    out.bytes(VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        out.string(VERDICT_CHAIN, chain);
    }
    out.end_nest(inner);
    out.end_nest(outer);
}

/// Reads what [`write_data`] writes, given the inside of the nest.
pub(crate) fn read_data<'a>(nest: Attributes<'a>) -> Option<&'a [u8]> {
    nest.get(DATA_VALUE).map(|attribute| attribute.value)
}

/// Reads what [`write_verdict`] writes, given the inside of the nest.
pub(crate) fn read_verdict(nest: Attributes<'_>) -> Option<Verdict> {
    let inner = nest.get(DATA_VERDICT)?.nested();
    let code = i32::from_be_bytes(inner.get(VERDICT_CODE)?.value.try_into().ok()?);
    let chain = || inner.get(VERDICT_CHAIN)?.string();
    Some(match code {
        NF_ACCEPT => Verdict::Accept,
        NF_DROP => Verdict::Drop,
        NFT_RETURN => Verdict::Return,
        NFT_JUMP => Verdict::Jump(chain()?),
        NFT_GOTO => Verdict::Goto(chain()?),
        _ => return None,
    })
}

/// A comment as nft's user data: type, length, string with its zero.
pub(crate) fn write_comment(out: &mut Writer, kind: u16, comment: &str) -> Result<(), Invalid> {
    if comment.len() > COMMENT_MAX || comment.bytes().any(|byte| byte == 0) {
        return Err(Invalid(format!("comment {comment:?}: at most 128 bytes without zeros")));
    }
    let mut data = vec![UDATA_COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    out.bytes(kind, &data);
    Ok(())
}

/// The comment among nft's user data.
pub(crate) fn read_comment(mut data: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = data {
        let value = rest.get(..usize::from(*len))?;
        if *kind == UDATA_COMMENT {
            let value = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(value.to_vec()).ok();
        }
        data = rest.get(value.len()..)?;
    }
    None
}
