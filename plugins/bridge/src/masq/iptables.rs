//! The iptables backend: upstream's chain, rules and comments, which other programs read (nerdctl
//! looks for them after a DEL).
//!
//! Each operation reads once with `iptables-save` and writes once with `iptables-restore
//! --noflush`, so either all of it is there or nothing. Upstream's chain is of network and
//! container id: the attachments of one container to one network share it, and the last one takes
//! it away (row C62). What was asked for stands in records of its own, written before the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use causeway_host::{RecordKey, Records};
use causeway_kernel::{Iptables, IptablesError};
use cni_plugin::{Code, Error};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};

use super::{Masquerade, exclusions};
use crate::{fault, rules};

const KIND: &str = "masq-iptables";
/// How often to read and write again, each time because another process was faster.
const TRIES: usize = 16;
/// A hung program is ended after this long.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest comment of the comment match (`XT_MAX_COMMENT_LEN` of linux/netfilter/xt_comment.h).
const COMMENT_LENGTH: usize = 255;

/// What one attachment has asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    addresses: Vec<IpNetwork>,
    exclude: Vec<IpNetwork>,
}

/// See [`super::add`].
pub(super) fn add(wanted: &Masquerade<'_>) -> Result<(), Error> {
    let _lock = rules::lock(wanted.run_dir)?;
    let records = Records::new(wanted.run_dir, KIND);
    let own = kept(wanted);
    let tools = tools(&own)?;
    records.write(wanted.key, &own).map_err(|e| state(&e))?;
    let mut all = siblings(&records, wanted.key)?;
    all.push(own);
    for tool in tools {
        tool.make(&Names::of(wanted.key), &all)?;
    }
    Ok(())
}

/// Takes back what [`add`] did for `key`, and says whether it ever did.
pub(super) fn remove(run_dir: &Path, key: &RecordKey) -> Result<bool, Error> {
    let records = Records::new(run_dir, KIND);
    if matches!(records.read::<Kept>(key), Ok(None)) {
        return Ok(false);
    }
    let _lock = rules::lock(run_dir)?;
    let own = match records.read::<Kept>(key) {
        Ok(Some(own)) => own,
        Ok(None) => return Ok(true),
        // The names of its rules do not hang on it.
        Err(error) => {
            fault::warn(&format!("{error}: damaged; continuing without it"));
            Kept::default()
        }
    };
    let others = siblings(&records, key)?;
    for ipv6 in [false, true] {
        let concerned = own.addresses.iter().any(|address| address.is_ipv6() == ipv6);
        if !concerned && !own.addresses.is_empty() {
            continue;
        }
        match Tool::find(ipv6) {
            Ok(tool) => tool.unmake(&Names::of(key), &own, &others)?,
            // Whoever removed the program cannot want its rules back (row F36).
            Err(error) => fault::warn(&error),
        }
    }
    records.remove(key).map_err(|e| state(&e))?;
    Ok(true)
}

/// Removes what upstream's bridge made for `key` before we took its place, which stands in no
/// record (row F28). The rules of our own attachments of the same container and network stay.
pub(super) fn remove_upstreams(run_dir: &Path, key: &RecordKey) -> Result<(), Error> {
    let names = Names::of(key);
    let mut client = rules::deleting_client()?;
    for ipv6 in [false, true] {
        let there = client.as_mut().map(|it| it.may_have_iptables_chain(ipv6, &names.chain));
        // A kernel without nf_tables has the older one, if any.
        if !there.unwrap_or(Ok(true)).map_err(|e| rules::refused(&e))? {
            continue;
        }
        let _lock = rules::lock(run_dir)?;
        let others = siblings(&Records::new(run_dir, KIND), key)?;
        match Tool::find(ipv6) {
            Ok(tool) => tool.unmake(&names, &Kept::default(), &others)?,
            Err(error) => fault::warn(&error),
        }
    }
    Ok(())
}

/// See [`super::check`].
pub(super) fn check(wanted: &Masquerade<'_>) -> Result<(), Error> {
    let own = kept(wanted);
    let names = Names::of(wanted.key);
    for tool in tools(&own)? {
        let saved = tool.saved()?;
        let wanted = tool.jumps(&names, &own).into_iter().chain(tool.chain(&names, [&own]));
        if let Some(missing) = wanted.into_iter().find(|line| !saved.contains(line)) {
            return Err(rules::differs(format!(
                "ipMasq: {} of table nat has no rule {missing}: another process removed it",
                tool.0.name()
            )));
        }
    }
    Ok(())
}

