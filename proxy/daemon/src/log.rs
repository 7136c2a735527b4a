//! Log lines on stderr, and helpers for their text.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::conditions::Concern;
use crate::config::{LogFormat, LogLevel};

/// So many names are shown per line.
const NAMED: usize = 10;

/// Begins to log.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level.filter())
        .with_target(false);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Addresses, as `10.0.1.2, fd00::2`.
pub(crate) fn addresses(ips: &[IpAddr]) -> String {
    let all: Vec<String> = ips.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// The first names, and how many more there are.
pub(crate) fn names(all: impl Iterator<Item = impl Display>) -> String {
    few(all, NAMED)
}

/// As [`names`], of so many.
pub(crate) fn few(mut all: impl Iterator<Item = impl Display>, most: usize) -> String {
    let named: Vec<String> = all.by_ref().take(most).map(|name| name.to_string()).collect();
    let (named, more) = (named.join(", "), all.count());
    if more > 0 { format!("{named} and {more} more") } else { named }
}

/// The first lines, and one of what there is more.
pub(crate) fn lines(
    mut all: impl Iterator<Item = String>,
    most: usize,
    more: impl FnOnce(usize) -> String,
) -> Vec<String> {
    let mut first: Vec<String> = all.by_ref().take(most).collect();
    let count = all.count();
    first.extend((count > 0).then(|| more(count)));
    first
}

/// A text from an untrusted source, short and in one line.
pub(crate) fn short(text: &str, most: usize) -> String {
    let clean = |one: char| if one.is_control() { '?' } else { one };
    let mut short: String = text.chars().take(most).map(clean).collect();
    if text.chars().nth(most).is_some() {
        short.push_str("...");
    }
    short
}

/// When something was last said, by what it concerns: what other nodes can cause as fast as they
/// like is said now and then.
#[derive(Debug, Default)]
pub(crate) struct Said(BTreeMap<Concern, Instant>);

impl Said {
    /// Between two lines about one thing.
    const GAP: Duration = Duration::from_secs(10);

    /// Whether it is time to say something.
    pub(crate) fn is_time(&self, concern: &Concern, now: Instant) -> bool {
        self.0.get(concern).is_none_or(|at| now >= *at + Self::GAP)
    }

    /// Whether to say something; then it counts as said.
    pub(crate) fn may(&mut self, concern: Concern, now: Instant) -> bool {
        let is_time = self.is_time(&concern, now);
        if is_time {
            self.say(concern, now);
        }
        is_time
    }

    /// Something is said.
    pub(crate) fn say(&mut self, concern: Concern, now: Instant) {
        self.0.insert(concern, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_few_and_counts_the_rest() {
        assert_eq!(names(["a", "b"].iter()), "a, b");
        assert_eq!(names(0..10), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9");
        assert_eq!(
            names((0..12).collect::<Vec<i32>>().iter()),
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
        );
    }

    #[test]
    fn lines_are_few_and_what_others_wrote_is_short() {
        let all = |count: i32| (0..count).map(|number| number.to_string());
        let more = |count| format!("{count} more");
        assert_eq!(lines(all(2), 2, more), ["0", "1"]);
        assert_eq!(lines(all(5), 2, more), ["0", "1", "3 more"]);
        assert_eq!(short("web\n1", 5), "web?1");
        assert_eq!(short("w\u{e4}b-1", 3), "w\u{e4}b...");
    }
}
