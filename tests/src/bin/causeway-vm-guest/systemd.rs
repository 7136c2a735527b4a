//! The unit as `make install` puts it in place, under Debian's systemd.

#![expect(clippy::disallowed_methods, reason = "a test starts programs")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use causeway_tests::cluster::holds_within;
use causeway_tests::traffic::{PATIENCE, Server};
use causeway_tests::{Finished, Ns, finish};

/// How long a condition may take to come about in the emulated machine.
const LIMIT: Duration = Duration::from_secs(120);
const KEY: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  clusterIP: 10.96.0.77
  selector: { app: web }
  ports: [{ port: 80 }]
";

/// modules-load.d has loaded the module before anything of ours was started.
pub(crate) fn module_at_boot() {
    assert_eq!(sh("systemctl is-active causewayd || true"), "inactive\n");
    assert!(Path::new(KEY).exists(), "{}", sh("systemctl status systemd-modules-load || true"));
}

/// The unit loads the module though the daemon may not, and a service is answered on one bridge.
pub(crate) fn module_by_unit() {
    sh("rmmod br_netfilter");
    assert!(!Path::new(KEY).exists());
    start("start");
    assert_eq!(std::fs::read_to_string(KEY).expect("the setting"), "1\n");
    std::fs::write("/run/service.yaml", SERVICE).expect("write a manifest");
    sh("causeway apply -f /run/service.yaml");
    std::fs::create_dir_all("/run/netns").expect("a folder");
    let [server, client] = ["server", "client"].map(Ns::new);
    cni("add", &server, "app:web");
    cni("add", &client, "app:client");
    let _server = Server::tcp(&server, "server", "0.0.0.0:80");
    let answer = client.tcp("10.96.0.77:80").expect("an answer from the client's own bridge");
    assert_eq!(answer.hostname, "server");
    assert_eq!(degraded(), "");
}

/// A kernel without the module: the daemon starts, says what does not work, and needs no restart.
pub(crate) fn module_missing() {
    let hidden = "/etc/modprobe.d/hidden.conf";
    std::fs::create_dir_all("/etc/modprobe.d").expect("a folder");
    std::fs::write(hidden, "install br_netfilter /bin/false\n").expect("write");
    sh("systemctl stop causewayd; rmmod br_netfilter");
    start("start");
    let said = degraded();
    assert!(said.contains("bridge-nf-call-iptables does not exist"), "{said}");
    assert!(said.contains("modprobe br_netfilter"), "the remedy: {said}");
    std::fs::remove_file(hidden).expect("remove");
    sh("modprobe br_netfilter");
    until("the daemon notices the module", || degraded().is_empty());
    assert_eq!(std::fs::read_to_string(KEY).expect("the setting"), "1\n");
}

/// Without an inotify instance directories are read by the clock, and watched again when there is
/// one.
pub(crate) fn inotify() {
    let limit = "fs.inotify.max_user_instances";
    let before = sh(&format!("cat /proc/sys/{}", limit.replace('.', "/")));
    std::fs::write("/proc/sys/fs/inotify/max_user_instances", "1").expect("set the limit");
    start("restart");
    until("it says so", || degraded().contains(limit));
    let manifest = SERVICE.replace("name: web", "name: polled").replace("0.77", "0.78");
    std::fs::create_dir_all("/etc/causeway/manifests").expect("a folder");
    std::fs::write("/etc/causeway/manifests/polled.yaml", manifest).expect("write a manifest");
    until("the manifest is read", || sh("causeway get svc").contains("polled"));
    std::fs::write("/proc/sys/fs/inotify/max_user_instances", before).expect("set the limit");
    until("folders are watched again", || degraded().is_empty());
}

/// Debian's own nftables.service begins with a flush, and the daemon may be stopped then: the kernel
/// has loaded what guards 127.0.0.0/8 without rules.
pub(crate) fn flush() {
    let guard = || sh("tc filter show dev cw0 ingress");
    until("the guard of the bridge", || guard().contains("pref 197 bpf"));
    let attacker = Ns::new("attacker");
    cni("add", &attacker, "app:attacker");
    let listener = TcpListener::bind("127.0.0.1:9000").expect("listen");
    let gateway = attacker.sh("ip route show default | cut -d ' ' -f 3");
    attacker.ip(&format!("addr del 127.0.0.1/8 dev lo\nroute add 127.0.0.1/32 via {gateway}"));
    attacker.set_sysctl("ipv4/conf/all/route_localnet", "1");
    attacker
        .sh("ip rule add pref 0 to 127.0.0.1 lookup main && ip rule del pref 0 lookup local && \
                 ip rule add pref 100 lookup local");
    let to = SocketAddr::from(([127, 0, 0, 1], 9000));
    let reaches = || attacker.run(|| TcpStream::connect_timeout(&to, PATIENCE)).is_ok();
    assert!(!reaches(), "guarded by rules");
    sh("systemctl stop causewayd; nft flush ruleset");
    assert!(!reaches(), "guarded without rules");
    sh("tc filter del dev cw0 ingress");
    assert!(reaches(), "the attack itself");
    drop(listener);
    start("start");
    cni("del", &attacker, "app:attacker");
}

