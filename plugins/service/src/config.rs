//! The network configuration: what ADD and CHECK can act on, checked once.

use std::path::PathBuf;

use causeway_api::{DEFAULT_SOCKET, DEFAULT_SPOOL};
use cni_plugin::{Code, Error, Request};
use serde::Deserialize;
use serde_json::Value;

use crate::conditions::Conditions;
use crate::mapping::{HostSide, Mapping, Protocol};
use crate::record::{Mark, Masquerade};

/// Where attachment records and locks are, unless `runDir` says otherwise.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/causeway";

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Directory of attachment records and locks.
    pub run_dir: PathBuf,
    /// Who is told of containers.
    pub daemon: Daemon,
    /// Masquerading of connections to host ports.
    pub masquerade: Masquerade,
    /// What carries the rules out.
    pub backend: Backend,
    /// What is asked for.
    pub mappings: Vec<Mapping>,
}

/// Where the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its socket.
    pub socket: PathBuf,
    /// Events that it did not take.
    pub spool: PathBuf,
    /// ADD fails if it does not take the event.
    pub required: bool,
}

/// What carries the rules out.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// nf_tables by netlink.
    Nftables {
        /// `conditionsV4`
        v4: Option<Conditions>,
        /// `conditionsV6`
        v6: Option<Conditions>,
    },
    /// `iptables-restore`.
    Iptables(IptablesOptions),
}

/// What only the iptables backend knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IptablesOptions {
    /// Who marks packets for masquerading.
    pub mark: Mark,
    /// `conditionsV4`, one iptables argument each.
    pub conditions_v4: Vec<String>,
    /// `conditionsV6`, one ip6tables argument each.
    pub conditions_v6: Vec<String>,
}

/// The keys in lower case, as `Request::config` gives them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    rundir: Option<String>,
    socket: Option<String>,
    spooldir: Option<String>,
    requiredaemon: Option<bool>,
    backend: Option<String>,
    snat: Option<bool>,
    masqall: Option<bool>,
    markmasqbit: Option<i64>,
    externalsetmarkchain: Option<String>,
    conditionsv4: Option<Vec<String>>,
    conditionsv6: Option<Vec<String>>,
    runtimeconfig: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    portmappings: Vec<RawMapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawMapping {
    hostport: i64,
    containerport: i64,
    protocol: String,
    hostip: String,
}

/// All that DEL and GC need: an attachment must go whatever else the configuration says by now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawPlace {
    rundir: Option<Value>,
    socket: Option<Value>,
    spooldir: Option<Value>,
    backend: Option<Value>,
}

/// What DEL and GC take from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Directory of attachment records and locks.
    pub run_dir: PathBuf,
    /// Who is told that containers are gone.
    pub daemon: Daemon,
    /// Whether rules of attachments without record may be in iptables.
    pub iptables: bool,
}

impl Place {
    /// Never fails: what does not decode counts as absent.
    pub(crate) fn of(request: &Request) -> Self {
        let raw: RawPlace = request.config().unwrap_or_default();
        let text = |value: Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        Self {
            run_dir: path(text(raw.rundir), DEFAULT_RUN_DIR),
            daemon: Daemon {
                socket: path(text(raw.socket), DEFAULT_SOCKET),
                spool: path(text(raw.spooldir), DEFAULT_SPOOL),
                required: false,
            },
            iptables: text(raw.backend).as_deref() == Some("iptables"),
        }
    }
}

impl Settings {
    /// The configuration of `request`, checked.
    ///
    /// # Errors
    /// Code 2 for values and combinations that are not supported, 6 for what does not decode, 7
    /// for what is out of range.
    pub(crate) fn of(request: &Request) -> Result<Self, Error> {
        Self::check(request.config()?)
    }

    fn check(raw: Raw) -> Result<Self, Error> {
        let external = set(raw.externalsetmarkchain);
        let v4 = words(raw.conditionsv4);
        let v6 = words(raw.conditionsv6);
        let mark = mark(raw.markmasqbit, external)?;
        let backend = match backend(set(raw.backend).as_deref(), &mark, &v4, &v6)? {
            Choice::Nftables => Backend::Nftables {
                v4: Conditions::parse("conditionsV4", &v4)?,
                v6: Conditions::parse("conditionsV6", &v6)?,
            },
            Choice::Iptables => {
                printable("conditionsV4", &v4)?;
                printable("conditionsV6", &v6)?;
                Backend::Iptables(IptablesOptions { mark, conditions_v4: v4, conditions_v6: v6 })
            }
        };
        let masquerade = match (raw.snat.unwrap_or(true), raw.masqall.unwrap_or(false)) {
            (false, _) => Masquerade::Nothing,
            (true, false) => Masquerade::Needed,
            (true, true) => Masquerade::All,
        };
        let mappings: Result<_, Error> =
            raw.runtimeconfig.portmappings.iter().map(mapping).collect();
        Ok(Self {
            run_dir: absolute("runDir", path(raw.rundir, DEFAULT_RUN_DIR))?,
            daemon: Daemon {
                socket: absolute("socket", path(raw.socket, DEFAULT_SOCKET))?,
                spool: absolute("spoolDir", path(raw.spooldir, DEFAULT_SPOOL))?,
                required: raw.requiredaemon.unwrap_or(false),
            },
            masquerade,
            backend,
            mappings: mappings?,
        })
    }
}

