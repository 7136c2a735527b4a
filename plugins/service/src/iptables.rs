//! The iptables backend: upstream portmap's chains, rules and comments, which other programs read
//! (nerdctl finds used ports and checks chains by them).
//!
//! An operation reads once with `iptables-save` and writes once with `iptables-restore --noflush`,
//! so either all of it is there or nothing. The wait for the xtables lock is bounded.
//!
//! Upstream's base chains stay when the last attachment goes, as they do with upstream: its portmap
//! may use them for other networks.

mod live;
mod names;
mod save;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use causeway_host::RecordKey;
use causeway_kernel::{Iptables, IptablesError};
use cni_plugin::{Code, Error};

use crate::failure::warn;
use crate::localnet::Localnet;
use crate::nftables::port_in_use;
use names::Names;
use save::Saved;
pub(crate) use text::{FamilyRules, Wanted};

type Env = BTreeMap<String, String>;

/// A hung program is ended after this long.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How often an operation starts again when another process changed what it had read.
const ATTEMPTS: u32 = 16;
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
    let families: Vec<(Tool, &FamilyRules)> = wanted
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
    remove_named(env, &Names::of(key), families, localnet, heirs)
}

/// As [`remove`], for an attachment without record, whose bookkeeping may be lost as well.
pub(crate) fn remove_unrecorded(
    env: &Env,
    key: &RecordKey,
    localnet: &Localnet,
) -> Result<(), Error> {
    let names = Names::of(key);
    if let Ok(saved) = Tool::find(env, false).and_then(|tool| tool.read())
        && saved.has_chain("nat", &names.chain)
    {
        localnet.adopt(live::localhost_targets(&saved));
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
        let own: Vec<(usize, FamilyRules)> = wanted.iter().enumerate().filter_map(own).collect();
        if own.is_empty() {
            continue;
        }
        let tool = Tool::find(env, ipv6)?;
        let saved = tool.read()?;
        let lacking = own.into_iter().filter(|(_, rules)| !text::again(rules, &saved).is_empty());
        let lacking: Vec<(usize, FamilyRules)> = lacking.collect();
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
    names: &Names,
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
        left |= !ipv6 && live::other_attachments(&after, names);
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
    let kept: Vec<Names> = kept.iter().map(Names::of).collect();
    for ipv6 in [false, true] {
        let Ok(tool) = Tool::find(env, ipv6) else { continue };
        let saved = match tool.read() {
            Err(_) if ipv6 => continue,
            saved => saved?,
        };
        let mut stale = live::attachments(&saved, network);
        stale.retain(|names| !kept.contains(names));
        if !ipv6 && !stale.is_empty() {
            localnet.adopt(live::localhost_targets(&saved));
        }
        for names in &stale {
            remove_named(env, names, &[ipv6], localnet, &[])?;
        }
    }
    Ok(())
}

/// The chain of an attachment, which upstream's portmap names alike.
pub(crate) fn chain(key: &RecordKey) -> String {
    Names::of(key).chain
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
    let names = Names::of(key);
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

fn refuse(saved: &Saved, rules: &FamilyRules) -> Result<(), Error> {
    match rules.owner_of_port(saved) {
        Some((binding, owner)) => {
            Err(port_in_use(&binding.host_side(), &rules.names.comment, &owner))
        }
        None => Ok(()),
    }
}

/// The programs of one family.
#[derive(Debug)]
struct Tool(Iptables);

impl Tool {
    fn find(env: &Env, ipv6: bool) -> Result<Self, Error> {
        let path = env.get("PATH").map_or("", String::as_str);
        Iptables::find(path, ipv6, TIMEOUT).map(Self).map_err(failed)
    }

    fn read(&self) -> Result<Saved, Error> {
        // Every table of IPv4: the guard is in `raw`.
        let table = self.0.is_ipv6().then_some("nat");
        self.0.save(table).map(|text| Saved::parse(&text)).map_err(failed)
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
            match self.0.restore(&text).map_err(failed) {
                // Another tool may have removed what was just read.
                Err(error) if error.code == Code::Io && attempt < ATTEMPTS => attempt += 1,
                result => return result.map(|()| saved),
            }
        }
    }
}

fn failed(error: IptablesError) -> Error {
    match error {
        IptablesError::Missing { program, path } => Error::new(
            Code::Io,
            format!(
                "host ports with iptables need the program {program}, which is not in {path}; \
                 install it, or set backend to \"nftables\""
            ),
        ),
        IptablesError::Run { program, source } => {
            crate::failure::kernel(format!("run {}", program.display()), &source)
        }
        IptablesError::TimedOut { program, stderr } | IptablesError::Locked { program, stderr } => {
            let msg = format!("{}: another program holds the xtables lock", program.display());
            Error::new(Code::TryAgainLater, msg).details(stderr)
        }
        IptablesError::Failed { program, stderr } => {
            Error::new(Code::Io, format!("{} failed", program.display())).details(stderr)
        }
    }
}
