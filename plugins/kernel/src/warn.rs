//! Messages for people.

use std::fmt::Display;
use std::io::Write as _;

/// Writes `program: message` as a line to stderr. Nobody may be there to read it, a full disk or a
/// closed pipe: that ends no operation, as the panic of `eprintln!` would.
pub fn warn(program: &str, message: &dyn Display) {
    warn_raw(&format!("{program}: {message}\n"));
}

/// Passes on the stderr of another program as it is; see [`warn`].
pub fn warn_raw(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}
