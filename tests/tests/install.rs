//! README's Install section, run as it is written on a machine with Debian's packages.

use causeway_tests::{Lab, Machine, Node, bins, executable};

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
    for name in ["bridge", "tuning"] {
        assert!(said.contains(&format!("{name} is there and stays as it is")), "{said}");
    }
    assert_eq!(install(), said, "a second run changes nothing");
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

/// The command lines of README's section Install, without their comments.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(bins::workspace().join("README.md")).expect("the README");
    let (_, section) = readme.split_once("\n## Install\n").expect("a section Install");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or_default());
    let lines = lines.map(|line| line.trim().replace("IMAGE", Machine::IMAGE));
    lines.filter(|line| !line.is_empty()).collect()
}
