//! iptables: one `iptables-restore --noflush` per change and family.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_kernel::{Output, Program};
use causeway_model::IpFamily;
use causeway_nft::{Client, Monitor};
use causeway_ruleset::iptables::{self, Mirror, Script};
use causeway_ruleset::plan::{Delta, Plan};
use causeway_ruleset::{Family, TableId};

use super::{Error, Result};

/// How long `iptables-restore` waits for the xtables lock, seconds.
const LOCK_SECONDS: u32 = 5;
/// A hung program is ended after this long: ten thousands of chains take several seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Of scripts of so many bytes the kernel's messages to subscribers cost more than looking at
/// everything afterwards, for the generations that a program makes are not known.
const LARGE: usize = 64 * 1024;
/// Exit status for a resource problem: the lock was not to be had.
const RESOURCE_PROBLEM: i32 = 4;
/// Where the programs are.
pub(crate) const FOLDERS: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];

/// Tables that may hold chains of ours.
const TABLES: &[&str] = &["nat", "filter", "raw", "mangle"];

/// The programs and what is in the chains.
#[derive(Debug)]
pub(crate) struct Iptables {
    tools: Vec<Tool>,
    /// `None` until the chains are known to be whole.
    mirror: Option<Mirror>,
    /// Whose subscriptions are aside during large changes; `None` if there is no nf_tables.
    kernel: Option<Box<Client>>,
}

impl Iptables {
    /// The programs, tried out. Without IPv6 in this kernel, those of IPv4 alone.
    ///
    /// # Errors
    /// A program is missing or does not work.
    pub(super) fn open() -> Result<Self> {
        let v4 = Tool::find(IpFamily::V4)?;
        v4.save().map_err(|error| Error::new("iptables cannot be used", error))?;
        let mut tools = vec![v4];
        if has_ipv6() {
            let v6 = Tool::find(IpFamily::V6)?;
            v6.save().map_err(|error| Error::new("ip6tables cannot be used", error))?;
            tools.push(v6);
        }
        let kernel = Client::open_if_supported().ok().flatten().map(Box::new);
        Ok(Self { tools, mirror: None, kernel })
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
        let (mirror, scripts) = Mirror::full(plan, &saved);
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
        let version = run(&self.tools[0].save, &["--version"], b"")?.stdout;
        if !String::from_utf8_lossy(&version).contains("nf_tables") {
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
        self.tools.iter().map(|tool| tool.save().map(|text| (tool.family, text))).collect()
    }

    fn restore(&mut self, scripts: &[Script]) -> Result<()> {
        let large = scripts.iter().map(|script| script.text.len()).sum::<usize>() >= LARGE;
        let Some(kernel) = self.kernel.as_mut().filter(|_| large) else {
            return restore(&self.tools, scripts);
        };
        let pause = kernel.pause();
        let restored = restore(&self.tools, scripts);
        kernel.resume(pause, None);
        restored
    }
}

fn restore(tools: &[Tool], scripts: &[Script]) -> Result<()> {
    for script in scripts.iter().filter(|script| !script.text.is_empty()) {
        // Rules of a family that this kernel lacks have nobody to meet.
        if let Some(tool) = tools.iter().find(|tool| tool.family == script.family) {
            tool.restore(&script.text)?;
        }
    }
    Ok(())
}

/// Removes our chains. Says how many, by family and table.
///
/// # Errors
/// They could not be read or removed. Missing programs are none: then there are no chains.
pub(super) fn remove(dry_run: bool) -> Result<Vec<String>> {
    with_saved(dry_run, |family, saved| {
        let scripts = iptables::cleanup(&[(family, saved)]);
        let text: String = scripts.into_iter().map(|script| script.text).collect();
        (!text.is_empty()).then(|| (described(family, saved), text))
    })
}

/// See [`super::remove_host_ports`]. The chains that all attachments share stay: other programs use
/// them, too.
///
/// # Errors
/// They could not be read or removed.
pub(super) fn remove_host_ports(comments: &BTreeSet<String>, dry_run: bool) -> Result<Vec<String>> {
    with_saved(dry_run, |family, saved| {
        let jumps = || {
            let nat =
                saved.lines().skip_while(|line| *line != "*nat").take_while(|l| *l != "COMMIT");
            let ours = |line: &&str| comments.iter().any(|comment| line.contains(comment.as_str()));
            let jump = |line: &'_ str| Some((line.strip_prefix("-A ")?.to_owned(), target(line)?));
            nat.filter(ours).filter_map(jump)
        };
        let chains: BTreeSet<String> = jumps().map(|(_, chain)| chain).collect();
        if chains.is_empty() {
            return None;
        }
        let mut text = guards(saved);
        text += "*nat\n";
        text.extend(jumps().map(|(rule, _)| format!("-D {rule}\n")));
        text.extend(chains.iter().map(|chain| format!("-F {chain}\n-X {chain}\n")));
        text += "COMMIT\n";
        let name = tool_name(family);
        Some((chains.into_iter().map(|chain| format!("{name} chain {chain}")).collect(), text))
    })
}

/// Removes what guards 127.0.0.0/8 for the host ports.
fn guards(saved: &str) -> String {
    let of_table = |table: &str| {
        let head = format!("*{table}");
        let lines = saved.lines().skip_while(|line| *line != head);
        let lines = lines.take_while(|line| *line != "COMMIT");
        let ours = lines.filter(|line| line.contains("--comment \"causeway-service: "));
        let removals = ours.filter_map(|line| Some(format!("-D {}\n", line.strip_prefix("-A ")?)));
        let removals: String = removals.collect();
        if removals.is_empty() { removals } else { format!("{head}\n{removals}COMMIT\n") }
    };
    ["raw", "mangle"].map(of_table).concat()
}

/// Restores what `removal` makes of each family's `iptables-save`, if anything: what it removes, as
/// said to people, and the script. A dry run only says.
fn with_saved(
    dry_run: bool,
    removal: impl Fn(IpFamily, &str) -> Option<(Vec<String>, String)>,
) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for family in [IpFamily::V4, IpFamily::V6] {
        let Ok(tool) = Tool::find(family) else { continue };
        if !may_have_chains(family) {
            continue;
        }
        let saved = tool.save()?;
        let Some((what, script)) = removal(family, &saved) else { continue };
        if !dry_run {
            tool.restore(&script)?;
        }
        removed.extend(what);
    }
    Ok(removed)
}

