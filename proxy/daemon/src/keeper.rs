//! The thread that keeps what attachments are owed: host ports, masquerade, address checks. It asks
//! the plugins' own code what is missing and has it put back, at the times that [`Keep`] says.
//!
//! It is a thread because programs and locks block.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use causeway_api::chain;
use causeway_kernel::wait_readable;
use causeway_nft::Monitor;
use causeway_ruleset::{Family, TableId};

use crate::backend;
use crate::clock;
use crate::event::{Event, Events};
use crate::keep::{Keep, KeepEffect};

/// Tables that the plugins write to, iptables' own among them.
const TABLES: [(Family, &str); 8] = [
    (Family::Inet, "causeway_hostport"),
    (Family::Inet, "causeway_masq"),
    (Family::Bridge, "causeway_spoof"),
    (Family::Ip, "nat"),
    (Family::Ip6, "nat"),
    (Family::Ip, "raw"),
    (Family::Ip6, "raw"),
    (Family::Ip, "mangle"),
];

/// What the monitor of [`start`] is to tell of.
pub(crate) fn tables() -> Vec<TableId> {
    let table = |(family, name): (Family, &str)| TableId { family, name: name.to_owned() };
    TABLES.map(table).to_vec()
}

/// Starts the thread. It answers with [`Event::Attachments`] whenever something other than before is
/// missing, and ends with the engine.
///
/// # Errors
/// No thread is left.
pub(crate) fn start(
    run_dir: PathBuf,
    monitor: backend::Result<Monitor>,
    events: Events,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("keeper".to_owned());
    thread.spawn(move || run(&run_dir, monitor, &events)).map(drop)
}

fn run(run_dir: &Path, mut monitor: backend::Result<Monitor>, events: &Events) {
    if let Err(error) = &monitor {
        let error = chain(error);
        tracing::warn!(error, "watch the rules of attachments; they are compared at times");
    }
    let mut keep = Keep::new(clock::now());
    while !events.is_closed() {
        let wait = keep.wait(clock::now());
        match &mut monitor {
            Ok(monitor) => {
                drop(wait_readable(&[monitor.as_fd()], wait));
                // Lost notifications count as a change, and so does not knowing.
                if !matches!(monitor.changes(), Ok(None)) {
                    keep.told(clock::now());
                }
            }
            Err(_) => drop(wait_readable(&[], wait)),
        }
        if !keep.wait(clock::now()).is_zero() {
            continue;
        }
        let began = clock::now();
        let missing = missing(run_dir);
        let now = clock::now();
        for effect in keep.looked(missing, now.saturating_duration_since(began), now) {
            carry_out(effect, run_dir, events, &mut keep);
        }
    }
}

fn carry_out(effect: KeepEffect, run_dir: &Path, events: &Events, keep: &mut Keep) {
    let report = |missing| drop(events.blocking_send(Event::Attachments(missing)));
    match effect {
        KeepEffect::Report(missing) => report(missing),
        KeepEffect::Restore => {
            let restored = restore(run_dir);
            for effect in keep.restored(restored, clock::now()) {
                if let KeepEffect::Report(missing) = effect {
                    report(missing);
                }
            }
        }
    }
}

fn missing(run_dir: &Path) -> Result<Vec<String>, String> {
    let mut all = causeway_bridge::repair::missing(run_dir).map_err(|error| error.to_string())?;
    let ports = causeway_service::repair::missing(run_dir).map_err(|error| error.to_string())?;
    all.extend(ports);
    Ok(all)
}

fn restore(run_dir: &Path) -> Result<(), String> {
    // One that fails does not keep the other from it.
    let bridge = causeway_bridge::repair::restore(run_dir).map(drop);
    let service = causeway_service::repair::restore(run_dir).map(drop);
    bridge.map_err(|error| error.to_string())?;
    service.map_err(|error| error.to_string())
}
