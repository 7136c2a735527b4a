//! Small changes as text: what is sent, and nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::testing::{facts, services};

/// Operations, as `nft` would say them, that lead from some services to others.
#[track_caller]
fn check(before: &str, after: &str, expected: &str) {
    let [before, after] = [before, after].map(|text| text.replace(",\n", ","));
    let before = services(&before);
    let mut plan = Plan::fresh(facts(), &before);
    let (mut mirror, _) = TableMirror::full(&plan);
    let after = services(&after);
    let all = before.keys().chain(after.keys()).cloned().collect::<BTreeSet<_>>();
    let delta = plan.update(&all, &|key| after.get(key).cloned());
    let text = crate::text::batch(&mirror.change(&delta));
    let text = text.replace("ip causeway_services", "t").replace("ip6 causeway_services", "t6");
    let text = text.replace("balance-d30fe5f682e26996", "B");
    // Lines that are indented further go on.
    let expected = expected.replace("\n          ", " ");
    let lines = expected.lines().map(str::trim).filter(|line| !line.is_empty());
    assert_eq!(text.lines().collect::<Vec<_>>(), lines.collect::<Vec<_>>());
}

/// Rows: P9, P10
#[test]
fn a_service_is_elements_alone() {
    check(
        "",
        "shop/web 172.30.0.1 80/tcp=http -> 10.0.1.2:8080@n1 10.0.2.2:8080@n2,
         53/udp=dns -> 10.0.2.3:53@n2",
        r#"
        create element t cluster-ips { 172.30.0.1 comment "shop/web" }
        create element t endpoints { 172.30.0.1 . tcp . 80 . 131072 : 10.0.1.2,
          172.30.0.1 . tcp . 80 . 131073 : 10.0.2.2,
          172.30.0.1 . udp . 53 . 65536 : 10.0.2.3 }
        create element t ports { 172.30.0.1 . tcp . 80 : 8080, 172.30.0.1 . udp . 53 : 53 }
        create element t hairpin { 10.0.1.2 . 10.0.1.2 }
        "#,
    );
}

/// A map has one port for all endpoints of a frontend; if they have several, rules choose.
#[test]
fn endpoints_with_several_ports_have_rules() {
    let one = "shop/web 172.30.0.1 80/tcp -> 10.0.2.2:80@n2 10.0.2.3:80@n2";
    check(
        one,
        &one.replace("3:80", "3:81"),
        "
        add chain t B-shop/web/TCP
        add rule t B-shop/web/TCP numgen random mod 2 0 meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP meta l4proto tcp dnat to 10.0.2.3:81
        delete element t endpoints { 172.30.0.1 . tcp . 80 . 131072,
          172.30.0.1 . tcp . 80 . 131073 }
        delete element t ports { 172.30.0.1 . tcp . 80 }
        create element t own { 172.30.0.1 . tcp . 80 : goto B-shop/web/TCP }
        ",
    );
}

/// Rows: P23
#[test]
fn an_endpoint_that_goes_changes_elements_of_its_port_alone() {
    check(
        "shop/web 172.30.0.1 80/tcp=http -> 10.0.2.2:80@n2 10.0.2.3:80@n2,
         81/tcp=b -> 10.0.2.2:81@n2",
        "shop/web 172.30.0.1 80/tcp=http -> 10.0.2.3:80@n2, 81/tcp=b -> 10.0.2.2:81@n2",
        "
        delete element t endpoints { 172.30.0.1 . tcp . 80 . 131072,
          172.30.0.1 . tcp . 80 . 131073 }
        create element t endpoints { 172.30.0.1 . tcp . 80 . 65536 : 10.0.2.3 }
        ",
    );
}

