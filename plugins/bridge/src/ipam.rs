//! The IPAM plugin, run as CNI prescribes: a program with our environment and stdin.

use std::path::Path;
use std::time::Duration;

use causeway_kernel::{Program, run};
use cni_plugin::{CniResult, Code, Command, Error, Invocation, Request};

use crate::fault;

/// Time for one operation. A DHCP server may take its time; nothing may take for ever (row F49).
const LIMIT: Duration = Duration::from_secs(30);
const DHCP_LIMIT: Duration = Duration::from_secs(90);
const STATUS_LIMIT: Duration = Duration::from_secs(5);

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

    /// ADD.
    ///
    /// # Errors
    /// The plugin's own error; 7 where it is not found; 6 where it gives no result in time.
    pub(crate) fn add(&self) -> Result<CniResult, Error> {
        self.run(Command::Add)?.ok_or_else(|| {
            Error::new(Code::Decode, format!("IPAM plugin {} gave no result", self.plugin))
        })
    }

    /// DEL.
    ///
    /// # Errors
    /// As [`Ipam::add`].
    pub(crate) fn del(&self) -> Result<(), Error> {
        self.run(Command::Del).map(drop)
    }

    /// CHECK, GC or STATUS.
    ///
    /// # Errors
    /// As [`Ipam::add`].
    pub(crate) fn ask(&self, command: Command) -> Result<(), Error> {
        self.run(command).map(drop)
    }

    fn run(&self, command: Command) -> Result<Option<CniResult>, Error> {
        let invocation = Invocation::new(self.plugin, command, self.request)?;
        let is_file = |path: &&std::path::PathBuf| Path::is_file(path);
        let Some(path) = invocation.candidates.iter().find(is_file) else {
            return Err(invocation.not_found());
        };
        let limit = self.limit(command);
        let output = run(&Program {
            path: path.clone(),
            args: Vec::new(),
            env: invocation.env.clone(),
            stdin: &invocation.stdin,
            timeout: limit,
        })
        .map_err(fault::kernel)?;
        if !output.stderr.is_empty() {
            eprint!("{}", output.stderr);
        }
        if output.timed_out {
            return Err(Error::new(
                Code::Decode,
                format!(
                    "IPAM plugin {} gave no result within {limit:?} and was killed",
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

    fn limit(&self, command: Command) -> Duration {
        match command {
            Command::Status => STATUS_LIMIT,
            Command::Add if self.plugin == "dhcp" => DHCP_LIMIT,
            Command::Add | Command::Del | Command::Check | Command::Gc | Command::Version => LIMIT,
        }
    }
}
