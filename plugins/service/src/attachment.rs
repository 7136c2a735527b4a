//! One attachment over its life: record, rules, `route_localnet`, UDP flows, and its endpoint.
//!
//! Order of ADD: record, rules, `route_localnet`, flows; so whatever kills us, DEL finds by the
//! record what may be there, and 127.0.0.0/8 is guarded before it is routed. The endpoint comes
//! last, when the container can serve, and goes first. One lock holds for all of it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use causeway_host::paths::kind;
use causeway_host::{FileLock, RecordKey, Records};
use causeway_model::EndpointRecord;
use causeway_ruleset::name;
use causeway_ruleset::owned::Placed;
use cni_plugin::{CniResult, Code, Error, Request};
use ipnetwork::IpNetwork;

use crate::conditions::Conditions;
use crate::config::{Backend, Daemon, Place, Settings};
use crate::endpoint::{self, Endpoint};
use crate::failure::{self, Collected, warn};
use crate::flows;
use crate::iptables::{self, Wanted};
use crate::layout;
use crate::localnet::{self, Localnet};
use crate::mapping::{Addresses, Binding};
use crate::nftables::{Owned, Rules};
use crate::plan::{ByFamily, Holder};
use crate::record::{self, Again, LOCK_WAIT, Masquerade, Record, RecordBackend};
use crate::{repair, turns};

/// An attachment and where its state is.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    run_dir: &'a Path,
    daemon: &'a Daemon,
    env: &'a BTreeMap<String, String>,
    records: Records,
    key: RecordKey,
    owner: String,
}

/// Host ports to map.
#[derive(Debug)]
pub(crate) struct Ports<'a> {
    /// How.
    pub settings: &'a Settings,
    /// Which; none is fine.
    pub bindings: Vec<Binding>,
    /// What the plugins before us made.
    pub previous: &'a CniResult,
    /// The container's addresses.
    pub addresses: &'a Addresses,
}

impl<'a> Attached<'a> {
    /// The attachment `key`; nothing is touched yet.
    pub(crate) fn new(
        run_dir: &'a Path,
        daemon: &'a Daemon,
        key: RecordKey,
        env: &'a BTreeMap<String, String>,
    ) -> Self {
        let owner = name::owner(&key.network, &key.container_id, &key.ifname);
        Self { run_dir, daemon, env, records: Records::new(run_dir, kind::SERVICE), key, owner }
    }

    /// Maps the host ports, but for those that the container has by another network (go-cni hands
    /// the same mappings to all networks of a container), then tells the daemon of `endpoint`.
    ///
    /// # Errors
    /// Code 102 if a port is taken, also by this attachment; those of [`Endpoint::add`]. Nothing
    /// is left behind then.
    pub(crate) fn add(&self, ports: Ports<'_>, endpoint: EndpointRecord) -> Result<(), Error> {
        let _attachment = self.lock()?;
        let mapped = self.add_ports(ports)?;
        let told = self.endpoint().add(endpoint);
        if told.is_err() {
            warn_of_undo(self.endpoint().remove());
            match mapped {
                Some(record) => self.undo(&record, true),
                None => self.forget_lock(),
            }
        } else if let Err(error) = repair::restore_where_flushed(self.run_dir, &self.key) {
            warn(&format!("host ports of other attachments are missing: {error}"));
        }
        told
    }

    /// The record, if there is one; a failure leaves nothing.
    fn add_ports(&self, ports: Ports<'_>) -> Result<Option<Record>, Error> {
        let Ports { settings, bindings, previous, addresses } = ports;
        if bindings.is_empty() {
            return Ok(None);
        }
        let mut record = new_record(settings, bindings, addresses);
        let saved = Cell::new(false);
        let done = self
            .write_rules(settings, &mut record, addresses, &saved)
            .and_then(|()| self.route_localhost(&record, previous, addresses));
        if let Err(error) = done {
            self.undo(&record, saved.get());
            return Err(error);
        }
        flows::forget_host_ports(&record.bindings);
        Ok(saved.get().then_some(record))
    }

    /// Removes all that the attachment owns; `in_iptables`: look there too if it has no record.
    pub(crate) fn remove(&self, in_iptables: bool) -> Result<(), Error> {
        let mut errors = Collected::default();
        // A state directory that cannot be written must not keep rules alive (row F23).
        let _attachment = match self.lock() {
            Err(error) if error.code == Code::TryAgainLater => return Err(error),
            other => errors.keep(other),
        };
        self.remove_locked(in_iptables, &mut errors);
        errors.finish()
    }

