//! The environment, checked: the command, who, where, and `CNI_ARGS` (rows C2 to C8, C23).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::about::About;
use crate::{Code, Error, Version};

/// The process environment as a value.
pub type Environment = BTreeMap<String, String>;

/// `vars` (of `std::env::vars_os`) as an [`Environment`]. What is not UTF-8 is left out: no variable
/// of the specification may be anything else, so it counts as unset.
pub fn environment_of(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    vars.into_iter().filter_map(text).collect()
}

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Verify (0.4.0).
    Check,
    /// Remove what no valid attachment owns (1.1.0).
    Gc,
    /// Whether ADD can work (1.1.0).
    Status,
    /// Print supported versions.
    Version,
}

impl Command {
    /// The command written as `text`, in upper case exactly.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];
        all.into_iter().find(|command| command.as_str() == text)
    }

    /// The text in `CNI_COMMAND`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The version that brought the command.
    pub(crate) const fn since(self) -> Version {
        match self {
            Self::Add | Self::Del | Self::Version => Version::V0_1_0,
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
        }
    }
}

/// Identity of an attachment within a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// `CNI_ARGS`, parsed (rows C23, C24). Keys are case-sensitive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// All pairs in key order, `IgnoreUnknown` not among them.
    pub pairs: BTreeMap<String, String>,
    /// Whether `IgnoreUnknown` was 1 or true.
    pub ignore_unknown: bool,
}

impl CniArgs {
    /// Keys known to every plugin: one `CNI_ARGS` reaches all plugins of a list, so none may refuse
    /// what another one reads. [`About::known_args`] adds to them.
    pub const COMMON: &[&str] = &["IP", "MAC", "CAUSEWAY_LABELS"];

    /// Parses `K=V;K=V`.
    ///
    /// # Errors
    /// Code 4 for a part without exactly one `=`, for an `IgnoreUnknown` that is not a boolean,
    /// and, unless `IgnoreUnknown` is set, for keys neither in [`CniArgs::COMMON`] nor in `known`.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Error> {
        let mut args = Self::default();
        if text.is_empty() {
            return Ok(args);
        }
        for part in text.split(';') {
            let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
            let Some((key, value)) = pair else {
                return Err(invalid(format!("CNI_ARGS: \"{part}\" is not a KEY=VALUE pair"), text));
            };
            if key == "IgnoreUnknown" {
                args.ignore_unknown = boolean(value).ok_or_else(|| {
                    invalid(
                        format!("CNI_ARGS: IgnoreUnknown is \"{value}\", not true or false"),
                        text,
                    )
                })?;
            } else {
                args.pairs.insert(key.to_owned(), value.to_owned());
            }
        }
        let is_known = |key: &str| Self::COMMON.contains(&key) || known.contains(&key);
        let unknown: Vec<_> =
            args.pairs.keys().map(String::as_str).filter(|key| !is_known(key)).collect();
        if !args.ignore_unknown && !unknown.is_empty() {
            let unknown = unknown.join(", ");
            return Err(invalid(
                format!("CNI_ARGS: unknown keys {unknown}; set IgnoreUnknown=1 to ignore them"),
                text,
            ));
        }
        Ok(args)
    }
}

/// The checked environment of a command that reads a configuration.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) command: Command,
    pub(crate) attachment: Attachment,
    pub(crate) netns: Option<String>,
    pub(crate) args: CniArgs,
    pub(crate) path: Vec<PathBuf>,
}

/// Checks presence, then format, before stdin is touched (row C11).
///
/// # Errors
/// Code 4.
pub(crate) fn check(about: &About, env: &Environment) -> Result<Checked, Error> {
    let name = get(env, "CNI_COMMAND");
    let command = Command::parse(name).ok_or_else(|| {
        Error::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {name}"))
    })?;
    let missing: Vec<_> =
        required(command).iter().copied().filter(|key| get(env, key).is_empty()).collect();
    if !missing.is_empty() {
        let missing = missing.join(",");
        let msg = format!("required env variables [{missing}] missing");
        return Err(Error::new(Code::InvalidEnvironment, msg));
    }
    let path = get(env, "CNI_PATH").split(':').filter(|dir| !dir.is_empty());
    let mut checked = Checked {
        command,
        attachment: Attachment { container_id: String::new(), ifname: String::new() },
        netns: None,
        args: CniArgs::default(),
        path: path.map(PathBuf::from).collect(),
    };
    // Runtimes export the rest as empty strings for GC and STATUS: nothing there to check (row C5).
    if matches!(command, Command::Add | Command::Del | Command::Check) {
        checked.attachment = attachment(env)?;
        checked.netns = Some(get(env, "CNI_NETNS")).filter(|ns| !ns.is_empty()).map(str::to_owned);
        checked.args = CniArgs::parse(get(env, "CNI_ARGS"), about.known_args)?;
    }
    Ok(checked)
}

/// Whether `CNI_NETNS_OVERRIDE` lets a plugin work in its own namespace (row C12).
pub(crate) fn netns_override(env: &Environment) -> bool {
    boolean(get(env, "CNI_NETNS_OVERRIDE")) == Some(true)
}

/// The variable, if unset is the empty string.
pub(crate) fn get<'a>(env: &'a Environment, key: &str) -> &'a str {
    env.get(key).map_or("", String::as_str)
}

/// Whether `name` fits `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, the pattern of container ids and network
/// names (rows C7, C9).
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn required(command: Command) -> &'static [&'static str] {
    match command {
        Command::Add | Command::Check => {
            &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
        }
        Command::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
        Command::Gc | Command::Status => &["CNI_PATH"],
        Command::Version => &[],
    }
}

fn attachment(env: &Environment) -> Result<Attachment, Error> {
    let container_id = get(env, "CNI_CONTAINERID");
    if !is_name(container_id) {
        return Err(invalid("invalid characters in containerID".to_owned(), container_id));
    }
    let ifname = get(env, "CNI_IFNAME");
    let refused = match ifname {
        "" => "interface name is empty",
        "." | ".." => "interface name is . or ..",
        long if long.len() > 15 => "interface name is longer than 15 bytes",
        odd if odd.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) => {
            "interface name contains / or : or whitespace characters"
        }
        _ => {
            return Ok(Attachment {
                container_id: container_id.to_owned(),
                ifname: ifname.to_owned(),
            });
        }
    };
    Err(invalid(refused.to_owned(), ifname))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn invalid(msg: String, value: &str) -> Error {
    Error::new(Code::InvalidEnvironment, msg).details(value)
}

#[cfg(test)]
mod tests;
