//! Sets, maps and their elements.

use causeway_ruleset::{
    DYNAMIC_SIZE, DataType, Element, ElementValue, Key, MapTarget, RegValue, SetSpec, TableId,
};

use super::value::{
    concat, concat_len, parse_concat, read_comment, read_data, read_verdict, write_comment,
    write_data, write_verdict,
};
use super::{Invalid, family_number};
use crate::uapi::{
    DATA_TYPE_VERDICT, ELEM_DATA, ELEM_F_INTERVAL_END, ELEM_FLAGS, ELEM_KEY, ELEM_KEY_END,
    ELEM_LIST_ELEMENTS, ELEM_LIST_SET, ELEM_LIST_TABLE, ELEM_USERDATA, ETHHDR_SADDR, EXPR_CONCAT,
    EXPR_META, EXPR_NUMGEN, EXPR_PAYLOAD, IP6HDR_DADDR, IPHDR_DADDR, LIST_ELEM, META_IIFNAME,
    META_L4PROTO, META_MARK, NUMGEN_RANDOM, PROTO_ETHER, PROTO_IP, PROTO_IP6, PROTO_TH,
    SET_DATA_LEN, SET_DATA_TYPE, SET_DESC, SET_DESC_CONCAT, SET_DESC_SIZE, SET_F_CONCAT,
    SET_F_EVAL, SET_F_INTERVAL, SET_F_MAP, SET_F_TIMEOUT, SET_FIELD_LEN, SET_FLAGS, SET_ID,
    SET_KEY_LEN, SET_KEY_TYPE, SET_NAME, SET_TABLE, SET_TIMEOUT, SET_USERDATA, THDR_DPORT,
    UDATA_SET_DATA_BYTEORDER, UDATA_SET_DATA_TYPEOF, UDATA_SET_KEY_BYTEORDER, UDATA_SET_KEY_TYPEOF,
    UDATA_TYPEOF_DATA, UDATA_TYPEOF_EXPR,
};
use crate::wire::{Attribute, Attributes, Head, Mark, Writer};

/// Bytes of elements in one message: a nest holds 65,535, and one element less than 1,024.
const CHUNK: usize = 60_000;
/// nft packs the types of a concatenation into six bits each.
const TYPE_BITS: u32 = 6;

/// Attributes that define a set.
pub(crate) fn write_spec(
    out: &mut Writer,
    table: &TableId,
    set: &SetSpec,
    id: u32,
) -> Result<(), Invalid> {
    if set.key.is_empty() || set.key.len() > 5 {
        return Err(Invalid(format!("set {}: one to five components in a key", set.name)));
    }
    if set.interval && !set.key.iter().all(|kind| ordered(*kind)) {
        return Err(Invalid(format!("set {}: no ranges over marks and names", set.name)));
    }
    if set.key == [DataType::Number] {
        return Err(Invalid(format!("set {}: a number is not alone in a key", set.name)));
    }
    let ranges_of_many = set.interval && set.key.len() > 1;
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    out.string(SET_TABLE, &table.name);
    out.string(SET_NAME, &set.name);
    let flags = flag(set.interval, SET_F_INTERVAL)
        | flag(ranges_of_many, SET_F_CONCAT)
        | flag(set.target.is_some(), SET_F_MAP)
        | flag(set.dynamic, SET_F_EVAL)
        | flag(set.timeout_ms.is_some(), SET_F_TIMEOUT);
    out.u32(SET_FLAGS, flags);
    out.u32(SET_KEY_TYPE, type_number(&set.key));
    out.u32(SET_KEY_LEN, u32::try_from(concat_len(&set.key)).unwrap_or(u32::MAX));
    match &set.target {
        None => {}
        Some(MapTarget::Verdict) => {
            out.u32(SET_DATA_TYPE, DATA_TYPE_VERDICT);
            out.u32(SET_DATA_LEN, 0);
        }
        Some(MapTarget::Data(kinds)) => {
            out.u32(SET_DATA_TYPE, type_number(kinds));
            out.u32(SET_DATA_LEN, u32::try_from(concat_len(kinds)).unwrap_or(u32::MAX));
        }
    }
    out.u32(SET_ID, id);
    if ranges_of_many || set.dynamic {
        let desc = out.nest(SET_DESC);
        if set.dynamic {
            out.u32(SET_DESC_SIZE, DYNAMIC_SIZE);
        }
        if ranges_of_many {
            write_fields(out, &set.key);
        }
        out.end_nest(desc);
    }
    if let Some(timeout) = set.timeout_ms {
        out.u64(SET_TIMEOUT, timeout);
    }
    write_byte_orders(out, set);
    Ok(())
}