/// What a power cut may leave of sled's snapshot: the log beside it holds all.
pub(crate) fn emptied_snapshot() {
    let services = sh("causeway get svc -o name");
    assert!(services.contains("web"), "{services}");
    sh("systemctl kill --signal KILL causewayd; systemctl stop causewayd");
    sh("ls /var/lib/causeway/store/snap.* && truncate -s 0 /var/lib/causeway/store/snap.*");
    start("start");
    assert_eq!(sh("causeway get svc -o name"), services);
    let said = degraded();
    assert!(said.contains("nothing is lost") && said.lines().count() == 1, "{said}");
    sh("rm /var/lib/causeway/store/damaged-snap.*");
}

/// A node whose address comes later, as by DHCP: the start is not done, and needs nobody.
pub(crate) fn late_address() {
    let primary = "/run/systemd/system/causewayd.service.d/primary.conf";
    let text = "[Service]\nEnvironment=CAUSEWAY_NODEPORT_ADDRESSES=primary\n";
    std::fs::create_dir_all(Path::new(primary).parent().expect("a folder")).expect("a folder");
    std::fs::write(primary, text).expect("write");
    sh("systemctl stop causewayd; systemctl daemon-reload; systemctl start --no-block causewayd");
    until("it says that it waits", || show("StatusText").contains("waiting for the address"));
    assert_eq!(show("ActiveState"), "activating");
    sh("ip link add up0 type veth peer name up1; ip link set up1 up; ip link set up0 up
        ip addr add 192.0.2.7/24 dev up0; ip route add default via 192.0.2.1");
    until("the unit is active", || show("ActiveState") == "active");
    assert_eq!(show("NRestarts"), "0");
    assert_eq!(degraded(), "");
    std::fs::remove_file(primary).expect("remove");
    sh("ip link del up0; systemctl daemon-reload");
    start("restart");
}

/// More exits than systemd's own limit, and the service is there once their cause is gone.
pub(crate) fn start_limit() {
    // Fast enough for the limit, five starts in ten seconds, in an emulated machine as well.
    let exits = "/run/systemd/system/causewayd.service.d/exits.conf";
    let text = "[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/false\nRestartSec=0\n";
    std::fs::create_dir_all(Path::new(exits).parent().expect("a folder")).expect("a folder");
    std::fs::write(exits, text).expect("write");
    sh("systemctl stop causewayd; systemctl daemon-reload");
    assert_eq!(show("StartLimitIntervalUSec"), "0");
    sh("systemctl start --no-block causewayd");
    until("more restarts than the limit", || {
        assert_ne!(show("ActiveState"), "failed", "{}", journal());
        show("NRestarts").parse::<u32>().is_ok_and(|count| count > 6)
    });
    std::fs::remove_file(exits).expect("remove");
    sh("systemctl daemon-reload");
    until("it runs", || show("ActiveState") == "active");
}

/// Starts the unit; back when the rules are in the kernel.
fn start(verb: &str) {
    sh(&format!("systemctl {verb} --no-block causewayd"));
    until("the unit is active", || show("ActiveState") == "active" && show("Job").is_empty());
}

/// A property of the unit.
fn show(property: &str) -> String {
    let text = sh(&format!("systemctl show --value --property {property} causewayd"));
    text.trim().to_owned()
}

fn cni(verb: &str, ns: &Ns, labels: &str) {
    sh(&format!(
        "CNI_PATH=/opt/cni/bin CNI_ARGS=CAUSEWAY_LABELS={labels} cnitool {verb} causeway {}",
        ns.path().display()
    ));
}

/// Lines of `causeway status` that say what does not work.
fn degraded() -> String {
    let status = finish(shell("causeway status"), b"");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("State:"), "{}", status.describe());
    text.lines().filter(|line| line.starts_with("  - ")).collect::<Vec<_>>().join("\n")
}

fn until(what: &str, condition: impl Fn() -> bool) {
    assert!(holds_within(LIMIT, condition), "not within {LIMIT:?}: {what}; {}", journal());
}

/// What systemd and the daemon say, without an opinion about failure.
fn journal() -> String {
    let script =
        "systemctl status -n 0 causewayd || true; journalctl -u causewayd -n 20 --no-pager -o cat";
    String::from_utf8_lossy(&finish(shell(script), b"").stdout).into_owned()
}

fn sh(script: &str) -> String {
    let finished: Finished = finish(shell(script), b"");
    assert!(finished.status.success(), "{}\n{}", finished.describe(), journal());
    finished.ok()
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-euc", script]).env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
