//! A request: the environment and stdin, checked.

use std::io;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::about::About;
use crate::environment::{self, Attachment, CniArgs, Command, Environment};
use crate::{CniResult, Code, Error, Version, json, version};

/// A checked request for any command but VERSION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The operation.
    pub command: Command,
    /// Network name (`name`).
    pub network: String,
    /// The configuration's version.
    pub version: Version,
    /// Who; empty strings for GC and STATUS.
    pub attachment: Attachment,
    /// `CNI_NETNS`, byte for byte; `None` when empty or absent.
    pub netns: Option<String>,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// `CNI_PATH`, split; empty elements dropped.
    pub path: Vec<PathBuf>,
    /// `prevResult`, converted to 1.1.0's shape.
    pub prev_result: Option<CniResult>,
    /// GC: `cni.dev/valid-attachments`. GC without it is refused, other commands have none.
    pub valid_attachments: Vec<Attachment>,
    /// The configuration as sent, keys as sent (labels and other maps whose keys are data).
    pub raw: Value,
    /// stdin, byte for byte, for delegation (row C80).
    pub stdin: Vec<u8>,
    /// The whole environment, for delegation.
    pub env: Environment,
}

impl Request {
    /// Checks the environment, then reads and checks the configuration, in the order of row C11.
    /// `stdin` is called only when the environment is in order. [`crate::dispatch()`] does this for
    /// a plugin; tests make requests with it.
    ///
    /// # Errors
    /// Codes 1, 4, 5, 6 and 7 (rows C2 to C10, C28, C35).
    pub fn parse(
        about: &About,
        env: Environment,
        stdin: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<Self, Error> {
        Self::parse_or_refuse(about, env, stdin).map_err(|refused| refused.error)
    }

    /// The configuration as `T`. Object keys are lower-cased at every level and `null` members
    /// dropped before `T` reads it, so `T` declares lower-case names
    /// (`#[serde(rename_all = "lowercase")]` after removing underscores) and every key matches
    /// without regard to case (rows C20 to C22). Of two keys that differ by case the later counts.
    /// It is read from `stdin`, where the order of keys is known.
    ///
    /// # Errors
    /// Code 6 naming the field.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Error> {
        json::decode(folded(&self.stdin)?, &self.raw, CONFIG)
    }

    /// The value at `path` of the configuration as sent, found without regard to the case of the
    /// path's keys; keys below it are untouched. For maps whose keys are data: labels, `args.cni`.
    pub fn raw_get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.raw, |value, key| json::member(value, key))
    }

    /// `prevResult` for those who cannot work without one (rows C54, C58).
    ///
    /// # Errors
    /// Code 7 when there is none.
    pub fn required_prev_result(&self) -> Result<&CniResult, Error> {
        self.prev_result.as_ref().ok_or_else(|| {
            let command = self.command.as_str();
            Error::new(Code::InvalidConfig, format!("{command} needs a prevResult")).details(
                "a chained plugin must come after a main plugin in the list, and CHECK needs the \
                 result of ADD",
            )
        })
    }

    pub(crate) fn parse_or_refuse(
        about: &About,
        env: Environment,
        stdin: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<Self, Refused> {
        let checked = environment::check(about, &env)?;
        let stdin =
            stdin().map_err(|error| Error::caused(Code::Io, "cannot read stdin", &error))?;
        let config = folded(&stdin)?;
        let raw = serde_json::from_slice(&stdin).map_err(|error| not_json(&error))?;
        let known = match config.get("cniversion") {
            None => Some(Version::V0_1_0),
            Some(text) => text.as_str().and_then(spoken),
        };
        let known = known.filter(|version| about.supported.contains(version));
        let refuse = |error| Refused { version: known, error };

        let network = network_name(&config).map_err(refuse)?;
        let version = negotiate(checked.command, &config, about.supported).map_err(refuse)?;
        let (prev_result, valid_attachments) = match checked.command {
            Command::Gc => (None, valid_attachments(&config, &raw).map_err(refuse)?),
            Command::Status | Command::Version => (None, Vec::new()),
            Command::Add | Command::Del | Command::Check => {
                (prev_result(&config, version).map_err(refuse)?, Vec::new())
            }
        };
        Ok(Self {
            command: checked.command,
            network,
            version,
            attachment: checked.attachment,
            netns: checked.netns,
            args: checked.args,
            path: checked.path,
            prev_result,
            valid_attachments,
            raw,
            stdin,
            env,
        })
    }
}

/// How messages call the document on stdin.
const CONFIG: &str = "the network configuration";

/// Why there is no request, and the configuration's version if it got that far.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) version: Option<Version>,
    pub(crate) error: Error,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { version: None, error }
    }
}

fn folded(stdin: &[u8]) -> Result<Value, Error> {
    let config = json::parse_folded(stdin).map_err(|error| not_json(&error))?;
    if config.is_object() {
        Ok(config)
    } else {
        Err(Error::new(Code::Decode, format!("{CONFIG} must be a JSON object")))
    }
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::caused(Code::Decode, format!("{CONFIG} on stdin is not valid JSON"), error)
}

