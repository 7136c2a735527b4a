use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str) -> Question {
    Question { name: name(text), record_type: RecordType::A, class: DNSClass::IN }
}

fn key(text: &str) -> CacheKey {
    CacheKey::new(&question(text), false, false)
}

fn a(owner: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(name("ns."), name("host."), 1, 7200, 1800, 86400, minimum);
    Record::from_rdata(name(owner), ttl, RData::SOA(soa))
}

fn reply(answers: Vec<Record>) -> Reply {
    Reply { code: ResponseCode::NoError, answers, ..failure() }
}

fn denial(code: ResponseCode, authority: Vec<Record>) -> Reply {
    Reply { code, authority, ..failure() }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Puts an answer for `www.example.` at 100 s and returns for how many seconds it is fresh.
fn kept(reply: &Reply) -> u64 {
    let mut cache = Cache::new(Stale::Never);
    cache.put(
        key("www.example."),
        &question("www.example."),
        Given { reply, bytes: 100, now: s(100) },
    );
    let fresh = |cache: &mut Cache, second: u64| {
        matches!(cache.look(&key("www.example."), s(100 + second)), Kept::Fresh { .. })
    };
    (0..4000).take_while(|second| fresh(&mut cache, *second)).count() as u64
}

fn put(cache: &mut Cache, reply: &Reply, now: Duration) {
    cache.put(key("www.example."), &question("www.example."), Given { reply, bytes: 100, now });
}

fn fresh(cache: &mut Cache, now: Duration) -> Option<(Reply, bool)> {
    match cache.look(&key("www.example."), now) {
        Kept::Fresh { reply, refresh } => Some((reply, refresh)),
        Kept::Stale { .. } | Kept::Nothing => None,
    }
}

/// Rows: D-33, D-54
#[test]
fn an_answer_is_kept_by_the_shortest_ttl_of_its_chain_and_an_hour_at_most() {
    assert_eq!(kept(&reply(vec![a("WWW.example.", 60)])), 60);
    assert_eq!(kept(&reply(vec![a("www.example.", 90_000)])), 3600);
    assert_eq!(kept(&reply(vec![a("www.example.", 0)])), 0);
    assert_eq!(kept(&reply(vec![a("www.example.", u32::MAX)])), 0);
    let chain = vec![a("b.", 300), cname("a.", 20, "b."), cname("www.example.", 200, "a.")];
    assert_eq!(kept(&reply(chain)), 20, "in whatever order");
}

/// Rows: D-33, D-54
#[test]
fn a_denial_is_kept_by_its_soa_and_half_an_hour_at_most() {
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        assert_eq!(kept(&denial(code, vec![soa("example.", 300, 30)])), 30);
        assert_eq!(kept(&denial(code, vec![soa("example.", 30, 300)])), 30);
        assert_eq!(kept(&denial(code, vec![soa("example.", 9000, 9000)])), 1800);
        assert_eq!(kept(&denial(code, vec![])), 0, "no SOA");
        assert_eq!(kept(&denial(code, vec![soa("other.", 300, 300)])), 0, "another zone's");
    }
    assert_eq!(kept(&denial(ResponseCode::ServFail, vec![])), 5);
    assert_eq!(kept(&denial(ResponseCode::Refused, vec![soa("example.", 300, 30)])), 0);
}

/// Rows: D-54
#[test]
fn a_cname_to_nothing_is_a_denial_and_a_contradiction_is_not_kept() {
    let mut nothing = reply(vec![cname("www.example.", 50, "gone.example.")]);
    assert_eq!(kept(&nothing), 0, "without SOA");
    nothing.authority = vec![soa("example.", 300, 40)];
    assert_eq!(kept(&nothing), 40);
    nothing.authority = vec![soa("example.", 300, 80)];
    assert_eq!(kept(&nothing), 50, "the CNAME's own TTL counts");

    let mut two = vec![
        cname("www.example.", 50, "a."),
        cname("www.example.", 50, "b."),
        a("a.", 50),
        a("b.", 50),
    ];
    assert_eq!(kept(&reply(two.clone())), 0);
    two.reverse();
    assert_eq!(kept(&reply(two)), 0);
    let round = vec![cname("www.example.", 50, "b."), cname("b.", 50, "www.example.")];
    assert_eq!(kept(&reply(round)), 0);
    assert_eq!(kept(&reply(vec![cname("www.example.", 50, "a."), a("www.example.", 50)])), 0);
}

