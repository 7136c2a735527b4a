use causeway_model::{ObjectKey, Service, manifest};
use serde_json::json;

use super::*;
use crate::Origin;

fn of(ports: usize) -> Stored {
    let port = |n: usize| json!({ "name": format!("p{n}"), "protocol": "UDP", "port": 10_000 + n, "nodePort": 20_000 + n });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "rtp" },
        "spec": { "type": "NodePort", "ports": (0..ports).map(port).collect::<Vec<_>>() },
    });
    let object = manifest::from_json(&service).unwrap().remove(0);
    Stored { object, origin: Origin::Api }
}

/// Rows: RD3
#[test]
fn a_service_has_thousands_of_node_ports_and_a_limit() {
    assert_eq!(check_size(&of(5_000)), Ok(()));
    let refused = check_size(&of(20_000)).unwrap_err();
    assert!(refused.contains("20000 cluster addresses and node ports"), "{refused}");
    assert!(refused.contains("1024 KiB are possible: use fewer ports"), "{refused}");
}

/// Rows: RD3
#[test]
fn what_the_limit_lets_through_fits_into_a_request_of_etcd() {
    // The longest names and a long prefix: what the keys and values of claims take in a request.
    let name = "n".repeat(63);
    let service = Service::new(ObjectKey::new(name.as_str(), name.as_str()));
    let stored = Stored { object: Object::Service(service), origin: Origin::Api };
    assert_eq!(check_size(&stored), Ok(()));
    let key = "/a-prefix-of-twenty-/v1/claims/port/sctp/65535".len();
    let owner = 2 * name.len() + 1;
    let framing = 18;
    let most = LARGEST / (CLAIM + 2 * name.len());
    assert!(most * (key + owner + framing) < 3 << 19, "{most}");
}
