use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use causeway_model::ObjectKey;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixture::{check, index, name, own, question, request, sent, settings, shown, zone};
use crate::{
    Answer, Limit, PodRecords, Question, Reply, ServiceNames, Zone, answer, answer_within, read,
    write,
};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
";

#[test]
fn a_query_in_bytes_is_answered_in_bytes() {
    let zone = zone(settings(), WEB);
    let query = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03weB\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let request = read(query).expect("a query");
    let Answer::Own(reply) = answer(&zone, &request.question, 1) else { panic!("not ours") };
    let bytes = write(&request, &reply, Limit::Udp);
    let mut expected = query.to_vec();
    expected[2..4].copy_from_slice(&[0x85, 0x80]);
    expected[7] = 1;
    expected.extend_from_slice(b"\xC0\x0C\0\x01\0\x01\0\0\0\x05\0\x04\x0A\x60\0\x01");
    assert_eq!(bytes, expected);
    assert_eq!(Message::from_vec(&bytes).unwrap().answers, reply.answers);
    assert_eq!(
        own(&zone, "no.default.svc.cluster.local", RecordType::A).code,
        ResponseCode::NXDomain
    );
}

/// Rows: D-01, D-02, D-03, D-04, D-05, D-06, D-07, D-08, D-09, D-10, D-11, D-13, D-14, D-15
#[test]
fn the_examples_of_the_specification_and_our_own_are_answered_record_by_record() {
    let zone = zone(settings(), include_str!("tests/own.yaml"));
    check(&zone, include_str!("tests/own.txt"));
}

/// What CoreDNS's tests of its kubernetes plugin expect, record by record. Differences stand in the
/// table.
/// Rows: D-01, D-02, D-03, D-06, D-07, D-08, D-09, D-10, D-11, D-13, D-14, D-15, D-22b
#[test]
fn the_test_vectors_of_coredns_are_answered_record_by_record() {
    let mut settings = settings();
    settings.zonal = true;
    settings.networks.push("10.0.0.0/16".parse().unwrap());
    let zone = zone(settings, include_str!("tests/coredns.yaml"));
    check(&zone, include_str!("tests/coredns.txt"));
}

fn plain() -> Zone {
    zone(settings(), include_str!("tests/own.yaml"))
}

static PLAIN: LazyLock<Zone> = LazyLock::new(plain);

/// Rows: D-16
#[test]
fn the_soa_record_is_that_of_the_zone_and_its_serial_rises_with_each_change() {
    let mut zone = plain();
    let soa = |zone: &Zone, asked: &str| {
        let reply = own(zone, asked, RecordType::SOA);
        let all = reply.answers.iter().chain(&reply.authority);
        all.map(|one| format!("{} {} {}", one.name.to_ascii(), one.ttl, one.data))
            .collect::<Vec<_>>()
    };
    let numbers = "7200 1800 86400 5";
    let expected = |owner: &str, zone: &Zone| {
        let names = "ns.dns.cluster.local. hostmaster.cluster.local.";
        vec![format!("{owner} 5 {names} {} {numbers}", zone.serial())]
    };
    assert_eq!(soa(&zone, "cluster.local."), expected("cluster.local.", &zone));
    assert_eq!(soa(&zone, "no.CLUSTER.local."), expected("CLUSTER.local.", &zone));
    let reverse = "97.10.in-addr.arpa.";
    assert_eq!(soa(&zone, reverse), expected(reverse, &zone));
    assert_eq!(soa(&zone, "1.2.97.10.in-addr.arpa."), expected(reverse, &zone));
    let before = zone.serial();
    zone.put(ObjectKey::new("default", "both"), None);
    assert_eq!(zone.serial(), before + 1);
    zone.put(ObjectKey::new("default", "both"), None);
    assert_eq!(zone.serial(), before + 1, "nothing changed");
    assert_eq!(soa(&zone, "cluster.local."), expected("cluster.local.", &zone));
}

