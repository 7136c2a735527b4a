//! The servers that are asked for names outside: which one next ([`judge`], [`race`]), and one question
//! to one of them ([`exchange`]).

mod exchange;
mod judge;
mod race;
mod wire;

pub(crate) use exchange::{Asked, ask};
pub(crate) use judge::{Judge, PATIENCE, PROBE_PAUSE};
pub(crate) use race::{Race, Step};
pub(crate) use wire::{Came, Outgoing, alive};
