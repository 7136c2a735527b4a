//! The iptables backend: upstream portmap's chains, rules and comments, which other programs read
//! (nerdctl finds used ports and checks chains by them).
//!
//! An operation reads once with `iptables-save` and writes once with `iptables-restore --noflush`,
//! so either all of it is there or nothing. The wait for the xtables lock is bounded.
//!
//! Upstream's base chains stay when the last attachment goes, as they do with upstream: its portmap
//! may use them for other networks.

mod save;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use causeway_host::RecordKey;
use causeway_kernel::{Output, Program};
use cni_plugin::{Code, Error};

use crate::attachment::warn;
use crate::localnet::Localnet;
use crate::nftables::port_in_use;
use save::Saved;
pub(crate) use text::{Rules, Wanted};

type Env = BTreeMap<String, String>;

/// How long `iptables-restore` waits for the xtables lock.
const LOCK_SECONDS: u32 = 5;
/// A hung program is ended after this long.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How often an operation starts again when another process changed what it had read.
const ATTEMPTS: u32 = 16;
/// Exit status for a resource problem: the lock was not to be had.
const RESOURCE_PROBLEM: i32 = 4;
/// Where the programs are on systems whose `PATH` for the runtime is short.
const FALLBACK_PATH: &str = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin";

/// Adds an attachment's chains. `save` is called once it is known to be free of conflicts.
///
/// # Errors
/// Code 102 naming port, protocol and owner; 5 naming a missing program; 11 after waiting for the
/// xtables lock; what `save` says. Rules of one family may be in place then.
pub(crate) fn add(
    env: &Env,
    wanted: &Wanted,
    save: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let families: Vec<(Tool, &Rules)> = wanted
        .families()
        .map(|rules| Tool::find(env, rules.ipv6).map(|tool| (tool, rules)))
        .collect::<Result<_, _>>()?;
    for (tool, rules) in &families {
        refuse(&tool.read()?, rules)?;
    }
    save()?;
    for (tool, rules) in &families {
        tool.change(|saved| refuse(saved, rules).map(|()| text::add(rules, saved)))?;
    }
    Ok(())
}

/// Removes the chains of an attachment from `families` (true: IPv6), then switches `route_localnet`
/// off if nothing relies on it; everywhere, before the guard goes, once no attachment is left in
/// IPv4. The guard stays if that fails. `heirs` carry out more once it is gone: in one transaction.
pub(crate) fn remove(
    env: &Env,
    key: &RecordKey,
    families: &[bool],
    localnet: &Localnet,
    heirs: &[Wanted],
) -> Result<(), Error> {
    remove_named(env, &text::Names::of(key), families, localnet, heirs)
}

/// As [`remove`], for an attachment without record, whose bookkeeping may be lost as well.
pub(crate) fn remove_unrecorded(
    env: &Env,
    key: &RecordKey,
    localnet: &Localnet,
) -> Result<(), Error> {
    let names = text::Names::of(key);
    if let Ok(saved) = Tool::find(env, false).and_then(|tool| tool.read())
        && saved.has_chain("nat", &names.chain)
    {
        localnet.adopt(saved.localhost_targets());
    }
    remove_named(env, &names, &[false, true], localnet, &[])
}

/// Puts in place what of `wanted` is missing, or only looks (`write` false). Returns the places in
/// `wanted` that lacked something. A host port that another attachment maps meanwhile stays its own.
pub(crate) fn restore(env: &Env, wanted: &[Wanted], write: bool) -> Result<BTreeSet<usize>, Error> {
    let mut all = BTreeSet::new();
    for ipv6 in [false, true] {
        let own =
            |(place, wanted): (usize, &'_ Wanted)| Some((place, wanted.family(ipv6)?.clone()));
        let own: Vec<(usize, Rules)> = wanted.iter().enumerate().filter_map(own).collect();
        if own.is_empty() {
            continue;
        }
        let tool = Tool::find(env, ipv6)?;
        let saved = tool.read()?;
        let lacking = own.into_iter().filter(|(_, rules)| !text::again(rules, &saved).is_empty());
        let lacking: Vec<(usize, Rules)> = lacking.collect();
        all.extend(lacking.iter().map(|(place, _)| *place));
        let Some(((_, first), rest)) = lacking.split_first().filter(|_| write) else { continue };
        // The base chains come with the first one.
        tool.change(|saved| Ok(text::again(first, saved)))?;
        let again =
            |saved: &Saved| rest.iter().map(|(_, rules)| text::again(rules, saved)).collect();
        tool.change(|saved| Ok(text::merged(again(saved))))?;
    }
    Ok(all)
}

fn remove_named(
    env: &Env,
    names: &text::Names,
    families: &[bool],
    localnet: &Localnet,
    heirs: &[Wanted],
) -> Result<(), Error> {
    let mut left = !families.contains(&false) || !heirs.is_empty();
    for &ipv6 in families {
        let tool = match Tool::find(env, ipv6) {
            Ok(tool) => tool,
            // Whoever removed the program cannot want its rules back (row F36).
            Err(error) => {
                warn(&error.msg);
                continue;
            }
        };
        let change = |saved: &Saved| {
            let heirs = heirs.iter().filter_map(|heir| heir.family(ipv6));
            let heirs = heirs.map(|rules| text::again_without(rules, saved, names));
            text::merged(std::iter::once(text::remove(names, saved)).chain(heirs).collect())
        };
        let after = match tool.change(|saved| Ok(change(saved))) {
            // No IPv6 in this kernel: no rules either.
            Err(error) if ipv6 && error.code == Code::Io => {
                warn(&error.to_string());
                continue;
            }
            after => after?,
        };
        left |= !ipv6 && after.other_attachments(names);
    }
    let released = localnet.release(&names.chain).into_iter().next();
    if left {
        return released.map_or(Ok(()), Err);
    }
    match localnet.disable_all().into_iter().next() {
        Some(error) => Err(error),
        None => remove_guard(env),
    }
}

/// Removes the chains of `network`'s attachments that are not among `kept`: for GC. Recognised by the
/// comment, which upstream's portmap writes too.
pub(crate) fn sweep(
    env: &Env,
    network: &str,
    kept: &[RecordKey],
    localnet: &Localnet,
) -> Result<(), Error> {
    let kept: Vec<text::Names> = kept.iter().map(text::Names::of).collect();
    for ipv6 in [false, true] {
        let Ok(tool) = Tool::find(env, ipv6) else { continue };
        let saved = match tool.read() {
            Err(_) if ipv6 => continue,
            saved => saved?,
        };
        let mut stale = saved.attachments(network);
        stale.retain(|names| !kept.contains(names));
        if !ipv6 && !stale.is_empty() {
            localnet.adopt(saved.localhost_targets());
        }
        for names in &stale {
            remove_named(env, names, &[ipv6], localnet, &[])?;
        }
    }
    Ok(())
}

/// The chain of an attachment, which upstream's portmap names alike.
pub(crate) fn chain(key: &RecordKey) -> String {
    text::Names::of(key).chain
}

/// What of `wanted` is absent or differs.
pub(crate) fn missing(env: &Env, wanted: &Wanted) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for rules in wanted.families() {
        let saved = Tool::find(env, rules.ipv6)?.read()?;
        missing.extend(text::missing(rules, &saved));
    }
    Ok(missing)
}

