//! iptables: one `iptables-restore --noflush` per change and family.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use causeway_kernel::{Iptables as Programs, IptablesError};
use causeway_model::IpFamily;
use causeway_nft::{Client, Monitor};
use causeway_ruleset::iptables::{self, ChainMirror, SavedLine, Script, saved_lines};
use causeway_ruleset::plan::{Delta, Plan};
use causeway_ruleset::{Family, TableId};

use super::{Error, Result};

/// A hung program is ended after this long: ten thousands of chains take several seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Of scripts of so many bytes the kernel's messages to subscribers cost more than looking at
/// everything afterwards, for the generations that a program makes are not known.
const LARGE: usize = 64 * 1024;
/// Tables that may hold chains of ours.
const TABLES: &[&str] = &["nat", "filter", "raw", "mangle"];

/// The programs and what is in the chains.
#[derive(Debug)]
pub(crate) struct Iptables {
    programs: Vec<Programs>,
    /// `None` until the chains are known to be whole.
    mirror: Option<ChainMirror>,
    /// Whose subscriptions are aside during large changes; `None` if there is no nf_tables.
    kernel: Option<Box<Client>>,
}

impl Iptables {
    /// The programs, tried out. Without IPv6 in this kernel, those of IPv4 alone.
    ///
    /// # Errors
    /// A program is missing or does not work.
    pub(super) fn open() -> Result<Self> {
        let mut families = vec![IpFamily::V4];
        families.extend(has_ipv6().then_some(IpFamily::V6));
        let mut all = Vec::new();
        for family in families {
            let programs = find(family)?;
            save(&programs).map_err(|error| {
                Error::new(format!("{} cannot be used", programs.name()), error)
            })?;
            all.push(programs);
        }
        let kernel = Client::open_if_supported().ok().flatten().map(Box::new);
        Ok(Self { programs: all, mirror: None, kernel })
    }

    /// As [`Self::full_sync`], if the plan is the one of the last change.
    pub(super) fn check_drift(&mut self, plan: &Plan) -> Result<bool> {
        let saved = self.saved()?;
        match &self.mirror {
            Some(mirror) if mirror.is_whole(&borrowed(&saved)) => Ok(false),
            Some(_) | None => self.full_sync(plan),
        }
    }

    pub(super) fn full_sync(&mut self, plan: &Plan) -> Result<bool> {
        let saved = self.saved()?;
        let saved = borrowed(&saved);
        let before = self.mirror.take();
        let (mirror, scripts) = ChainMirror::full(plan, &saved);
        // What was read is compared by its number of rules: that says enough only if these are
        // the chains that were written last.
        let written = before.is_some_and(|before| before.is_like(&mirror));
        let differs = !written || !mirror.is_whole(&saved);
        if differs {
            self.restore(&scripts)?;
        }
        self.mirror = Some(mirror);
        Ok(differs)
    }

    pub(super) fn apply_delta(&mut self, plan: &Plan, delta: &Delta) -> Result<()> {
        let Some(mirror) = self.mirror.as_mut() else { return self.full_sync(plan).map(drop) };
        let scripts = mirror.change(plan, delta);
        let restored = self.restore(&scripts);
        if restored.is_err() {
            self.mirror = None;
        }
        restored
    }

    /// If iptables stands on nf_tables, its tables are watched there. What we write by its
    /// programs is told as well.
    pub(super) fn monitor(&self) -> Result<Option<Monitor>> {
        if !self.programs[0].uses_nf_tables().map_err(failed)? {
            return Ok(None);
        }
        let families = [Family::Ip, Family::Ip6].into_iter();
        let tables = families.flat_map(|family| {
            TABLES.iter().map(move |&name| TableId { family, name: name.to_owned() })
        });
        self.watch(tables.collect()).map(Some)
    }

    pub(super) fn watch(&self, tables: Vec<TableId>) -> Result<Monitor> {
        let failed = |error| Error::new("iptables: watch for changes by other processes", error);
        match &self.kernel {
            Some(client) => Monitor::open(client, tables).map_err(failed),
            None => {
                let client = Client::open().map_err(failed)?;
                Monitor::open(&client, tables).map_err(failed)
            }
        }
    }

    fn saved(&self) -> Result<Vec<(IpFamily, String)>> {
        let all = self.programs.iter();
        all.map(|one| save(one).map(|text| (family_of(one), text))).collect()
    }

    fn restore(&mut self, scripts: &[Script]) -> Result<()> {
        let large = scripts.iter().map(|script| script.text.len()).sum::<usize>() >= LARGE;
        let Some(kernel) = self.kernel.as_mut().filter(|_| large) else {
            return restore(&self.programs, scripts);
        };
        let pause = kernel.pause();
        let restored = restore(&self.programs, scripts);
        kernel.resume(pause, None);
        restored
    }
}

fn restore(programs: &[Programs], scripts: &[Script]) -> Result<()> {
    for script in scripts.iter().filter(|script| !script.text.is_empty()) {
        // Rules of a family that this kernel lacks have nobody to meet.
        if let Some(one) = programs.iter().find(|one| family_of(one) == script.family) {
            one.restore(&script.text).map_err(failed)?;
        }
    }
    Ok(())
}

/// Removes our chains. Says how many, by family and table.
///
/// # Errors
/// They could not be read or removed. Missing programs are none: then there are no chains.
pub(super) fn remove(dry_run: bool) -> Result<Vec<String>> {
    with_saved(dry_run, |programs, saved| {
        let scripts = iptables::cleanup(&[(family_of(programs), saved)]);
        let text: String = scripts.into_iter().map(|script| script.text).collect();
        (!text.is_empty()).then(|| (described(programs, saved), text))
    })
}