#[test]
fn records_have_the_ttl_of_the_settings_and_denials_five_seconds_at_most() {
    for (ttl, denial) in [(0, 0), (5, 5), (3600, 5)] {
        let mut settings = settings();
        settings.ttl = ttl;
        let zone = zone(settings, include_str!("tests/own.yaml"));
        for (asked, record_type) in [
            ("kubernetes.default.svc.cluster.local", RecordType::A),
            ("headless.default.svc.cluster.local", RecordType::SRV),
            ("to-headless.data.svc.cluster.local", RecordType::A),
            ("1.0.96.10.in-addr.arpa", RecordType::PTR),
        ] {
            let reply = own(&zone, asked, record_type);
            assert!(!reply.answers.is_empty());
            assert!(reply.answers.iter().chain(&reply.additional).all(|one| one.ttl == ttl));
        }
        let reply = own(&zone, "no.default.svc.cluster.local", RecordType::A);
        assert_eq!(reply.authority[0].ttl, denial);
    }
}

/// Rows: D-18
#[test]
fn names_of_pods_are_off_echoed_or_verified() {
    let ask = |pods, text: &str| {
        let mut settings = settings();
        settings.pods = pods;
        let mut zone = Zone::new(settings);
        zone.set_synced();
        let namespace: Arc<str> = Arc::from("podns");
        for address in ["10.240.0.1", "fd00:244::1"] {
            zone.put_pod(&namespace, address.parse().unwrap());
        }
        zone.put_pod(&namespace, "10.240.0.9".parse().unwrap());
        zone.remove_pod("podns", "10.240.0.9".parse().unwrap());
        let v6 = text.contains("--");
        let asked = question(text, if v6 { RecordType::AAAA } else { RecordType::A });
        shown(&answer(&zone, &asked, 1)).join(" ")
    };
    assert_eq!(settings().pods, PodRecords::Disabled);
    let (denied, empty) = ("NXDOMAIN SOA", "SOA");
    let known = "10-240-0-1.podns.pod.cluster.local.";
    let other = "172-0-0-2.podns.pod.cluster.local.";
    let known6 = "fd00-244--1.podns.pod.cluster.local.";
    for (mode, one, another) in [
        (PodRecords::Disabled, false, false),
        (PodRecords::Insecure, true, true),
        (PodRecords::Verified, true, false),
    ] {
        let expected = |there: bool, record: &str| match there {
            true => record.to_owned(),
            false => denied.to_owned(),
        };
        assert_eq!(ask(mode, known), expected(one, &format!("{known} 5 A 10.240.0.1")));
        assert_eq!(ask(mode, other), expected(another, &format!("{other} 5 A 172.0.0.2")));
        assert_eq!(ask(mode, known6), expected(one, &format!("{known6} 5 AAAA fd00:244::1")));
        assert_eq!(ask(mode, "blah.podns.pod.cluster.local."), denied);
        assert_eq!(ask(mode, "10-240-0-1.pod-nons.pod.cluster.local."), denied);
        assert_eq!(ask(mode, "a.10-240-0-1.podns.pod.cluster.local."), denied);
        assert_eq!(ask(mode, "podns.pod.cluster.local."), if one { empty } else { denied });
        assert_eq!(ask(mode, "pod.cluster.local."), empty);
        assert_eq!(ask(mode, "podns.svc.cluster.local."), empty);
    }
    assert_eq!(ask(PodRecords::Verified, "10-240-0-9.podns.pod.cluster.local."), denied);
}

/// Rows: D-19
#[test]
fn names_are_found_in_any_case_and_answered_in_the_case_that_was_asked() {
    let zone = plain();
    for asked in [
        "KUBERNETES.Default.sVc.cluster.LOCAL.",
        "My-Pet.HEADLESS.default.svc.cluster.local.",
        "FOO.default.SVC.cluster.local.",
        "1.0.96.10.IN-addr.ARPA.",
        "_HTTPS._Tcp.kubernetes.default.svc.cluster.local.",
        "DNS-version.cluster.local.",
    ] {
        let types =
            [RecordType::A, RecordType::CNAME, RecordType::PTR, RecordType::SRV, RecordType::TXT];
        let replies = types.map(|record_type| own_or_chase(&zone, asked, record_type));
        let owners = replies.iter().flatten().filter(|owner| owner.eq_ignore_ascii_case(asked));
        let owners: Vec<_> = owners.collect();
        assert!(!owners.is_empty() && owners.iter().all(|owner| *owner == asked), "{owners:?}");
    }
}