/// Whether a chain of the attachment is there in one of `families` (true: IPv6).
pub(crate) fn holds(env: &Env, key: &RecordKey, families: &[bool]) -> Result<bool, Error> {
    let names = text::Names::of(key);
    for &ipv6 in families {
        let Ok(tool) = Tool::find(env, ipv6) else { continue };
        // ip6tables fails if the kernel has no IPv6.
        let saved = match tool.read() {
            Err(_) if ipv6 => continue,
            saved => saved?,
        };
        if saved.has_chain("nat", &names.chain) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the programs are there.
pub(crate) fn probe(env: &Env) -> Result<(), Error> {
    Tool::find(env, false).map(drop)
}

fn remove_guard(env: &Env) -> Result<(), Error> {
    let Ok(tool) = Tool::find(env, false) else { return Ok(()) };
    tool.change(|saved| Ok(text::remove_guard(saved))).map(drop)
}

fn refuse(saved: &Saved, rules: &Rules) -> Result<(), Error> {
    match saved.owner_of_port(rules) {
        Some((binding, owner)) => {
            Err(port_in_use(&binding.host_side(), &rules.names.comment, &owner))
        }
        None => Ok(()),
    }
}

/// `iptables-save` and `iptables-restore` of one family.
#[derive(Debug)]
struct Tool {
    ipv6: bool,
    save: PathBuf,
    restore: PathBuf,
    env: Env,
}

impl Tool {
    fn find(env: &Env, ipv6: bool) -> Result<Self, Error> {
        let prefix = if ipv6 { "ip6tables" } else { "iptables" };
        let path = env.get("PATH").map_or("", String::as_str);
        let path = format!("{path}:{FALLBACK_PATH}");
        let find = |name: String| {
            let folders = path.split(':').filter(|folder| !folder.is_empty());
            let mut files = folders.map(|folder| PathBuf::from(folder).join(&name));
            files.find(|file| file.is_file()).ok_or_else(|| {
                let msg = format!(
                    "host ports with iptables need the program {name}, which is not in {path}; \
                     install it, or set backend to \"nftables\""
                );
                Error::new(Code::Io, msg)
            })
        };
        Ok(Self {
            ipv6,
            save: find(format!("{prefix}-save"))?,
            restore: find(format!("{prefix}-restore"))?,
            env: BTreeMap::from([("PATH".to_owned(), path.clone())]),
        })
    }

    fn read(&self) -> Result<Saved, Error> {
        // Every table of IPv4: the guard is in `raw`.
        let args: &[&str] = if self.ipv6 { &["-t", "nat"] } else { &[] };
        let output = self.run(&self.save, args, b"")?;
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Reads, writes what `text` says (nothing when empty), and returns what was read.
    fn change(&self, text: impl Fn(&Saved) -> Result<String, Error>) -> Result<Saved, Error> {
        let mut attempt = 1;
        loop {
            let saved = self.read()?;
            let text = text(&saved)?;
            if text.is_empty() {
                return Ok(saved);
            }
            let wait = format!("--wait={LOCK_SECONDS}");
            match self.run(&self.restore, &["--noflush", &wait], text.as_bytes()) {
                // Another tool may have removed what was just read.
                Err(error) if error.code == Code::Io && attempt < ATTEMPTS => attempt += 1,
                result => return result.map(|_| saved),
            }
        }
    }

    fn run(&self, path: &std::path::Path, args: &[&str], stdin: &[u8]) -> Result<Output, Error> {
        let program = Program {
            path: path.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: self.env.clone(),
            stdin,
            timeout: TIMEOUT,
        };
        let name = path.display();
        let output = causeway_kernel::run(&program)
            .map_err(|e| crate::failure::kernel(format!("run {name}"), &e))?;
        if output.success {
            return Ok(output);
        }
        let lock = output.timed_out || output.code == Some(RESOURCE_PROBLEM);
        let (code, msg) = if lock {
            (Code::TryAgainLater, format!("{name}: another program holds the xtables lock"))
        } else {
            (Code::Io, format!("{name} failed"))
        };
        Err(Error::new(code, msg).details(output.stderr.trim()))
    }
}
