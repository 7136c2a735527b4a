//! Services on a node: packets, daemon, command line.

mod agree;
mod packets;
mod stage;
