//! The fields that Kubernetes 1.37 has, whether anything here reads them or not: what is not among
//! them is a mistake in the document.
//!
//! Taken from `k8s.io/api` 0.37 (`core/v1`, `discovery/v1`) and `k8s.io/apimachinery` 0.37
//! (`meta/v1`).

use super::nearest::nearest;
use super::tree::{Entry, Problem, Tree, Value};

/// So many unknown fields of a document are named.
const MAX_UNKNOWN: usize = 20;

/// Fields by name with what they hold.
pub(super) type Fields = &'static [(&'static str, Holds)];

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Holds {
    /// A scalar, a list of scalars, or a map with keys of the user's own.
    Anything,
    /// A map of these fields, or a list of such maps.
    These(Fields),
}

use Holds::{Anything, These};

/// `v1 Service`
pub(super) const SERVICE: Fields = &[
    ("apiVersion", Anything),
    ("kind", Anything),
    ("metadata", These(OBJECT_META)),
    ("spec", These(SERVICE_SPEC)),
    ("status", These(&[("loadBalancer", These(LOAD_BALANCER)), ("conditions", These(CONDITION))])),
];

/// `v1 Endpoints`
pub(super) const ENDPOINTS: Fields = &[
    ("apiVersion", Anything),
    ("kind", Anything),
    ("metadata", These(OBJECT_META)),
    ("subsets", These(SUBSET)),
];

/// `discovery.k8s.io/v1 EndpointSlice`
pub(super) const ENDPOINT_SLICE: Fields = &[
    ("apiVersion", Anything),
    ("kind", Anything),
    ("metadata", These(OBJECT_META)),
    ("addressType", Anything),
    ("endpoints", These(ENDPOINT)),
    ("ports", These(ENDPOINT_PORT)),
];

/// `v1 Node`
pub(super) const NODE: Fields = &[
    ("apiVersion", Anything),
    ("kind", Anything),
    ("metadata", These(OBJECT_META)),
    ("spec", These(NODE_SPEC)),
    ("status", These(NODE_STATUS)),
];

/// `v1 List`, and the lists of one kind; their items are documents of their own.
pub(super) const LIST: Fields = &[
    ("apiVersion", Anything),
    ("kind", Anything),
    (
        "metadata",
        These(&[
            ("selfLink", Anything),
            ("resourceVersion", Anything),
            ("continue", Anything),
            ("remainingItemCount", Anything),
            ("shardInfo", Anything),
        ]),
    ),
    ("items", Anything),
];

const OBJECT_META: Fields = &[
    ("name", Anything),
    ("generateName", Anything),
    ("namespace", Anything),
    ("selfLink", Anything),
    ("uid", Anything),
    ("resourceVersion", Anything),
    ("generation", Anything),
    ("creationTimestamp", Anything),
    ("deletionTimestamp", Anything),
    ("deletionGracePeriodSeconds", Anything),
    ("labels", Anything),
    ("annotations", Anything),
    (
        "ownerReferences",
        These(&[
            ("apiVersion", Anything),
            ("kind", Anything),
            ("name", Anything),
            ("uid", Anything),
            ("controller", Anything),
            ("blockOwnerDeletion", Anything),
        ]),
    ),
    ("finalizers", Anything),
    (
        "managedFields",
        These(&[
            ("manager", Anything),
            ("operation", Anything),
            ("apiVersion", Anything),
            ("time", Anything),
            ("fieldsType", Anything),
            ("fieldsV1", Anything),
            ("subresource", Anything),
        ]),
    ),
];

const SERVICE_SPEC: Fields = &[
    (
        "ports",
        These(&[
            ("name", Anything),
            ("protocol", Anything),
            ("appProtocol", Anything),
            ("port", Anything),
            ("targetPort", Anything),
            ("nodePort", Anything),
        ]),
    ),
    ("selector", Anything),
    ("clusterIP", Anything),
    ("clusterIPs", Anything),
    ("type", Anything),
    ("externalIPs", Anything),
    ("sessionAffinity", Anything),
    ("loadBalancerIP", Anything),
    ("loadBalancerSourceRanges", Anything),
    ("externalName", Anything),
    ("externalTrafficPolicy", Anything),
    ("healthCheckNodePort", Anything),
    ("publishNotReadyAddresses", Anything),
    ("sessionAffinityConfig", These(&[("clientIP", These(&[("timeoutSeconds", Anything)]))])),
    ("ipFamilies", Anything),
    ("ipFamilyPolicy", Anything),
    ("allocateLoadBalancerNodePorts", Anything),
    ("loadBalancerClass", Anything),
    ("internalTrafficPolicy", Anything),
    ("trafficDistribution", Anything),
];

const LOAD_BALANCER: Fields = &[(
    "ingress",
    These(&[
        ("ip", Anything),
        ("hostname", Anything),
        ("ipMode", Anything),
        ("ports", These(&[("port", Anything), ("protocol", Anything), ("error", Anything)])),
    ]),
)];

const CONDITION: Fields = &[
    ("type", Anything),
    ("status", Anything),
    ("observedGeneration", Anything),
    ("lastTransitionTime", Anything),
    ("reason", Anything),
    ("message", Anything),
];

const SUBSET: Fields = &[
    ("addresses", These(ENDPOINT_ADDRESS)),
    ("notReadyAddresses", These(ENDPOINT_ADDRESS)),
    ("ports", These(ENDPOINT_PORT)),
];

const ENDPOINT_ADDRESS: Fields = &[
    ("ip", Anything),
    ("hostname", Anything),
    ("nodeName", Anything),
    ("targetRef", These(OBJECT_REFERENCE)),
];

