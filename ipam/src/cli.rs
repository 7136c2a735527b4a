//! The command line for operators: `import`, `repair`, `show`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::allocator::Now;
use crate::config::{DATA_DIR, Place, RUN_DIR};
use crate::data_dirs::data_dirs;
use crate::disk;
use crate::import;
use crate::list::{self, ListedLease};
use crate::plugin::store_error;
use crate::repair::{self, Repaired};
use crate::session::{self, Patience};
use crate::store;

const USAGE: &str = "\
usage: causeway-ipam import DIR [--network NAME] [--data-dir DIR]
       causeway-ipam repair [--network NAME] [--data-dir DIR] [--run-dir DIR]
       causeway-ipam show [--network NAME] [--data-dir DIR] [--run-dir DIR]

import  takes over the leases in DIR, a network's folder of upstream's host-local;
        the network has the name of the folder unless --network says otherwise
repair  checks every store, or that of one network, and rebuilds what is damaged
show    prints the leases as JSON
repair and show look in all folders that networks of --run-dir use, or in --data-dir alone
As a CNI plugin it is started by the container runtime, with CNI_COMMAND set.
";

/// A wrong command line.
const USAGE_EXIT: u8 = 2;

#[derive(Debug, Default)]
struct Options {
    network: Option<String>,
    /// `None`: the default one, or all of them.
    data_dir: Option<PathBuf>,
    run_dir: PathBuf,
    rest: Vec<String>,
}

/// Runs `args` (without the program's name). Returns the exit status: 0, 1 for a failure or a
/// finding, 2 for a wrong command line.
pub(crate) fn run(args: &[String], now: &Now, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = match args.split_first() {
        Some((command, rest)) => match (command.as_str(), options(rest)) {
            ("import", Some(o)) if o.rest.len() == 1 => import(&o, now, out),
            ("repair", Some(o)) if o.rest.is_empty() => repair(&o, now, out),
            ("show", Some(o)) if o.rest.is_empty() => show(&o, now, out),
            ("help" | "--help" | "-h", _) => {
                return status(out.write_all(USAGE.as_bytes()).is_ok());
            }
            _ => Err(None),
        },
        None => Err(None),
    };
    match done {
        Ok(fine) => status(fine),
        Err(Some(error)) => {
            // Nobody reads stderr if this fails.
            drop(writeln!(err, "causeway-ipam: {error}"));
            1
        }
        Err(None) => {
            drop(err.write_all(USAGE.as_bytes()));
            USAGE_EXIT
        }
    }
}

/// `None` is a wrong command line.
type Failure = Option<cni_plugin::Error>;

fn status(fine: bool) -> u8 {
    u8::from(!fine)
}

fn options(args: &[String]) -> Option<Options> {
    let mut options = Options { run_dir: RUN_DIR.into(), ..Options::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let mut value = || value.clone().or_else(|| args.next().cloned());
        match name {
            "--network" => options.network = Some(value()?),
            "--data-dir" => options.data_dir = Some(value()?.into()),
            "--run-dir" => options.run_dir = value()?.into(),
            _ if name.starts_with('-') => return None,
            _ => options.rest.push(arg.clone()),
        }
    }
    Some(options)
}

fn failed(error: &store::Error) -> Failure {
    Some(store_error(error))
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    writeln!(out, "{text}").map_err(|error| {
        Some(cni_plugin::Error::caused(cni_plugin::Code::Io, "write to stdout", &error))
    })
}

fn place(options: &Options, data_dir: &Path, network: &str) -> Place {
    Place {
        network: network.to_owned(),
        data_dir: data_dir.to_owned(),
        run_dir: options.run_dir.clone(),
        ..Place::default()
    }
}

fn import(options: &Options, now: &Now, out: &mut dyn Write) -> Result<bool, Failure> {
    let folder = Path::new(&options.rest[0]);
    let folder_name = folder.file_name().and_then(|name| name.to_str());
    let network = options.network.as_deref().or(folder_name).ok_or(None)?;
    let found = import::read(folder, now.unix).map_err(|e| failed(&e))?;
    let ownerless = found.ownerless.clone();
    let boot = now.boot.clone();
    let work = move |store: &mut dyn store::Store| import::merge(store, found, &boot);
    let data_dir = options.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR));
    let place = place(options, data_dir, network);
    let outcome = session::with_store(&place, Patience::USUAL, now, work);
    let outcome = outcome.map_err(|e: store::Error| failed(&e))?;
    say(
        out,
        &format!(
            "network {network}: {} leases imported, {} already known, {} skipped because their \
             address belongs to another container, {} skipped because their file names no \
             container",
            outcome.taken,
            outcome.known,
            outcome.conflicts,
            ownerless.len()
        ),
    )?;
    Ok(outcome.conflicts == 0)
}

/// Where the leases are that the command is about.
fn places(options: &Options) -> Result<Vec<Place>, Failure> {
    let folders = match &options.data_dir {
        Some(folder) => vec![folder.clone()],
        None => data_dirs(&options.run_dir),
    };
    if let Some(network) = &options.network {
        let mut all: Vec<Place> =
            folders.iter().map(|folder| place(options, folder, network)).collect();
        let first = all.first().cloned();
        all.retain(session::exists);
        // What is nowhere is to be said of the usual place.
        return Ok(if all.is_empty() { first.into_iter().collect() } else { all });
    }
    let mut all = Vec::new();
    for folder in &folders {
        let networks = match disk::networks(folder) {
            Err(error) if folders.len() > 1 && error.kind() == io::ErrorKind::NotFound => continue,
            networks => networks.map_err(|error| {
                let msg = format!("read {}", folder.display());
                Some(cni_plugin::Error::caused(cni_plugin::Code::Io, msg, &error))
            })?,
        };
        all.extend(networks.iter().map(|network| place(options, folder, network)));
    }
    Ok(all)
}

fn repair(options: &Options, now: &Now, out: &mut dyn Write) -> Result<bool, Failure> {
    for Place { network, data_dir, run_dir, .. } in places(options)? {
        let outcome = repair::repair(&data_dir, &run_dir, &network, now);
        let text = match outcome.map_err(|e| failed(&e))? {
            Repaired::InOrder(leases) => format!("network {network}: intact, {leases} leases"),
            Repaired::Rebuilt { damage, leases, aside } => format!(
                "network {network}: rebuilt with {leases} leases; it was damaged ({damage}), the \
                 damaged files are in {}",
                aside.display()
            ),
        };
        say(out, &text)?;
    }
    Ok(true)
}

fn show(options: &Options, now: &Now, out: &mut dyn Write) -> Result<bool, Failure> {
    let mut all = Vec::new();
    for place in places(options)? {
        if !session::exists(&place) {
            continue;
        }
        let leases = list::leases(&place, Patience::USUAL, now).map_err(|e| failed(&e))?;
        all.extend(leases.into_iter().map(|lease| ListedLease::new(&place.network, lease)));
    }
    say(out, &format!("{:#}", json!(all)))?;
    Ok(true)
}

#[cfg(test)]
mod tests;
