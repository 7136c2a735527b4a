//! Rules as text.

use crate::iptables::ChainMirror;
use crate::testing;

/// The rules of IPv4 that belong to services, without the chains that every plan has; hashes by
/// their order.
#[track_caller]
fn check(services: &str, table: &str, expected: &str) {
    const FIXED: [&str; 5] = ["POSTROUTING", "MARK-MASQ", "MARK-OUTSIDE", "FORWARD", "FIREWALL"];
    let plan = testing::plan(services);
    let text = &ChainMirror::full(&plan, &[]).1[0].text;
    let text = text.split_once(&format!("*{table}\n")).unwrap().1.split_once("COMMIT").unwrap().0;
    let rules = text.lines().filter_map(|line| line.strip_prefix("-A CW-"));
    let rules = rules.filter(|rule| !FIXED.iter().any(|name| rule.starts_with(name)));
    let mut rules = rules.fold(String::new(), |text, rule| text + rule + "\n");
    for kind in ["SVC", "SVL", "SEP", "EXT", "FW"] {
        let mut number = 0;
        while let Some(at) = rules.find(&format!("{kind}-")) {
            number += 1;
            let name = rules[at..at + kind.len() + 17].to_owned();
            rules = rules.replace(&name, &format!("{kind}{number}"));
        }
    }
    let expected = expected.lines().map(str::trim).filter(|line| !line.is_empty());
    let expected = expected.fold(String::new(), |text, line| text + line + "\n");
    assert_eq!(rules, expected, "{rules}");
}

const TUTORIAL: &str = "shop/cs-svc 172.17.10.10 balance=round-robin 3001/tcp:30001=web -> \
    10.0.1.2:8080@n1 10.0.1.3:8080@n1 10.0.2.2:8080@n2 10.0.2.3:8080@n2";

/// The listing of the tutorial, with its flaws mended: addresses are single ones, the hairpin mark
/// stands if an endpoint can reach itself, and a cluster address is the service's alone.
///
/// Rows: S-22, S-23, S-25, S-26, S-27, S-28, S-29, S-34
#[test]
fn the_layout_is_that_of_the_tutorials() {
    check(
        TUTORIAL,
        "nat",
        r#"
        NODEPORTS -p tcp -m tcp --dport 30001 -j CW-MARK-MASQ
        NODEPORTS -p tcp -m comment --comment "shop/cs-svc:web node port" -m tcp --dport 30001 -j CW-SVC1
        SEP1 -s 10.0.1.3/32 -j CW-MARK-MASQ
        SEP1 -p tcp -j DNAT --to-destination 10.0.1.3:8080
        SEP2 -s 10.0.1.2/32 -j CW-MARK-MASQ
        SEP2 -p tcp -j DNAT --to-destination 10.0.1.2:8080
        SERVICES -d 172.17.10.10/32 -p tcp -m tcp --dport 3001 -j CW-MARK-OUTSIDE
        SERVICES -d 172.17.10.10/32 -p tcp -m comment --comment "shop/cs-svc:web cluster IP" -m tcp --dport 3001 -j CW-SVC1
        SERVICES -d 172.17.10.10/32 -j ACCEPT
        SERVICES -m addrtype --dst-type LOCAL -j CW-NODEPORTS
        SVC1 -m statistic --mode nth --every 4 --packet 0 -j CW-SEP2
        SVC1 -m statistic --mode nth --every 3 --packet 0 -j CW-SEP1
        SVC1 -p tcp -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.0.2.2:8080
        SVC1 -p tcp -j DNAT --to-destination 10.0.2.3:8080
        "#,
    );
    check(
        TUTORIAL,
        "filter",
        "
        FILTER -d 172.17.10.10/32 -j REJECT --reject-with icmp-port-unreachable
        FILTER -m addrtype --dst-type LOCAL -j CW-NODEPORTS
        FILTER -d 172.30.0.0/16 -j DROP
        ",
    );
}

/// The chains that every plan has, and the jumps.
///
/// Rows: P47, P51, P62, P63, P64, S-25, S-27, S-29
#[test]
fn the_same_chains_frame_every_plan() {
    let plan = testing::plan("");
    let text = &ChainMirror::full(&plan, &[]).1[0].text;
    let rules = text.lines().filter(|line| !line.starts_with(':')).collect::<Vec<_>>().join("\n");
    let expected = r#"
        *raw
        -I PREROUTING -m comment --comment "causeway localhost guard" -j CW-FIREWALL
        -A CW-FIREWALL -d 127.0.0.0/8 ! -i lo -j DROP
        COMMIT
        *mangle
        -I PREROUTING -m conntrack --ctorigsrc 127.0.0.0/8 --ctdir REPLY -m comment --comment "causeway localhost replies" -j CW-REPLIES
        -A CW-REPLIES -j MARK --set-xmark 0x1000/0x1000
        COMMIT
        *nat
        -I POSTROUTING -m comment --comment "causeway masquerade" -j CW-POSTROUTING
        -I OUTPUT -m comment --comment "causeway services" -j CW-SERVICES
        -I PREROUTING -m comment --comment "causeway services" -j CW-SERVICES
        -A CW-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
        -A CW-MARK-OUTSIDE -m addrtype --src-type LOCAL -j CW-MARK-MASQ
        -A CW-MARK-OUTSIDE ! -s 10.0.0.0/16 -j CW-MARK-MASQ
        -A CW-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
        -A CW-POSTROUTING -j MARK --set-xmark 0x4000/0x0
        -A CW-POSTROUTING -j MASQUERADE --random-fully
        -A CW-SERVICES -m addrtype --dst-type LOCAL -j CW-NODEPORTS
        COMMIT
        *filter
        -I INPUT -m comment --comment "causeway localhost guard" -j CW-FIREWALL
        -I OUTPUT -m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT -m comment --comment "causeway refusals" -j CW-FILTER
        -I FORWARD -m comment --comment "causeway forwarding" -j CW-FORWARD
        -I FORWARD -m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT -m comment --comment "causeway refusals" -j CW-FILTER
        -I INPUT -m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT -m comment --comment "causeway refusals" -j CW-FILTER
        -A CW-FILTER -m addrtype --dst-type LOCAL -j CW-NODEPORTS
        -A CW-FILTER -d 172.30.0.0/16 -j DROP
        -A CW-FIREWALL -d 127.0.0.0/8 ! -i lo -m conntrack --ctdir ORIGINAL -j DROP
        -A CW-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
        -A CW-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m conntrack --ctstate DNAT -j ACCEPT
        COMMIT"#;
    let expected = expected.lines().skip(1).map(str::trim).collect::<Vec<_>>().join("\n");
    assert_eq!(rules, expected);
}