/// Owners of the records of an answer.
fn own_or_chase(zone: &Zone, asked: &str, record_type: RecordType) -> Vec<String> {
    let records = match answer(zone, &question(asked, record_type), 1) {
        Answer::Own(reply) => reply.answers,
        Answer::Chase { answers, .. } => answers,
        Answer::Forward => Vec::new(),
    };
    records.iter().map(|record| record.name.to_ascii()).collect()
}

/// Rows: D-21
#[test]
fn transfers_and_classes_that_are_not_ours_are_refused() {
    let zone = plain();
    let ask = |text: &str, record_type, class| {
        let name = name(text);
        match answer(&zone, &Question { name, record_type, class }, 1) {
            Answer::Own(reply) => (reply.code, reply.authoritative, reply.answers.len()),
            other @ (Answer::Forward | Answer::Chase { .. }) => panic!("{text}: {other:?}"),
        }
    };
    let refused = (ResponseCode::Refused, false, 0);
    for zone in ["cluster.local.", "example.com.", "96.10.in-addr.arpa."] {
        for transfer in [RecordType::AXFR, RecordType::IXFR] {
            assert_eq!(ask(zone, transfer, DNSClass::IN), refused);
        }
    }
    assert_eq!(ask("version.bind.", RecordType::TXT, DNSClass::CH), refused);
    assert_eq!(ask("id.server.", RecordType::TXT, DNSClass::CH), refused);
    assert_eq!(ask("kubernetes.default.svc.cluster.local.", RecordType::A, DNSClass::HS), refused);
    let any = ask("kubernetes.default.svc.cluster.local.", RecordType::A, DNSClass::ANY);
    assert_eq!(any, (ResponseCode::NoError, false, 1), "as IN, without AA");
}

/// Rows: D-22
#[test]
fn before_all_services_are_known_names_of_the_cluster_fail_and_are_never_denied() {
    let mut zone = Zone::new(settings());
    for text in [
        "kubernetes.default.svc.cluster.local.",
        "kube-dns.kube-system.svc.cluster.local.",
        "cluster.local.",
        "example.com.default.svc.cluster.local.",
        "1.0.96.10.in-addr.arpa.",
    ] {
        let reply = own(&zone, text, RecordType::A);
        assert_eq!(reply, Reply::of(ResponseCode::ServFail, true), "{text}");
    }
    let outside = answer(&zone, &question("example.com.", RecordType::A), 1);
    assert_eq!(outside, Answer::Forward, "names outside do not wait");
    zone.set_synced();
    let reply = own(&zone, "kubernetes.default.svc.cluster.local.", RecordType::A);
    assert_eq!(reply.code, ResponseCode::NXDomain);
}

/// Rows: D-22b
#[test]
fn a_zone_with_dots_and_a_service_in_none() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: prod}
spec: {clusterIP: None}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-a, namespace: prod, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.1], zone: Corp.Example.com}, {addresses: [10.244.0.2]}]
";
    let mut on = settings();
    on.zonal = true;
    let facts = "
? corp.example.COM.pin._zone.db.prod.svc.cluster.local. A
corp.example.COM.pin._zone.db.prod.svc.cluster.local. 5 A 10.244.0.1
? com.pin._zone.db.prod.svc.cluster.local. A
SOA
? pin._zone.db.prod.svc.cluster.local. A
SOA
? _zone.db.prod.svc.cluster.local. A
SOA
";
    check(&zone(on, text), facts);
    let off = "
? corp.example.com.pin._zone.db.prod.svc.cluster.local. A
NXDOMAIN
SOA
? _zone.db.prod.svc.cluster.local. A
NXDOMAIN
SOA
";
    check(&zone(settings(), text), off);
}

/// A chain of ExternalNames `e-0`, `e-1`, .., the last of which leads to `end`.
fn chain(count: usize, end: &str) -> String {
    let service = |number: usize| {
        let next = format!("e-{}.default.svc.cluster.local", number + 1);
        let target = if number + 1 == count { end } else { &next };
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: e-{number}, namespace: default}}\n\
             spec: {{type: ExternalName, externalName: {target}}}\n---\n"
        )
    };
    (0..count).map(service).collect::<String>() + WEB
}