fn set(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn path(text: Option<String>, default: &str) -> PathBuf {
    PathBuf::from(set(text).as_deref().unwrap_or(default))
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, Error> {
    if path.is_absolute() {
        return Ok(path);
    }
    // DEL may run in another working directory, and would find nothing.
    let msg = format!("{key}: {path:?} is not an absolute path; begin it with `/`");
    Err(Error::new(Code::InvalidConfig, msg))
}

fn words(list: Option<Vec<String>>) -> Vec<String> {
    list.unwrap_or_default().into_iter().filter(|word| !word.is_empty()).collect()
}

fn mark(bit: Option<i64>, external: Option<String>) -> Result<Mark, Error> {
    match (bit, external) {
        (Some(_), Some(chain)) => Err(Error::new(
            Code::UnsupportedField,
            format!(
                "markMasqBit and externalSetMarkChain {chain:?} are mutually exclusive; remove one \
                 of them"
            ),
        )),
        (None, Some(chain)) => {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if chain.len() > 28 || !chain.chars().all(plain) {
                return Err(Error::new(
                    Code::InvalidConfig,
                    format!("externalSetMarkChain: {chain:?} is not the name of an iptables chain"),
                ));
            }
            Ok(Mark::External(chain))
        }
        (None, None) => Ok(Mark::usual()),
        (Some(bit), None) => {
            u8::try_from(bit).ok().filter(|bit| *bit <= 31).map(Mark::Bit).ok_or_else(|| {
                Error::new(
                    Code::InvalidConfig,
                    format!("markMasqBit: {bit} is not a bit of a packet mark; use 0 to 31"),
                )
            })
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Nftables,
    Iptables,
}

/// nftables unless asked otherwise, or unless an option that only iptables has stands alone.
fn backend(
    asked: Option<&str>,
    mark: &Mark,
    v4: &[String],
    v6: &[String],
) -> Result<Choice, Error> {
    let external = matches!(mark, Mark::External(_)).then_some("externalSetMarkChain");
    let of = |iptables: bool| {
        let written = |list: &[String], key| {
            list.first().filter(|word| word.starts_with(['-', '!']) == iptables).map(|_| key)
        };
        [written(v4, "conditionsV4"), written(v6, "conditionsV6")].into_iter().flatten()
    };
    let iptables_only: Vec<&str> = external.into_iter().chain(of(true)).collect();
    let nftables_only: Vec<&str> = of(false).collect();
    let (choice, wrong) = match asked {
        Some("nftables") => (Choice::Nftables, iptables_only),
        Some("iptables") => (Choice::Iptables, nftables_only),
        Some(other) => {
            return Err(Error::new(
                Code::UnsupportedField,
                format!("backend: {other:?} is not known; use \"nftables\" or \"iptables\""),
            ));
        }
        None if iptables_only.is_empty() => (Choice::Nftables, iptables_only),
        None => (Choice::Iptables, nftables_only),
    };
    if wrong.is_empty() {
        return Ok(choice);
    }
    let (name, other) = match choice {
        Choice::Nftables => ("nftables", "iptables"),
        Choice::Iptables => ("iptables", "nftables"),
    };
    Err(Error::new(
        Code::UnsupportedField,
        format!("{}: supported with {other} only, and the backend is {name}", wrong.join(", ")),
    ))
}

/// What goes into a line of iptables-restore must stay on it.
fn printable(key: &str, words: &[String]) -> Result<(), Error> {
    let bad = words.iter().find(|word| word.chars().any(char::is_control));
    bad.map_or(Ok(()), |word| {
        Err(Error::new(
            Code::InvalidConfig,
            format!("{key}: {word:?} contains a control character"),
        ))
    })
}

fn mapping(raw: &RawMapping) -> Result<Mapping, Error> {
    let invalid = |field: &str, value: &dyn std::fmt::Display, remedy: &str| {
        let msg = format!("runtimeConfig.portMappings: {field} {value} {remedy}");
        Error::new(Code::InvalidConfig, msg)
    };
    let port = |field: &str, value: i64| {
        let port = u16::try_from(value).ok().filter(|port| *port != 0);
        port.ok_or_else(|| invalid(field, &value, "is not a port; use 1 to 65535"))
    };
    let protocol = Protocol::parse(if raw.protocol.is_empty() { "tcp" } else { &raw.protocol });
    Ok(Mapping {
        protocol: protocol.ok_or_else(|| {
            let msg = format!(
                "runtimeConfig.portMappings: protocol {:?} is not supported; use tcp, udp or sctp",
                raw.protocol
            );
            Error::new(Code::UnsupportedField, msg)
        })?,
        host: HostSide::parse(&raw.hostip).ok_or_else(|| {
            invalid("hostIP", &format!("{:?}", raw.hostip), "is not an IP address")
        })?,
        host_port: port("hostPort", raw.hostport)?,
        container_port: port("containerPort", raw.containerport)?,
    })
}

#[cfg(test)]
mod tests;
