//! The same machine with Debian's systemd as its init, for the unit and what `make install` puts in
//! place. Its disk is a debootstrap (`tests/rootfs.sh`), read only; a second one carries our programs
//! and files and lies over it, and a file system in memory takes what the machine writes.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cpio::Archive;
use super::modules::Modules;
use super::{COMMAND_LINE, GUEST, MODULES, Report, busybox, kernel_file, qemu, read};
use crate::run::wait_within;
use crate::{TempDir, bins};

/// How long the machine may run: one minute and a half on idle cores, and more if others work.
const LIMIT: Duration = Duration::from_secs(900);
/// Loaded before systemd starts, beside [`MODULES`]: disks, and what services need.
const MORE_MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "overlay",
    "nft_numgen",
    "nft_hash",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_redir",
    "nft_log",
    "nft_limit",
];
/// For `modprobe` inside, and for the kernel, which calls it.
const LATER: [&str; 3] = ["br_netfilter", "sch_ingress", "cls_bpf"];
/// What Debian starts and nothing here needs.
const MASKED: [&str; 9] = [
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-random-seed.service",
    "systemd-update-utmp.service",
    "systemd-logind.service",
    "serial-getty@ttyS0.service",
    "getty.target",
];
const UNIT: &str = "[Unit]
After=basic.target systemd-modules-load.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=CAUSEWAY_TEST_ENTERED=1 HOME=/root
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/causeway/causeway-vm-guest systemd
";
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo \"insmod $module failed\"; done
mkdir /debian /ours /written /new
mount -t ext4 -o ro /dev/vda /debian
mount -t ext4 -o ro /dev/vdb /ours
mount -t tmpfs written /written
mkdir /written/upper /written/work
mount -t overlay -o lowerdir=/ours:/debian,upperdir=/written/upper,workdir=/written/work new /new
mount --move /dev /new/dev
mount --move /sys /new/sys
chroot /new /sbin/depmod
mount --move /proc /new/proc
exec switch_root /new /lib/systemd/systemd
";

/// As [`super::boot`], for the scenarios that need systemd.
pub fn boot() -> Report {
    Report::of_run(run)
}

fn run() -> String {
    let folder = TempDir::new("vm-disks");
    let debian = bins::workspace().join("target/tools/machine/debian.ext4");
    assert!(debian.exists(), "{} is missing; run: make deps", debian.display());
    let ours = ours(&folder);
    let disk = |path: &Path| {
        let drive = format!("if=virtio,format=raw,read-only=on,file={}", path.display());
        ["-drive".to_owned(), drive]
    };
    let arguments = [disk(&debian), disk(&ours)].concat();
    let masked: String = MASKED.iter().map(|unit| format!(" systemd.mask={unit}")).collect();
    let command_line = format!("{COMMAND_LINE} systemd.show_status=0{masked}");
    qemu(&image(), &command_line, &arguments, LIMIT)
}

/// What is there before the disks are.
fn image() -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "sys"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", &read(&busybox()));
    let modules = Modules::below(&kernel_file("lib/modules", ""));
    let all = [MODULES, &MORE_MODULES].concat();
    for (number, (name, content)) in modules.in_order(&all).iter().enumerate() {
        archive.file(&format!("modules/{number:03}-{name}.ko"), content);
    }
    archive.finish()
}

/// The disk with what an administrator has installed, and with the guest program.
fn ours(folder: &TempDir) -> PathBuf {
    let tree = folder.path().join("tree");
    let conf = bins::workspace().join("conf");
    let put = |from: &Path, to: &str| {
        let to = tree.join(to);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("make a folder");
        std::fs::copy(from, &to)
            .unwrap_or_else(|e| panic!("copy {} to {}: {e}", from.display(), to.display()));
    };
    for name in ["causewayd", "causeway"] {
        put(&bins::ours(name), &format!("usr/local/bin/{name}"));
    }
    for name in ["causeway-bridge", "causeway-ipam", "causeway-service"] {
        put(&bins::ours(name), &format!("opt/cni/bin/{name}"));
    }
    for name in [GUEST, "causeway-testserver"] {
        put(&bins::ours(name), &format!("causeway/{name}"));
    }
    put(&bins::tool("cnitool"), "usr/local/bin/cnitool");
    put(&conf.join("10-causeway.conflist"), "etc/cni/net.d/10-causeway.conflist");
    put(&conf.join("causewayd.service"), "etc/systemd/system/causewayd.service");
    put(&conf.join("causeway.modules"), "etc/modules-load.d/causeway.conf");

    let write = |path: &str, text: &str| {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    };
    // Without one systemd takes this for a first boot and enables every unit.
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    write("etc/systemd/system/causeway-test.service", UNIT);
    let wants = tree.join("etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir_all(&wants).expect("make a folder");
    symlink("../causeway-test.service", wants.join("causeway-test.service")).expect("a link");

    let version = kernel_file("lib/modules", "");
    let version = version.file_name().expect("a name").to_string_lossy().into_owned();
    let modules = Modules::below(&kernel_file("lib/modules", ""));
    for (name, content) in modules.in_order(&LATER) {
        let path = tree.join(format!("usr/lib/modules/{version}/kernel/{name}.ko"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        std::fs::write(&path, content).expect("write a module");
    }
    let disk = folder.path().join("ours.ext4");
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(&tree).arg(&disk).arg("600M");
    finish(make);
    disk
}

fn finish(mut command: Command) {
    let shown = format!("{command:?}");
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("start {shown}: {e}; run: make deps"));
    let (finished, late) = wait_within(child, shown, super::DEADLINE);
    assert!(!late, "took too long: {}", finished.describe());
    finished.ok();
}
