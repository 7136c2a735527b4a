//! STATUS: whether ADD can work. Cheap: the kubelet's runtime asks every few seconds (row C77).

use causeway_kernel::Netlink;
use cni_plugin::{Code, Command, Error, Request};

use crate::config::{Checked, Mode};
use crate::ipam::Ipam;
use crate::{fault, plan};

/// Checks the configuration, the bridge's name and the IPAM plugin.
///
/// # Errors
/// The configuration's own; code 50 if something of this node is in the way; the IPAM plugin's.
pub(crate) fn status(request: &Request) -> Result<(), Error> {
    let config = Checked::of(request)?;
    let host = Netlink::open().map_err(|error| unavailable(fault::kernel(error)))?;
    if config.mode == Mode::Bridge {
        let bridge = host.link(&config.bridge);
        if let Some(bridge) = bridge.map_err(|error| unavailable(fault::kernel(error)))? {
            plan::bridge_change(&bridge, &config).map_err(unavailable)?;
        }
    }
    match config.ipam.as_deref() {
        Some(plugin) => Ipam { plugin, request }.ask(Command::Status).map_err(of_ipam),
        None => Ok(()),
    }
}

/// What the IPAM plugin says of itself and of its configuration stays; that it is missing or gives
/// no answer is code 50.
fn of_ipam(error: Error) -> Error {
    if matches!(error.code, Code::Io | Code::Decode | Code::TryAgainLater) {
        unavailable(error)
    } else {
        error
    }
}

fn unavailable(error: Error) -> Error {
    Error { code: Code::NotAvailable, ..error }
}