/// The chain of an attachment that a rule jumps to.
fn target(rule: &str) -> Option<String> {
    let (_, chain) = rule.rsplit_once("-j ")?;
    chain.starts_with("CNI-DN-").then(|| chain.trim_end().to_owned())
}

/// Our chains in the output of `iptables-save`.
fn described(family: IpFamily, saved: &str) -> Vec<String> {
    let name = tool_name(family);
    let mut table = "";
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if line.starts_with(":CW-") {
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

fn tool_name(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "iptables",
        IpFamily::V6 => "ip6tables",
    }
}

/// `iptables-save` and `iptables-restore` of one family.
#[derive(Debug)]
struct Tool {
    family: IpFamily,
    save: PathBuf,
    restore: PathBuf,
}

impl Tool {
    fn find(family: IpFamily) -> Result<Self> {
        let find = |name: String| {
            let mut files = FOLDERS.iter().map(|folder| Path::new(folder).join(&name));
            files.find(|file| file.is_file()).ok_or_else(|| {
                let action = format!(
                    "iptables cannot be used: the program {name} is not installed; install it, or \
                     set backend to \"nftables\""
                );
                Error::new(action, format!("not in {}", FOLDERS.join(":")))
            })
        };
        let prefix = tool_name(family);
        let save = find(format!("{prefix}-save"))?;
        Ok(Self { family, save, restore: find(format!("{prefix}-restore"))? })
    }

    fn save(&self) -> Result<String> {
        let output = run(&self.save, &[], b"").map_err(Error::passing)?;
        String::from_utf8(output.stdout)
            .map_err(|error| Error::new(format!("{}: read its output", self.save.display()), error))
    }

    fn restore(&self, text: &str) -> Result<()> {
        let wait = format!("--wait={LOCK_SECONDS}");
        run(&self.restore, &["--noflush", &wait], text.as_bytes()).map(drop)
    }
}

fn run(path: &Path, args: &[&str], stdin: &[u8]) -> Result<Output> {
    let program = Program {
        path: path.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: BTreeMap::from([("PATH".to_owned(), FOLDERS.join(":"))]),
        stdin,
        timeout: TIMEOUT,
    };
    let name = path.display();
    let output =
        causeway_kernel::run(&program).map_err(|error| Error::new(format!("run {name}"), error))?;
    if output.success {
        return Ok(output);
    }
    let stderr = output.stderr.trim().to_owned();
    if output.timed_out {
        let action = format!("{name} did not finish within {} seconds", TIMEOUT.as_secs());
        return Err(Error::new(action, stderr));
    }
    if output.code == Some(RESOURCE_PROBLEM) {
        let action = format!("{name}: another program holds the xtables lock; causewayd retries");
        return Err(Error::new(action, stderr).passing());
    }
    Err(Error::new(format!("{name} failed"), stderr))
}
