//! Main CNI plugin: a container on a bridge, and the bridge on a vxlan.

fn main() {}
