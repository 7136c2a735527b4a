//! The IPAM plugin, run as CNI prescribes: a program with our environment and stdin.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_kernel::{Program, run, warn_raw};
use cni_plugin::{CniResult, Code, Command, Error, Invocation, Request};
use serde_json::{Map, Value};

use crate::fault;

/// Time for one operation (row F49). A failed ADD takes [`LIMIT`] and [`UNDO_LIMIT`] at most, well
/// below the two minutes after which the kubelet gives a sandbox up and starts another one.
const LIMIT: Duration = Duration::from_secs(15);
/// A DHCP server may take its time.
const DHCP_LIMIT: Duration = Duration::from_secs(60);
/// Time for the release of what a failed ADD may have taken.
const UNDO_LIMIT: Duration = Duration::from_secs(10);
/// The kubelet's runtime asks every five seconds.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// The IPAM plugin of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipam<'a> {
    /// Plugin type.
    pub plugin: &'a str,
    /// The request that it is run for.
    pub request: &'a Request,
}

impl Ipam<'_> {
    /// Whether ADD can run while the interface is being made: these plugins only compute. Another
    /// one, `dhcp` for instance, may use the interface.
    pub(crate) fn only_computes(&self) -> bool {
        matches!(self.plugin, "causeway-ipam" | "host-local" | "static")
    }

    /// Whether it refuses ranges that hold `hostAddresses`. Upstream's plugin, which may stand under
    /// the second name, passes over the key.
    pub(crate) fn reads_host_addresses(&self) -> bool {
        matches!(self.plugin, "causeway-ipam" | "host-local")
    }

    /// Whether there is such a program.
    ///
    /// # Errors
    /// 5 if it is not found, 7 if no program can have such a name.
    pub(crate) fn find(&self) -> Result<(), Error> {
        let invocation = Invocation::new(self.plugin, Command::Version, self.request)?;
        program(&invocation).map(drop)
    }

    /// ADD.
    ///
    /// # Errors
    /// The plugin's own error; as [`Ipam::find`]; 6 for no result, 11 if it gives none in time.
    pub(crate) fn add(&self) -> Result<CniResult, Error> {
        self.run(Command::Add)?.ok_or_else(|| {
            Error::new(Code::Decode, format!("IPAM plugin {} returned no result", self.plugin))
        })
    }

    /// DEL.
    ///
    /// # Errors
    /// As [`Ipam::add`].
    pub(crate) fn del(&self) -> Result<(), Error> {
        self.run(Command::Del).map(drop)
    }

    /// DEL of what a failed ADD may have taken.
    ///
    /// # Errors
    /// As [`Ipam::add`].
    pub(crate) fn take_back(&self) -> Result<(), Error> {
        self.run_within(Command::Del, UNDO_LIMIT).map(drop)
    }

    /// CHECK, GC or STATUS.
    ///
    /// # Errors
    /// As [`Ipam::add`].
    pub(crate) fn ask(&self, command: Command) -> Result<(), Error> {
        self.run(command).map(drop)
    }

    fn run(&self, command: Command) -> Result<Option<CniResult>, Error> {
        self.run_within(command, self.limit(command))
    }

    fn run_within(&self, command: Command, limit: Duration) -> Result<Option<CniResult>, Error> {
        let invocation = Invocation::new(self.plugin, command, self.request)?;
        let path = program(&invocation)?;
        let output = run(&Program {
            path: path.to_owned(),
            args: Vec::new(),
            env: invocation.env.clone(),
            stdin: &invocation.stdin,
            timeout: limit,
        })
        .map_err(|error| self.not_run(error))?;
        warn_raw(&output.stderr);
        if output.timed_out {
            return Err(Error::new(
                Code::TryAgainLater,
                format!(
                    "IPAM plugin {} returned no result within {limit:?} and was killed",
                    self.plugin
                ),
            ));
        }
        if output.code.is_none() {
            return Err(Error::new(
                Code::Io,
                format!("IPAM plugin {} was killed by a signal", self.plugin),
            )
            .details(output.stderr));
        }
        invocation.parse(self.request, output.success, &output.stdout, &output.stderr)
    }

    fn not_run(&self, error: causeway_kernel::Error) -> Error {
        if error.source.kind() != io::ErrorKind::InvalidData {
            return fault::kernel(error);
        }
        let msg = format!("IPAM plugin {} printed too much output and was killed", self.plugin);
        Error::caused(Code::Decode, msg, &error.source)
    }

    fn limit(&self, command: Command) -> Duration {
        match command {
            Command::Status => STATUS_LIMIT,
            Command::Add if self.plugin == "dhcp" => DHCP_LIMIT,
            Command::Add | Command::Del | Command::Check | Command::Gc | Command::Version => LIMIT,
        }
    }
}

/// The request with another `ipam` object.
pub(crate) fn with_ipam(
    request: &Request,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Request {
    let mut request = request.clone();
    let Value::Object(config) = &mut request.raw else { return request };
    let sent = config.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case("ipam"));
    if let Some((_, Value::Object(ipam))) = sent {
        change(ipam);
        request.stdin = request.raw.to_string().into_bytes();
    }
    request
}

/// The first regular file among the places where the plugin may be.
fn program(invocation: &Invocation) -> Result<&Path, Error> {
    let mut candidates = invocation.candidates.iter().map(PathBuf::as_path);
    candidates.find(|path| path.is_file()).ok_or_else(|| invocation.not_found())
}
