//! The program inside the virtual machine of `causeway_tests::vm`: runs every scenario, with the
//! argument `systemd` those of a machine that systemd has started, and says
//! `PASS name` or `FAIL name: why` of each on stdout, and `DONE` at the end.

mod sctp;
mod systemd;
mod vlan;

use std::io::Write;
use std::panic::{UnwindSafe, catch_unwind};
use std::sync::Mutex;

use causeway_kernel::{Link, Netlink, VlanRange};
use causeway_tests::Ns;

/// What the first panic of a scenario said, and where.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() {
    std::panic::set_hook(Box::new(|panic| {
        let mut first = PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert_with(|| panic.to_string());
    }));
    if std::env::args().nth(1).as_deref() == Some("systemd") {
        scenario("systemd_module_at_boot", systemd::module_at_boot);
        scenario("systemd_module_by_unit", systemd::module_by_unit);
        scenario("systemd_module_missing", systemd::module_missing);
        scenario("systemd_inotify", systemd::inotify);
        scenario("systemd_flush", systemd::flush);
        scenario("systemd_emptied_snapshot", systemd::emptied_snapshot);
        scenario("systemd_late_address", systemd::late_address);
        scenario("systemd_start_limit", systemd::start_limit);
        return say("DONE");
    }
    scenario("vlan_ports", vlan::ports);
    scenario("vlan_separation", vlan::separation);
    scenario("vlan_trunk", vlan::trunk);
    scenario("vlan_gateway", vlan::gateway);
    scenario("vlan_existing_bridge", vlan::existing_bridge);
    scenario("sctp_host_port", sctp::host_port);
    say("DONE");
}

fn scenario(name: &str, work: impl FnOnce() + UnwindSafe) {
    let ended = catch_unwind(work);
    let why = PANIC.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    match ended {
        Ok(()) => say(&format!("PASS {name}")),
        Err(_) => {
            let why = why.unwrap_or_default().replace(['\n', '\r'], " | ");
            say(&format!("FAIL {name}: {why}"));
        }
    }
}

fn say(line: &str) {
    // The kernel may have left its own line unfinished.
    writeln!(std::io::stdout(), "\n{line}").expect("write to the console");
}

/// The link of this name in a namespace.
fn link(ns: &Ns, name: &str) -> Link {
    let found = ns.run(|| Netlink::open().expect("netlink").link(name));
    found.expect("read a link").unwrap_or_else(|| panic!("no link {name} in {}", ns.name()))
}

/// The names of all links of a namespace, sorted.
fn link_names(ns: &Ns) -> Vec<String> {
    let links = ns.run(|| Netlink::open().expect("netlink").links()).expect("list links");
    let mut names: Vec<_> = links.into_iter().map(|link| link.name).collect();
    names.sort();
    names
}

/// The IPv4 addresses of a link.
fn addresses(ns: &Ns, name: &str) -> Vec<String> {
    let index = link(ns, name).index;
    let found = ns.run(|| Netlink::open().expect("netlink").addresses(index));
    let found = found.expect("list addresses").into_iter().map(|state| state.address);
    found.filter(|address| address.is_ipv4()).map(|address| address.to_string()).collect()
}

/// The vlans of a bridge port as `10-12` or, native, `100 pvid untagged`.
fn vlans(ns: &Ns, port: &str) -> Vec<String> {
    let index = link(ns, port).index;
    let ranges = ns.run(|| Netlink::open().expect("netlink").vlans(index)).expect("list vlans");
    let text = |range: &VlanRange| {
        let mut text = range.first.to_string();
        if range.last != range.first {
            text += &format!("-{}", range.last);
        }
        for (set, word) in [(range.pvid, " pvid"), (range.untagged, " untagged")] {
            text += if set { word } else { "" };
        }
        text
    };
    ranges.iter().map(text).collect()
}