/// See [`super::gc`].
pub(super) fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let (keys, unreadable) = Records::new(run_dir, KIND).list(network).map_err(|e| state(&e))?;
    let mut errors: Vec<Error> = unreadable.iter().map(state).collect();
    for key in keys.iter().filter(|key| !keep(&rules::owner(key))) {
        errors.extend(remove(run_dir, key).err());
    }
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// The attachments that have rules here. What cannot be read is left out.
pub(super) fn all(run_dir: &Path) -> BTreeSet<RecordKey> {
    let all = Records::new(run_dir, KIND).readable_in_part::<Kept>();
    all.into_iter().map(|(key, _)| key).collect()
}

/// See [`super::restore_iptables`].
pub(super) fn restore(
    run_dir: &Path,
    alive: &dyn Fn(&RecordKey) -> bool,
    write: bool,
) -> Result<BTreeSet<RecordKey>, Error> {
    let all = Records::new(run_dir, KIND).readable::<Kept>().map_err(|e| state(&e))?;
    // The attachments of one container to one network share a chain.
    let mut chains: BTreeMap<(String, String), Vec<(RecordKey, Kept)>> = BTreeMap::new();
    for (key, kept) in all.into_iter().filter(|(key, _)| alive(key)) {
        let shared = (key.network.clone(), key.container_id.clone());
        chains.entry(shared).or_default().push((key, kept));
    }
    let mut lacking = BTreeSet::new();
    for ipv6 in [false, true] {
        let of_family = |(_, kept): &(RecordKey, Kept)| {
            kept.addresses.iter().any(|address| address.is_ipv6() == ipv6)
        };
        if !chains.values().flatten().any(of_family) {
            continue;
        }
        let tool = Tool::find(ipv6)?;
        let saved = tool.saved()?;
        let there: BTreeSet<&str> = saved.iter().map(String::as_str).collect();
        let mut lines = Vec::new();
        for attached in chains.values().filter(|attached| attached.iter().any(of_family)) {
            let Some((key, _)) = attached.first() else { continue };
            let names = Names::of(key);
            let chain = tool.chain(&names, attached.iter().map(|(_, kept)| kept));
            let mut jumps: Vec<String> =
                attached.iter().flat_map(|(_, kept)| tool.jumps(&names, kept)).collect();
            jumps.retain(|jump| !there.contains(jump.as_str()));
            if jumps.is_empty() && chain.iter().all(|rule| there.contains(rule.as_str())) {
                continue;
            }
            lacking.extend(attached.iter().map(|(key, _)| key.clone()));
            lines.push(format!(":{} - [0:0]", names.chain));
            lines.extend(chain.into_iter().chain(jumps));
        }
        if write && !lines.is_empty() {
            tool.restore(&lines)?;
        }
    }
    Ok(lacking)
}

fn kept(wanted: &Masquerade<'_>) -> Kept {
    Kept { addresses: wanted.addresses.to_vec(), exclude: wanted.exclude.to_vec() }
}

