//! Which documents are ours to take, which to skip, and which are mistakes.

use super::nearest::nearest;
use super::schema::{self, Fields};
use super::tree::{Checked, Field};

/// What to do with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `v1 Service`
    Service,
    /// `v1 Endpoints`
    Endpoints,
    /// `discovery.k8s.io/v1 EndpointSlice`
    EndpointSlice,
    /// `v1 Node`
    Node,
    /// Another one that Kubernetes has or may have: another controller handles it.
    Foreign,
}

impl Kind {
    /// What it may have; `None` if nobody here knows.
    pub(super) fn fields(self) -> Option<Fields> {
        match self {
            Self::Service => Some(schema::SERVICE),
            Self::Endpoints => Some(schema::ENDPOINTS),
            Self::EndpointSlice => Some(schema::ENDPOINT_SLICE),
            Self::Node => Some(schema::NODE),
            Self::Foreign => None,
        }
    }
}

/// Kinds of `v1` in Kubernetes 1.37 that are not ours (`core/v1/register.go`; the kinds that only
/// requests have are left out).
const CORE: &[&str] = &[
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Event",
    "LimitRange",
    "Namespace",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "RangeAllocation",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "SerializedReference",
    "ServiceAccount",
];

/// Those of `v1` that are ours. A list's items are taken one by one.
const OURS: &[(&str, Kind)] =
    &[("Service", Kind::Service), ("Endpoints", Kind::Endpoints), ("Node", Kind::Node)];

const V1: &str = "v1";
const DISCOVERY: &str = "discovery.k8s.io";
const DISCOVERY_V1: &str = "discovery.k8s.io/v1";

/// A list: `v1 List`, or one of a single kind as the API of Kubernetes answers. Its items may leave
/// out kind and version, which are these.
pub(super) fn list_of<'t>(root: &Field<'t>) -> Option<Option<(&'t str, &'t str)>> {
    let text = |name| root.get(name).string().ok().flatten();
    let (kind, version) = (text("kind")?, text("apiVersion")?);
    match (version, kind.strip_suffix("List")?) {
        (V1, "") => Some(None),
        (V1, item) if is_core(item) => Some(Some((item, version))),
        (DISCOVERY_V1, "EndpointSlice") => Some(Some(("EndpointSlice", version))),
        _ => None,
    }
}

fn is_core(kind: &str) -> bool {
    CORE.contains(&kind) || OURS.iter().any(|(name, _)| *name == kind)
}

/// What a document with this `kind` and `apiVersion` is.
///
/// # Errors
/// There is no such kind, or it is not of that version.
pub(super) fn kind_of(root: &Field<'_>, kind: &str, version: &str) -> Checked<Kind> {
    let wrong_version = |wanted: &str| {
        let reason = format!("must be {wanted} for kind {kind}, not {version:?}");
        Err(root.get("apiVersion").problem(reason))
    };
    let ours = OURS.iter().find(|(name, _)| *name == kind).map(|(_, ours)| *ours);
    match version.split_once('/') {
        None if version == V1 => match ours {
            Some(ours) => Ok(ours),
            None if CORE.contains(&kind) => Ok(Kind::Foreign),
            None if kind == "EndpointSlice" => wrong_version(DISCOVERY_V1),
            None => no_such(root, kind, version),
        },
        None => match ours {
            Some(_) => wrong_version(V1),
            None => {
                let reason = format!("{version:?} is neither v1 nor GROUP/VERSION");
                Err(root.get("apiVersion").problem(reason))
            }
        },
        Some((DISCOVERY, _)) if version == DISCOVERY_V1 => match kind {
            "EndpointSlice" => Ok(Kind::EndpointSlice),
            _ => no_such(root, kind, version),
        },
        Some((DISCOVERY, _)) if kind == "EndpointSlice" => wrong_version(DISCOVERY_V1),
        Some((group, one)) if group.is_empty() || one.is_empty() || one.contains('/') => {
            let reason = format!("{version:?} is neither v1 nor GROUP/VERSION");
            Err(root.get("apiVersion").problem(reason))
        }
        Some(_) => Ok(Kind::Foreign),
    }
}

fn no_such(root: &Field<'_>, kind: &str, version: &str) -> Checked<Kind> {
    let core = CORE.iter().copied().chain(OURS.iter().map(|(name, _)| *name)).chain(["List"]);
    let near = match version {
        V1 => nearest(kind, core),
        _ => nearest(kind, ["EndpointSlice"]),
    };
    let hint = near.map_or_else(String::new, |name| format!(", did you mean {name}?"));
    Err(root.get("kind").problem(format!("{version} has no kind {kind:?}{hint}")))
}
