//! JSON as Go reads it: keys match without regard to case, `null` is absent.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use crate::{Code, Error};

/// Reads a document with all object keys lower-cased and `null` members dropped, at every level.
/// Of two keys that differ by case only, the later in the text counts. `null` items of lists stay:
/// dropping them would shift what an index names.
pub(crate) fn parse_folded(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Folded>(bytes).map(|folded| folded.0)
}

/// As [`parse_folded`], from a value.
pub(crate) fn fold(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(fold).collect()),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(_, member)| !member.is_null())
                .map(|(key, member)| (key.to_ascii_lowercase(), fold(member)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Reads `T` from a folded value. `what` names the document and `raw` is it as sent, so that the
/// message spells the field as the user did.
///
/// # Errors
/// Code 6 naming the field.
pub(crate) fn decode<T: DeserializeOwned>(
    folded: Value,
    raw: &Value,
    what: &str,
) -> Result<T, Error> {
    serde_path_to_error::deserialize(folded).map_err(|error| {
        let field = spelled(error.path(), raw);
        let msg = if field.is_empty() {
            format!("{what} cannot be decoded")
        } else {
            format!("field \"{field}\" of {what} cannot be decoded")
        };
        Error::new(Code::Decode, msg).details(error.into_inner().to_string())
    })
}

/// The member of `object` named `key` in any case; the exact spelling first.
pub(crate) fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    entry(value, key).map(|(_, member)| member)
}

fn entry<'a>(value: &'a Value, key: &str) -> Option<(&'a str, &'a Value)> {
    let members = value.as_object()?;
    let found = members
        .get_key_value(key)
        .or_else(|| members.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(key)));
    found.map(|(name, member)| (name.as_str(), member))
}

/// `path` (of a folded document) in the spelling of `raw`, for instance `ipam.ranges[0].rangeStart`.
fn spelled(path: &Path, raw: &Value) -> String {
    let mut text = String::new();
    let mut here = Some(raw);
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                text.push_str(&format!("[{index}]"));
                here = here.and_then(|value| value.get(index));
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                let found = here.and_then(|value| entry(value, key));
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(found.map_or(key, |(name, _)| name));
                here = found.map(|(_, member)| member);
            }
            Segment::Unknown => here = None,
        }
    }
    text
}

/// A value whose keys were folded while it was read, in the order of the text.
struct Folded(Value);

impl<'de> Deserialize<'de> for Folded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FoldedVisitor).map(Folded)
    }
}

struct FoldedVisitor;

impl<'de> Visitor<'de> for FoldedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Folded(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Folded(member))) = members.next_entry::<String, Folded>()? {
            if !member.is_null() {
                object.insert(key.to_ascii_lowercase(), member);
            }
        }
        Ok(Value::Object(object))
    }
}