/// Rows: P24, P25, P26, P28
#[test]
fn affinity_is_found_before_it_is_chosen_and_shared_by_all_ways_in() {
    const ONE: &str =
        "shop/web 172.30.0.1 affinity=60 ext=203.0.113.5 80/tcp:30080 -> 10.0.2.2:80@n2";
    check(
        "",
        &format!("{ONE} 10.0.2.3:80@n2"),
        r#"
        add chain t B-shop/web/TCP
        add rule t B-shop/web/TCP ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce @affinity
          update @affinity { ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce timeout 1m } meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP ip saddr . meta mark & 0x2e393bc9 | 0x2e393bc9 @affinity
          update @affinity { ip saddr . meta mark & 0x2e393bc9 | 0x2e393bc9 timeout 1m } meta l4proto tcp dnat to 10.0.2.3:80
        add rule t B-shop/web/TCP numgen random mod 2 0
          update @affinity { ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce timeout 1m } meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP
          update @affinity { ip saddr . meta mark & 0x2e393bc9 | 0x2e393bc9 timeout 1m } meta l4proto tcp dnat to 10.0.2.3:80
        add rule t B-shop/web/TCP numgen random mod 2 0 meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP meta l4proto tcp dnat to 10.0.2.3:80
        create element t cluster-ips { 172.30.0.1 comment "shop/web" }
        create element t externals { 203.0.113.5 . tcp . 80 comment "shop/web" }
        create element t nodeports { tcp . 30080 comment "shop/web" }
        create element t own { 172.30.0.1 . tcp . 80 : goto B-shop/web/TCP,
          203.0.113.5 . tcp . 80 : goto B-shop/web/TCP }
        create element t own-nodeports { tcp . 30080 : goto B-shop/web/TCP }
        "#,
    );
    check(
        &format!("{ONE} 10.0.2.3:80@n2"),
        ONE,
        "
        flush chain t B-shop/web/TCP
        add rule t B-shop/web/TCP ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce @affinity
          update @affinity { ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce timeout 1m } meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP
          update @affinity { ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce timeout 1m } meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP meta l4proto tcp dnat to 10.0.2.2:80
        ",
    );
}

/// Rows: P29
#[test]
fn affinity_comes_and_goes_on_a_live_service() {
    let plain = "shop/web 172.30.0.1 80/tcp -> 10.0.2.2:80@n2";
    let sticky = "shop/web 172.30.0.1 affinity=60 80/tcp -> 10.0.2.2:80@n2";
    check(
        sticky,
        plain,
        "
        delete element t own { 172.30.0.1 . tcp . 80 }
        create element t endpoints { 172.30.0.1 . tcp . 80 . 65536 : 10.0.2.2 }
        create element t ports { 172.30.0.1 . tcp . 80 : 80 }
        flush chain t B-shop/web/TCP
        delete chain t B-shop/web/TCP
        ",
    );
    check(
        sticky,
        &sticky.replace("60", "7"),
        "
        flush chain t B-shop/web/TCP
        add rule t B-shop/web/TCP ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce @affinity
          update @affinity { ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce timeout 7s } meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP
          update @affinity { ip saddr . meta mark & 0xc7d1b4ce | 0xc7d1b4ce timeout 7s } meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP meta l4proto tcp dnat to 10.0.2.2:80
        ",
    );
}

#[test]
fn round_robin_is_one_counter_for_all_ways_in_and_kept_by_other_changes() {
    let service = "shop/web 172.30.0.1 balance=round-robin 80/tcp:30080 \
                   -> 10.0.2.2:80@n2 10.0.2.3:80@n2 10.0.2.4:80@n2";
    check(
        "",
        service,
        r#"
        add chain t B-shop/web/TCP
        add rule t B-shop/web/TCP numgen inc mod 3 0 meta l4proto tcp dnat to 10.0.2.2:80
        add rule t B-shop/web/TCP numgen inc mod 2 0 meta l4proto tcp dnat to 10.0.2.3:80
        add rule t B-shop/web/TCP meta l4proto tcp dnat to 10.0.2.4:80
        create element t cluster-ips { 172.30.0.1 comment "shop/web" }
        create element t nodeports { tcp . 30080 comment "shop/web" }
        create element t own { 172.30.0.1 . tcp . 80 : goto B-shop/web/TCP }
        create element t own-nodeports { tcp . 30080 : goto B-shop/web/TCP }
        "#,
    );
    check(
        service,
        &service.replace("30080", "30081"),
        r#"
        delete element t nodeports { tcp . 30080 }
        delete element t own-nodeports { tcp . 30080 }
        create element t nodeports { tcp . 30081 comment "shop/web" }
        create element t own-nodeports { tcp . 30081 : goto B-shop/web/TCP }
        "#,
    );
}

