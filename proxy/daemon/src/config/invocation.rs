//! What the command line asks for, with the settings of flags, environment and file.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::check::{self, check};
use super::given::{Given, Values};
use super::keys::{DEFAULT_FILE, KEYS, variable};
use super::{Error, Settings, file};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// `causewayd`
    Run(Box<Settings>),
    /// `causewayd cleanup`
    Cleanup(CleanupArgs),
    /// `causewayd leave`
    Leave {
        /// Those of the daemon.
        settings: Box<Settings>,
        /// Though containers are attached.
        force: bool,
    },
}

/// `causewayd cleanup`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CleanupArgs {
    /// Attachments too.
    pub all: bool,
    /// only print what would be removed.
    pub dry_run: bool,
    /// See [`Settings::run_dir`].
    pub run_dir: PathBuf,
    /// See [`Settings::state_dir`].
    pub state_dir: PathBuf,
    /// `dataDir` of `causeway-ipam`, for `all`.
    pub data_dir: PathBuf,
}

/// What the user asks for.
///
/// # Errors
/// See [`Error`].
pub(crate) fn invocation(matches: &ArgMatches) -> Result<Invocation, Error> {
    if let Some(matches) = matches.subcommand_matches("cleanup") {
        let mut values = values(matches)?;
        // Whatever else is wrong in the file keeps nothing from being removed.
        values.retain(|name, _| matches!(*name, "run-dir" | "state-dir"));
        let settings = check(&values)?;
        return Ok(Invocation::Cleanup(CleanupArgs {
            all: matches.get_flag("all"),
            dry_run: matches.get_flag("dry-run"),
            run_dir: settings.run_dir,
            state_dir: settings.state_dir,
            data_dir: matches.get_one("data-dir").cloned().unwrap_or_default(),
        }));
    }
    if let Some(matches) = matches.subcommand_matches("leave") {
        let settings = Box::new(check(&values(matches)?)?);
        return Ok(Invocation::Leave { settings, force: matches.get_flag("force") });
    }
    let values = values(matches)?;
    let mut settings = check(&values)?;
    settings.warnings.extend(exposed(matches, &values));
    Ok(Invocation::Run(Box::new(settings)))
}

/// That everybody can read a file of settings with a password in it.
fn exposed(matches: &ArgMatches, values: &Values) -> Option<String> {
    let default = || PathBuf::from(DEFAULT_FILE);
    let path = matches.get_one::<PathBuf>("config").cloned().unwrap_or_else(default);
    let given = values.get("etcd-password")?;
    let in_file = given.field.starts_with(&*path.to_string_lossy());
    if in_file { check::exposed(&path, "a password") } else { None }
}

/// Flags and environment over the file.
fn values(matches: &ArgMatches) -> Result<Values, Error> {
    let named = matches.get_one::<PathBuf>("config");
    let mut values = match named {
        Some(path) => file::read(path)?,
        None => match file::read(Path::new(DEFAULT_FILE)) {
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Values::new()
            }
            read => read?,
        },
    };
    for key in KEYS {
        // `cleanup` knows few of them.
        let Ok(Some(value)) = matches.try_get_one::<String>(key.name) else { continue };
        let field = match matches.value_source(key.name) {
            Some(ValueSource::EnvVariable) => variable(key.name),
            _ => format!("--{}", key.name),
        };
        values.insert(key.name, Given { value: value.clone(), field });
    }
    Ok(values)
}
