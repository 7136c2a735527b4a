//! Main CNI plugin: a container on a bridge, and the bridge on a vxlan.

mod masq;
mod spoof;
mod vxlan;

fn main() {}
