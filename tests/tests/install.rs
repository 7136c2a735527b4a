//! README's Install section and its worked example, run as they are written.

use causeway_tests::{Lab, Machine, Node, bins, executable};
use serde_json::Value;

/// Names that `make install LINKS=1` makes, and where they lead to.
const LINKS: [(&str, &str); 6] = [
    ("bridge", "causeway-bridge"),
    ("host-local", "causeway-ipam"),
    ("portmap", "causeway-service"),
    ("firewall", "/usr/lib/cni/firewall"),
    ("loopback", "/usr/lib/cni/loopback"),
    ("tuning", "/usr/lib/cni/tuning"),
];

/// Rows: RA8
#[test]
fn the_readme_installs_as_it_is_written() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    // Nothing is installed; nerdctl is, where its own instructions put it. The cgroups of this
    // machine are no systemd's.
    machine.sh(&format!(
        "rm -rf /opt/cni/bin /etc/cni/net.d
         mount -t tmpfs causeway-host /usr/local/bin
         ln -s {} /usr/local/bin/nerdctl
         mkdir -p /etc/nerdctl
         echo 'cgroup_manager = \"cgroupfs\"' >/etc/nerdctl/nerdctl.toml",
        bins::tool("nerdctl").display()
    ));
    let mut daemon = None;
    let mut served = 0;
    for line in commands() {
        if let Some(packages) = line.strip_prefix("apt install ") {
            let listed = std::fs::read_to_string(bins::workspace().join("tests/programs.txt"));
            let listed = listed.expect("the packages that tests/deps.sh installs");
            for package in packages.split_whitespace() {
                let line = |line: &str| line.split(' ').next() == Some(package);
                assert!(listed.lines().any(line), "{package} is not installed by tests/deps.sh");
            }
        } else if line.starts_with("systemctl enable --now ") {
            assert!(machine.path("/etc/systemd/system/causewayd.service").exists());
            daemon = Some(machine.causewayd(&[]));
        } else {
            let printed = typed(&machine, &line);
            // `nerdctl run -d` prints the container's id when it is started, which is before its
            // server listens.
            if line.starts_with("nerdctl run") {
                machine.await_server(printed.trim());
            }
        }
        if line.starts_with("nerdctl run") && line.contains("8080:80") {
            lab.client.tcp("172.18.0.2:8080").expect("an answer at the host port");
            served += 1;
        }
        if line.starts_with("causeway apply") {
            let status =
                String::from_utf8_lossy(&machine.causeway(&["status"]).stdout).into_owned();
            assert!(status.contains("1 service\n"), "{status}");
            lab.client.tcp("172.18.0.2:30080").expect("an answer at the node port");
            served += 1;
        }
    }
    assert_eq!(served, 2, "the README runs a container and applies a service: {:?}", commands());
    drop(daemon);
}

/// Rows: RA8
#[test]
fn links_never_replace_what_is_there() {
    let node = Node::new("install");
    let root = node.dir().join("root");
    let plugins = root.join("opt/cni/bin");
    let programs = node.dir().join("release");
    for folder in [&plugins, &programs] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    for name in ["causeway-bridge", "causeway-ipam", "causeway-service", "causewayd", "causeway"] {
        executable::copy("/bin/true", &programs.join(name));
    }
    std::fs::write(plugins.join("bridge"), "somebody's").expect("a file");
    std::os::unix::fs::symlink("/not/there", plugins.join("tuning")).expect("a link");
    let install = || {
        node.sh(&format!(
            "make -s -C {} install LINKS=1 CARGO=true RELEASE={} DESTDIR={}",
            bins::workspace().display(),
            programs.display(),
            root.display()
        ))
    };
    let said = install();
    assert_eq!(std::fs::read_to_string(plugins.join("bridge")).expect("a file"), "somebody's");
    for (name, target) in LINKS {
        let wanted = match name {
            "bridge" => continue,
            "tuning" => "/not/there",
            _ => target,
        };
        let led = std::fs::read_link(plugins.join(name)).expect("a link");
        assert_eq!(led.to_str(), Some(wanted), "{name}");
    }
    // Messages and pages say `causeway-ipam repair`, and /opt/cni/bin is in no PATH.
    let typed = std::fs::read_link(root.join("usr/local/bin/causeway-ipam")).expect("a link");
    assert_eq!(typed.to_str(), Some("/opt/cni/bin/causeway-ipam"));
    for name in ["bridge", "tuning"] {
        assert!(said.contains(&format!("{name} is there and stays as it is")), "{said}");
    }
    assert_eq!(install(), said, "a second run changes nothing");
}

/// Rows: RA8
#[test]
fn the_worked_example_prints_what_the_readme_shows() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.shipped_network("10-causeway.conflist");
    let _daemon = machine.causewayd(&[]);
    let section = section("A worked example");
    let block = |start: &str| {
        let (_, rest) = section.split_once(start).expect("a block");
        rest.split("```").next().expect("the text of a block").to_owned()
    };
    for name in ["web1", "web2"] {
        machine.run(name, &["--label", "app=web", "--net", "causeway"]);
    }
    std::fs::write(machine.path("/run/causeway/web.yaml"), block("```yaml\n")).expect("a file");
    let applied = machine.causeway(&["apply", "-f", "/run/causeway/web.yaml"]).ok();
    let service = machine.causeway(&["get", "service", "web", "-o", "json"]).ok();
    let service: Value = serde_json::from_str(&service).expect("JSON");
    let address = service["spec"]["clusterIP"].as_str().expect("a cluster address");
    let traced =
        machine.causeway(&["trace", "10.0.1.9", "web"]).ok().replace(address, "10.96.3.50");
    let shown = block("```text\n");
    let shown: Vec<&str> = shown.lines().filter(|line| !line.starts_with("# ")).collect();
    assert_eq!(format!("{applied}{traced}").trim_end(), shown.join("\n"));
    lab.client.tcp("172.18.0.2:30081").expect("an answer at the node port");
}

/// What a line prints that is run as a user would, in the top directory, with the debug build for
/// what `make` builds.
fn typed(machine: &Machine<'_>, line: &str) -> String {
    machine.sh(&format!(
        "cd {}
         export MAKEFLAGS='-- CARGO=true RELEASE={}' CONTAINERD_NAMESPACE={}
         {line}",
        bins::workspace().display(),
        bins::dir().display(),
        machine.namespace(),
    ))
}

/// The text of a section of the README.
fn section(name: &str) -> String {
    let readme = std::fs::read_to_string(bins::workspace().join("README.md")).expect("the README");
    let (_, rest) = readme.split_once(&format!("\n## {name}\n")).expect("the section");
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The command lines of README's section Install, without their comments.
fn commands() -> Vec<String> {
    let section = section("Install");
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or_default());
    let lines = lines.map(|line| line.trim().replace("IMAGE", Machine::IMAGE));
    lines.filter(|line| !line.is_empty()).collect()
}
