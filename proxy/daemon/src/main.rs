//! The node's daemon: services in the kernel, from events.

fn main() {}