/// Lengths of the components, which ranges of a concatenation need.
fn write_fields(out: &mut Writer, key: &[DataType]) {
    let concat = out.nest(SET_DESC_CONCAT);
    for kind in key {
        let field = out.nest(LIST_ELEM);
        out.u32(SET_FIELD_LEN, u32::try_from(kind.len()).unwrap_or(0));
        out.end_nest(field);
    }
    out.end_nest(concat);
}

/// User data by which `nft list` knows how to print marks, names and numbers.
fn write_byte_orders(out: &mut Writer, set: &SetSpec) {
    let mut data = vec![UDATA_SET_KEY_BYTEORDER, 4];
    data.extend_from_slice(&byte_order(&set.key).to_ne_bytes());
    if let Some(target) = &set.target {
        let order = match target {
            MapTarget::Data(kinds) => byte_order(kinds),
            MapTarget::Verdict => 0,
        };
        data.extend_from_slice(&[UDATA_SET_DATA_BYTEORDER, 4]);
        data.extend_from_slice(&order.to_ne_bytes());
    }
    // A number has no name as a type: nft lists the set by expressions then.
    if set.key.contains(&DataType::Number) {
        udata(&mut data, UDATA_SET_KEY_TYPEOF, |data| typeof_all(data, &set.key));
        if let Some(MapTarget::Data(kinds)) = &set.target {
            udata(&mut data, UDATA_SET_DATA_TYPEOF, |data| typeof_all(data, kinds));
        }
    }
    out.bytes(SET_USERDATA, &data);
}

/// One entry of nft's user data; it holds at most 255 bytes.
fn udata(data: &mut Vec<u8>, kind: u8, inside: impl FnOnce(&mut Vec<u8>)) {
    let start = data.len();
    data.extend_from_slice(&[kind, 0]);
    inside(data);
    data[start + 1] = u8::try_from(data.len() - start - 2).unwrap_or(u8::MAX);
}

fn udata_u32(data: &mut Vec<u8>, kind: u8, value: u32) {
    udata(data, kind, |data| data.extend_from_slice(&value.to_ne_bytes()));
}

/// An expression that has these types, or a concatenation of such.
fn typeof_all(data: &mut Vec<u8>, kinds: &[DataType]) {
    match kinds {
        [kind] => typeof_one(data, *kind),
        kinds => {
            udata_u32(data, UDATA_TYPEOF_EXPR, EXPR_CONCAT);
            udata(data, UDATA_TYPEOF_DATA, |data| {
                for (number, kind) in (0..).zip(kinds) {
                    udata(data, number, |data| typeof_one(data, *kind));
                }
            });
        }
    }
}

