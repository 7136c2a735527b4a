//! Conditions, spellings and protocols.

use causeway_ruleset::{Family, TableId};
use causeway_tests::traffic::{IMPATIENCE, Server};
use causeway_tests::{Lab, Runtime};
use serde_json::{Value, json};

use crate::{
    NODE, NODE6, World, alone, at, attachment, elements, mappings, merged, refused, service,
    settle, tcp, udp,
};

/// Conditions of one network say nothing about another, which upstream's nftables backend does.
#[test]
fn conditions_hold_for_their_network_only() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let conditions = json!({ "conditionsV4": ["ip", "saddr", "!=", Lab::CLIENT],
                             "conditionsV6": ["ip6 saddr { fd00:172:18::77, fd00:172:18::100 }"] });
    let some = world.runtime("some", 20, conditions);
    let every = world.runtime("every", 21, json!({}));
    let (first, second) = (node.pod(), node.pod());
    let limited = attachment(&first, json!([tcp(8080, 80)]));
    let open = attachment(&second, json!([tcp(8081, 80)]));
    some.add_ok(&limited);
    every.add_ok(&open);
    for ns in [&*first, &*second, &**node] {
        settle(ns);
    }
    let _one = Server::tcp(&first, "one", "[::]:80");
    let _two = Server::tcp(&second, "two", "[::]:80");

    assert!(lab.client.tcp_within(&format!("{NODE}:8080"), IMPATIENCE).is_err(), "excepted");
    assert_eq!(lab.switch.tcp(&format!("{NODE}:8080")).expect("not excepted").hostname, "one");
    assert_eq!(lab.client.tcp(&format!("[{NODE6}]:8080")).expect("in the set").hostname, "one");
    assert!(lab.switch.tcp_within(&format!("[{NODE6}]:8080"), IMPATIENCE).is_err(), "not in it");
    for from in [&lab.client, &lab.switch] {
        assert_eq!(from.tcp(&format!("{NODE}:8081")).expect("no conditions").hostname, "two");
    }
    some.check(&limited).expect("CHECK with conditions");
    every.check(&open).expect("CHECK without");
    some.del_ok(&limited);
    assert_eq!(lab.client.tcp(&format!("{NODE}:8081")).expect("still there").hostname, "two");
    every.del_ok(&open);
    assert_eq!(node.nft(), "");
}

/// Different conditions share a port; none means every packet, and conflicts with any.
#[test]
fn conditions_share_a_port_and_nothing_else_does() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let from_client =
        json!({ "conditionsV4": ["ip saddr", Lab::CLIENT], "conditionsV6": ["ip6 saddr ::9"] });
    let others =
        json!({ "conditionsV4": ["ip saddr !=", Lab::CLIENT], "conditionsV6": ["ip6 saddr ::8"] });
    let one = world.runtime("one", 20, from_client);
    let two = world.runtime("two", 21, others);
    let three = world.runtime("three", 22, json!({}));
    let pods = [node.pod(), node.pod(), node.pod()];
    let ports = || json!([tcp(8080, 80)]);
    one.add_ok(&attachment(&pods[0], ports()));
    two.add_ok(&attachment(&pods[1], ports()));
    let error = refused(three.add(&attachment(&pods[2], ports())));
    assert_eq!(error["code"], 102, "{error}");
    let _one = Server::tcp(&pods[0], "one", "0.0.0.0:80");
    let _two = Server::tcp(&pods[1], "two", "0.0.0.0:80");
    assert_eq!(lab.client.tcp(&format!("{NODE}:8080")).expect("the client").hostname, "one");
    assert_eq!(lab.switch.tcp(&format!("{NODE}:8080")).expect("others").hostname, "two");

    one.del_ok(&attachment(&pods[0], ports()));
    two.del_ok(&attachment(&pods[1], ports()));
    three.del_ok(&attachment(&pods[2], ports()));
    three.add_ok(&attachment(&pods[2], ports()));
    let error = refused(one.add(&attachment(&node.pod(), ports())));
    assert_eq!(error["code"], 102, "{error}");
}

