//! The operations of the plugin.

use std::os::unix::net::UnixStream;

use cni_plugin::{CniResult, Code, Error, Plugin, Request};

use crate::attachment::{self, Attached};
use crate::config::{Backend, Place, Settings};
use crate::failure::Collected;
use crate::mapping::{Addresses, bind};
use crate::nftables::Rules;
use crate::{iptables, record};

/// Host ports for containers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service;

impl Plugin for Service {
    fn add(&self, request: &Request) -> Result<CniResult, Error> {
        let settings = Settings::of(request)?;
        let previous = previous(request)?;
        require_daemon(&settings, Code::DaemonUnreachable)?;
        let addresses = Addresses::choose(previous, &request.attachment.ifname);
        let bindings = bind(&settings.mappings, &addresses)?;
        if !bindings.is_empty() {
            let attached = Attached::new(&settings.run_dir, record::key(request), &request.env);
            attached.add(&settings, bindings, previous, &addresses)?;
        }
        Ok(previous.clone())
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        let place = Place::of(request);
        Attached::new(&place.run_dir, record::key(request), &request.env).remove(place.iptables)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::of(request)?;
        let previous = previous(request)?;
        same_sandbox(request, previous)?;
        let addresses = Addresses::choose(previous, &request.attachment.ifname);
        let bindings = bind(&settings.mappings, &addresses)?;
        if bindings.is_empty() {
            return Ok(());
        }
        let attached = Attached::new(&settings.run_dir, record::key(request), &request.env);
        attached.check(&settings, bindings, &addresses)
    }

    fn gc(&self, request: &Request) -> Result<(), Error> {
        let place = Place::of(request);
        let mut errors = Collected::default();
        attachment::collect(&place, request, &mut errors);
        errors.finish()
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::of(request)?;
        require_daemon(&settings, Code::NotAvailable)?;
        let usable = match settings.backend {
            Backend::Nftables { .. } => Rules::open().and_then(|mut rules| rules.probe()),
            Backend::Iptables(_) => iptables::probe(&request.env),
        };
        usable.map_err(|error| Error { code: Code::NotAvailable, ..error })
    }
}

fn previous(request: &Request) -> Result<&CniResult, Error> {
    request.prev_result.as_ref().ok_or_else(|| {
        let msg = "prevResult is missing: causeway-service must be called as a chained plugin, \
                   after the one that makes the interface";
        Error::new(Code::InvalidConfig, msg)
    })
}

/// Row C58.
fn same_sandbox(request: &Request, previous: &CniResult) -> Result<(), Error> {
    let Some(netns) = &request.netns else { return Ok(()) };
    let own = previous
        .interfaces
        .iter()
        .filter(|one| one.name == request.attachment.ifname && !one.sandbox.is_empty());
    let mut other = own.filter(|one| one.sandbox != *netns);
    other.next().map_or(Ok(()), |one| {
        let msg = format!("prevResult: sandbox of {} is {}, not {netns}", one.name, one.sandbox);
        Err(Error::new(Code::InvalidConfig, msg))
    })
}

fn require_daemon(settings: &Settings, code: Code) -> Result<(), Error> {
    if !settings.require_daemon {
        return Ok(());
    }
    UnixStream::connect(&settings.socket).map(drop).map_err(|error| {
        let socket = settings.socket.display();
        let msg = format!(
            "requireDaemon is set and causewayd does not answer at {socket}; start it, or unset \
             requireDaemon"
        );
        Error::caused(code, msg, &error)
    })
}