    /// Removes all that the attachment owns, if its namespace is proven to be gone. `None`: an
    /// operation on it runs right now, or nothing is proven.
    pub(crate) fn remove_dead(&self) -> Result<Option<()>, Error> {
        let _attachment = match self.records.lock(&self.key, Duration::ZERO) {
            Err(error) if error.is_transient() => return Ok(None),
            lock => lock.map_err(|e| failure::kernel("lock the attachment", &e))?,
        };
        if !self.endpoint().is_dead() {
            self.forget_lock();
            return Ok(None);
        }
        let mut errors = Collected::default();
        self.remove_locked(false, &mut errors);
        errors.finish().map(Some)
    }

    /// Compares rules with what the configuration wants; changes nothing.
    pub(crate) fn check(
        &self,
        settings: &Settings,
        bindings: Vec<Binding>,
        addresses: &Addresses,
    ) -> Result<(), Error> {
        let mut record = new_record(settings, bindings, addresses);
        let mut missing = self.missing(settings, &record, addresses)?;
        if !missing.is_empty() {
            let siblings = self.siblings_in_place()?;
            let recorded = self.records.read::<Record>(&self.key).ok().flatten();
            record.again.turn =
                recorded.map_or_else(|| turns::next(&siblings), |its| its.again.turn);
            let own = turns::in_force(&self.key, &record, &siblings);
            missing = self.missing(settings, &own, addresses)?;
        }
        differences(missing)
    }

    fn missing(
        &self,
        settings: &Settings,
        record: &Record,
        addresses: &Addresses,
    ) -> Result<Vec<String>, Error> {
        match &settings.backend {
            _ if record.bindings.is_empty() => Ok(Vec::new()),
            Backend::Nftables { .. } => {
                let mut rules = Rules::open()?;
                let chains = rules.damaged()?.into_iter().map(|chain| format!("chain {chain}"));
                let missing = rules.missing(self.owned(record))?;
                let element = |one: &Placed| format!("{:?} of {}", one.element.key, one.set.name);
                Ok(chains.chain(missing.iter().map(element)).collect())
            }
            Backend::Iptables(options) => {
                iptables::missing(self.env, &Wanted::new(&self.key, record, options, addresses))
            }
        }
    }

    /// Sets `saved` once the record is written, from where on there may be rules.
    fn write_rules(
        &self,
        settings: &Settings,
        record: &mut Record,
        addresses: &Addresses,
        saved: &Cell<bool>,
    ) -> Result<(), Error> {
        let _rules = self.lock_rules()?;
        self.refuse_second()?;
        let save = || self.save_first(record, saved);
        match self.write_rules_locked(settings, record, addresses, save) {
            Err(error) if error.code == Code::PortInUse => {
                let siblings = self.siblings_in_place()?;
                record.again.turn = turns::next(&siblings);
                let own = turns::in_force(&self.key, record, &siblings);
                if own.bindings.len() == record.bindings.len() {
                    return Err(error);
                }
                let save = || self.save_first(record, saved);
                match own.bindings.is_empty() {
                    true => save(),
                    false => self.write_rules_locked(settings, &own, addresses, save),
                }
            }
            done => done,
        }
    }

    /// The container's other attachments whose rules are there.
    fn siblings_in_place(&self) -> Result<Vec<(RecordKey, Record)>, Error> {
        let all = repair::siblings(&self.records, &self.key);
        let mut there = Vec::new();
        for (key, record) in &all {
            let own = turns::in_force(key, record, &all);
            if !record.again.leaving && self.is_in_place(key, &own)? {
                there.push((key.clone(), record.clone()));
            }
        }
        Ok(there)
    }

    fn is_in_place(&self, key: &RecordKey, record: &Record) -> Result<bool, Error> {
        match record.backend {
            RecordBackend::Nftables => {
                let owner = name::owner(&key.network, &key.container_id, &key.ifname);
                let missing = Rules::open()?.missing(Owned { record, owner: &owner })?;
                Ok(missing.is_empty())
            }
            _ if record.bindings.is_empty() => Ok(true),
            RecordBackend::Iptables => iptables::holds(self.env, key, &families(record)),
        }
    }

    /// Notes what ADD promised. There may be rules from then on.
    fn save_first(&self, record: &Record, saved: &Cell<bool>) -> Result<(), Error> {
        saved.set(true);
        self.save(record)
    }

