//! A virtual machine with Debian's kernel, for what the machine's own kernel may lack: vlan
//! filtering of bridges and SCTP.
//!
//! qemu emulates the processor, so that nothing is asked of the hardware. The machine's only file
//! system is the archive made here: busybox, kernel modules, our programs. It runs
//! `causeway-vm-guest` once; [`boot`] returns what that program said of each scenario.

mod cpio;
mod modules;
mod systemd;

pub use systemd::boot as boot_systemd;

use std::collections::BTreeMap;
use std::panic::UnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::run::wait_within;
use crate::{TempDir, bins};
use cpio::Archive;
use modules::Modules;

/// Where the programs are inside the machine.
const PROGRAMS: &str = "causeway";
/// The program with the scenarios.
const GUEST: &str = "causeway-vm-guest";
/// What costs most in emulation is left out: several processors, guards of page tables, and grace
/// periods that are waited for.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off rcupdate.rcu_expedited=1";
/// How long the machine may run. It takes half a minute on idle cores and is emulated, so slow if
/// others work, too.
const DEADLINE: Duration = Duration::from_secs(300);
/// Loaded in this order, each after what it depends on. There is no `modprobe` inside.
const MODULES: &[&str] = &[
    "crc32c_generic", // libcrc32c asks for it by the name of the algorithm
    "bridge",
    "veth",
    "8021q",
    "sctp",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nft_nat",
    "nft_meta_bridge",
];
/// An IPAM plugin that takes the address from `CNI_ARGS`. The emulated machine needs a second for
/// each call of `causeway-ipam` as it is built for tests.
const IPAM: &str = "static-args";
const IPAM_SCRIPT: &str = r#"#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" != ADD ] ||
  echo "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"${CNI_ARGS##*ADDRESS=}\"}]}"
"#;
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin CAUSEWAY_TEST_ENTERED=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir /run/netns
ip link set lo up
for module in /modules/*; do insmod $module || echo \"insmod $module failed\"; done
/causeway/causeway-vm-guest
poweroff -f
";

/// What the guest program said.
#[derive(Debug)]
pub struct Report {
    passed: BTreeMap<String, String>,
    console: String,
}

/// Boots the machine, lets it run every scenario and reads its console. If it cannot be booted
/// (qemu, busybox or the kernel is missing, our programs are stale) no scenario has passed, and
/// the report says why.
pub fn boot() -> Report {
    Report::of_run(run)
}

/// What the machine wrote to its console.
fn run() -> String {
    qemu(&image(), COMMAND_LINE, &[], DEADLINE)
}

/// Runs a machine to its end and returns what it wrote to its console.
fn qemu(image: &[u8], command_line: &str, arguments: &[String], limit: Duration) -> String {
    let folder = TempDir::new("vm");
    let initrd = folder.path().join("initrd");
    std::fs::write(&initrd, image).unwrap_or_else(|e| panic!("write the initrd: {e}"));
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(arguments)
        .args(["-append", command_line])
        .arg("-kernel")
        .arg(kernel_file("boot", "vmlinuz-"))
        .arg("-initrd")
        .arg(&initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let child = command.spawn().unwrap_or_else(|e| {
        panic!("start {shown}: {e}; qemu-system-x86 is missing? run: make deps")
    });
    let (output, late) = wait_within(child, shown, limit);
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let late =
        if late { format!("\nthe machine was stopped after {limit:?}") } else { String::new() };
    let errors = String::from_utf8_lossy(&output.stderr);
    format!("{text}\n{errors}{late}")
}

impl Report {
    fn of_run(run: impl FnOnce() -> String + UnwindSafe) -> Self {
        Self::of(std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.unwrap_or_else(|| "the machine could not be started".to_owned())
        }))
    }

    fn of(console: String) -> Self {
        let mut passed = BTreeMap::new();
        for line in console.lines() {
            if let Some(name) = line.strip_prefix("PASS ") {
                passed.insert(name.to_owned(), String::new());
            } else if let Some((name, why)) =
                line.strip_prefix("FAIL ").and_then(|rest| rest.split_once(": "))
            {
                passed.insert(name.to_owned(), why.to_owned());
            }
        }
        Self { passed, console }
    }

    /// Panics unless the scenario passed, with the reason or with the whole console.
    pub fn assert_passed(&self, scenario: &str) {
        match self.passed.get(scenario).map(String::as_str) {
            Some("") => {}
            Some(why) => panic!("{scenario}: {}", why.replace(" | ", "\n")),
            None => panic!("{scenario} did not come to its end:\n{}", self.console),
        }
    }

    /// The scenarios that passed or failed, and whether the guest program came to its end.
    pub fn scenarios(&self) -> (Vec<&str>, bool) {
        let names = self.passed.keys().map(String::as_str).collect();
        (names, self.console.lines().any(|line| line == "DONE"))
    }
}

/// The archive with everything that is inside the machine.
fn image() -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "run", "sys", "tmp", PROGRAMS] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", &read(&busybox()));
    let modules = Modules::below(&kernel_file("lib/modules", ""));
    for (number, (name, content)) in modules.in_order(MODULES).iter().enumerate() {
        archive.file(&format!("modules/{number:03}-{name}.ko"), content);
    }
    archive.program(&format!("{PROGRAMS}/{IPAM}"), IPAM_SCRIPT.as_bytes());
    for name in ["causeway-bridge", "causeway-ipam", "causeway-service", GUEST] {
        archive.program(&format!("{PROGRAMS}/{name}"), &read(&bins::ours(name)));
        // That the programs are not stale was seen here, where their sources are.
        archive.file(&format!("{PROGRAMS}/{name}.d"), b":\n");
    }
    archive.finish()
}

fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.iter().find(|path| path.exists()).cloned();
    found
        .unwrap_or_else(|| panic!("{places:?} is missing (package busybox-static); run: make deps"))
}

/// The first entry of `folder` in the unpacked kernel package whose name starts with `prefix`.
fn kernel_file(folder: &str, prefix: &str) -> PathBuf {
    let top = bins::workspace().join("target/tools/kernel");
    let places = [top.join(folder), top.join("usr").join(folder)];
    let mut entries =
        places.iter().flat_map(|place| std::fs::read_dir(place).into_iter().flatten());
    let found = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.starts_with(prefix).then_some(path)
    });
    found.unwrap_or_else(|| panic!("no {folder}/{prefix}* below {}; run: make deps", top.display()))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}
