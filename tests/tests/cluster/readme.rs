//! The way of proxy/README.md to an etcd that asks for certificates, run as it is written.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use causeway_tests::{Daemon, Etcd, Lab, Ns, TempDir, bins};

/// Where the page has its files: on the machine of etcd, and on a node.
const PLACES: [&str; 2] = ["/etc/etcd/tls", "/etc/causeway"];

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The section about etcd, with a folder of the test in the place of the page's.
fn section(folder: &str) -> String {
    let page = bins::workspace().join("proxy/README.md");
    let page = std::fs::read_to_string(page).expect("the page about services");
    let (_, section) = page.split_once("\n### With etcd\n").expect("a section about etcd");
    let section = section.split("\n### ").next().expect("a section");
    PLACES.iter().fold(section.to_owned(), |text, place| text.replace(place, folder))
}

/// The blocks of a kind.
fn blocks<'a>(section: &'a str, kind: &str) -> Vec<&'a str> {
    let opening = format!("```{kind}\n");
    let rest: Vec<&str> = section.split(opening.as_str()).skip(1).collect();
    rest.into_iter().map(|rest| rest.split("```").next().expect("a block")).collect()
}

/// Rows: RH1
#[test]
fn etcd_with_certificates_as_the_readme_makes_them() {
    let folder = TempDir::new("readme");
    let section = section(&folder.path().display().to_string());
    let (sh, texts) = (blocks(&section, "sh"), blocks(&section, "text"));

    // The packages are there, and there is no user etcd here.
    let own = |line: &&str| !line.starts_with("apt install") && !line.starts_with("chown etcd");
    let commands: Vec<&str> = sh[0].lines().filter(own).collect();
    assert_eq!(commands.iter().filter(|line| line.starts_with("openssl ")).count(), 3);
    let lab = Lab::with_nodes(2);
    let machine = Ns::new("etcd");
    machine.sh(&commands.join("\n"));

    let settings: BTreeMap<&str, &str> =
        texts[0].lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(settings.get("ETCD_CLIENT_CERT_AUTH"), Some(&"true"), "{settings:?}");
    lab.plug(&machine, Etcd::PORT, "10");
    let mut command = machine.command("/usr/bin/etcd");
    command.envs(settings).arg("--data-dir").arg(folder.path().join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _etcd = Running(command.spawn().expect("etcd starts"));

    let line = sh[1].lines().find_map(|line| line.strip_prefix("causewayd "));
    let flags: Vec<&str> = line.expect("the daemon's flags").split_whitespace().collect();
    let connected = |daemon: &Daemon<'_>| {
        daemon.until("the store answers", || {
            daemon.status().cluster.is_some_and(|cluster| cluster.connected)
        });
    };
    let first = Daemon::start_with(&lab.nodes[0], &[&["--node-name", "n1"], &flags[..]].concat());
    connected(&first);
    let opens = |daemon: &Daemon<'_>| {
        daemon.status().warnings.iter().any(|line| line.contains("the store is reached"))
    };
    assert!(!opens(&first), "{:?}", first.status().warnings);
    // Nobody else writes to it.
    let at = flags.iter().position(|flag| *flag == "--etcd-certfile").expect("a certificate");
    let bare = [&flags[..at], &flags[at + 4..]].concat();
    let second = Daemon::start_with(&lab.nodes[1], &[&["--node-name", "n2"], &bare[..]].concat());
    second.until("it is refused", || {
        let reason = second.status().cluster.and_then(|cluster| cluster.reason);
        reason.is_some_and(|reason| reason.to_lowercase().contains("certificate"))
    });
    assert!(opens(&second), "{:?}", second.status().warnings);
    assert!(first.status().peers.is_empty());
}
