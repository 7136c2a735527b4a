//! Functions for `#[serde(default, deserialize_with = "...")]`: optional keys whose `""`, `{}` and
//! `null` mean unset (row C22), and the loose booleans of runtimes.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `None` from `null`, `""` and `{}`; else `T`.
///
/// # Errors
/// What `T` says, after the path of the member inside.
pub fn option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    if is_unset(&value) {
        return Ok(None);
    }
    let decoded = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // "." is how the crate writes the value itself.
        if path == "." {
            D::Error::custom(inner)
        } else {
            D::Error::custom(format!("{path}: {inner}"))
        }
    })?;
    Ok(Some(decoded))
}

/// `T::default()` from `null`, `""` and `{}`; else `T`.
///
/// # Errors
/// As [`option`].
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    option(deserializer).map(Option::unwrap_or_default)
}

/// A boolean, also written as the string `true` or `false` (`disableCheck`, `disableGC`: row C86).
///
/// # Errors
/// Anything else.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if is_unset(&value) {
        return Ok(false);
    }
    let flag = value.as_str().map_or_else(|| value.as_bool(), |text| text.parse().ok());
    flag.ok_or_else(|| D::Error::custom(format!("expected true or false, not {value}")))
}

/// A number of which 0 means unset, as Go's `omitempty` has it.
///
/// # Errors
/// Not a number that fits 32 bits.
pub fn nonzero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    option(deserializer).map(|number: Option<u32>| number.filter(|&number| number != 0))
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
    }
}
