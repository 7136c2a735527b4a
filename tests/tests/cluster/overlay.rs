//! The overlay of nodes that know each other by a peers file: what is in the kernel, what goes
//! through it, and what puts it right.

mod forward;
mod objects;
mod repair;
mod stage;