/// Number of an expression, and what it reads: the header and the field of it, the key of `meta`,
/// or mode, modulus and offset.
fn typeof_one(data: &mut Vec<u8>, kind: DataType) {
    let (expr, parts): (u32, &[u32]) = match kind {
        DataType::Ipv4Addr => (EXPR_PAYLOAD, &[PROTO_IP, IPHDR_DADDR]),
        DataType::Ipv6Addr => (EXPR_PAYLOAD, &[PROTO_IP6, IP6HDR_DADDR]),
        DataType::InetService => (EXPR_PAYLOAD, &[PROTO_TH, THDR_DPORT]),
        DataType::EtherAddr => (EXPR_PAYLOAD, &[PROTO_ETHER, ETHHDR_SADDR]),
        DataType::InetProto => (EXPR_META, &[META_L4PROTO]),
        DataType::Mark => (EXPR_META, &[META_MARK]),
        DataType::IfName => (EXPR_META, &[META_IIFNAME]),
        DataType::Number => (EXPR_NUMGEN, &[NUMGEN_RANDOM, 2, 0]),
    };
    udata_u32(data, UDATA_TYPEOF_EXPR, expr);
    udata(data, UDATA_TYPEOF_DATA, |data| {
        for (number, part) in (0..).zip(parts) {
            udata_u32(data, number, *part);
        }
    });
}

/// The kernel compares bytes: ranges follow the value only in network order.
fn ordered(kind: DataType) -> bool {
    !matches!(kind, DataType::Mark | DataType::IfName | DataType::Number)
}

/// nft's `enum byteorder`: 0 for concatenations, 1 host, 2 network.
fn byte_order(kinds: &[DataType]) -> u32 {
    match kinds {
        [DataType::Mark | DataType::IfName | DataType::Number] => 1,
        [_] => 2,
        _ => 0,
    }
}

/// nft's number of a type (`enum datatypes`).
fn type_code(kind: DataType) -> u32 {
    match kind {
        DataType::Number => 4,
        DataType::Ipv4Addr => 7,
        DataType::Ipv6Addr => 8,
        DataType::EtherAddr => 9,
        DataType::InetProto => 12,
        DataType::InetService => 13,
        DataType::Mark => 19,
        DataType::IfName => 41,
    }
}

fn type_of_code(code: u32) -> Option<DataType> {
    Some(match code {
        4 => DataType::Number,
        7 => DataType::Ipv4Addr,
        8 => DataType::Ipv6Addr,
        9 => DataType::EtherAddr,
        12 => DataType::InetProto,
        13 => DataType::InetService,
        19 => DataType::Mark,
        41 => DataType::IfName,
        _ => return None,
    })
}

fn type_number(kinds: &[DataType]) -> u32 {
    kinds.iter().fold(0, |number, kind| number << TYPE_BITS | type_code(*kind))
}

fn types_of_number(mut number: u32) -> Option<Vec<DataType>> {
    let mut kinds = Vec::new();
    while number != 0 {
        kinds.push(type_of_code(number & ((1 << TYPE_BITS) - 1))?);
        number >>= TYPE_BITS;
    }
    kinds.reverse();
    (!kinds.is_empty()).then_some(kinds)
}

/// Reads what [`write_spec`] writes, with the table's name; `None` for what the IR cannot say.
pub(crate) fn read_spec(attributes: Attributes<'_>) -> Option<(String, SetSpec)> {
    let number = |kind| attributes.get(kind).map_or(Some(0), |attribute| attribute.u32());
    let flags = number(SET_FLAGS)?;
    let target = match (flags & SET_F_MAP != 0, number(SET_DATA_TYPE)?) {
        (false, _) => None,
        (true, DATA_TYPE_VERDICT) => Some(MapTarget::Verdict),
        (true, data) => Some(MapTarget::Data(types_of_number(data)?)),
    };
    let key = types_of_number(number(SET_KEY_TYPE)?)?;
    if flags & SET_F_INTERVAL != 0 && !key.iter().all(|kind| ordered(*kind)) {
        return None;
    }
    let spec = SetSpec {
        name: attributes.get(SET_NAME)?.string()?,
        key,
        target,
        interval: flags & SET_F_INTERVAL != 0,
        dynamic: flags & SET_F_EVAL != 0,
        timeout_ms: attributes.get(SET_TIMEOUT).and_then(|timeout| timeout.u64()),
    };
    Some((attributes.get(SET_TABLE)?.string()?, spec))
}

