//! What makes two questions the same.

use crate::Question;

/// Name without case, type, class, DO, CD (row D-54).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CacheKey {
    /// Labels with their lengths, in lower case: compared as bytes, quicker than names are.
    name: Box<[u8]>,
    record_type: u16,
    class: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl CacheKey {
    /// Of a question and the flags that change its answer.
    pub(crate) fn new(question: &Question, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut name = Vec::with_capacity(question.name.len() + 1);
        for label in &question.name {
            // A label has at most 63 bytes.
            name.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            name.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        Self {
            name: name.into(),
            record_type: question.record_type.into(),
            class: question.class.into(),
            dnssec_ok,
            checking_disabled,
        }
    }
}