/// See [`super::remove_host_ports`]. The chains that all attachments share stay: other programs use
/// them, too.
///
/// # Errors
/// They could not be read or removed.
pub(super) fn remove_host_ports(comments: &BTreeSet<String>, dry_run: bool) -> Result<Vec<String>> {
    with_saved(dry_run, |programs, saved| {
        let ours = |rule: &str| comments.iter().any(|comment| rule.contains(comment.as_str()));
        let jumps = || rules_of(saved, "nat").filter(|(_, rule)| ours(rule));
        let chains: BTreeSet<String> = jumps().filter_map(|(_, rule)| target(rule)).collect();
        if chains.is_empty() {
            return None;
        }
        let jumps = jumps().filter(|(_, rule)| target(rule).is_some());
        let mut text = guards(saved);
        text += "*nat\n";
        text.extend(jumps.map(|(chain, rule)| format!("-D {chain} {rule}\n")));
        text.extend(chains.iter().map(|chain| format!("-F {chain}\n-X {chain}\n")));
        text += "COMMIT\n";
        let name = programs.name();
        Some((chains.into_iter().map(|chain| format!("{name} chain {chain}")).collect(), text))
    })
}

/// Removes what guards 127.0.0.0/8 for the host ports.
fn guards(saved: &str) -> String {
    let of_table = |table: &'static str| {
        let ours = rules_of(saved, table)
            .filter(|(_, rule)| rule.contains("--comment \"causeway-service: "));
        let removals: String = ours.map(|(chain, rule)| format!("-D {chain} {rule}\n")).collect();
        if removals.is_empty() { removals } else { format!("*{table}\n{removals}COMMIT\n") }
    };
    ["raw", "mangle"].map(of_table).concat()
}

/// Chain and text of each rule of a table.
fn rules_of<'a>(saved: &'a str, table: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    saved_lines(saved).filter(move |(of, _)| *of == table).filter_map(|(_, line)| match line {
        SavedLine::Rule { chain, rule } => Some((chain, rule)),
        SavedLine::Chain { .. } => None,
    })
}

/// Restores what `removal` makes of each family's `iptables-save`, if anything: what it removes, as
/// said to people, and the script. A dry run only says.
fn with_saved(
    dry_run: bool,
    removal: impl Fn(&Programs, &str) -> Option<(Vec<String>, String)>,
) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for family in [IpFamily::V4, IpFamily::V6] {
        let Ok(programs) = find(family) else { continue };
        if !may_have_chains(family) {
            continue;
        }
        let saved = save(&programs)?;
        let Some((what, script)) = removal(&programs, &saved) else { continue };
        if !dry_run {
            programs.restore(&script).map_err(failed)?;
        }
        removed.extend(what);
    }
    Ok(removed)
}

/// The chain of an attachment that a rule jumps to.
fn target(rule: &str) -> Option<String> {
    let (_, chain) = rule.rsplit_once("-j ")?;
    chain.starts_with("CNI-DN-").then(|| chain.to_owned())
}

/// Our chains in the output of `iptables-save`.
fn described(programs: &Programs, saved: &str) -> Vec<String> {
    let name = programs.name();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (table, line) in saved_lines(saved) {
        if let SavedLine::Chain { name, .. } = line
            && name.starts_with("CW-")
        {
            *counts.entry(table).or_default() += 1;
        }
    }
    counts.iter().map(|(table, count)| format!("{count} {name} chains in table {table}")).collect()
}

/// Whether asking is worth it: `iptables-save` loads modules and, of nf_tables, makes tables. A
/// kernel without any table of that family has no chains of ours.
fn may_have_chains(family: IpFamily) -> bool {
    let Ok(Some(mut client)) = Client::open_if_supported() else { return true };
    let ipv6 = family == IpFamily::V6;
    client.may_have_iptables_chain(ipv6, "PREROUTING").unwrap_or(true)
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn borrowed(saved: &[(IpFamily, String)]) -> Vec<(IpFamily, &str)> {
    saved.iter().map(|(family, text)| (*family, text.as_str())).collect()
}

fn find(family: IpFamily) -> Result<Programs> {
    Programs::find("", family == IpFamily::V6, TIMEOUT).map_err(failed)
}

fn family_of(programs: &Programs) -> IpFamily {
    if programs.is_ipv6() { IpFamily::V6 } else { IpFamily::V4 }
}

/// Everything. That it cannot be read says nothing of the rules.
fn save(programs: &Programs) -> Result<String> {
    programs.save(None).map_err(|error| failed(error).passing())
}

fn failed(error: IptablesError) -> Error {
    match error {
        IptablesError::Missing { program, path } => {
            let action = format!(
                "iptables cannot be used: the program {program} is not installed; install it, or \
                 set backend to \"nftables\""
            );
            Error::new(action, format!("not in {path}"))
        }
        IptablesError::Run { program, source } => {
            Error::new(format!("run {}", program.display()), source)
        }
        IptablesError::TimedOut { program, stderr } => {
            let seconds = TIMEOUT.as_secs();
            let action = format!("{} did not finish within {seconds} seconds", program.display());
            Error::new(action, stderr)
        }
        IptablesError::Locked { program, stderr } => {
            let action = format!(
                "{}: another program holds the xtables lock; causewayd retries",
                program.display()
            );
            Error::new(action, stderr).passing()
        }
        IptablesError::Failed { program, stderr } => {
            Error::new(format!("{} failed", program.display()), stderr)
        }
    }
}
