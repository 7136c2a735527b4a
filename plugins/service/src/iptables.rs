//! The iptables backend.

use std::collections::BTreeMap;

use causeway_kernel::RecordKey;
use cni_plugin::{Code, Error};

use crate::config::IptablesOptions;
use crate::mapping::Addresses;
use crate::record::Record;

type Env = BTreeMap<String, String>;

/// What an attachment wants of iptables.
#[derive(Debug)]
pub(crate) struct Wanted;

impl Wanted {
    pub(crate) fn new(
        _key: &RecordKey,
        _record: &Record,
        _options: &IptablesOptions,
        _addresses: &Addresses,
    ) -> Self {
        Self
    }
}

fn later() -> Error {
    Error::new(Code::UnsupportedField, "backend: \"iptables\" is not supported yet")
}

pub(crate) fn add(
    _env: &Env,
    _wanted: &Wanted,
    _save: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    Err(later())
}

pub(crate) fn remove(
    _env: &Env,
    _key: &RecordKey,
    _last: impl FnOnce() -> Vec<Error>,
) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn missing(_env: &Env, _wanted: &Wanted) -> Result<Vec<String>, Error> {
    Err(later())
}

pub(crate) fn holds(_env: &Env, _key: &RecordKey) -> Result<bool, Error> {
    Ok(false)
}

pub(crate) fn probe(_env: &Env) -> Result<(), Error> {
    Err(later())
}
