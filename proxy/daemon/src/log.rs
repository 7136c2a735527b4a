//! Log lines on stderr, and words for them.

use std::fmt::Display;
use std::net::IpAddr;

use crate::config::{LogFormat, LogLevel};

/// So many names stand in a line.
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
pub(crate) fn names(all: impl ExactSizeIterator<Item = impl Display>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let named: Vec<String> = all.take(NAMED).map(|name| name.to_string()).collect();
    let named = named.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
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
}