/// `nft list ruleset >file; nft -f file` with the rules of attachments of every kind, by Debian's nft
/// and the newest.
///
/// Rows: RD13
#[test]
fn what_nft_lists_of_attachments_loads_again() {
    let world = World::new();
    let node = world.node();
    let network = |number: u8, conditions: Value| {
        json!({ "cniVersion": "1.0.0", "name": format!("net{number}"), "plugins": [
            { "type": "causeway-bridge", "bridge": format!("cw{number}"), "isDefaultGateway": true,
              "ipMasq": true, "macspoofchk": true, "hairpinMode": true, "runDir": node.run_dir(),
              "ipMasqExclude": ["10.96.0.0/12", "fd00:96::/112"],
              "ipam": { "type": "causeway-ipam", "dataDir": node.data_dir(), "runDir": node.run_dir(),
                        "ranges": [[{ "subnet": format!("10.{number}.0.0/24") }],
                                   [{ "subnet": format!("fd00:{number}::/64") }]] } },
            merged(service(node), conditions) ] })
    };
    let open = Runtime::new(node, network(20, json!({})));
    let limited = json!({ "conditionsV4": ["ip", "saddr", "!=", Lab::CLIENT],
                          "conditionsV6": ["ip6 saddr { fd00:172:18::77, fd00:172:18::100 }"],
                          "snat": true, "masqAll": true });
    let limited = Runtime::new(node, network(21, limited));
    let pods = [node.pod(), node.pod(), node.pod()];
    let ports =
        json!([tcp(8080, 80), udp(8053, 53), at(NODE, tcp(8081, 81)), at(NODE6, tcp(8082, 82))]);
    let first = attachment(&pods[0], ports);
    let sctp = json!([{ "hostPort": 3868, "containerPort": 38, "protocol": "sctp" }]);
    let second = attachment(&pods[1], sctp);
    let third = attachment(&pods[2], json!([tcp(9090, 80), at(NODE, udp(9091, 81))]));
    open.add_ok(&first);
    open.add_ok(&second);
    limited.add_ok(&third);
    let tables = [
        (Family::Inet, "causeway_hostport"),
        (Family::Inet, "causeway_masq"),
        (Family::Bridge, "causeway_spoof"),
    ];
    let read = || {
        node.run(|| {
            let mut client = causeway_nft::Client::open().expect("nf_tables");
            let tables = tables.map(|(family, name)| {
                let id = TableId { family, name: name.to_owned() };
                let mut table = client.table(&id).expect("a read").expect("a table");
                let rules = table.chains.values_mut().flat_map(|(_, rules)| rules);
                rules.for_each(|(handle, _)| *handle = 0);
                table
            });
            tables.to_vec()
        })
    };
    let before = read();
    for nft in causeway_tests::bins::nfts() {
        node.reload_rules(&nft);
        for (before, after) in before.iter().zip(read()) {
            assert_eq!(after, *before, "{}", nft.display());
        }
    }
    open.check(&first).expect("CHECK");
    limited.check(&third).expect("CHECK with conditions");
    for (runtime, attached) in [(&open, &first), (&open, &second), (&limited, &third)] {
        runtime.del_ok(attached);
    }
    assert_eq!(node.nft(), "");
}

/// Rows: C20
#[test]
fn keys_match_in_any_case() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    // As go-cni sends them.
    let go = json!({ "RuntimeConfig": { "PortMappings": [
        { "HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "192.0.2.1" } ] } });
    alone(node, "ADD", go, &attached).run().json();
    let wanted = "192.0.2.1 . tcp . 8080";
    assert!(elements(node, "addr4")[0].starts_with(wanted), "{:?}", elements(node, "addr4"));
    alone(node, "DEL", json!({}), &attached).run().silent();
}

/// The kernel of the lab has no SCTP sockets: rules only.
#[test]
fn sctp_ports_are_mapped() {
    for (backend, wanted) in [
        ("nftables", "sctp . 3868 comment"),
        ("iptables", "-p sctp -m sctp --dport 3868 -j DNAT --to-destination 10.99.0.2:38"),
    ] {
        let world = World::new();
        let node = world.node();
        let attached = node.pod().attachment("eth0");
        let one = json!([{ "hostPort": 3868, "containerPort": 38, "protocol": "sctp" }]);
        let extra = merged(mappings(one), json!({ "backend": backend }));
        alone(node, "ADD", extra.clone(), &attached).run().json();
        assert!(node.rules().contains(wanted), "{backend}: {}", node.rules());
        alone(node, "CHECK", extra, &attached).run().silent();
    }
}
