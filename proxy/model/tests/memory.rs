//! What containers of other nodes cost: each daemon holds all of the cluster.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use causeway_model::{EndpointKey, EndpointRecord, Event, Index};

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

const NODES: usize = 200;
const CONTAINERS: usize = 20_000;

/// As the cluster's store gives it.
fn record(number: usize) -> EndpointRecord {
    let app = number / 20;
    let json = serde_json::json!({
        "network": "causeway",
        "containerID": format!("{number:064x}"),
        "ifname": "eth0",
        "netns": format!("/var/run/netns/cni-{number:08x}-5b0e-7a31-93d4-0f6d9d1f2a77"),
        "ips": [format!("10.{}.{}.{}", 16 + number / 65536, number / 256 % 256, number % 256)],
        "labels": {
            "app": format!("app-{app}"),
            "tier": "web",
            EndpointRecord::NETWORK: "causeway",
            EndpointRecord::POD_NAME: format!("app-{app}-{number:x}"),
            EndpointRecord::POD_NAMESPACE: format!("team-{}", app % 50),
        },
        "created": 1_795_359_840 + number,
    });
    serde_json::from_value(json).expect("a record")
}

#[test]
fn a_container_of_another_node_takes_little_memory() {
    let mut index = Index::default();
    let before = USED.load(Relaxed);
    for number in 0..CONTAINERS {
        let node = format!("node-{}", number % NODES).into();
        index.apply(Event::Attach { node, record: record(number) });
    }
    let each = (USED.load(Relaxed) - before) / CONTAINERS;
    println!("{each} bytes a container");
    let first = EndpointKey { ..record(0).key };
    assert!(index.container("node-0", &first).is_some());
    assert_eq!(index.container_count(), CONTAINERS);
    assert!(each < 1000, "{each} bytes a container");
}