    /// Writes the rules of `own`, the part of an attachment's record that is in force; before them
    /// `save` writes the record.
    fn write_rules_locked(
        &self,
        settings: &Settings,
        own: &Record,
        addresses: &Addresses,
        save: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &settings.backend {
            Backend::Nftables { v4, v6 } => {
                let conditions = ByFamily { v4: v4.as_ref(), v6: v6.as_ref() };
                Rules::open()?.add(self.owned(own), conditions, save)
            }
            Backend::Iptables(options) => {
                let wanted = Wanted::new(&self.key, own, options, addresses);
                iptables::add(self.env, &wanted, save)
            }
        }
    }

    /// After a failed ADD, whose error is the one to report. Before the record was written nothing
    /// of ours was there, or all of it belongs to an earlier ADD.
    fn undo(&self, record: &Record, saved: bool) {
        if saved {
            warn_of_undo(self.remove_record(record));
        } else {
            self.forget_lock();
        }
    }

    /// Removes what the lock left, if nothing else is.
    fn forget_lock(&self) {
        if matches!(self.records.read::<Record>(&self.key), Ok(None)) {
            drop(self.forget());
        }
    }

    fn remove_locked(&self, in_iptables: bool, errors: &mut Collected) {
        errors.keep(self.endpoint().remove());
        let read = self.records.read::<Record>(&self.key);
        let read = read.map_err(|e| failure::kernel("read the attachment's record", &e));
        let removed = match read {
            Ok(Some(record)) => self.remove_record(&record),
            Ok(None) => self.remove_unrecorded(in_iptables, || {
                // There is only what the lock left.
                drop(self.forget());
                Ok(())
            }),
            Err(error) => {
                warn(&format!("{error}; looking for its rules instead"));
                self.remove_unrecorded(in_iptables, || self.forget())
            }
        };
        errors.extend(removed.err());
    }

    fn remove_record(&self, record: &Record) -> Result<(), Error> {
        let mut errors = Collected::default();
        {
            let _rules = match self.lock_rules() {
                Err(error) if error.code == Code::TryAgainLater => return Err(error),
                other => errors.keep(other),
            };
            let leaving =
                Record { again: Again { leaving: true, ..record.again.clone() }, ..record.clone() };
            // If we are killed, nobody writes again what is gone. A full disk keeps no rules alive.
            drop(self.save(&leaving));
            let heirs = self.heirs(record);
            let localnet = self.localnet(record);
            match record.backend {
                RecordBackend::Nftables => {
                    errors.extend(localnet.release(layout::short(&self.owner)));
                    let holder = |(key, record)| Holder::new(key, record);
                    let heirs: Vec<Holder> = heirs.into_iter().filter_map(holder).collect();
                    Rules::open()?.remove(self.owned(record), &heirs)?;
                }
                RecordBackend::Iptables => {
                    let heirs: Vec<Wanted> =
                        heirs.iter().map(|(key, record)| repair::wanted(key, record)).collect();
                    let families = families(record);
                    iptables::remove(self.env, &self.key, &families, &localnet, &heirs)?;
                }
            }
            errors.keep(self.forget());
            errors.keep(remove_unused(self.run_dir, &self.records));
        }
        flows::forget_containers(&record.bindings);
        errors.finish()
    }

    /// The container's other attachments that carry out mappings of `record` once it is gone.
    fn heirs(&self, record: &Record) -> Vec<(RecordKey, Record)> {
        let all = repair::siblings(&self.records, &self.key);
        let own = |(key, its): &(RecordKey, Record)| (key.clone(), turns::in_force(key, its, &all));
        let inherits = |its: &Record| {
            its.backend == record.backend
                && !its.again.leaving
                && its.bindings.iter().any(|one| record.bindings.iter().any(|b| b.overlaps(one)))
        };
        all.iter().map(own).filter(|(_, its)| inherits(its)).collect()
    }

    fn remove_unrecorded(
        &self,
        in_iptables: bool,
        forget: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _rules = self.lock_rules();
        let mut rules = Rules::open_if_supported()?;
        let may_be_there = match &mut rules {
            Some(rules) => rules.may_be_in_iptables(&iptables::chain(&self.key))?,
            // A kernel without nf_tables has the older one, if any.
            None => true,
        };
        // What upstream's portmap made before we took its place has no record either (row F28).
        if in_iptables || may_be_there {
            let localnet = Localnet::new(self.run_dir, "iptables");
            iptables::remove_unrecorded(self.env, &self.key, &localnet)?;
        }
        let localnet = Localnet::new(self.run_dir, "nftables");
        let remove = |mut rules: Rules| rules.remove_unrecorded(&self.owner, &localnet);
        let removed = rules.map(remove).transpose()?;
        let forgotten = forget();
        if removed == Some(true) {
            remove_unused(self.run_dir, &self.records)?;
        }
        forgotten
    }

