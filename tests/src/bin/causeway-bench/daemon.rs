//! The daemon with 45,000 services: memory, and one change through its socket.

/// Runs the section.
pub(crate) fn run() {}
