//! `runDir/node.json`: what the daemon says of this node. Absent without a daemon.

use std::io::ErrorKind;
use std::path::Path;

use causeway_host::{NodeFile, paths};
use cni_plugin::{Code, Error};

/// Reads `node.json` below `run_dir`, for what the configuration does not say; its absence says
/// nothing.
///
/// # Errors
/// Code 5 if it cannot be read, 6 if it does not decode.
pub(crate) fn read(run_dir: &Path) -> Result<NodeFile, Error> {
    let path = paths::node_file(run_dir);
    NodeFile::read(&path).map(Option::unwrap_or_default).map_err(|error| {
        let shown = path.display();
        if error.kind() == ErrorKind::InvalidData {
            let msg = format!("{shown} cannot be decoded; restart causewayd");
            return Error::caused(Code::Decode, msg, &error);
        }
        Error::caused(Code::Io, format!("cannot read {shown}"), &error)
    })
}