    fn refuse_second(&self) -> Result<(), Error> {
        let read = self.records.read::<Record>(&self.key);
        // A damaged record is written again; rules that it hides are found as conflicts.
        let Ok(Some(record)) = read else { return Ok(()) };
        let holds = match record.backend {
            RecordBackend::Nftables => Rules::open()?.holds(self.owned(&record))?,
            RecordBackend::Iptables => iptables::holds(self.env, &self.key, &families(&record))?,
        };
        let siblings = || repair::siblings(&self.records, &self.key);
        let waits = || turns::in_force(&self.key, &record, &siblings()).bindings.is_empty();
        if !holds && (record.bindings.is_empty() || !waits()) {
            return Ok(());
        }
        let RecordKey { network, container_id, ifname } = &self.key;
        let msg = format!(
            "container {container_id} already has host ports on {network} through {ifname}; send \
             DEL before another ADD"
        );
        Err(Error::new(Code::PortInUse, msg))
    }

    fn route_localhost(
        &self,
        record: &Record,
        previous: &CniResult,
        addresses: &Addresses,
    ) -> Result<(), Error> {
        let Some(IpNetwork::V4(address)) = addresses.v4 else { return Ok(()) };
        let mapped = record.bindings.iter().any(|binding| binding.target.is_ipv4());
        if record.masquerade == Masquerade::Nothing || !mapped {
            return Ok(());
        }
        let Some(link) = localnet::link_to(previous, address.ip())? else { return Ok(()) };
        let _rules = self.lock_rules()?;
        let chain = iptables::chain(&self.key);
        let mark = match record.backend {
            RecordBackend::Nftables => layout::short(&self.owner),
            RecordBackend::Iptables => &chain,
        };
        self.localnet(record).enable(&link, mark, || endpoint::answers(self.daemon))
    }

    fn localnet(&self, record: &Record) -> Localnet {
        Localnet::new(
            self.run_dir,
            match record.backend {
                RecordBackend::Nftables => "nftables",
                RecordBackend::Iptables => "iptables",
            },
        )
    }

    fn endpoint(&self) -> Endpoint<'_> {
        Endpoint::new(self.run_dir, self.daemon, &self.key)
    }

    fn owned<'r>(&'r self, record: &'r Record) -> Owned<'r> {
        Owned { record, owner: &self.owner }
    }

    fn save(&self, record: &Record) -> Result<(), Error> {
        let msg = "record the attachment";
        self.records.write(&self.key, record).map_err(|e| failure::kernel(msg, &e))
    }

    fn forget(&self) -> Result<(), Error> {
        let msg = "remove the attachment's record";
        self.records.remove(&self.key).map_err(|e| failure::kernel(msg, &e))
    }

    fn lock(&self) -> Result<FileLock, Error> {
        let msg = "wait for another operation on this attachment";
        let lock = self.records.lock(&self.key, LOCK_WAIT);
        // If we are killed, the next operation waits for the iptables-restore that we started.
        lock.and_then(FileLock::share_with_children).map_err(|e| failure::kernel(msg, &e))
    }

    fn lock_rules(&self) -> Result<FileLock, Error> {
        record::lock_rules(self.run_dir)
    }
}

/// GC: removes what belongs to the network of `request` and to none of the valid attachments. An
/// attachment that is being worked on right now is newer than the list, and stays (row F46).
pub(crate) fn collect(place: &Place, request: &Request, errors: &mut Collected) {
    let network = &request.network;
    let records = Records::new(&place.run_dir, kind::SERVICE);
    let list = || records.list(network).map_err(|e| failure::kernel("list the records", &e));
    let valid: BTreeSet<(&str, &str)> = request
        .valid_attachments
        .iter()
        .map(|one| (one.container_id.as_str(), one.ifname.as_str()))
        .collect();
    let mut listed = BTreeSet::new();
    listed.extend(errors.keep(list()).into_iter().flat_map(|(keys, _)| keys));
    listed.extend(errors.keep(endpoints(place, network)).into_iter().flatten());
    let is_valid =
        |key: &RecordKey| valid.contains(&(key.container_id.as_str(), key.ifname.as_str()));
    // Asked of all before the first is removed: an ADD may have ended when its turn comes.
    let stale: Vec<RecordKey> =
        listed.into_iter().filter(|key| !is_valid(key) && !records.is_busy(key)).collect();
    for key in stale {
        let attached = Attached::new(&place.run_dir, &place.daemon, key, &request.env);
        match records.lock(&attached.key, Duration::ZERO) {
            Err(busy) if busy.is_transient() => {}
            // Held, or not to be had on a read-only file system.
            _lock => attached.remove_locked(false, errors),
        }
    }
    errors.extend(sweep(place, request, &valid, list).err());
}