/// Rows: P24, P26, P33, P36, P37, P57, S-24
#[test]
fn policies_limits_and_affinity_have_chains_of_their_own() {
    check(
        "web 172.30.0.10 external=local affinity=60 lb=203.0.113.9 allow=192.0.2.0/24 allow=198.51.100.7 \
         80/udp -> 10.0.2.2:53@n2 10.0.1.2:53@n1 10.0.2.3:53@n2",
        "nat",
        r#"
        EXT1 -m addrtype --src-type LOCAL -j CW-MARK-MASQ
        EXT1 -j CW-MARK-PRIVATE
        EXT1 -m mark --mark 0x4000/0x4000 -j CW-SVC1
        EXT1 -s 10.0.0.0/16 -j CW-SVC1
        EXT1 -j CW-SVL1
        FW1 -s 192.0.2.0/24 -j CW-EXT1
        FW1 -s 198.51.100.7/32 -j CW-EXT1
        FW1 -j ACCEPT
        SEP1 -s 10.0.1.2/32 -j CW-MARK-MASQ
        SEP1 -p udp -m recent --set --name CW-SEP1 --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.0.1.2:53
        SEP2 -p udp -m recent --set --name CW-SEP2 --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.0.2.3:53
        SEP3 -p udp -m recent --set --name CW-SEP3 --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.0.2.2:53
        SERVICES -d 172.30.0.10/32 -p udp -m udp --dport 80 -j CW-MARK-OUTSIDE
        SERVICES -d 172.30.0.10/32 -p udp -m comment --comment "default/web cluster IP" -m udp --dport 80 -j CW-SVC1
        SERVICES -d 172.30.0.10/32 -j ACCEPT
        SERVICES -d 203.0.113.9/32 -p udp -m comment --comment "default/web external IP" -m udp --dport 80 -j CW-FW1
        SERVICES -m addrtype --dst-type LOCAL -j CW-NODEPORTS
        SVC1 -m recent --rcheck --seconds 60 --reap --name CW-SEP1 --mask 255.255.255.255 --rsource -j CW-SEP1
        SVC1 -m recent --rcheck --seconds 60 --reap --name CW-SEP3 --mask 255.255.255.255 --rsource -j CW-SEP3
        SVC1 -m recent --rcheck --seconds 60 --reap --name CW-SEP2 --mask 255.255.255.255 --rsource -j CW-SEP2
        SVC1 -m statistic --mode random --probability 0.33333333349 -j CW-SEP1
        SVC1 -m statistic --mode random --probability 0.50000000000 -j CW-SEP3
        SVC1 -j CW-SEP2
        SVL1 -m recent --rcheck --seconds 60 --reap --name CW-SEP1 --mask 255.255.255.255 --rsource -j CW-SEP1
        SVL1 -j CW-SEP1
        "#,
    );
}

/// Rows: P12, P34, P39, P49, P57
#[test]
fn what_has_no_endpoint_is_refused_at_its_own_address() {
    check(
        "a 172.30.0.10 lb=203.0.113.9 allow=192.0.2.0/24 80/tcp:30080 -> 10.0.1.2:80!unready\n\
         b 172.30.0.11 internal=local external=local 80/tcp:30081 -> 10.0.2.2:80@n2",
        "filter",
        r#"
        FILTER -d 172.30.0.10/32 -j REJECT --reject-with icmp-port-unreachable
        FILTER -d 172.30.0.11/32 -p tcp -m comment --comment "default/b cluster IP" -m tcp --dport 80 -j DROP
        FILTER -d 172.30.0.11/32 -j REJECT --reject-with icmp-port-unreachable
        FILTER -s 192.0.2.0/24 -d 203.0.113.9/32 -p tcp -m comment --comment "default/a external IP" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
        FILTER -d 203.0.113.9/32 -p tcp -m comment --comment "default/a external IP" -m tcp --dport 80 -j DROP
        FILTER -m addrtype --dst-type LOCAL -j CW-NODEPORTS
        FILTER -d 172.30.0.0/16 -j DROP
        NODEPORTS -p tcp -m comment --comment "default/a node port" -m tcp --dport 30080 -j REJECT --reject-with icmp-port-unreachable
        NODEPORTS -p tcp -m comment --comment "default/b node port" -m tcp --dport 30081 -j DROP
        "#,
    );
}
