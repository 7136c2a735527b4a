//! What creating and deleting veths costs, by several ways. Runs in namespaces of its own, as root.
//!
//! `cargo run -p causeway-kernel --example links [ROUNDS] [THREADS] [LINKS PER THREAD]`

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement reads the clock, prints, and ends at the first failure"
)]

use std::time::{Duration, Instant};

use causeway_kernel::{AddressSpec, BridgeSpec, LinkChange, Netlink, Netns, RouteSpec, VethSpec};

fn namespace() -> Netns {
    // SAFETY: unshare changes this thread only.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
    Netns::current().unwrap()
}

fn other() -> Netns {
    std::thread::spawn(namespace).join().unwrap()
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

fn timed(samples: &mut Vec<Duration>, work: impl FnOnce()) {
    let begin = Instant::now();
    work();
    samples.push(begin.elapsed());
}

fn veth(host: &Netlink, name: &str, master: Option<u32>, netns: &Netns) {
    let spec = VethSpec {
        name,
        master,
        mtu: Some(1450),
        alias: "bench",
        peer_name: "eth0",
        peer_mac: None,
        peer_netns: netns,
        up: true,
    };
    host.add_veth(&spec).unwrap();
}

fn index(netlink: &Netlink, name: &str) -> u32 {
    netlink.link(name).unwrap().unwrap().index
}

fn up(netlink: &Netlink, index: u32, up: bool) {
    netlink.change_link(index, &LinkChange { up: Some(up), ..LinkChange::default() }).unwrap();
}

/// Deletes `v0` or its `eth0`, given connections to both namespaces.
type Way = fn(&Netlink, &Netlink);

fn alone(host: &Netlink, bridge: u32, rounds: usize) {
    let ways: [(&str, Way); 5] = [
        ("host end", |host, _| host.delete_link(index(host, "v0")).unwrap()),
        ("container end", |_, inside| inside.delete_link(index(inside, "eth0")).unwrap()),
        ("down first, host end", |host, _| {
            up(host, index(host, "v0"), false);
            host.delete_link(index(host, "v0")).unwrap();
        }),
        ("container down first", |host, inside| {
            up(inside, index(inside, "eth0"), false);
            host.delete_link(index(host, "v0")).unwrap();
        }),
        ("no master first", |host, _| {
            let free = LinkChange { master: Some(0), ..LinkChange::default() };
            host.change_link(index(host, "v0"), &free).unwrap();
            host.delete_link(index(host, "v0")).unwrap();
        }),
    ];
    for (name, delete) in ways {
        let mut samples = Vec::new();
        for _ in 0..rounds {
            let netns = other();
            let inside = Netlink::open_in(&netns).unwrap();
            veth(host, "v0", Some(bridge), &netns);
            up(&inside, index(&inside, "eth0"), true);
            timed(&mut samples, || delete(host, &inside));
        }
        println!("delete, {name}: {:?}", median(samples));
    }
}

fn steps(host: &Netlink, bridge: u32, rounds: usize) {
    let names = ["open_in", "add_veth", "link", "up", "address v4", "address v6", "route", "wait"];
    let mut samples: Vec<Vec<Duration>> = names.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        let netns = other();
        let mut inside = None;
        timed(&mut samples[0], || inside = Some(Netlink::open_in(&netns).unwrap()));
        let inside = inside.unwrap();
        timed(&mut samples[1], || veth(host, "v0", Some(bridge), &netns));
        let mut eth0 = 0;
        timed(&mut samples[2], || eth0 = index(&inside, "eth0"));
        timed(&mut samples[3], || up(&inside, eth0, true));
        for (n, address) in [(4, "10.9.0.2/16"), (5, "fd09::2/64")] {
            let spec = AddressSpec { address: address.parse().unwrap(), nodad: true };
            timed(&mut samples[n], || inside.add_address(eth0, &spec).unwrap());
        }
        let gw = Some("10.9.0.1".parse().unwrap());
        let route = RouteSpec { gw, ..RouteSpec::new("0.0.0.0/0".parse().unwrap(), eth0) };
        timed(&mut samples[6], || inside.add_route(&route).unwrap());
        let port = index(host, "v0");
        timed(&mut samples[7], || {
            host.wait_forwarding(port, Duration::from_secs(1)).unwrap();
        });
        host.delete_link(port).unwrap();
    }
    for (name, samples) in names.iter().zip(samples) {
        println!("{name}: {:?}", median(samples));
    }
}

fn at_once(here: &Netns, bridge: u32, threads: usize, links: usize) {
    for _ in 0..2 {
        let namespaces: Vec<Netns> = (0..threads * links).map(|_| other()).collect();
        let host = Netlink::open_in(here).unwrap();
        for (n, netns) in namespaces.iter().enumerate() {
            veth(&host, &format!("v{n}"), Some(bridge), netns);
            let inside = Netlink::open_in(netns).unwrap();
            up(&inside, index(&inside, "eth0"), true);
        }
        let begin = Instant::now();
        let mut slowest = Vec::new();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut samples = Vec::new();
                        for link in 0..links {
                            let host = Netlink::open_in(here).unwrap();
                            let name = format!("v{}", thread * links + link);
                            timed(&mut samples, || {
                                let index = index(&host, &name);
                                host.delete_link(index).unwrap();
                            });
                            assert!(host.link(&name).unwrap().is_none());
                        }
                        samples
                    })
                })
                .collect();
            for worker in workers {
                slowest.extend(worker.join().unwrap());
            }
        });
        let elapsed = begin.elapsed();
        let rate = (threads * links) as f64 / elapsed.as_secs_f64();
        println!("{threads} at once: {rate:.0} deletions/s, median {:?}", median(slowest));
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().unwrap());
    let rounds = args.next().unwrap_or(21);
    let threads = args.next().unwrap_or(16);
    let links = args.next().unwrap_or(6);
    let here = namespace();
    let host = Netlink::open().unwrap();
    let spec = BridgeSpec { name: "cw0", mtu: Some(1450), mac: None, vlan_filtering: false };
    let bridge = host.add_bridge(&spec).unwrap().index;
    up(&host, bridge, true);
    steps(&host, bridge, rounds);
    alone(&host, bridge, rounds);
    at_once(&here, bridge, threads, links);
}
