//! Waiting for a link, driven by `RTM_NEWLINK` notifications.

use std::time::Duration;

use super::{Link, PortState};
use crate::notify::{Group, Notifications};
use crate::{Error, Netlink, Result};

/// `BR_STATE_FORWARDING` (linux/if_bridge.h).
const FORWARDING: u8 = 3;

impl Netlink {
    /// Waits until the link has carrier and, if it is a bridge port, forwards; driven by
    /// `RTM_NEWLINK` notifications, not by polling. If that is so already, this is one request.
    ///
    /// # Errors
    /// `ETIMEDOUT` after `timeout`, naming the state last seen; `ENODEV` if the link is gone.
    pub fn wait_forwarding(&self, index: u32, timeout: Duration) -> Result<Link> {
        let action = format!("wait for link {index} to forward");
        let read = || self.link_by_index(index)?.ok_or_else(|| Error::errno(&action, libc::ENODEV));
        let mut link = read()?;
        if forwards(&link) {
            return Ok(link);
        }
        let mut notifications = Notifications::subscribe(self, Group::Link, index, timeout)?;
        loop {
            // Read after subscribing: a change before it sends no notification to us.
            link = read()?;
            if forwards(&link) {
                return Ok(link);
            }
            if !notifications.wait()? {
                return Err(Error::errno(
                    format!("wait for link {} to forward, last seen {}", link.name, state(&link)),
                    libc::ETIMEDOUT,
                ));
            }
        }
    }
}

fn forwards(link: &Link) -> bool {
    link.up && link.carrier && link.port.is_none_or(|port| port.state == FORWARDING)
}

fn state(link: &Link) -> String {
    let port = match link.port {
        None => String::new(),
        Some(PortState { state, .. }) => {
            let names = ["disabled", "listening", "learning", "forwarding", "blocking"];
            let name = names.get(usize::from(state)).copied().unwrap_or("unknown");
            format!(", bridge port {name}")
        }
    };
    let up = if link.up { "up" } else { "down" };
    let carrier = if link.carrier { "carrier" } else { "no carrier" };
    format!("{up}, {carrier}{port}")
}
