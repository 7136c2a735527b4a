//! What names cost: all services of a large cluster in a few megabytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use causeway_dns::{ServiceNames, Zone, ZoneSettings};
use causeway_model::{
    Endpoint, LeftOut, ObjectKey, Protocol, Resolved, ResolvedPort, Service, ServicePort,
    TargetPort,
};
use hickory_proto::rr::Name;

/// Counts bytes as glibc takes them: 8 more each, in sixteens, 32 at least.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);

fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        USED.fetch_add(taken(layout.size()), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(taken(layout.size()), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const SERVICES: usize = 45_000;
/// Every so many services one is headless, with three endpoints.
const HEADLESS: usize = 50;
const LIMIT: usize = 15 << 20;

/// As the index has it: the service is the index's, and so are its strings.
fn resolved(number: usize) -> Resolved {
    let key = ObjectKey::new(format!("team-{}", number % 500), format!("service-{number}"));
    let mut service = Service::new(key);
    service.headless = number.is_multiple_of(HEADLESS);
    service.ports = ["http", "metrics"].map(port).into();
    let bytes = u32::try_from(number).expect("a small number").to_be_bytes();
    let endpoint = |last: u8| Endpoint {
        address: [10, bytes[2], bytes[3], last].into(),
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zone: Some("zone-a".into()),
        hints: None,
        hostname: Some(format!("service-{number}-{last}").into()),
        pod: None,
    };
    if !service.headless {
        service.cluster_ips = [[11, bytes[1], bytes[2], bytes[3]].into()].into();
    }
    let endpoints: Vec<Endpoint> = (1..4).map(endpoint).collect();
    let ports = vec![ResolvedPort { endpoints: endpoints.clone() }, ResolvedPort { endpoints }];
    Resolved { service: Arc::new(service), ports, left_out: LeftOut::default() }
}

fn port(name: &str) -> ServicePort {
    ServicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Number(8080),
        node_port: None,
        app_protocol: None,
    }
}

#[test]
fn names_of_45000_services_take_less_than_15_mib() {
    let mut all: Vec<Resolved> = (0..SERVICES).map(resolved).collect();
    // In no order, as changes come.
    all.sort_by_key(|one| one.service.key.name.bytes().rev().collect::<Vec<_>>());
    let domain = Name::from_ascii("cluster.local.").expect("a name");
    let before = USED.load(Relaxed);
    let mut zone = Zone::new(ZoneSettings::new(domain, 5, Vec::new()));
    for one in &all {
        zone.put(one.service.key.clone(), Some(ServiceNames::of(one)));
    }
    zone.set_synced();
    let used = USED.load(Relaxed) - before;
    println!("{} KiB, {} bytes a service", used >> 10, used / SERVICES);
    assert!(used < LIMIT, "{used} bytes for {SERVICES} services, {LIMIT} at most");
    // Endpoints that come and go leave nothing behind.
    for one in all.iter().filter(|one| one.service.headless) {
        let mut fewer = one.clone();
        fewer.ports[0].endpoints.pop();
        zone.put(one.service.key.clone(), Some(ServiceNames::of(&fewer)));
        zone.put(one.service.key.clone(), Some(ServiceNames::of(one)));
    }
    let after = USED.load(Relaxed) - before;
    assert!(after.abs_diff(used) < used / 10, "{used} bytes became {after}");
    for one in &all {
        zone.put(one.service.key.clone(), None);
    }
    let rest = USED.load(Relaxed) - before;
    assert!(rest < 4096, "{rest} bytes for nothing");
}
