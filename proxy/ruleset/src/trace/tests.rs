use crate::testing::{flow, plan};

/// Rows: P9, P11, P12, P14, P15, P17
#[test]
fn a_cluster_address_leads_to_its_endpoints() {
    let plan = plan(
        "web 172.30.0.41 80/tcp -> 10.0.1.2:8080@n1 10.0.2.2:8080@n2
         none 172.30.0.42 80/tcp -> 10.0.1.2:8080@n1!unready",
    );
    flow(&plan, "10.0.9.9 -> 172.30.0.41:80/tcp", "10.0.1.2:8080 10.0.2.2:8080");
    flow(&plan, "10.0.1.2 -> 172.30.0.41:80/tcp", "10.0.1.2:8080 masq 10.0.2.2:8080");
    flow(&plan, "203.0.113.9 -> 172.30.0.41:80/tcp", "10.0.1.2:8080 masq 10.0.2.2:8080 masq");
    flow(&plan, "node -> 172.30.0.41:80/tcp", "10.0.1.2:8080 masq 10.0.2.2:8080 masq");
    flow(&plan, "10.0.9.9 -> 172.30.0.41:80/udp", "reject");
    flow(&plan, "10.0.9.9 -> 172.30.0.41:81/tcp", "reject");
    flow(&plan, "10.0.9.9 -> 172.30.0.42:80/tcp", "reject");
    flow(&plan, "10.0.9.9 -> 172.30.0.43:80/tcp", "drop");
    flow(&plan, "10.0.9.9 -> 10.0.1.2:8080/tcp", "pass");
}
