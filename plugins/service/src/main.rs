//! Chained CNI plugin: host ports.

fn main() {}