#[test]
fn chains_of_ten_are_followed_and_of_longer_ones_and_loops_stays_what_was_found() {
    let first = "e-0.default.svc.cluster.local.";
    let ask = |count, end: &str| own(&zone(settings(), &chain(count, end)), first, RecordType::A);
    let web = "web.default.svc.cluster.local";
    let reply = ask(10, web);
    assert_eq!((reply.code, reply.answers.len()), (ResponseCode::NoError, 11));
    assert_eq!(reply.answers[10].record_type(), RecordType::A);
    let aliases = reply.answers[..10].iter();
    assert!(
        aliases
            .zip(0..)
            .all(|(one, n)| one.name == name(&format!("e-{n}.default.svc.cluster.local")))
    );
    let reply = ask(11, web);
    assert_eq!((reply.code, reply.answers.len()), (ResponseCode::NoError, 10));
    for count in 1..=3 {
        let reply = ask(count, first);
        assert_eq!((reply.code, reply.answers.len()), (ResponseCode::NoError, count), "a loop");
        assert!(reply.authoritative && reply.authority.is_empty());
    }
    let long = zone(settings(), &chain(10, "example.com"));
    let Answer::Chase { answers, target } = answer(&long, &question(first, RecordType::A), 1)
    else {
        panic!("it leads outside");
    };
    assert_eq!((answers.len(), target), (10, name("example.com.")));
}

/// A headless service of so many endpoints, and an alias to it.
fn many(count: usize) -> Zone {
    let each = |n: usize| format!("- {{addresses: [10.244.{}.{}]}}\n", n / 250, n % 250 + 1);
    let slices = (0..count).step_by(900).map(|from| {
        let endpoints: String = (from..count.min(from + 900)).map(each).collect();
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{from}, \
             namespace: default, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
             endpoints:\n{endpoints}"
        )
    });
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: None}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
";
    zone(settings(), &(text.to_owned() + &slices.collect::<String>()))
}

#[test]
fn each_address_comes_first_as_often_as_the_others() {
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    // Answers to A alone, and A with AAAA between; from wherever the count begins.
    for (count, step, begin) in
        [(5, 1, 0), (15, 1, 0), (5, 2, 77), (15, 2, u64::MAX - 99), (15, 3, 1 << 40), (1, 1, 0)]
    {
        let zone = many(count);
        let mut first = BTreeMap::new();
        for lookup in 0..10_000_u64 {
            let seed = begin.wrapping_add(lookup * step);
            let Answer::Own(reply) = answer(&zone, &asked, seed) else { panic!("ours") };
            assert_eq!(reply.answers.len(), count);
            *first.entry(reply.answers[0].data.to_string()).or_insert(0) += 1;
        }
        let even = 10_000 / count;
        assert_eq!(first.len(), count);
        for (address, times) in first {
            let off = even.abs_diff(times);
            assert!(off * 20 <= even, "{address} of {count} came first {times} times, not {even}");
        }
    }
}

#[test]
fn each_order_of_addresses_comes_up() {
    let zone = many(4);
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    let mut orders = BTreeMap::new();
    for seed in 0..24_000 {
        *orders.entry(shown_in_order(&answer(&zone, &asked, seed))).or_insert(0) += 1;
    }
    assert_eq!(orders.len(), 24);
    assert!(orders.values().all(|times| (800..1200).contains(times)), "{orders:?}");
}

fn shown_in_order(answer: &Answer) -> Vec<String> {
    let Answer::Own(reply) = answer else { panic!("ours") };
    reply.answers.iter().map(|one| one.data.to_string()).collect()
}

#[test]
fn of_too_many_addresses_a_random_part_is_sent_over_tcp_behind_their_alias() {
    let zone = many(5000);
    let asked = question("alias.default.svc.cluster.local.", RecordType::A);
    let lookup = |seed| {
        let reply = |limit| match answer_within(&zone, &asked, seed, limit) {
            Answer::Own(reply) => reply,
            Answer::Forward | Answer::Chase { .. } => panic!("ours"),
        };
        let tcp = sent(&request(asked.clone(), None), &reply(Limit::Tcp), Limit::Tcp);
        assert!(!tcp.truncation);
        assert_eq!(tcp.answers[0].record_type(), RecordType::CNAME);
        let few = reply(Limit::Udp);
        assert!(few.answers.len() < 100, "no more than UDP needs");
        for payload in [None, Some(1232)] {
            let udp = sent(&request(asked.clone(), payload), &few, Limit::Udp);
            assert!(udp.truncation);
            assert_eq!(udp.answers[0].record_type(), RecordType::CNAME);
        }
        let addresses = tcp.answers[1..].iter().map(|one| one.data.to_string());
        addresses.collect::<BTreeSet<_>>()
    };
    let (one, other) = (lookup(1), lookup(2));
    assert!(one.len() > 4080 && one.len() == other.len());
    assert!(one.difference(&other).count() > 500, "another part each time");
}