/// Which parts of elements a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementFields {
    /// All.
    Whole,
    /// For deletion and query.
    Key,
}

/// One or more messages with these elements; none for none. Answers with the last.
pub(crate) fn write_elements(
    out: &mut Writer,
    head: Head,
    (table, set): (&TableId, &SetSpec),
    elements: &[Element],
    parts: ElementFields,
) -> Result<Option<Mark>, Invalid> {
    let mut last = None;
    let mut rest = elements.iter().peekable();
    while rest.peek().is_some() {
        let message = out.message(Head { family: family_number(table.family), ..head });
        write_list(out, (table, set), &mut rest, parts)?;
        out.end_message(message);
        last = Some(message);
    }
    Ok(last)
}

/// Attributes of one message: as many elements as it can hold.
pub(crate) fn write_list<'a>(
    out: &mut Writer,
    (table, set): (&TableId, &SetSpec),
    elements: &mut impl Iterator<Item = &'a Element>,
    parts: ElementFields,
) -> Result<(), Invalid> {
    out.string(ELEM_LIST_TABLE, &table.name);
    out.string(ELEM_LIST_SET, &set.name);
    let list = out.nest(ELEM_LIST_ELEMENTS);
    let start = out.len();
    while out.len() - start < CHUNK {
        let Some(element) = elements.next() else { break };
        write_element(out, set, element, parts)?;
    }
    out.end_nest(list);
    Ok(())
}

fn write_element(
    out: &mut Writer,
    set: &SetSpec,
    element: &Element,
    parts: ElementFields,
) -> Result<(), Invalid> {
    let (from, to) = match &element.key {
        Key::Exact(values) => (values, values),
        Key::Range(from, to) if set.interval => (from, to),
        Key::Range(..) => {
            return Err(Invalid(format!("set {} has no ranges", set.name)));
        }
    };
    let (from, to) = (concat(&set.key, from)?, concat(&set.key, to)?);
    let nest = out.nest(LIST_ELEM);
    write_data(out, ELEM_KEY, &from);
    if set.interval && set.key.len() > 1 {
        write_data(out, ELEM_KEY_END, &to);
    }
    if parts == ElementFields::Whole {
        match (&set.target, &element.value) {
            (None, None) => {}
            (Some(MapTarget::Data(kinds)), Some(ElementValue::Data(values))) => {
                write_data(out, ELEM_DATA, &concat(kinds, values)?);
            }
            (Some(MapTarget::Verdict), Some(ElementValue::Verdict(verdict))) => {
                write_verdict(out, ELEM_DATA, verdict);
            }
            (target, value) => {
                return Err(Invalid(format!(
                    "set {} yields {target:?}, the element holds {value:?}",
                    set.name
                )));
            }
        }
        if let Some(comment) = &element.comment {
            write_comment(out, ELEM_USERDATA, comment)?;
        }
    }
    out.end_nest(nest);
    if set.interval && set.key.len() == 1 {
        write_interval_end(out, to);
    }
    Ok(())
}

/// A set of plain intervals holds where each begins and where the next gap begins.
fn write_interval_end(out: &mut Writer, mut last: Vec<u8>) {
    let mut carry = true;
    for byte in last.iter_mut().rev() {
        let (sum, over) = byte.overflowing_add(u8::from(carry));
        (*byte, carry) = (sum, over);
    }
    if carry {
        return;
    }
    let nest = out.nest(LIST_ELEM);
    write_data(out, ELEM_KEY, &last);
    out.u32(ELEM_FLAGS, ELEM_F_INTERVAL_END);
    out.end_nest(nest);
}

/// An element as it was received.
#[derive(Clone, Debug)]
pub(crate) struct RawElement {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    interval_end: bool,
    value: Option<ElementValue>,
    comment: Option<String>,
}

