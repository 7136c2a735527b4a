//! `route_localnet`: lets connections from 127.0.0.0/8 leave through a container's link.
//!
//! A file `<runDir>/route_localnet/<backend>/<interface>/<attachment>` says that the attachment
//! relies on it and that it was off before us. It is switched off again when the last attachment on
//! the interface goes, before the guard that keeps neighbours out of 127.0.0.0/8 does.
//!
//! Rules can be flushed by any process, so the link gets a guard of its own that stays then
//! ([`Netlink::guard_localhost`]). On a kernel without what it needs, 127.0.0.1 reaches host ports
//! only while a daemon answers, which restores the rules.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use causeway_host::paths;
use causeway_kernel::{Link, Netlink, Sysctl};
use cni_plugin::{CniResult, Code, Error};

use crate::failure::{self, warn};

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
        Self { root: paths::route_localnet(run_dir), backend }
    }

    /// Switches `route_localnet` on for `link`, for `attachment`. A link that is gone has nothing to
    /// switch. `kept`: whether a daemon restores the rules.
    pub(crate) fn enable(
        &self,
        link: &Link,
        attachment: &str,
        kept: impl FnOnce() -> bool,
    ) -> Result<(), Error> {
        let key = key(&link.name);
        let now = HERE.read(&key).map_err(|e| failure::kernel(format!("read {key}"), &e))?;
        let Some(now) = now else { return Ok(()) };
        let ours = now == "0" || self.is_ours(&link.name);
        if ours {
            self.mark(&link.name, attachment)?;
        }
        let guarded = Netlink::open().and_then(|netlink| netlink.guard_localhost(link.index));
        // What the administrator switched on stays on.
        if let Err(error) = guarded
            && ours
            && !kept()
        {
            warn(&format!(
                "127.0.0.1 cannot reach the host ports: {}; load the kernel modules sch_ingress \
                 and cls_bpf, or run causewayd",
                failure::kernel(
                    "route_localnet stays off because 127.0.0.0/8 cannot be protected",
                    &error
                )
            ));
            return Ok(());
        }
        let msg = format!("127.0.0.1 cannot reach the host ports: set {key} to 1");
        HERE.ensure(&[(key, "1")]).map_err(|e| failure::kernel(msg, &e))
    }

    /// Notes what rules tell of attachments whose bookkeeping was lost: that they rely on the links
    /// that lead to their containers. If it is on by default, its owner may have wanted it so.
    pub(crate) fn adopt<'a>(&self, attachments: impl IntoIterator<Item = (&'a str, Ipv4Addr)>) {
        let adopted = || -> Result<(), Error> {
            let netlink = Netlink::open().map_err(|e| failure::kernel("look up links", &e))?;
            if is_on("default")? || is_on("all")? {
                return Ok(());
            }
            for (attachment, address) in attachments {
                let Some(link) = routed(&netlink, address)? else { continue };
                if self.is_ours(&link.name) || is_on(&link.name)? {
                    self.mark(&link.name, attachment)?;
                }
            }
            Ok(())
        };
        if let Err(error) = adopted() {
            // Rules have to go all the same.
            warn(&format!("{error}; route_localnet may stay on"));
        }
    }

    fn mark(&self, interface: &str, attachment: &str) -> Result<(), Error> {
        let folder = self.root.join(self.backend).join(interface);
        // One file of the interface's name said so before files had an attachment's name: it goes
        // with the backend's last attachment.
        if folder.is_file() {
            return Ok(());
        }
        let file = folder.join(attachment);
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, ""));
        written.map_err(|e| Error::caused(Code::Io, format!("write {}", file.display()), &e))
    }

    /// Switches it off if this backend is the last to rely on it. Returns where it is still on.
    pub(crate) fn disable_all(&self) -> Vec<Error> {
        self.disable_where(|_| true)
    }

    /// `attachment` relies on it no more: switches it off if it was the last.
    pub(crate) fn release(&self, attachment: &str) -> Vec<Error> {
        self.disable_where(|folder| {
            let marks: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
            let last = marks.iter().all(|mark| mark.file_name() == attachment);
            // The last mark stays until it is off.
            last && !marks.is_empty() || {
                drop(fs::remove_file(folder.join(attachment)));
                false
            }
        })
    }

    fn disable_where(&self, chosen: impl Fn(&Path) -> bool) -> Vec<Error> {
        let names = match self.names() {
            Ok(names) => names,
            Err(error) => return vec![error],
        };
        let folder = self.root.join(self.backend);
        let off = names.iter().filter(|name| chosen(&folder.join(name)));
        let errors = off.filter_map(|name| self.disable(name).err()).collect();
        // Not empty if something failed or stays; the next last DEL tries again.
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
            let on_for_all = is_on("all")?;
            let unguard = |netlink: Netlink| match netlink.link(interface)? {
                Some(link) if !on_for_all => netlink.unguard_localhost(link.index),
                Some(_) | None => Ok(()),
            };
            if let Err(error) = Netlink::open().and_then(unguard) {
                // It keeps nobody from anything.
                warn(&failure::kernel("the guard of 127.0.0.0/8 stays", &error).to_string());
            }
        }
        let marks = self.root.join(self.backend).join(interface);
        let removed = fs::remove_dir_all(&marks).or_else(|_| fs::remove_file(&marks));
        if let Err(error) = removed.or_else(absent_is_fine) {
            // It says too much then: the next last DEL switches off what is off.
            warn(&format!("remove {}: {error}", marks.display()));
        }
        Ok(())
    }

    /// Whether it is on for us.
    fn is_ours(&self, interface: &str) -> bool {
        ["nftables", "iptables"].iter().any(|one| self.root.join(one).join(interface).exists())
    }

    fn relied_on_by_others(&self, interface: &str) -> bool {
        ["nftables", "iptables"]
            .iter()
            .any(|other| *other != self.backend && self.root.join(other).join(interface).exists())
    }
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn is_on(interface: &str) -> Result<bool, Error> {
    let key = key(interface);
    let value = HERE.read(&key).map_err(|e| failure::kernel(format!("read {key}"), &e))?;
    Ok(value.as_deref() == Some("1"))
}

fn key(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/route_localnet")
}

/// The link of this node that leads to the container's `address`: the one its route leaves through.
/// Names in a result are hints, for an address without route: they may be placeholders of a main
/// plugin that has no link on the node.
pub(crate) fn link_to(result: &CniResult, address: Ipv4Addr) -> Result<Option<Link>, Error> {
    let error = |e| failure::kernel(format!("look up the route to {address}"), &e);
    let netlink = Netlink::open().map_err(error)?;
    if let Some(link) = routed(&netlink, address)? {
        return Ok(Some(link));
    }
    let here = result.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    for interface in here.filter(|interface| !interface.name.is_empty()) {
        if let Ok(Some(link)) = netlink.link(&interface.name) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// The link that the route to `address` leaves through; `None` without route.
fn routed(netlink: &Netlink, address: Ipv4Addr) -> Result<Option<Link>, Error> {
    let error = |e| failure::kernel(format!("look up the link to {address}"), &e);
    // Without route nothing on this node reaches the container anyway.
    let Ok((index, _)) = netlink.route_to(address.into()) else { return Ok(None) };
    let link = netlink.link_by_index(index).map_err(error)?;
    Ok(link.filter(|link| link.name != "lo"))
}
