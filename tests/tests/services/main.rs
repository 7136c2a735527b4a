//! Services on a node: packets, daemon, command line.

mod agree;
mod ctl;
mod packets;
mod sctp;
mod stage;
