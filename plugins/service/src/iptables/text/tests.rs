use causeway_host::RecordKey;

use super::{Wanted, add, missing, remove, remove_guard};
use crate::config::IptablesOptions;
use crate::iptables::names::Names;
use crate::iptables::save::Saved;
use crate::mapping::{Addresses, HostSide, Mapping, Protocol, bind};
use crate::record::{Mark, Masquerade, Record, RecordBackend};

fn key(ifname: &str) -> RecordKey {
    RecordKey { network: "net".into(), container_id: "id".into(), ifname: ifname.into() }
}

fn options() -> IptablesOptions {
    IptablesOptions { mark: Mark::Bit(13), conditions_v4: Vec::new(), conditions_v6: Vec::new() }
}

fn wanted(ports: &[(Protocol, u16)], options: &IptablesOptions) -> Wanted {
    let addresses = Addresses { v4: Some("10.0.0.2/24".parse().unwrap()), v6: None };
    let mapping = |&(protocol, host_port): &(Protocol, u16)| Mapping {
        protocol,
        host: HostSide::Any,
        host_port,
        container_port: 80,
    };
    let mappings: Vec<Mapping> = ports.iter().map(mapping).collect();
    let record = Record {
        backend: RecordBackend::Iptables,
        bindings: bind(&mappings, &addresses).unwrap(),
        masquerade: Masquerade::Needed,
        conditions_v4: None,
        conditions_v6: None,
        again: crate::record::Again::default(),
    };
    Wanted::new(&key("eth0"), &record, options, &addresses)
}

#[test]
fn a_long_comment_is_cut_between_letters() {
    for length in 200..240 {
        let names = Names::of(&RecordKey { container_id: "a".repeat(length), ..key("éééé") });
        assert!(names.comment.len() <= 255, "{length}");
    }
}

/// What `iptables-save` prints after `input` on empty tables.
fn saved(input: &str) -> Saved {
    Saved::parse(&input.replace("-I ", "-A "))
}

#[test]
fn an_attachment_is_upstreams_text() {
    let wanted = wanted(&[(Protocol::Tcp, 8080)], &options());
    let rules = wanted.families().next().unwrap();
    let text = add(rules, &Saved::default());
    let chain = &rules.names.chain;
    let expected = format!(
        r#"*raw
-A PREROUTING -d 127.0.0.0/8 ! -i lo -m comment --comment "causeway-service: 127.0.0.0/8 comes from lo only" -j DROP
COMMIT
*mangle
-A PREROUTING -m conntrack --ctorigsrc 127.0.0.0/8 --ctdir REPLY -m comment --comment "causeway-service: replies to 127.0.0.0/8" -j MARK --set-xmark 0x1000/0x1000
COMMIT
*nat
:CNI-HOSTPORT-SETMARK - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:{chain} - [0:0]
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-I POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A {chain} -s 10.0.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A {chain} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A {chain} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"id\"" -m multiport --dports 8080 -j {chain}
COMMIT
"#
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_there_is_not_declared_again() {
    let wanted = wanted(&[(Protocol::Tcp, 8080)], &options());
    let rules = wanted.families().next().unwrap();
    let first = saved(&add(rules, &Saved::default()));
    assert_eq!(missing(rules, &first), Vec::<String>::new());
    let again = add(rules, &first);
    // A `:` line would empty a chain that other attachments use.
    let declared: Vec<&str> = again.lines().filter(|line| line.starts_with(':')).collect();
    assert_eq!(declared, [format!(":{} - [0:0]", rules.names.chain)]);
    assert!(!again.contains("POSTROUTING") && !again.contains("*raw"), "{again}");
}

#[test]
fn removal_takes_exactly_what_was_added() {
    let wanted = wanted(&[(Protocol::Udp, 53), (Protocol::Tcp, 8080)], &options());
    let rules = wanted.families().next().unwrap();
    let names = &rules.names;
    let there = saved(&add(rules, &Saved::default()));
    let text = remove(names, &there);
    let deleted = text.lines().filter(|line| line.starts_with("-D CNI-HOSTPORT-DNAT")).count();
    assert_eq!(deleted, 2, "{text}");
    assert!(text.ends_with(&format!("-F {0}\n-X {0}\nCOMMIT\n", names.chain)), "{text}");
    assert_eq!(remove(names, &Saved::default()), "");
    assert!(remove_guard(&there).contains("-D PREROUTING -d 127.0.0.0/8"));
    assert!(remove_guard(&there).contains("*mangle\n-D PREROUTING"));
    assert_eq!(remove_guard(&Saved::default()), "");
}

/// Rows: F39
#[test]
fn somebody_elses_chain_is_not_removed() {
    let wanted = wanted(&[(Protocol::Tcp, 8080)], &options());
    let rules = wanted.families().next().unwrap();
    let theirs = add(rules, &Saved::default()).replace("dnat name:", "their name:");
    assert_eq!(remove(&rules.names, &saved(&theirs)), "");
}

#[test]
fn ports_go_in_groups_of_fifteen() {
    let ports: Vec<_> = (9000..9031).map(|port| (Protocol::Tcp, port)).collect();
    let wanted = wanted(&ports, &options());
    let text = add(wanted.families().next().unwrap(), &Saved::default());
    let groups: Vec<usize> = text
        .lines()
        .filter_map(|line| line.split_once("--dports ")?.1.split_once(' '))
        .map(|(ports, _)| ports.split(',').count())
        .collect();
    assert_eq!(groups, [15, 15, 1]);
}

#[test]
fn names_are_upstreams_for_eth0_and_differ_for_others() {
    let (eth0, eth1) = (Names::of(&key("eth0")), Names::of(&key("eth1")));
    assert_eq!(eth0.comment, "dnat name: \"net\" id: \"id\"");
    assert_ne!(eth0, eth1);
    assert_ne!(eth0.chain, eth1.chain);
    assert_eq!((eth0.chain.len(), eth1.chain.len()), (28, 28));
    let long = RecordKey { container_id: "x".repeat(400), ..key("eth0") };
    assert_eq!(Names::of(&long).comment.len(), 255);
}

#[test]
fn conditions_stay_on_their_line() {
    let conditions = ["-m", "comment", "--comment", "a \"b\" \\"].map(str::to_owned).to_vec();
    let options = IptablesOptions { conditions_v4: conditions.clone(), ..options() };
    let wanted = wanted(&[(Protocol::Tcp, 8080)], &options);
    let rules = wanted.families().next().unwrap();
    let text = add(rules, &Saved::default());
    let there = saved(&text);
    let jumps = there.chain("nat", super::DNAT_CHAIN);
    let args = &jumps.first().unwrap().args;
    assert!(args.windows(4).any(|window| window == conditions), "{args:?}");
    assert_eq!(missing(rules, &there), Vec::<String>::new());
}
