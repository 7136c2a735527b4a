//! The layouts of the peers, as text: shared maps by `nft -f`, and what kube-proxy 1.36 writes for
//! nftables and iptables (one chain per service, an anonymous map or two chains for its endpoints).

use std::fmt::Write as _;

use crate::services::{endpoint, vip};

macro_rules! put {
    ($out:expr, $($arg:tt)*) => { writeln!($out, $($arg)*).expect("writing to a String") };
}

/// One map of services, one of endpoints, one chain for their number.
pub(crate) fn shared_maps(services: usize, endpoints: usize) -> String {
    let mut out = String::from(
        "table ip peer {\n\
         map services { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         map endpoints { typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport; }\n\
         chain services { ip daddr . meta l4proto . th dport vmap @services; }\n\
         chain prerouting { type nat hook prerouting priority -100; jump services; }\n\
         chain output { type nat hook output priority -100; jump services; }\n",
    );
    for count in 1..=3 {
        put!(
            out,
            "chain n{count} {{ dnat ip to ip daddr . meta l4proto . th dport . numgen random mod {count} map @endpoints; }}"
        );
    }
    put!(out, "}}");
    elements(&mut out, "services", services, |out, number| {
        put!(out, "{} . tcp . 80 : goto n{endpoints},", vip(number));
    });
    elements(&mut out, "endpoints", services, |out, number| {
        for index in 0..endpoints {
            let to = endpoint(number, index);
            put!(out, "{} . tcp . 80 . {index} : {to} . 8080,", vip(number));
        }
    });
    out
}

fn elements(out: &mut String, map: &str, services: usize, each: impl Fn(&mut String, usize)) {
    put!(out, "add element ip peer {map} {{");
    for number in 0..services {
        each(out, number);
    }
    put!(out, "}}");
}

/// Service `round` gets a second endpoint, or loses it.
pub(crate) fn shared_maps_change(round: usize) -> String {
    let (number, more) = (round / 2, round.is_multiple_of(2));
    let vip = vip(number);
    let (old, new) = if more { (1, 2) } else { (2, 1) };
    let verb = if more { "add" } else { "delete" };
    format!(
        "delete element ip peer services {{ {vip} . tcp . 80 : goto n{old} }}\n\
         add element ip peer services {{ {vip} . tcp . 80 : goto n{new} }}\n\
         {verb} element ip peer endpoints {{ {vip} . tcp . 80 . 1 : {} . 8080 }}\n",
        endpoint(number, 1)
    )
}

/// kube-proxy's table `ip kube-proxy` of 1.36.
pub(crate) fn kube_proxy_nftables(services: usize, endpoints: usize) -> String {
    let mut out = String::from(
        "table ip kube-proxy {\n\
         set cluster-ips { type ipv4_addr; }\n\
         map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         chain services { ip daddr @cluster-ips ip saddr != 10.0.0.0/16 meta mark set meta mark | 0x4000; ip daddr . meta l4proto . th dport vmap @service-ips; }\n\
         chain nat-prerouting { type nat hook prerouting priority -100; jump services; }\n\
         chain nat-output { type nat hook output priority -100; jump services; }\n\
         chain nat-postrouting { type nat hook postrouting priority 100; meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random; }\n",
    );
    for number in 0..services {
        let map = kube_map(number, endpoints);
        put!(out, "chain {} {{ {map}; }}", kube_chain(number));
    }
    put!(out, "}}\nadd element ip kube-proxy cluster-ips {{");
    for number in 0..services {
        put!(out, "{},", vip(number));
    }
    put!(out, "}}\nadd element ip kube-proxy service-ips {{");
    for number in 0..services {
        put!(out, "{} . tcp . 80 : goto {},", vip(number), kube_chain(number));
    }
    put!(out, "}}");
    out
}

fn kube_chain(number: usize) -> String {
    format!("service-ULMVA6XW-default/service-{number}/tcp/")
}

fn kube_map(number: usize, endpoints: usize) -> String {
    let all: Vec<String> = (0..endpoints)
        .map(|index| format!("{index} : {} . 8080", endpoint(number, index)))
        .collect();
    format!(
        "meta l4proto tcp dnat ip addr . port to numgen random mod {endpoints} map {{ {} }}",
        all.join(", ")
    )
}

/// The chain of service `round` is written again with three endpoints, or two.
pub(crate) fn kube_proxy_change(round: usize) -> String {
    let (number, count) = (round / 2, 3 - round % 2);
    let chain = kube_chain(number);
    format!(
        "flush chain ip kube-proxy {chain}\nadd rule ip kube-proxy {chain} {}\n",
        kube_map(number, count)
    )
}

/// kube-proxy's iptables chains.
pub(crate) fn kube_proxy_iptables(services: usize, endpoints: usize) -> String {
    let mut out = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n",
    );
    for number in 0..services {
        put!(out, ":KUBE-SVC-{number:016} - [0:0]");
        for index in 0..endpoints {
            put!(out, ":KUBE-SEP-{number:08}{index:08} - [0:0]");
        }
    }
    put!(out, "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES");
    put!(out, "-A POSTROUTING -j KUBE-POSTROUTING\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000");
    put!(out, "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN");
    put!(out, "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000");
    put!(out, "-A KUBE-POSTROUTING -j MASQUERADE --random-fully");
    for number in 0..services {
        let vip = vip(number);
        let comment = format!("-m comment --comment \"default/service-{number} cluster IP\"");
        put!(
            out,
            "-A KUBE-SERVICES {comment} -d {vip}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{number:016}"
        );
        let svc = format!("-A KUBE-SVC-{number:016}");
        put!(out, "{svc} ! -s 10.0.0.0/16 -d {vip}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ");
        for index in 0..endpoints {
            let sep = format!("KUBE-SEP-{number:08}{index:08}");
            let left = endpoints - index;
            let random = match left {
                1 => String::new(),
                _ => format!(
                    "-m statistic --mode random --probability 0.{:010}",
                    10_000_000_000 / left
                ),
            };
            put!(out, "{svc} {random} -j {sep}");
            let to = endpoint(number, index);
            put!(out, "-A {sep} -s {to}/32 -j KUBE-MARK-MASQ");
            put!(out, "-A {sep} -p tcp -m tcp -j DNAT --to-destination {to}:8080");
        }
    }
    put!(out, "COMMIT");
    out
}