/// Rows: P12, P15, P34, P39, P57
#[test]
fn what_is_refused_is_an_element_too() {
    check(
        "",
        "a 172.30.0.1 internal=local external=local lb=203.0.113.5 allow=203.0.113.64/26 \
           80/tcp:30080 -> 10.0.2.2:80@n2
         b 172.30.0.2 80/tcp -> 10.0.2.2:80@n2!unready",
        r#"
        create element t cluster-ips { 172.30.0.1 comment "default/a", 172.30.0.2 comment "default/b" }
        create element t externals { 203.0.113.5 . tcp . 80 comment "default/a" }
        create element t nodeports { tcp . 30080 comment "default/a" }
        create element t local-policy { 203.0.113.5 . tcp . 80 }
        create element t nodeport-local-policy { tcp . 30080 }
        create element t restricted { 203.0.113.5 . tcp . 80 }
        create element t allowed { 203.0.113.64/26 . 203.0.113.5 . tcp . 80 }
        create element t drops { 172.30.0.1 . tcp . 80 comment "default/a" }
        create element t endpoints { 203.0.113.5 . tcp . 80 . 65536 : 10.0.2.2 }
        create element t nodeport-endpoints { tcp . 30080 . 65536 : 10.0.2.2 }
        create element t ports { 203.0.113.5 . tcp . 80 : 80 }
        create element t nodeport-ports { tcp . 30080 : 80 }
        "#,
    );
}

#[test]
fn many_endpoints_share_a_chain_for_their_number() {
    let many = |name: &str, count: usize| {
        let endpoints = (2..2 + count).map(|n| format!("10.0.2.{n}:80@n2"));
        format!("{name} 80/tcp -> {}", endpoints.collect::<Vec<_>>().join(" "))
    };
    let (mut plan, services) = {
        let services =
            services(&format!("{}\n{}", many("a 172.30.0.1", 17), many("b 172.30.0.2", 17)));
        (Plan::fresh(facts(), &services), services)
    };
    let (mut mirror, _) = TableMirror::full(&plan);
    let mut kept = services.clone();
    let mut remove = |name: &str| {
        let key = causeway_model::ObjectKey::new("default", name);
        kept.remove(&key);
        let delta = plan.update(&[key].into(), &|key| kept.get(key).cloned());
        crate::text::batch(&mirror.change(&delta))
    };
    let chain_goes = "delete chain ip causeway_services n-17";
    assert!(!remove("a").contains(chain_goes));
    assert!(remove("b").contains(chain_goes));
}

/// Rules of the tables that no service changes.
#[test]
fn the_rules_of_an_empty_plan() {
    let tables = compile(&Plan::new(facts()));
    let v4 = crate::text::table(&table(IpFamily::V4), &tables.v4);
    let without_numbers = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains("numgen"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let chains = v4.find("\tchain ").expect("chains");
    assert_eq!(without_numbers(&v4[chains..]), include_str!("empty4.txt"));
    let v6 = crate::text::table(&table(IpFamily::V6), &tables.v6);
    let chains = v6.find("\tchain ").expect("chains");
    assert_eq!(without_numbers(&v6[chains..]), include_str!("empty6.txt"));
}