const OBJECT_REFERENCE: Fields = &[
    ("kind", Anything),
    ("namespace", Anything),
    ("name", Anything),
    ("uid", Anything),
    ("apiVersion", Anything),
    ("resourceVersion", Anything),
    ("fieldPath", Anything),
];

const ENDPOINT_PORT: Fields =
    &[("name", Anything), ("port", Anything), ("protocol", Anything), ("appProtocol", Anything)];

const ENDPOINT: Fields = &[
    ("addresses", Anything),
    ("conditions", These(&[("ready", Anything), ("serving", Anything), ("terminating", Anything)])),
    ("hostname", Anything),
    ("targetRef", These(OBJECT_REFERENCE)),
    ("deprecatedTopology", Anything),
    ("nodeName", Anything),
    ("zone", Anything),
    (
        "hints",
        These(&[
            ("forZones", These(&[("name", Anything)])),
            ("forNodes", These(&[("name", Anything)])),
        ]),
    ),
];

const NODE_SPEC: Fields = &[
    ("podCIDR", Anything),
    ("podCIDRs", Anything),
    ("providerID", Anything),
    ("unschedulable", Anything),
    (
        "taints",
        These(&[
            ("key", Anything),
            ("value", Anything),
            ("effect", Anything),
            ("timeAdded", Anything),
        ]),
    ),
    ("configSource", These(CONFIG_SOURCE)),
    ("externalID", Anything),
    ("podPreemptionPolicy", These(&[("disableResizePreemption", Anything)])),
];

const CONFIG_SOURCE: Fields = &[(
    "configMap",
    These(&[
        ("namespace", Anything),
        ("name", Anything),
        ("uid", Anything),
        ("resourceVersion", Anything),
        ("kubeletConfigKey", Anything),
    ]),
)];

const NODE_STATUS: Fields = &[
    ("capacity", Anything),
    ("allocatable", Anything),
    ("phase", Anything),
    (
        "conditions",
        These(&[
            ("type", Anything),
            ("status", Anything),
            ("lastHeartbeatTime", Anything),
            ("lastTransitionTime", Anything),
            ("reason", Anything),
            ("message", Anything),
        ]),
    ),
    ("addresses", These(&[("type", Anything), ("address", Anything)])),
    ("daemonEndpoints", These(&[("kubeletEndpoint", These(&[("Port", Anything)]))])),
    ("nodeInfo", These(NODE_INFO)),
    ("images", These(&[("names", Anything), ("sizeBytes", Anything)])),
    ("volumesInUse", Anything),
    ("volumesAttached", These(&[("name", Anything), ("devicePath", Anything)])),
    (
        "config",
        These(&[
            ("assigned", These(CONFIG_SOURCE)),
            ("active", These(CONFIG_SOURCE)),
            ("lastKnownGood", These(CONFIG_SOURCE)),
            ("error", Anything),
        ]),
    ),
    (
        "runtimeHandlers",
        These(&[
            ("name", Anything),
            (
                "features",
                These(&[("recursiveReadOnlyMounts", Anything), ("userNamespaces", Anything)]),
            ),
        ]),
    ),
    ("features", These(&[("supplementalGroupsPolicy", Anything)])),
    ("declaredFeatures", Anything),
];

const NODE_INFO: Fields = &[
    ("machineID", Anything),
    ("systemUUID", Anything),
    ("bootID", Anything),
    ("kernelVersion", Anything),
    ("osImage", Anything),
    ("containerRuntimeVersion", Anything),
    ("kubeletVersion", Anything),
    ("kubeProxyVersion", Anything),
    ("operatingSystem", Anything),
    ("architecture", Anything),
    ("swap", These(&[("capacity", Anything)])),
    ("runningInUserNamespace", Anything),
];

/// The fields of a tree that Kubernetes does not have, by line, each with the nearest one that it
/// has there.
pub(super) fn unknown(tree: &Tree, fields: Fields) -> Vec<Problem> {
    let mut found = Vec::new();
    look(tree, fields, "", &mut found);
    found.sort_by_key(|problem| problem.line);
    let more = found.len().saturating_sub(MAX_UNKNOWN);
    if more > 0 {
        found.truncate(MAX_UNKNOWN);
        let line = found.last().map_or(0, |last| last.line);
        let reason = format!("{more} more unknown fields");
        found.push(Problem { line, field: ".".to_owned(), reason });
    }
    found
}

fn look(tree: &Tree, fields: Fields, path: &str, found: &mut Vec<Problem>) {
    match &tree.value {
        Value::Map(entries) => entries.iter().for_each(|entry| one(entry, fields, path, found)),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                look(item, fields, &format!("{path}[{index}]"), found);
            }
        }
        // What has another shape is refused by who reads it.
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => {}
    }
}

fn one(entry: &Entry, fields: Fields, path: &str, found: &mut Vec<Problem>) {
    let whole = || {
        let dot = if path.is_empty() { "" } else { "." };
        format!("{path}{dot}{}", entry.key)
    };
    match fields.iter().find(|(name, _)| *name == entry.key) {
        Some((_, Anything)) => {}
        Some((_, These(inner))) => look(&entry.value, inner, &whole(), found),
        None => {
            let names = fields.iter().map(|(name, _)| *name);
            let hint = nearest(&entry.key, names)
                .map_or_else(String::new, |name| format!(", did you mean {name}?"));
            let reason = format!("unknown field{hint}");
            found.push(Problem { line: entry.line, field: whole(), reason });
        }
    }
}