/// Reads the elements of a message, damaged or foreign ones left out.
pub(crate) fn read_elements(attributes: Attributes<'_>, set: &SetSpec, out: &mut Vec<RawElement>) {
    let Some(list) = attributes.get(ELEM_LIST_ELEMENTS) else { return };
    out.extend(list.nested().filter_map(|element| read_element(element, set)));
}

fn read_element(element: Attribute<'_>, set: &SetSpec) -> Option<RawElement> {
    let attributes = element.nested();
    let bytes =
        |kind| attributes.get(kind).and_then(|nest| read_data(nest.nested())).map(<[u8]>::to_vec);
    let value = attributes.get(ELEM_DATA).and_then(|data| match set.target.as_ref()? {
        MapTarget::Verdict => Some(ElementValue::Verdict(read_verdict(data.nested())?)),
        MapTarget::Data(kinds) => {
            Some(ElementValue::Data(parse_concat(kinds, read_data(data.nested())?)?))
        }
    });
    let flags = attributes.get(ELEM_FLAGS).and_then(|flags| flags.u32()).unwrap_or(0);
    Some(RawElement {
        key: bytes(ELEM_KEY)?,
        key_end: bytes(ELEM_KEY_END),
        interval_end: flags & ELEM_F_INTERVAL_END != 0,
        value,
        comment: attributes.get(ELEM_USERDATA).and_then(|data| read_comment(data.value)),
    })
}

/// Whether elements came twice; sorts them.
///
/// The kernel grows a hash table in the background and dumps it in parts: each part skips as many
/// elements as went before, of an order that growing changes. For each element that is left out so
/// another comes twice, and nothing else tells (`NLM_F_DUMP_INTR` is about commits).
pub(crate) fn repeats(raw: &mut [RawElement]) -> bool {
    raw.sort_by(|a, b| (&a.key, a.interval_end).cmp(&(&b.key, b.interval_end)));
    raw.windows(2)
        .any(|pair| (&pair[0].key, pair[0].interval_end) == (&pair[1].key, pair[1].interval_end))
}

/// Elements of a set in key order. Ends of plain intervals join their beginnings.
pub(crate) fn elements(set: &SetSpec, raw: Vec<RawElement>) -> Vec<Element> {
    let mut out = if set.interval && set.key.len() == 1 {
        intervals(set, raw)
    } else {
        raw.into_iter().filter_map(|raw| element(set, raw)).collect()
    };
    out.sort_by(|a, b| a.key.cmp(&b.key));
    out
}

fn element(set: &SetSpec, raw: RawElement) -> Option<Element> {
    let from = parse_concat(&set.key, &raw.key)?;
    let to = match &raw.key_end {
        Some(end) => parse_concat(&set.key, end)?,
        None => from.clone(),
    };
    Some(Element { key: key(from, to), value: raw.value, comment: raw.comment })
}

fn key(from: Vec<RegValue>, to: Vec<RegValue>) -> Key {
    if from == to { Key::Exact(from) } else { Key::Range(from, to) }
}

fn intervals(set: &SetSpec, mut raw: Vec<RawElement>) -> Vec<Element> {
    // An interval that ends where the next begins: the end comes first.
    raw.sort_by(|a, b| (&a.key, !a.interval_end).cmp(&(&b.key, !b.interval_end)));
    let mut out = Vec::new();
    let mut open: Option<RawElement> = None;
    let mut close = |mut begin: RawElement, last: Vec<u8>| {
        begin.key_end = Some(last);
        out.extend(element(set, begin));
    };
    for raw in raw {
        if let Some(begin) = open.take() {
            close(begin, before(&raw.key));
        }
        if !raw.interval_end {
            open = Some(raw);
        }
    }
    if let Some(begin) = open {
        let last = vec![0xff; begin.key.len()];
        close(begin, last);
    }
    out
}

/// The number before, of the same width.
fn before(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            break;
        }
    }
    bytes
}
