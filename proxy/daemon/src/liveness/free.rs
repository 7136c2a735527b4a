//! Frees what one attachment owns, by the code of the plugins that made it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_bridge::record::{OWN_IPAM, Record};
use causeway_bridge::{Outcome, Release};
use causeway_host::{FileLock, RecordKey, paths};
use causeway_kernel::SYSTEM_PATH;
use causeway_service::Daemon;
use cni_plugin::{Code, Error};

use super::judge::Made;
use crate::config::Settings;

/// How long the lease store's lock is waited for.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// What it takes to free an attachment.
#[derive(Debug)]
pub(super) struct Freer {
    run_dir: PathBuf,
    daemon: Daemon,
    env: BTreeMap<String, String>,
}

impl Freer {
    /// For attachments below the run directory of `settings`.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            run_dir: settings.run_dir.clone(),
            daemon: Daemon { socket: settings.socket(), spool: settings.spool(), required: false },
            env: BTreeMap::from([("PATH".to_owned(), SYSTEM_PATH.to_owned())]),
        }
    }

    /// Frees an attachment if it is dead still.
    ///
    /// # Errors
    /// What is left, and why.
    pub(super) fn free(&mut self, key: &RecordKey, made: Made) -> Result<Outcome, Error> {
        let run_dir = self.run_dir.clone();
        // Waiting for it would hold up the next look.
        let rules = FileLock::acquire(&paths::rules_lock(&run_dir), Duration::ZERO);
        drop(rules.map_err(|e| {
            Error::caused(
                Code::TryAgainLater,
                "another process is changing the rules of plugins",
                &e,
            )
        })?);
        match made {
            Made::ByUs => causeway_bridge::free(&run_dir, key, self),
            Made::Lost => causeway_bridge::free_unrecorded(&run_dir, key, self),
            Made::ByOthers => {
                let freed = causeway_service::free(&run_dir, &self.daemon, key, &self.env)?;
                Ok(match freed {
                    causeway_service::Outcome::Freed => Outcome::Freed,
                    causeway_service::Outcome::Kept => Outcome::Alive,
                })
            }
        }
    }
}

impl Release for Freer {
    fn rules(&mut self, key: &RecordKey) -> Result<(), Error> {
        causeway_service::remove(&self.run_dir, &self.daemon, key, &self.env)
    }

    fn lease(&mut self, key: &RecordKey, record: Option<&Record>) -> Result<(), Error> {
        let (data_dir, reuse_delay) = match record {
            Some(record) if record.ipam.is_empty() => return Ok(()),
            Some(record) if record.ipam != OWN_IPAM => {
                return causeway_bridge::release_by_delegate(key, record);
            }
            Some(record) => (record.data_dir.as_str(), record.reuse_delay.as_str()),
            None => ("", ""),
        };
        let data_dir = if data_dir.is_empty() { causeway_ipam::DATA_DIR } else { data_dir };
        let owner = (key.container_id.as_str(), key.ifname.as_str());
        causeway_ipam::release(Path::new(data_dir), &key.network, owner, reuse_delay, STORE_WAIT)
            .map(drop)
            .map_err(|error| Error::caused(Code::Io, "end the lease", &error))
    }
}
