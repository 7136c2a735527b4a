//! The operator's command line over the daemon's API.

fn main() {}
