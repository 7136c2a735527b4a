//! Labels and annotations of objects, in one allocation.

use std::collections::BTreeMap;
use std::fmt;

/// Labels of a container.
pub type Labels = BTreeMap<String, String>;

/// A map of strings, ordered by key, in one block of memory: a tenth of what a `BTreeMap` of one
/// label takes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LabelSet {
    // `3:app3:web`: key, value, key, value, ..., each behind its length in bytes.
    text: Box<str>,
}

impl LabelSet {
    /// Value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Keys with values, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.text;
        std::iter::from_fn(move || {
            let (key, after) = take(rest)?;
            let (value, after) = take(after)?;
            rest = after;
            Some((key, value))
        })
    }

    /// As a map to change; `collect` makes a set of it again.
    pub fn to_map(&self) -> Labels {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// The string behind the length at the start of `text`, and what follows it.
fn take(text: &str) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for LabelSet {
    /// Of equal keys the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let map: BTreeMap<String, V> =
            pairs.into_iter().map(|(key, value)| (key.as_ref().to_owned(), value)).collect();
        let mut text = String::new();
        for (key, value) in &map {
            for part in [key.as_str(), value.as_ref()] {
                text.push_str(&part.len().to_string());
                text.push(':');
                text.push_str(part);
            }
        }
        Self { text: text.into_boxed_str() }
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