#[test]
fn ttls_are_counted_down_in_every_section() {
    let mut cache = Cache::new(Stale::Never);
    let mut answer = reply(vec![a("www.example.", 60), a("www.example.", 100)]);
    answer.additional = vec![a("ns.", 10)];
    put(&mut cache, &answer, s(100));
    let (aged, _) = fresh(&mut cache, s(130)).expect("fresh");
    let ttls = |records: &[Record]| records.iter().map(|record| record.ttl).collect::<Vec<_>>();
    assert_eq!(ttls(&aged.answers), [30, 70]);
    assert_eq!(ttls(&aged.additional), [0]);
    put(&mut cache, &denial(ResponseCode::NXDomain, vec![soa("example.", 300, 30)]), s(200));
    let (aged, _) = fresh(&mut cache, s(210)).expect("fresh");
    assert_eq!(ttls(&aged.authority), [20], "not the SOA's own TTL, which is longer");
}

/// Rows: D-54
#[test]
fn the_key_is_all_that_changes_an_answer() {
    let asked = question("www.example.");
    let own = CacheKey::new(&asked, false, false);
    let other_case = CacheKey::new(&question("WwW.eXample."), false, false);
    assert_eq!(own, other_case);
    let class = Question { class: DNSClass::CH, ..asked.clone() };
    let record_type = Question { record_type: RecordType::AAAA, ..asked.clone() };
    let others = [
        CacheKey::new(&class, false, false),
        CacheKey::new(&record_type, false, false),
        CacheKey::new(&question("ww.wexample."), false, false),
        CacheKey::new(&asked, true, false),
        CacheKey::new(&asked, false, true),
    ];
    let mut cache = Cache::new(Stale::Never);
    put(&mut cache, &reply(vec![a("www.example.", 60)]), s(0));
    assert!(fresh(&mut cache, s(1)).is_some());
    for other in others {
        assert_eq!(cache.look(&other, s(1)), Kept::Nothing);
    }
}

/// Rows: D-33, D-52
#[test]
fn an_old_answer_is_given_for_an_hour_and_at_once_after_a_failure() {
    let mut cache = Cache::new(Stale::WhileAway);
    put(&mut cache, &reply(vec![a("www.example.", 60)]), s(0));
    let at_once = |cache: &mut Cache, second| match cache.look(&key("www.example."), s(second)) {
        Kept::Stale { reply, at_once } => {
            assert_eq!(reply.answers[0].ttl, 30);
            Some(at_once)
        }
        Kept::Fresh { .. } | Kept::Nothing => None,
    };
    assert_eq!(at_once(&mut cache, 60), Some(false), "fresh is tried first");
    cache.failed(key("www.example."), &question("www.example."), s(60));
    assert_eq!(at_once(&mut cache, 89), Some(true));
    assert_eq!(at_once(&mut cache, 90), Some(false));
    assert_eq!(at_once(&mut cache, 3659), Some(false));
    assert_eq!(at_once(&mut cache, 3660), None);

    let nx = denial(ResponseCode::NXDomain, vec![soa("example.", 60, 60)]);
    put(&mut cache, &nx, s(1000));
    assert_eq!(
        fresh(&mut cache, s(1000)).map(|(reply, _)| reply.code),
        Some(ResponseCode::NXDomain)
    );
    let mut off = Cache::new(Stale::Never);
    put(&mut off, &reply(vec![a("www.example.", 60)]), s(0));
    assert_eq!(at_once(&mut off, 60), None);
}

