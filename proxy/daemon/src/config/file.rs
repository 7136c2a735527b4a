//! The settings file: TOML, one level, keys in snake_case. Lists are arrays or comma separated. Only
//! `lb_pool` may be tables.

use std::path::Path;

use toml::{Table, Value};

use super::Error;
use super::given::{Given, POOL_TABLES, Values};
use super::keys::KEYS;

/// Reads a file.
///
/// # Errors
/// See [`Error`].
pub(super) fn read(path: &Path) -> Result<Values, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Parses a file's text.
///
/// # Errors
/// See [`Error`].
pub(super) fn parse(path: &Path, text: &str) -> Result<Values, Error> {
    let table: Table = text.parse().map_err(|error| syntax(path, text, &error))?;
    let mut values = Values::new();
    for (written, value) in &table {
        let Some(key) = KEYS.iter().find(|key| key.name.replace('-', "_") == *written) else {
            let (path, key) = (path.to_owned(), written.clone());
            let suggestion = suggestion(&key);
            return Err(Error::UnknownKey { path, key, suggestion });
        };
        let field = format!("{}: {written}", path.display());
        if key.name == "lb-pool"
            && let Some(value) = tables(value)
        {
            values.insert(POOL_TABLES, Given { value, field });
            continue;
        }
        let Some(text) = flatten(value) else {
            let reason = "it takes a string, a number, true or false, or an array of strings";
            let (value, reason) = (value.type_str().to_owned(), reason.to_owned());
            return Err(Error::Value { field, value, reason });
        };
        values.insert(key.name, Given { value: text, field });
    }
    Ok(values)
}

/// Where and why, without the line itself: it may hold a password.
fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Error::Syntax { path: path.to_owned(), line, reason: error.message().to_owned() }
}

/// Tables, as JSON.
fn tables(value: &Value) -> Option<String> {
    let tables = value.as_array()?;
    let is_one = !tables.is_empty() && tables.iter().all(Value::is_table);
    is_one.then(|| serde_json::to_string(tables).ok())?
}

/// The value as a flag has it.
fn flatten(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            Some(items?.join(","))
        }
        // Labels.
        Value::Table(pairs) => {
            let pair = |(key, value): (&String, &Value)| Some(format!("{key}={}", value.as_str()?));
            let pairs: Option<Vec<String>> = pairs.iter().map(pair).collect();
            Some(pairs?.join(","))
        }
        Value::Float(_) | Value::Datetime(_) => None,
    }
}

/// A key that differs in dashes, case or a letter.
fn suggestion(written: &str) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(written);
    let close = |name: &str| {
        let name = plain(name);
        let same = wanted.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
        let tail = |text: &str, skip: usize| text.chars().skip(same + skip).collect::<String>();
        name == wanted
            || tail(&name, 1) == tail(&wanted, 0)
            || tail(&name, 0) == tail(&wanted, 1)
            || tail(&name, 1) == tail(&wanted, 1)
    };
    KEYS.iter().find(|key| close(key.name)).map(|key| key.name.replace('-', "_"))
}
