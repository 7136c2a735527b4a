//! What goes to stdout and stderr. Text from objects and from the daemon reaches a terminal only
//! through here, and no control character of it does.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use serde_json::Value;

use crate::text::{clean, is_unsafe};
use crate::yaml;

/// Colours with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// To be known.
    Notice,
    /// Wrong.
    Bad,
}

impl Style {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Notice => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// Stdout and stderr, each with whether it shows colours.
pub(crate) struct Screen {
    out: BufWriter<Box<dyn Write>>,
    out_color: bool,
    err: Box<dyn Write>,
    err_color: bool,
}

impl Screen {
    pub(crate) fn new(out: (Box<dyn Write>, bool), err: (Box<dyn Write>, bool)) -> Self {
        Self { out: BufWriter::new(out.0), out_color: out.1, err: err.0, err_color: err.1 }
    }

    /// A line of data.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.say_in(Style::Plain, line)
    }

    /// A line of data in a colour.
    pub(crate) fn say_in(&mut self, style: Style, line: &str) -> io::Result<()> {
        let text = paint(style, line, self.out_color);
        writeln!(self.out, "{text}")
    }

    /// Lines of data.
    pub(crate) fn say_all<T: AsRef<str>>(&mut self, lines: &[T]) -> io::Result<()> {
        lines.iter().try_for_each(|line| self.say(line.as_ref()))
    }

    /// A line of progress or information on stderr. What was said before is out by then.
    pub(crate) fn note(&mut self, style: Style, line: &str) -> io::Result<()> {
        self.flush()?;
        let text = paint(style, line, self.err_color);
        writeln!(self.err, "{text}")
    }

    /// An error of this program on stderr.
    pub(crate) fn complain(&mut self, message: &str) -> io::Result<()> {
        self.note(Style::Bad, &format!("causeway: {message}"))
    }

    /// A JSON document.
    pub(crate) fn json(&mut self, value: &Value) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(self.out, "{}", escape_json(&text))
    }

    /// A YAML document.
    pub(crate) fn yaml(&mut self, value: &Value) -> io::Result<()> {
        self.out.write_all(yaml::document(value).as_bytes())
    }

    /// Bytes that are ours, as a completion script.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Writes out what was said.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// JSON text whose strings hold no character that steers a terminal. `serde_json` escapes C0 only.
fn escape_json(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c != '\n' && is_unsafe(c);
    if !text.chars().any(bad) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if bad(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn paint(style: Style, line: &str, color: bool) -> String {
    let line = clean(line);
    match style.code().filter(|_| color) {
        Some(code) => format!("\x1b[{code}m{line}\x1b[0m"),
        None => line.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn control_characters_are_spelled_out() {
        for (text, shown) in [
            ("web-1", "web-1"),
            ("ü", "ü"),
            ("a\tb\n", "a\\tb\\n"),
            ("\u{1b}]0;x\u{7}", "\\u{1b}]0;x\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{7f}", "\\u{7f}"),
            ("\u{202e}txt", "\\u{202e}txt"),
        ] {
            assert_eq!(clean(text), shown);
        }
        assert_eq!(paint(Style::Bad, "a\u{1b}b", true), "\x1b[31ma\\u{1b}b\x1b[0m");
        assert_eq!(paint(Style::Bad, "ab", false), "ab");
    }

    #[test]
    fn json_keeps_its_meaning_and_steers_nothing() {
        let value = json!({"a": "\u{1b}[2J\u{9b}\u{7f}\u{202e}\n", "b": ["ü"]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = escape_json(&text);
        assert!(!shown.chars().any(|c| c != '\n' && is_unsafe(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }
}