fn network_name(config: &Value) -> Result<String, Error> {
    match config.get("name") {
        None => Err(Error::new(Code::InvalidConfig, "missing network name")),
        Some(Value::String(name)) if name.is_empty() => {
            Err(Error::new(Code::InvalidConfig, "missing network name"))
        }
        Some(Value::String(name)) if environment::is_name(name) => Ok(name.clone()),
        Some(Value::String(name)) => {
            let msg = "invalid characters found in network name";
            Err(Error::new(Code::InvalidConfig, msg).details(name))
        }
        Some(other) => {
            let msg = format!("field \"name\" of {CONFIG} cannot be decoded");
            Err(Error::new(Code::Decode, msg).details(format!("{other} is not a string")))
        }
    }
}

/// A version we can speak; an empty text is the oldest (row C35).
fn spoken(text: &str) -> Option<Version> {
    if text.is_empty() { Some(Version::V0_1_0) } else { Version::parse(text) }
}

/// The version to work in (rows C28, C35).
fn negotiate(command: Command, config: &Value, supported: &[Version]) -> Result<Version, Error> {
    let text = match config.get("cniversion") {
        None => "",
        Some(Value::String(text)) => text,
        Some(other) => {
            let msg = format!("field \"cniVersion\" of {CONFIG} cannot be decoded");
            let details = format!("{other} is not a string");
            return Err(Error::new(Code::Decode, msg).details(details));
        }
    };
    let text = if text.is_empty() { Version::V0_1_0.as_str() } else { text };
    let since = command.since();
    if since > Version::V0_1_0 {
        let numbers = version::numbers(text).ok_or_else(|| {
            Error::new(Code::Decode, format!("cniVersion \"{text}\" is not a version"))
        })?;
        if Some(numbers) < version::numbers(since.as_str()) {
            let command = command.as_str();
            let msg = format!("config version does not allow {command}");
            let details = format!("config is \"{text}\", {command} needs {since} or newer");
            return Err(Error::new(Code::IncompatibleVersion, msg).details(details));
        }
    }
    Version::parse(text).filter(|version| supported.contains(version)).ok_or_else(|| {
        let supported: Vec<_> = supported.iter().map(|v| format!("\"{v}\"")).collect();
        let supported = supported.join(" ");
        Error::new(Code::IncompatibleVersion, "incompatible CNI versions")
            .details(format!("config is \"{text}\", plugin supports [{supported}]"))
    })
}

/// `prevResult` in the configuration's format (row C53); `""` and `{}` are unset (row C22).
fn prev_result(config: &Value, version: Version) -> Result<Option<CniResult>, Error> {
    let Some(value) = config.get("prevresult") else { return Ok(None) };
    if matches!(value, Value::String(text) if text.is_empty())
        || matches!(value, Value::Object(members) if members.is_empty())
    {
        return Ok(None);
    }
    CniResult::from_json(value, version).map(Some).map_err(|error| {
        let msg = format!("field \"prevResult\" of {CONFIG} cannot be decoded");
        Error::new(error.code, msg).details(error.to_string())
    })
}

/// The attachments that GC must keep. A list that is not understood is refused as a whole: what can
/// not be read must not count as garbage (row F47). So is a request without one, as `cnitool gc`
/// sends it: it would detach every running container of the network. `null` is how libcni writes a
/// list of none.
fn valid_attachments(config: &Value, raw: &Value) -> Result<Vec<Attachment>, Error> {
    // The library of some runtimes sends the older key; with both, they are alike.
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let Some((key, list)) = keys.iter().find_map(|key| Some((key, config.get(*key)?))) else {
        if keys.iter().any(|key| json::member(raw, key).is_some_and(Value::is_null)) {
            return Ok(Vec::new());
        }
        let [key, _] = keys;
        let msg = format!("GC needs \"{key}\": the attachments to keep, or [] for none");
        return Err(Error::new(Code::InvalidConfig, msg)
            .details("without the list, GC would detach every running container of the network"));
    };
    let raw = json::member(raw, key).unwrap_or(&Value::Null);
    // serde would read an object from a list of its members, too.
    let mut items = list.as_array().into_iter().flatten();
    if let Some(index) = items.position(|item| !item.is_object()) {
        let msg = format!("\"{key}\"[{index}] must be an object with containerID and ifname");
        return Err(Error::new(Code::Decode, msg));
    }
    let entries: Vec<KeptEntry> = json::decode(list.clone(), raw, &format!("\"{key}\""))?;
    let kept = entries.into_iter().enumerate().map(|(index, KeptEntry { containerid, ifname })| {
        if containerid.is_empty() || ifname.is_empty() {
            let msg = format!("\"{key}\"[{index}] needs both containerID and ifname");
            return Err(Error::new(Code::InvalidConfig, msg));
        }
        Ok(Attachment { container_id: containerid, ifname })
    });
    kept.collect()
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct KeptEntry {
    containerid: String,
    ifname: String,
}

#[cfg(test)]
mod tests;
