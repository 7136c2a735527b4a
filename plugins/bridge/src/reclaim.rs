//! What an ADD does about other attachments: it frees attachments of its network that are dead, if
//! no daemon has done so. Attachments whose chain has failed go before the address is asked for;
//! all others only if no address is left.

use std::path::Path;
use std::time::Duration;

use causeway_host::paths::{self, kind};
use causeway_host::{FileLock, RecordKey, Records};
use causeway_kernel::{Netlink, Program, run};
use causeway_ruleset::name;
use cni_plugin::{CniResult, Code, Command, Error, Invocation, Request};
use serde::Deserialize;
use serde_json::Value;

use crate::free::{self, Outcome, Owners, Release};
use crate::gc::for_attachment;
use crate::ipam::Ipam;
use crate::record::{self, OWN_IPAM, Record};
use crate::{fault, rules};

/// The chained plugin whose rules name addresses.
const SERVICE: &str = "causeway-service";
/// Kinds of its records.
const SERVICE_KINDS: [&str; 2] = [kind::SERVICE, kind::ENDPOINT];
/// As many are freed by one ADD at most: the runtime waits for it.
const MANY: usize = 256;
/// How long a list of leases may take.
const LIST_WAIT: Duration = Duration::from_secs(15);
/// How long another first ADD of the network may take.
const FIRST_WAIT: Duration = Duration::from_secs(20);

/// An ADD that cleans up after other attachments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reclaim<'a> {
    /// The ADD.
    pub request: &'a Request,
    /// `runDir`
    pub run_dir: &'a Path,
    /// Its own attachment.
    pub own: &'a RecordKey,
}

/// A lease, as `causeway-ipam show` prints it.
#[derive(Debug, Deserialize)]
struct Lease {
    network: String,
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl Reclaim<'_> {
    /// What is due before an address is asked for: attachments whose chain has failed; and the first
    /// time that a network is used under this run directory, leases that an earlier one left. Whatever
    /// fails is no reason to refuse the ADD.
    pub(crate) fn before_lease(&self) {
        let failed = record::failed(self.run_dir).list(self.network());
        for key in failed.into_iter().flat_map(|(keys, _)| keys).take(MANY) {
            self.free(&key);
        }
        if let Err(error) = self.first_here() {
            fault::warn(&format!("look for leases of an earlier boot: {error}"));
        }
    }

    /// Asks for an address; once more if none was left and dead attachments had some.
    pub(crate) fn lease(&self, ipam: &Ipam<'_>) -> Result<CniResult, Error> {
        match ipam.add() {
            Err(error) if is_exhausted(&error) && self.dead() > 0 => ipam.add(),
            answer => answer,
        }
    }

    /// Frees the dead attachments of the network. Says how many.
    fn dead(&self) -> usize {
        let records = Records::new(self.run_dir, kind::BRIDGE);
        let keys = records.list(self.network()).map(|(keys, _)| keys).unwrap_or_default();
        let Ok(owners) = Netlink::open().and_then(|host| Owners::read(&host)) else { return 0 };
        // Most live: their links say so without a look at their records.
        let gone = keys.iter().filter(|key| *key != self.own && !owners.have(key, None));
        let freed = gone.filter(|key| self.free(key)).take(MANY).count();
        freed
            + self.unrecorded().unwrap_or_else(|error| {
                fault::warn(&format!("look for leases without an attachment: {error}"));
                0
            })
    }

    fn free(&self, key: &RecordKey) -> bool {
        let request = &for_attachment(self.request, key);
        let has = |kind| !matches!(Records::new(self.run_dir, kind).read::<Value>(key), Ok(None));
        let chained = SERVICE_KINDS.into_iter().any(has);
        match free::free(self.run_dir, key, &mut ByPrograms { request, chained }) {
            Ok(outcome) => outcome == Outcome::Freed,
            Err(error) => {
                fault::warn(&format!("free what {} left: {error}", rules::owner(key)));
                false
            }
        }
    }

    /// `/run` is another one after every boot of the machine, and after that of a node that is a
    /// container, which the boot id does not tell. A directory below the run directory says that
    /// this network was used there before.
    fn first_here(&self) -> Result<(), Error> {
        let marker = paths::networks(self.run_dir).join(name::owner_network_prefix(self.network()));
        if marker.exists() {
            return Ok(());
        }
        let lock = paths::networks_lock(self.run_dir);
        let _lock = FileLock::acquire(&lock, FIRST_WAIT).map_err(fault::kernel)?;
        let looked = if marker.exists() {
            Ok(())
        } else {
            self.unrecorded().and_then(|_| {
                std::fs::create_dir_all(&marker)
                    .map_err(|e| Error::caused(Code::Io, format!("make {}", marker.display()), &e))
            })
        };
        // Whoever waits for it makes it again, and finds the directory.
        drop(std::fs::remove_file(&lock));
        looked
    }