/// Rows: D-52
#[test]
fn by_option_an_old_answer_outlasts_a_denial() {
    let mut cache = Cache::new(Stale::EvenIfDenied);
    put(&mut cache, &reply(vec![a("www.example.", 60)]), s(0));
    let nx = denial(ResponseCode::NXDomain, vec![soa("example.", 60, 60)]);
    put(&mut cache, &nx, s(70));
    let found = cache.look(&key("www.example."), s(71));
    assert!(matches!(found, Kept::Stale { at_once: true, .. }), "{found:?}");
    put(&mut cache, &nx, s(3660));
    assert_eq!(
        fresh(&mut cache, s(3661)).map(|(reply, _)| reply.code),
        Some(ResponseCode::NXDomain)
    );
}

#[test]
fn a_failure_takes_the_place_of_nothing_better() {
    let mut cache = Cache::new(Stale::Never);
    put(&mut cache, &reply(vec![a("www.example.", 60)]), s(0));
    cache.failed(key("www.example."), &question("www.example."), s(50));
    assert_eq!(fresh(&mut cache, s(51)).map(|(reply, _)| reply.code), Some(ResponseCode::NoError));
    cache.failed(key("www.example."), &question("www.example."), s(60));
    assert_eq!(fresh(&mut cache, s(64)).map(|(reply, _)| reply.code), Some(ResponseCode::ServFail));
    assert!(fresh(&mut cache, s(65)).is_none());
}

#[test]
fn a_busy_name_is_asked_again_once_before_it_ends() {
    let mut cache = Cache::new(Stale::Never);
    put(&mut cache, &reply(vec![a("www.example.", 100)]), s(0));
    let refreshes = |cache: &mut Cache, seconds: std::ops::Range<u64>| {
        seconds.filter(|second| fresh(cache, s(*second)).expect("fresh").1).collect::<Vec<_>>()
    };
    assert_eq!(refreshes(&mut cache, 70..100), [91]);
    put(&mut cache, &reply(vec![a("www.example.", 100)]), s(100));
    assert_eq!(refreshes(&mut cache, 100..190), [0u64; 0], "a tenth is left");
    assert_eq!(refreshes(&mut cache, 195..196), [195]);
    put(&mut cache, &reply(vec![a("www.example.", 100)]), s(200));
    assert_eq!(refreshes(&mut cache, 292..300), [0u64; 0], "eight questions in a minute");
}

/// Rows: D-33
#[test]
fn entries_and_bytes_are_bounded_and_what_is_used_stays() {
    let mut cache = Cache::new(Stale::Never);
    put(&mut cache, &reply(vec![a("www.example.", 3000)]), s(0));
    for number in 0..30_000 {
        let asked = question(&format!("{number}.example."));
        let reply = reply(vec![a(&format!("{number}.example."), 3000)]);
        let given = Given { reply: &reply, bytes: 50, now: s(1) };
        cache.put(CacheKey::new(&asked, false, false), &asked, given);
        if number % 1000 == 0 {
            assert!(fresh(&mut cache, s(1)).is_some(), "gone after {number}");
        }
    }
    assert_eq!(cache.len(), MAX_ENTRIES);
    assert_eq!(cache.evicted(), 30_001 - MAX_ENTRIES as u64);
    for number in 0..1000 {
        let asked = question(&format!("big{number}.example."));
        let reply = reply(vec![a(&format!("big{number}.example."), 3000)]);
        let given = Given { reply: &reply, bytes: 60_000, now: s(1) };
        cache.put(CacheKey::new(&asked, false, false), &asked, given);
    }
    assert!(cache.bytes <= MAX_BYTES, "{}", cache.bytes);
    assert!(cache.len() > 100);
}
