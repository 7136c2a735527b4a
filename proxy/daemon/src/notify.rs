//! Messages to systemd (`sd_notify(3)`), by a datagram to `NOTIFY_SOCKET`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where to say them; nowhere, if systemd did not ask.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment asks for.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` is not an address.
    pub(crate) fn new(env: &BTreeMap<OsString, OsString>) -> io::Result<Self> {
        let get = |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty());
        let Some(name) = get("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let number = |name: &str| get(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| for_us).map(Duration::from_micros);
        Ok(Self { to: Some((UnixDatagram::unbound()?, address)), watchdog })
    }

    /// How often systemd wants to hear `WATCHDOG=1` at least.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Says something. That nobody listens any more harms nothing.
    pub(crate) fn say(&self, word: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(word.as_bytes(), address)
        {
            tracing::warn!(word, error = %error, "notify systemd");
        }
    }
}

#[cfg(test)]
mod tests;
