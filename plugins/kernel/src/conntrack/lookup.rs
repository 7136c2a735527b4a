//! The endpoint that answers a connection.

use std::net::SocketAddr;

use super::socket::Connection;
use super::wire::{self, Family};
use crate::Result;

/// The reply source of the connection of IP protocol `protocol` from `source` to `destination`, as
/// the conntrack of the calling thread's namespace has it: the endpoint behind a translated
/// destination. `None` if there is no such entry.
///
/// # Errors
/// See [`crate::Error`].
pub fn answered_by(
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<Option<SocketAddr>> {
    let Some(connection) = Connection::open()? else { return Ok(None) };
    let request = wire::get(Family::of(destination.ip()), protocol, source, destination);
    let mut found = None;
    let action = format!("look up the connection from {source} to {destination} in conntrack");
    connection.exchange(&action, &request, 1, |payload| {
        found = wire::entry(payload, protocol).map(|entry| entry.answered_by.into());
    })?;
    Ok(found)
}
