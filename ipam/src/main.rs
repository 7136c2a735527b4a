//! IPAM CNI plugin: addresses from ranges, leases in sled.

fn main() {}