    /// Frees leases of this network that no record and no link tells of: every attachment of this
    /// plugin has its record before its lease, and its link as long as it lives. Says how many.
    fn unrecorded(&self) -> Result<usize, Error> {
        let leases = self.leases()?;
        if leases.is_empty() {
            return Ok(0);
        }
        // After the leases, so that what was attached meanwhile is known.
        let records = Records::new(self.run_dir, kind::BRIDGE);
        let (recorded, unreadable) = records.list(self.network()).map_err(fault::kernel)?;
        let owners = Netlink::open().and_then(|host| Owners::read(&host)).map_err(fault::kernel)?;
        if !unreadable.is_empty() {
            // Whose they are cannot be told.
            return Ok(0);
        }
        let lost = |key: &RecordKey| !recorded.contains(key) && !owners.have(key, None);
        let mut freed = 0;
        for key in leases.into_iter().filter(lost).take(MANY) {
            let request = &for_attachment(self.request, &key);
            let mut release = ByPrograms { request, chained: self.has_service()? };
            let outcome = free::free_unrecorded(self.run_dir, &key, &mut release)?;
            freed += usize::from(outcome == Outcome::Freed);
        }
        Ok(freed)
    }

    /// Whether causeway-service is installed. If records are lost it is asked in any case.
    fn has_service(&self) -> Result<bool, Error> {
        let program = Invocation::new(SERVICE, Command::Version, self.request)?;
        Ok(program.candidates.iter().any(|path| path.is_file()))
    }

    /// Whose leases there are, if causeway-ipam keeps them. Leases of an old host-local directory
    /// name no interface: those are not ours to judge.
    fn leases(&self) -> Result<Vec<RecordKey>, Error> {
        let plugin = self.request.raw_get(&["ipam", "type"]).and_then(Value::as_str);
        if plugin != Some(OWN_IPAM) {
            return Ok(Vec::new());
        }
        let program = Invocation::new(OWN_IPAM, Command::Version, self.request)?;
        let path = program.candidates.iter().find(|path| path.is_file());
        let path = path.ok_or_else(|| program.not_found())?.clone();
        let mut args: Vec<String> = ["show", "--network", self.network()].map(str::to_owned).into();
        let data_dir = self.request.raw_get(&["ipam", "dataDir"]).and_then(Value::as_str);
        args.extend(data_dir.into_iter().flat_map(|dir| ["--data-dir".to_owned(), dir.to_owned()]));
        let mut env = self.request.env.clone();
        env.retain(|name, _| !name.starts_with("CNI_"));
        let program = Program { path, args, env, stdin: b"", timeout: LIST_WAIT };
        let output = run(&program).map_err(fault::kernel)?;
        if !output.success {
            return Err(Error::new(Code::Io, "causeway-ipam show failed").details(output.stderr));
        }
        let leases: Vec<Lease> = serde_json::from_slice(&output.stdout)
            .map_err(|e| Error::caused(Code::Decode, "read what causeway-ipam show prints", &e))?;
        let own = leases
            .into_iter()
            .filter(|lease| lease.network == self.network() && !lease.ifname.is_empty());
        Ok(own
            .map(|Lease { network, container_id, ifname }| RecordKey {
                network,
                container_id,
                ifname,
            })
            .filter(|key| key != self.own)
            .collect())
    }

    fn network(&self) -> &str {
        &self.request.network
    }
}

/// Other plugins are asked by DEL, as the specification has it.
struct ByPrograms<'a> {
    /// About the attachment that is freed.
    request: &'a Request,
    /// causeway-service may have made rules for it.
    chained: bool,
}

impl Release for ByPrograms<'_> {
    fn rules(&mut self, _: &RecordKey) -> Result<(), Error> {
        match self.chained {
            true => Ipam { plugin: SERVICE, request: self.request }.del(),
            false => Ok(()),
        }
    }

    fn lease(&mut self, _: &RecordKey, record: Option<&Record>) -> Result<(), Error> {
        let configured = self.request.raw_get(&["ipam", "type"]).and_then(Value::as_str);
        let plugin = match record {
            Some(record) => Some(record.ipam.as_str()),
            None => configured,
        };
        match plugin {
            Some("") | None => Ok(()),
            Some(plugin) => Ipam { plugin, request: self.request }.del(),
        }
    }
}

/// Whether an IPAM plugin has no address left: causeway-ipam's own code; upstream's host-local has
/// this text only (plugins/ipam/host-local/backend/allocator/allocator.go).
fn is_exhausted(error: &Error) -> bool {
    error.code == Code::PoolExhausted || error.msg.contains("no IP addresses available")
}
