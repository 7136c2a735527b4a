//! Resource types by the names that users type and read.

use serde_json::Value;

/// A kind that the daemon lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `v1 Service`
    Service,
    /// `v1 Endpoints`
    Endpoints,
    /// `discovery.k8s.io/v1 EndpointSlice`
    EndpointSlice,
    /// Attached containers
    Pod,
    /// `v1 Node`
    Node,
    /// Addresses given to containers
    Lease,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Service, Self::Endpoints, Self::EndpointSlice, Self::Pod, Self::Node, Self::Lease];

    /// What comes from documents and can be deleted; the rest is what containers make.
    pub(crate) const STORED: [Self; 4] =
        [Self::Service, Self::Endpoints, Self::EndpointSlice, Self::Node];

    /// Words for it: the plural first, which is its path in the API.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Service => &["services", "service", "svc"],
            Self::Endpoints => &["endpoints", "ep"],
            Self::EndpointSlice => {
                &["endpointslices", "endpointslice", "endpointslice.discovery.k8s.io"]
            }
            Self::Pod => &["pods", "pod", "po"],
            Self::Node => &["nodes", "node", "no"],
            Self::Lease => &["leases", "lease"],
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        self.words()[0]
    }

    /// As in `service/web`: kubectl writes the group of what is not in the core.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice.discovery.k8s.io",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Lease => "lease",
        }
    }

    /// As documents have it.
    pub(crate) fn written(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Lease => "Lease",
        }
    }

    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Lease)
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let is = |kind: &Self| kind.words().iter().any(|one| one.eq_ignore_ascii_case(word));
        Self::ALL.into_iter().find(is)
    }

    /// Name of one of its objects; a lease goes by its address.
    pub(crate) fn name(self, object: &Value) -> &str {
        let name = match self {
            Self::Lease => &object["address"],
            Self::Service | Self::Endpoints | Self::EndpointSlice | Self::Pod | Self::Node => {
                &object["metadata"]["name"]
            }
        };
        name.as_str().unwrap_or("")
    }
}

/// Namespace of an object; empty if it has none.
pub(crate) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("")
}

/// What a user asks for: kinds, and names of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All objects of some kinds.
    Kinds(Vec<Kind>),
    /// Objects by name.
    Names(Vec<(Kind, String)>),
}

impl Selection {
    /// From the words of a command line: `svc`, `svc,po`, `all`, `svc NAME..`, `svc/NAME ..`.
    ///
    /// # Errors
    /// What makes no sense.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let Some((first, names)) = words.split_first() else {
            return Err(format!("name a resource type: {}", plurals()));
        };
        if first.contains('/') {
            return words
                .iter()
                .map(|word| slashed(word))
                .collect::<Result<_, _>>()
                .map(Self::Names);
        }
        if first == "all" && names.is_empty() {
            return Ok(Self::Kinds(vec![Kind::Pod, Kind::Service]));
        }
        let kinds: Vec<Kind> = first.split(',').map(kind).collect::<Result<_, _>>()?;
        match (kinds.as_slice(), names) {
            (_, []) => Ok(Self::Kinds(kinds)),
            ([kind], names) => {
                Ok(Self::Names(names.iter().map(|name| (*kind, name.clone())).collect()))
            }
            _ => Err(format!("names can be given with one resource type only, not with {first}")),
        }
    }
}

fn slashed(word: &str) -> Result<(Kind, String), String> {
    match word.split_once('/') {
        Some((kind_word, name)) if !name.is_empty() => Ok((kind(kind_word)?, name.to_owned())),
        _ => Err(format!("{word} is not KIND/NAME like the other arguments")),
    }
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::from_word(word)
        .ok_or_else(|| format!("unknown resource type {word:?}; valid types: {}", plurals()))
}

fn plurals() -> String {
    Kind::ALL.map(Kind::plural).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], wanted: Result<Selection, &str>) {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(Selection::parse(&words), wanted.map_err(str::to_owned), "{words:?}");
    }

    #[test]
    fn words_select_objects() {
        use Kind::{EndpointSlice, Endpoints, Lease, Node, Pod, Service};
        for (word, kind) in [
            ("svc", Service),
            ("service", Service),
            ("Services", Service),
            ("ep", Endpoints),
            ("endpointslices", EndpointSlice),
            ("endpointslice.discovery.k8s.io", EndpointSlice),
            ("po", Pod),
            ("no", Node),
            ("leases", Lease),
        ] {
            check(&[word], Ok(Selection::Kinds(vec![kind])));
        }
        check(&["svc,po"], Ok(Selection::Kinds(vec![Service, Pod])));
        check(&["all"], Ok(Selection::Kinds(vec![Pod, Service])));
        let names = |kind, names: &[&str]| {
            Ok(Selection::Names(names.iter().map(|&name| (kind, name.to_owned())).collect()))
        };
        check(&["svc", "a", "b"], names(Service, &["a", "b"]));
        check(&["no/a", "node/b"], names(Node, &["a", "b"]));
        const ALL: &str = "services, endpoints, endpointslices, pods, nodes, leases";
        check(&[], Err(&format!("name a resource type: {ALL}")));
        check(&["deploy"], Err(&format!("unknown resource type \"deploy\"; valid types: {ALL}")));
        check(
            &["svc,po", "a"],
            Err("names can be given with one resource type only, not with svc,po"),
        );
        check(&["svc/a", "b"], Err("b is not KIND/NAME like the other arguments"));
        check(&["svc/"], Err("svc/ is not KIND/NAME like the other arguments"));
    }
}
