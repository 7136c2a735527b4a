//! What planning knows of the node, for the targets that plan.

use causeway_ruleset::plan::{PlanContext, NodePortAddresses, SourceHash};

/// A node of both families.
pub fn facts() -> PlanContext {
    PlanContext {
        node: "n1".to_owned(),
        zone: Some("z1".to_owned()),
        cluster_cidrs: vec!["10.0.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        node_port_addresses: NodePortAddresses::All,
        masquerade_all: false,
        node_ips: vec!["192.0.2.1".parse().unwrap()],
        source_hash: SourceHash::Nftables,
    }
}
