//! A text cut into parts that YAML reads one by one: JSON documents need no `---` between them, as
//! `jq` writes them and `cat *.json` joins them.

use serde::de::IgnoredAny;

/// A part and how many lines stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'t> {
    pub(super) lines: usize,
    pub(super) text: &'t str,
}

/// Parts of a text, in order.
pub(super) struct Parts<'t> {
    rest: &'t str,
    lines: usize,
}

/// The parts of a text: each JSON object that begins a document, and the YAML between them.
pub(super) fn parts(text: &str) -> Parts<'_> {
    Parts { rest: text, lines: 0 }
}

impl<'t> Iterator for Parts<'t> {
    type Item = Part<'t>;

    fn next(&mut self) -> Option<Part<'t>> {
        let (blank, rest) = self.rest.split_at(self.rest.len() - unspaced(self.rest).len());
        if rest.is_empty() {
            return None;
        }
        if let Some(length) = object(rest) {
            self.lines += newlines(blank);
            self.rest = rest;
            return Some(self.cut(length));
        }
        // Lines count from where YAML begins, whose columns mean something.
        Some(self.cut(blank.len() + yaml(rest)))
    }
}

impl<'t> Parts<'t> {
    fn cut(&mut self, length: usize) -> Part<'t> {
        let (text, rest) = self.rest.split_at(length);
        let part = Part { lines: self.lines, text };
        self.lines += newlines(text);
        self.rest = rest;
        part
    }
}

/// Without white space, byte order marks and comments before it.
fn unspaced(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']);
        if !text.starts_with('#') {
            return text;
        }
        text = text.find('\n').map_or("", |end| &text[end..]);
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Length of the JSON object that a text begins with.
fn object(text: &str) -> Option<usize> {
    if !text.starts_with('{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// Length of the YAML that a text begins with: to behind the next `---` that a JSON object follows.
fn yaml(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some(behind) = line.strip_prefix("---") {
            let after = at + line.len() - behind.len();
            let spaced = behind.starts_with([' ', '\t', '\r', '\n']);
            if spaced && object(unspaced(&text[after..])).is_some() {
                return after;
            }
        }
        at += line.len();
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &[(usize, &str)]) {
        let is: Vec<_> = parts(text).map(|part| (part.lines, part.text)).collect();
        assert_eq!(is, wanted, "{text:?}");
    }

    #[test]
    fn json_objects_are_parts_and_yaml_between_them_too() {
        check("", &[]);
        check(" \n", &[]);
        check("{}{}", &[(0, "{}"), (0, "{}")]);
        check("{\n}\n\n{\"a\": \"}{\"}\n", &[(0, "{\n}"), (3, "{\"a\": \"}{\"}")]);
        check("a: 1\n---\nb: 1\n", &[(0, "a: 1\n---\nb: 1\n")]);
        check("---\n{}\n", &[(0, "---"), (1, "{}")]);
        check(
            "a: 1\n---\n{}{}\n---\nb: {}\n",
            &[(0, "a: 1\n---"), (2, "{}"), (2, "{}"), (2, "\n---\nb: {}\n")],
        );
        // No JSON: YAML sees to it.
        check("{a: 1}\n---\n{b: 1}", &[(0, "{a: 1}\n---\n{b: 1}")]);
        check("{} {", &[(0, "{}"), (0, " {")]);
        check("\u{feff}{}", &[(0, "{}")]);
        check("# a\n{}\n# b\n{}# c", &[(1, "{}"), (3, "{}")]);
        check("a: |\n  ---\n  {}\n", &[(0, "a: |\n  ---\n  {}\n")]);
    }
}