fn endpoints(place: &Place, network: &str) -> Result<Vec<RecordKey>, Error> {
    let listed = Records::new(&place.run_dir, kind::ENDPOINT).list(network);
    listed.map(|(keys, _)| keys).map_err(|e| failure::kernel("list the endpoints' records", &e))
}

/// Rules of the network without record: the records were lost.
fn sweep(
    place: &Place,
    request: &Request,
    valid: &BTreeSet<(&str, &str)>,
    list: impl Fn() -> Result<(Vec<RecordKey>, Vec<causeway_kernel::Error>), Error>,
) -> Result<(), Error> {
    let Request { network, env, .. } = request;
    let _rules = record::lock_rules(&place.run_dir);
    let (recorded, unreadable) = list()?;
    if let Some(error) = unreadable.first() {
        // Whose rules these are cannot be told: none is removed.
        return Err(failure::kernel("read the records of the network", error));
    }
    let valid = valid.iter().map(|(id, ifname)| RecordKey {
        network: network.to_owned(),
        container_id: (*id).to_owned(),
        ifname: (*ifname).to_owned(),
    });
    let kept: Vec<RecordKey> = recorded.into_iter().chain(valid).collect();
    let owner = |key: &RecordKey| name::owner(&key.network, &key.container_id, &key.ifname);
    let owners: BTreeSet<String> = kept.iter().map(owner).collect();
    let prefix = name::owner_network_prefix(network);
    if place.iptables {
        let localnet = Localnet::new(&place.run_dir, "iptables");
        iptables::sweep(env, network, &kept, &localnet)?;
    }
    let is_stale = |owner: &str| owner.starts_with(&prefix) && !owners.contains(owner);
    let Some(mut rules) = Rules::open_if_supported()? else { return Ok(()) };
    if rules.sweep(is_stale, &Localnet::new(&place.run_dir, "nftables"))? {
        remove_unused(&place.run_dir, &Records::new(&place.run_dir, kind::SERVICE))?;
    }
    Ok(())
}

/// Removes our table if no attachment is left. Records say so cheaply; the rules have the last
/// word, for records may have been lost.
fn remove_unused(run_dir: &Path, records: &Records) -> Result<(), Error> {
    if matches!(records.is_empty(), Ok(false)) {
        return Ok(());
    }
    let Some(mut rules) = Rules::open_if_supported()? else { return Ok(()) };
    rules.remove_unused(|| Localnet::new(run_dir, "nftables").disable_all())
}

fn new_record(settings: &Settings, bindings: Vec<Binding>, addresses: &Addresses) -> Record {
    let mut again = Again {
        addresses: addresses.v4.into_iter().chain(addresses.v6).collect(),
        ..Again::default()
    };
    let id = |conditions: &Conditions| conditions.id().to_owned();
    let words = |conditions: &Conditions| conditions.words().to_vec();
    let (backend, v4, v6) = match &settings.backend {
        Backend::Nftables { v4, v6 } => {
            again.conditions_v4 = v4.as_ref().map(words).unwrap_or_default();
            again.conditions_v6 = v6.as_ref().map(words).unwrap_or_default();
            (RecordBackend::Nftables, v4.as_ref(), v6.as_ref())
        }
        Backend::Iptables(options) => {
            again.conditions_v4.clone_from(&options.conditions_v4);
            again.conditions_v6.clone_from(&options.conditions_v6);
            again.mark = Some(options.mark.clone());
            (RecordBackend::Iptables, None, None)
        }
    };
    Record {
        backend,
        bindings,
        masquerade: settings.masquerade,
        conditions_v4: v4.map(id),
        conditions_v6: v6.map(id),
        again,
    }
}

/// The families with mappings (true: IPv6).
fn families(record: &Record) -> Vec<bool> {
    let has = |ipv6: &bool| record.bindings.iter().any(|one| one.target.is_ipv6() == *ipv6);
    [false, true].into_iter().filter(has).collect()
}

fn differences(missing: Vec<String>) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    let msg = format!("{} of the host ports' rules are missing or differ", missing.len());
    Err(Error::new(Code::Internal, msg).details(missing.join("; ")))
}

/// The error of a failed ADD is the one to report.
fn warn_of_undo(undone: Result<(), Error>) {
    if let Err(error) = undone {
        warn(&format!("the failed ADD could not be undone completely: {error}"));
    }
}
