//! `runDir/node.json`: what the daemon says of this node. Absent without a daemon.

use std::io::{self, ErrorKind};
use std::path::Path;

use causeway_host::{NodeDns, NodeFile, paths};
use cni_plugin::{Code, Error};
use ipnetwork::IpNetwork;

/// MTU of the overlay, from `node.json` below `run_dir`; `None` if the file is absent or does not
/// say.
///
/// # Errors
/// Code 5 if it cannot be read, 6 if it does not decode.
pub(crate) fn overlay_mtu(run_dir: &Path) -> Result<Option<u32>, Error> {
    read(run_dir, |node| node.overlay_mtu.get())
}

/// Destinations that containers reach with their own address, from the same file.
///
/// # Errors
/// As [`overlay_mtu`].
pub(crate) fn never_masqueraded(run_dir: &Path) -> Result<Vec<IpNetwork>, Error> {
    read(run_dir, NodeFile::never_masqueraded)
}

/// The node's name servers, from the same file.
///
/// # Errors
/// As [`overlay_mtu`].
pub(crate) fn dns(run_dir: &Path) -> Result<Option<NodeDns>, Error> {
    read(run_dir, |node| node.dns.get())
}

fn read<T>(run_dir: &Path, part: impl FnOnce(NodeFile) -> io::Result<T>) -> Result<T, Error> {
    let path = paths::node_file(run_dir);
    NodeFile::read(&path).and_then(|node| part(node.unwrap_or_default())).map_err(|error| {
        let shown = path.display();
        if error.kind() == ErrorKind::InvalidData {
            let msg = format!("{shown} cannot be decoded; restart causewayd");
            return Error::caused(Code::Decode, msg, &error);
        }
        Error::caused(Code::Io, format!("cannot read {shown}"), &error)
    })
}