#[test]
fn as_many_addresses_as_fit_are_sent() {
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    for (limit, payload, fit) in
        [(Limit::Udp, None, 29), (Limit::Udp, Some(1232), 73), (Limit::Tcp, None, 4093)]
    {
        for count in [fit, fit + 1] {
            let zone = many(count);
            let Answer::Own(reply) = answer_within(&zone, &asked, 1, limit) else { panic!("ours") };
            let answer = sent(&request(asked.clone(), payload), &reply, limit);
            assert_eq!(answer.answers.len(), fit);
            assert_eq!(answer.truncation, count > fit && limit == Limit::Udp);
        }
    }
}

/// One pod in four services.
const POD: &str = "
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NAMESPACE}
spec: {clusterIP: None}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: NAME-a, namespace: NAMESPACE, labels: {kubernetes.io/service-name: NAME}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.7]HOST}, {addresses: [192.0.2.7]HOST}]
---
";

/// Rows: D-57
#[test]
fn all_names_of_an_address_are_given_those_of_host_names_first_in_the_same_order() {
    let service = |namespace: &str, name: &str, host: &str| {
        POD.replace("NAMESPACE", namespace).replace("NAME", name).replace("HOST", host)
    };
    let text = service("b", "zoo", "")
        + &service("a", "web", "")
        + &service("b", "stateful", ", hostname: web-0")
        + &service("a", "stateful", ", hostname: web-0");
    let names = |zone: &Zone, asked: &str, seed| match answer(
        zone,
        &question(asked, RecordType::PTR),
        seed,
    ) {
        Answer::Own(reply) => reply.answers.iter().map(|one| one.data.to_string()).collect(),
        Answer::Forward | Answer::Chase { .. } => vec!["FORWARD".to_owned()],
    };
    let all = zone(settings(), &text);
    let expected = [
        "web-0.stateful.a.svc.cluster.local.",
        "web-0.stateful.b.svc.cluster.local.",
        "10-244-0-7.web.a.svc.cluster.local.",
        "10-244-0-7.zoo.b.svc.cluster.local.",
    ];
    for seed in 0..100 {
        assert_eq!(names(&all, "7.0.244.10.in-addr.arpa", seed), expected);
    }
    // Outside our networks too, if it is an endpoint.
    assert_eq!(names(&all, "7.2.0.192.in-addr.arpa", 1).len(), 4);
    assert_eq!(names(&all, "8.2.0.192.in-addr.arpa", 1), ["FORWARD"]);
    let mut settings = settings();
    settings.hostnames_only = true;
    let some = zone(settings.clone(), &text);
    assert_eq!(names(&some, "7.0.244.10.in-addr.arpa", 1), expected[..2]);
    // Without a name it is denied, or not ours.
    let none = zone(settings, &service("b", "zoo", ""));
    let denied = own(&none, "7.0.244.10.in-addr.arpa", RecordType::PTR);
    assert_eq!(denied.code, ResponseCode::NXDomain);
    assert_eq!(names(&none, "7.2.0.192.in-addr.arpa", 1), ["FORWARD"]);
}

/// An endpoint of some service with an address of a few.
fn endpoints() -> impl Strategy<Value = Vec<(usize, u8, Option<u8>, bool)>> {
    vec((0..4_usize, 1..12_u8, proptest::option::of(0..3_u8), any::<bool>()), 1..40)
}