/// What the other attachments of the same container to the same network have asked for.
fn siblings(records: &Records, key: &RecordKey) -> Result<Vec<Kept>, Error> {
    let (keys, _) = records.list(&key.network).map_err(|e| state(&e))?;
    let others = keys
        .iter()
        .filter(|other| other.container_id == key.container_id && other.ifname != key.ifname);
    let read = others.map(|other| records.read::<Kept>(other).map_err(|e| state(&e)));
    Ok(read.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn state(error: &causeway_kernel::Error) -> Error {
    Error::caused(Code::Io, "ipMasq: the record of its rules cannot be used", error)
}

/// Upstream's names for a container on a network.
struct Names {
    chain: String,
    /// As it appears in the programs' output, without the quotes around it.
    comment: String,
}

impl Names {
    fn of(key: &RecordKey) -> Self {
        let hash = Sha512::digest(format!("{}{}", key.network, key.container_id));
        let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let mut comment = format!(r#"name: "{}" id: "{}""#, key.network, key.container_id);
        // Network names and ids are ASCII.
        comment.truncate(COMMENT_LENGTH);
        Self { chain: format!("CNI-{hex}"), comment: comment.replace('"', "\\\"") }
    }
}

/// The programs of one family.
struct Tool(Iptables);

/// The programs of the families that `own` has addresses of.
fn tools(own: &Kept) -> Result<Vec<Tool>, Error> {
    let families: BTreeSet<bool> = own.addresses.iter().map(IpNetwork::is_ipv6).collect();
    families.into_iter().map(Tool::find).collect()
}

impl Tool {
    fn find(ipv6: bool) -> Result<Self, Error> {
        Iptables::find("", ipv6, TIMEOUT).map(Self).map_err(failed)
    }

    /// Makes the chain hold what `all` ask for, and has their addresses led there.
    fn make(&self, names: &Names, all: &[Kept]) -> Result<(), Error> {
        self.change(|saved| {
            let mut lines = vec![format!(":{} - [0:0]", names.chain)];
            lines.extend(self.chain(names, all));
            let jumps = all.iter().flat_map(|kept| self.jumps(names, kept));
            lines.extend(jumps.filter(|jump| !saved.contains(jump)));
            lines
        })
    }

    /// Removes what leads `own` addresses to the chain, and the chain with its last user.
    fn unmake(&self, names: &Names, own: &Kept, others: &[Kept]) -> Result<(), Error> {
        let leads = format!(" -j {}", names.chain);
        let staying: Vec<String> = others.iter().flat_map(|kept| self.jumps(names, kept)).collect();
        self.change(|saved| {
            if !saved.iter().any(|line| line.starts_with(&format!(":{} ", names.chain))) {
                return Vec::new();
            }
            let mut lines = vec![format!(":{} - [0:0]", names.chain)];
            let jumps = saved
                .iter()
                .filter(|line| line.starts_with("-A ") && line.ends_with(&leads))
                .filter(|line| staying.is_empty() || self.jumps(names, own).contains(line))
                .filter(|line| !staying.contains(line))
                .map(|line| line.replacen("-A ", "-D ", 1));
            lines.extend(jumps);
            if staying.is_empty() {
                lines.push(format!("-X {}", names.chain));
            } else {
                lines.extend(self.chain(names, others));
            }
            lines
        })
    }

    /// Reads the table and writes what follows from it.
    fn change(&self, lines: impl Fn(&[String]) -> Vec<String>) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            match self.restore(&lines(&self.saved()?)) {
                // Another program may have removed what was just read.
                Err(error) if error.code == Code::Io && attempt < TRIES => attempt += 1,
                result => return result,
            }
        }
    }

    /// The rules of the chain, as `iptables-save` prints them.
    fn chain<'a>(&self, names: &Names, all: impl IntoIterator<Item = &'a Kept>) -> Vec<String> {
        let Names { chain, comment } = names;
        let multicast = if self.0.is_ipv6() { "ff00::/8" } else { "224.0.0.0/4" };
        let mut nets = BTreeSet::new();
        for kept in all {
            nets.extend(exclusions(&kept.addresses, &kept.exclude));
        }
        let keep = nets
            .into_iter()
            .filter(|net| net.is_ipv6() == self.0.is_ipv6() && net.to_string() != multicast);
        let mut lines: Vec<String> = keep
            .map(|net| {
                // A destination of all addresses is not printed.
                let to = if net.prefix() == 0 { String::new() } else { format!("-d {net} ") };
                format!("-A {chain} {to}-m comment --comment \"{comment}\" -j ACCEPT")
            })
            .collect();
        lines.push(format!(
            "-A {chain} ! -d {multicast} -m comment --comment \"{comment}\" -j MASQUERADE"
        ));
        lines
    }

    /// The rules that lead the addresses of `kept` to the chain.
    fn jumps(&self, names: &Names, kept: &Kept) -> Vec<String> {
        let Names { chain, comment } = names;
        let bits = if self.0.is_ipv6() { 128 } else { 32 };
        let own = kept.addresses.iter().filter(|address| address.is_ipv6() == self.0.is_ipv6());
        own.map(|address| {
            let ip = address.ip();
            format!("-A POSTROUTING -s {ip}/{bits} -m comment --comment \"{comment}\" -j {chain}")
        })
        .collect()
    }

    /// The lines of table nat.
    fn saved(&self) -> Result<Vec<String>, Error> {
        let text = self.0.save(Some("nat")).map_err(failed)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn restore(&self, lines: &[String]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        self.0.restore(&format!("*nat\n{}\nCOMMIT\n", lines.join("\n"))).map_err(failed)
    }
}

fn failed(error: IptablesError) -> Error {
    match error {
        IptablesError::Missing { program, path } => Error::new(
            Code::Io,
            format!(
                "ipMasqBackend \"iptables\" needs the program {program}, which is not in {path}: \
                 install it, or set ipMasqBackend to \"nftables\""
            ),
        ),
        IptablesError::Run { program, source } => {
            let msg = format!("ipMasq: {} cannot be run", program.display());
            Error::caused(Code::Io, msg, &source)
        }
        IptablesError::TimedOut { program, stderr } | IptablesError::Locked { program, stderr } => {
            let msg = format!(
                "ipMasq: {} did not get the xtables lock in time; try again",
                program.display()
            );
            Error::new(Code::TryAgainLater, msg).details(stderr)
        }
        IptablesError::Failed { program, stderr } => {
            let msg = format!(
                "ipMasq: {} refused the rules; set ipMasqBackend to \"nftables\" if this kernel \
                 has no iptables",
                program.display()
            );
            Error::new(Code::Io, msg).details(stderr)
        }
    }
}
