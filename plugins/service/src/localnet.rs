//! `route_localnet`: lets connections from 127.0.0.0/8 leave through a container's link.
//!
//! A file `<runDir>/route_localnet/<backend>/<interface>` says that we rely on it and that it was
//! off before us. It is switched off again when a backend's last attachment goes, before the guard
//! that keeps neighbours out of 127.0.0.0/8 does; on a link that one attachment has for itself, when
//! that one goes.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use causeway_kernel::{Netlink, Sysctl};
use cni_plugin::{CniResult, Code, Error};

use crate::attachment::warn;
use crate::failure;

const HERE: Sysctl<'static> = Sysctl { netns: None };

/// Bookkeeping of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Localnet {
    root: PathBuf,
    backend: &'static str,
}

impl Localnet {
    /// Bookkeeping below `run_dir`.
    pub(crate) fn new(run_dir: &Path, backend: &'static str) -> Self {
        Self { root: run_dir.join("route_localnet"), backend }
    }

    /// Switches `route_localnet` on for `interface`.
    pub(crate) fn enable(&self, interface: &str) -> Result<(), Error> {
        let key = key(interface);
        let now = HERE.read(&key).map_err(|e| failure::kernel(format!("read {key}"), &e))?;
        let ours = now.as_deref() == Some("0") || self.relied_on_by_others(interface);
        let folder = self.root.join(self.backend);
        let file = folder.join(interface);
        if ours && !file.exists() {
            let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, ""));
            written
                .map_err(|e| Error::caused(Code::Io, format!("write {}", file.display()), &e))?;
        }
        let msg = format!("127.0.0.1 can not reach the host ports: set {key} to 1");
        HERE.ensure(&[(key, "1")]).map_err(|e| failure::kernel(msg, &e))
    }

    /// Switches it off where this backend is the last to rely on it. Returns where it is still on.
    pub(crate) fn disable_all(&self) -> Vec<Error> {
        self.disable_where(|_| Ok(true))
    }

    /// Switches it off on a link that the attachment of `owner` has for itself (one without a
    /// bridge; its alias says whose it is), and forgets links that are gone.
    pub(crate) fn disable_own(&self, owner: &str) -> Vec<Error> {
        let failed = |e| failure::kernel("look for the attachment's own link".to_owned(), &e);
        self.disable_where(|name| {
            let link = Netlink::open().and_then(|netlink| netlink.link(name)).map_err(failed)?;
            Ok(link.is_none_or(|link| link.alias.as_deref() == Some(owner)))
        })
    }

    fn disable_where(&self, chosen: impl Fn(&str) -> Result<bool, Error>) -> Vec<Error> {
        let names = match self.names() {
            Ok(names) => names,
            Err(error) => return vec![error],
        };
        let off = |name: &String| match chosen(name) {
            Ok(true) => self.disable(name).err(),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let errors = names.iter().filter_map(off).collect();
        // Not empty where something failed or stays; the next last DEL tries again.
        let folder = self.root.join(self.backend);
        drop(fs::remove_dir(&folder).and_then(|()| fs::remove_dir(&self.root)));
        errors
    }

    /// Where we switched it on.
    fn names(&self) -> Result<Vec<String>, Error> {
        let folder = self.root.join(self.backend);
        match fs::read_dir(&folder) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Vec::new())
            }
            Err(error) => {
                Err(Error::caused(Code::Io, format!("read {}", folder.display()), &error))
            }
            Ok(entries) => {
                let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
                Ok(names.filter_map(|name| name.into_string().ok()).collect())
            }
        }
    }

    fn disable(&self, interface: &str) -> Result<(), Error> {
        let key = key(interface);
        let exists = HERE.read(&key).map_err(|e| failure::kernel(format!("read {key}"), &e))?;
        if exists.is_some() && !self.relied_on_by_others(interface) {
            let msg = format!("set {key} back to 0");
            HERE.ensure(&[(key, "0")]).map_err(|e| failure::kernel(msg, &e))?;
        }
        let file = self.root.join(self.backend).join(interface);
        if let Err(error) = fs::remove_file(&file) {
            // It says too much then: the next last DEL switches off what is off.
            warn(&format!("remove {}: {error}", file.display()));
        }
        Ok(())
    }

    fn relied_on_by_others(&self, interface: &str) -> bool {
        ["nftables", "iptables"]
            .iter()
            .any(|other| *other != self.backend && self.root.join(other).join(interface).exists())
    }
}

fn key(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/route_localnet")
}

/// The link of this node that leads to the container's `address`: the one its route leaves through
/// where the result names it, else the first one on this node that the result names.
pub(crate) fn link_to(result: &CniResult, address: Ipv4Addr) -> Result<Option<String>, Error> {
    let here: Vec<&str> = result
        .interfaces
        .iter()
        .filter(|interface| interface.sandbox.is_empty() && !interface.name.is_empty())
        .map(|interface| interface.name.as_str())
        .collect();
    let error = |e| failure::kernel(format!("look up the route to {address}"), &e);
    let netlink = Netlink::open().map_err(error)?;
    let routed = match netlink.route_to(address.into()) {
        Ok((index, _)) => netlink.link_by_index(index).map_err(error)?.map(|link| link.name),
        // No route: nothing on this node reaches the container anyway.
        Err(_) => None,
    };
    // Results of old versions name no interfaces: then the route alone says.
    let known = routed.filter(|name| here.is_empty() || here.contains(&name.as_str()));
    Ok(known.or_else(|| here.first().map(|name| (*name).to_owned())))
}