fn documents(endpoints: &[(usize, u8, Option<u8>, bool)]) -> String {
    let mut text = String::new();
    for service in 0..4 {
        let (name, space) = (["a", "b", "a", "b"][service], ["s", "s", "t", "t"][service]);
        text += &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {space}}}\n\
             spec: {{clusterIP: None, ports: [{{name: p, port: 1}}]}}\n---\n"
        );
        for (number, (_, address, host, ready)) in
            endpoints.iter().enumerate().filter(|(_, one)| one.0 == service)
        {
            let host = host.map(|host| format!(", hostname: h-{host}")).unwrap_or_default();
            text += &format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{number}, \
                 namespace: {space}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 addressType: IPv4\nendpoints: [{{addresses: [10.244.0.{address}]{host}, \
                 conditions: {{ready: {ready}}}}}]\nports: [{{name: p, port: 80}}]\n---\n"
            );
        }
    }
    text
}

fn addresses(zone: &Zone, asked: &Name) -> Vec<IpAddr> {
    let asked = Question { name: asked.clone(), record_type: RecordType::A, class: DNSClass::IN };
    match answer(zone, &asked, 1) {
        Answer::Own(reply) => reply.answers.iter().filter_map(|one| one.data.ip_addr()).collect(),
        Answer::Forward | Answer::Chase { .. } => Vec::new(),
    }
}

proptest! {
    /// Rows: D-57
    #[test]
    fn each_name_of_an_address_leads_back_to_it(endpoints in endpoints()) {
        let zone = zone(settings(), &documents(&endpoints));
        for last in 1..12_u8 {
            let asked = format!("{last}.0.244.10.in-addr.arpa.");
            let reply = own(&zone, &asked, RecordType::PTR);
            let known = endpoints.iter().any(|(_, address, _, ready)| *ready && *address == last);
            prop_assert_eq!(!reply.answers.is_empty(), known);
            prop_assert_eq!(reply.code == ResponseCode::NXDomain, !known);
            for record in &reply.answers {
                let RData::PTR(target) = &record.data else { panic!("{record}") };
                let found = addresses(&zone, target);
                prop_assert!(found.contains(&IpAddr::from([10, 244, 0, last])), "{target:?}");
            }
        }
    }

    /// Whatever history led to a zone, it answers as one that was made at once.
    #[test]
    fn a_zone_depends_on_what_is_there_alone(before in endpoints(), after in endpoints()) {
        let (old, new) = (index(&documents(&before)), index(&documents(&after)));
        let mut changed = Zone::new(settings());
        changed.set_synced();
        for index in [&old, &new] {
            for key in index.services().keys() {
                let resolved = index.resolve(key).expect("it is there");
                changed.put(key.clone(), Some(ServiceNames::of(&resolved)));
            }
        }
        let fresh = zone(settings(), &documents(&after));
        for last in 1..12_u8 {
            let asked = question(&format!("{last}.0.244.10.in-addr.arpa."), RecordType::PTR);
            prop_assert_eq!(shown(&answer(&changed, &asked, 1)), shown(&answer(&fresh, &asked, 1)));
        }
        for key in old.services().keys() {
            changed.put(key.clone(), None);
        }
        let whole = question("0.244.10.in-addr.arpa.", RecordType::PTR);
        prop_assert_eq!(shown(&answer(&changed, &whole, 1)), ["NXDOMAIN", "SOA"]);
        let space = question("s.svc.cluster.local.", RecordType::A);
        prop_assert_eq!(shown(&answer(&changed, &space, 1)), ["NXDOMAIN", "SOA"]);
    }

    /// Any name below the zone is answered with AA, and a denial says how long it holds.
    #[test]
    fn names_below_the_zone_are_answered_by_us(
        labels in vec("[a-z0-9_-]{1,12}|svc|pod|default|headless|_tcp|_zone|pin|dns|ns", 0..8),
        kind in any::<u16>(),
    ) {
        let asked = format!("{}.cluster.local.", labels.join("."));
        let question = question(&asked, kind.into());
        match answer(&PLAIN, &question, 1) {
            Answer::Own(reply) if reply.code == ResponseCode::Refused => {
                prop_assert!([251, 252].contains(&kind));
            }
            Answer::Own(reply) => {
                prop_assert!(reply.authoritative);
                let denied = reply.answers.is_empty();
                prop_assert_eq!(reply.authority.len(), usize::from(denied));
            }
            Answer::Chase { .. } => prop_assert!(asked.contains("foo")),
            Answer::Forward => panic!("{asked} is ours"),
        }
    }
}
