//! The operations of the plugin.

use std::path::Path;

use causeway_api::Client;
use causeway_host::Records;
use causeway_host::paths::kind;
use causeway_model::EndpointRecord;
use cni_plugin::{CniResult, Code, Error, Plugin, Request};
use serde_json::{Value, json};

use crate::attachment::{self, Attached, Ports};
use crate::config::{Backend, Daemon, Place, Settings};
use crate::failure::{Collected, warn};
use crate::mapping::{Addresses, bind, of_container};
use crate::nftables::Rules;
use crate::record::endpoint_key;
use crate::{iptables, labels, record};

/// Host ports for containers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service;

impl Plugin for Service {
    fn add(&self, request: &Request) -> Result<CniResult, Error> {
        add(request).inspect_err(|error| note_failure(request, error))
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        let place = Place::of(request);
        attached(request, &place.run_dir, &place.daemon).remove(place.iptables)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::of(request)?;
        let previous = previous(request)?;
        same_sandbox(request, previous)?;
        labels::of(request)?;
        let addresses = Addresses::choose(previous, &request.attachment.ifname);
        let bindings = bind(&settings.mappings, &addresses)?;
        if bindings.is_empty() {
            return Ok(());
        }
        let attached = attached(request, &settings.run_dir, &settings.daemon);
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

fn add(request: &Request) -> Result<CniResult, Error> {
    let settings = Settings::of(request)?;
    let previous = previous(request)?;
    require_daemon(&settings, Code::DaemonUnreachable)?;
    let addresses = Addresses::choose(previous, &request.attachment.ifname);
    let ports = Ports {
        settings: &settings,
        bindings: bind(&settings.mappings, &addresses)?,
        previous,
        addresses: &addresses,
    };
    let endpoint = endpoint_record(request, previous)?;
    attached(request, &settings.run_dir, &settings.daemon).add(ports, endpoint)?;
    Ok(previous.clone())
}

/// Notes for the main plugin and the daemon that the chain of this attachment has failed. Some
/// runtimes send no DEL then, and all that the main plugin made would stay.
fn note_failure(request: &Request, error: &Error) {
    let (run_dir, key) = (Place::of(request).run_dir, record::key(request));
    let made = Records::new(&run_dir, kind::BRIDGE).read::<Value>(&key);
    if !matches!(made, Ok(Some(_))) {
        return;
    }
    let note = json!({ "plugin": "causeway-service", "msg": error.msg });
    if let Err(error) = Records::new(&run_dir, kind::FAILED).write(&key, &note) {
        warn(&error.to_string());
    }
}

fn attached<'a>(request: &'a Request, run_dir: &'a Path, daemon: &'a Daemon) -> Attached<'a> {
    Attached::new(run_dir, daemon, record::key(request), &request.env)
}

/// What the daemon is to know of the container.
#[expect(clippy::disallowed_methods, reason = "the one read of the wall clock, for people")]
fn endpoint_record(request: &Request, previous: &CniResult) -> Result<EndpointRecord, Error> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(EndpointRecord {
        key: endpoint_key(record::key(request)),
        netns: request.netns.clone(),
        ips: of_container(previous, &request.attachment.ifname).map(|one| one.ip()).collect(),
        labels: labels::of(request)?,
        created: now.map_or(0, |since| since.as_secs()),
    })
}

fn previous(request: &Request) -> Result<&CniResult, Error> {
    request.prev_result.as_ref().ok_or_else(|| {
        let msg = "prevResult is missing: causeway-service must be a chained plugin, after the one \
                   that creates the interface";
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
    if !settings.daemon.required {
        return Ok(());
    }
    let socket = &settings.daemon.socket;
    Client::new(socket).reach().map_err(|error| {
        let msg = format!(
            "requireDaemon is set, but causewayd does not respond at {}; start it, or unset \
             requireDaemon",
            socket.display()
        );
        Error::caused(code, msg, &error)
    })
}
