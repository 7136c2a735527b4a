//! The arguments of the command line.

use std::ffi::OsStr;
use std::path::PathBuf;

use causeway_api::DEFAULT_SOCKET;
use causeway_model::manifest::Validate;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::kind::Kind;
use crate::screen::Screen;
use crate::{Failure, Verdict};

/// Inspect and manage services, pods and nodes through causewayd, the daemon of this node.
///
/// Exit codes: 0 success; 1 refused, not found, degraded, or a trace that ends in drop or reject;
/// 2 usage error, or the daemon is unreachable.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Socket of causewayd
    #[arg(long, global = true, env = "CAUSEWAY_SOCKET", default_value = DEFAULT_SOCKET)]
    #[arg(value_name = "PATH", hide_env_values = true)]
    pub(crate) socket: PathBuf,
    /// Output format
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Human-readable
    Table,
    /// Human-readable, with more columns
    Wide,
    /// JSON, in the shape of Kubernetes objects
    Json,
    /// YAML, in the shape of Kubernetes objects
    Yaml,
    /// One KIND/NAME per line
    Name,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or change services, endpoints and nodes from manifests
    Apply(ApplyArgs),
    /// Delete objects by manifest or by name
    Delete(DeleteArgs),
    /// List objects: services, endpoints, endpointslices, pods, nodes, leases
    Get(GetArgs),
    /// Show a service, its endpoints and what keeps it from working
    Describe(DescribeArgs),
    /// Show the state of the daemon, its store, the overlay and the other nodes
    Status,
    /// Test services
    Svc {
        #[command(subcommand)]
        command: SvcCommand,
    },
    /// Show what a name is answered, and why
    Dns(DnsArgs),
    /// Explain how a packet would be handled
    Trace(TraceArgs),
    /// Print a shell completion script
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: CompletionShell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A manifest, a directory of manifests (*.yaml, *.yml, *.json), or - for stdin
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(crate) file: Vec<PathBuf>,
    /// Return once the objects are stored, without waiting for the rules to reach the kernel
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How to treat fields that Kubernetes does not know
    #[arg(long, value_enum, value_name = "strict|warn|ignore", default_value = "strict")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub(crate) validate: Validation,
}

/// How to treat a document with a field that Kubernetes does not know. kubectl's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Validation {
    /// Refuse the document
    #[value(alias = "true")]
    Strict,
    /// Apply the document without the field, with a warning
    Warn,
    /// Apply the document without the field
    #[value(alias = "false")]
    Ignore,
}

impl From<Validation> for Validate {
    fn from(word: Validation) -> Self {
        match word {
            Validation::Strict => Self::Strict,
            Validation::Warn => Self::Warn,
            Validation::Ignore => Self::Ignore,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// KIND NAME.. or KIND/NAME..
    #[arg(required_unless_present = "file", conflicts_with = "file", value_name = "KIND NAME", hide_possible_values = true, value_parser = Words(&Kind::STORED))]
    pub(crate) objects: Vec<String>,
    /// A manifest, a directory of manifests, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub(crate) file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// Treat missing objects as deleted
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// KIND[,KIND..] [NAME..], KIND/NAME.., or all; short: svc, ep, po, no
    #[arg(required = true, value_name = "KIND [NAME]", hide_possible_values = true, value_parser = Words(&Kind::ALL))]
    pub(crate) objects: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
    /// List objects in all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Watch for changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// service NAME.. or service/NAME..
    #[arg(required = true, value_name = "service NAME", hide_possible_values = true, value_parser = Words(&[Kind::Service]))]
    pub(crate) objects: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SvcCommand {
    /// Connect to a service several times and show which endpoints take the connections
    Test(SvcTestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SvcTestArgs {
    /// [NAMESPACE/]NAME, then :PORT by name or number [default: the first port]
    #[arg(value_name = "NAME")]
    pub(crate) service: String,
    /// Number of connections
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) count: u32,
    /// Source of the connections: node, or [NAMESPACE/]POD
    #[arg(long, default_value = "node", value_name = "node|POD")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Args)]
pub(crate) struct DnsArgs {
    /// A name; with a dot at its end the search list is not gone through
    #[arg(required_unless_present = "host")]
    pub(crate) name: Option<String>,
    /// Type of the records: A, AAAA, CNAME, SRV, PTR, TXT, SOA, NS and others
    #[arg(value_name = "TYPE", default_value = "A")]
    pub(crate) record_type: String,
    /// Whose search list is gone through: node (none), or [NAMESPACE/]POD
    #[arg(long, default_value = "node", value_name = "node|POD")]
    pub(crate) from: String,
    /// Print the commands that make names of the cluster known on this host, and those that undo it
    #[arg(long, conflicts_with_all = ["name", "from"])]
    pub(crate) host: bool,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// [NAMESPACE/]POD, an address, or node
    pub(crate) from: String,
    /// [NAMESPACE/]SERVICE, a pod, or an address; then :PORT and /tcp, /udp or /sctp
    #[arg(value_name = "TO[:PORT][/PROTO]")]
    pub(crate) to: String,
    /// Follow real packets; not in this version
    #[arg(long, hide = true)]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) namespace: Namespace,
}

#[derive(Debug, Args)]
pub(crate) struct Namespace {
    /// Default namespace
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
}

/// Shells with completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// Prints the completion script of a shell.
pub(crate) fn completion(shell: CompletionShell, screen: &mut Screen) -> Result<Verdict, Failure> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "causeway", &mut script);
    screen.raw(&script)?;
    Ok(Verdict::Fine)
}

impl Format {
    /// The form of a command that has no columns and no names.
    ///
    /// # Errors
    /// It was asked for names.
    pub(crate) fn of_document(format: Option<Self>) -> Result<Document, Failure> {
        match format {
            None | Some(Self::Table | Self::Wide) => Ok(Document::Text),
            Some(Self::Json) => Ok(Document::Json),
            Some(Self::Yaml) => Ok(Document::Yaml),
            Some(Self::Name) => Err(Failure::Usage(
                "this command does not support -o name; use json or \
                 yaml"
                    .into(),
            )),
        }
    }
}

/// Any words; completion offers kinds.
#[derive(Clone, Copy, Debug)]
struct Words(&'static [Kind]);

impl TypedValueParser for Words {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(|kind| PossibleValue::new(kind.plural()))))
    }
}

/// Forms of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// Human-readable.
    Text,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
