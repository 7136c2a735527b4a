//! Labels of a container, merged from all their sources (DESIGN 5.1). Pure.

use causeway_model::{EndpointRecord, Labels, manifest};
use cni_plugin::{Code, Error, Request};
use serde_json::{Map, Value};

/// The capability by which containerd's CRI passes a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// All labels of the container of `request`. Later wins: `labels` of the configuration,
/// `args.cni.labels`, `CAUSEWAY_LABELS` of `CNI_ARGS`, annotations of the pod; and what is always
/// set.
///
/// # Errors
/// Code 7 naming the field, for what Kubernetes would not accept as a label. Annotations are no
/// labels, and one that could not be a label is left out.
pub(crate) fn of(request: &Request) -> Result<Labels, Error> {
    let mut labels = configured(request)?;
    if let Some(text) = request.args.pairs.get("CAUSEWAY_LABELS") {
        labels.extend(from_args(text)?);
    }
    labels.extend(annotations(request)?);
    labels.extend(always(request));
    Ok(labels)
}

fn configured(request: &Request) -> Result<Labels, Error> {
    let mut labels = Labels::new();
    for (field, path) in
        [("labels", ["labels"].as_slice()), ("args.cni.labels", &["args", "cni", "labels"])]
    {
        match request.raw_get(path) {
            None | Some(Value::Null) => {}
            Some(Value::Object(map)) => labels.extend(from_map(field, map)?),
            // The CNI conventions' form; of the list in the configuration itself nobody speaks.
            Some(Value::Array(items)) if path.len() > 1 => labels.extend(from_list(field, items)?),
            Some(other) => return Err(invalid(field, &format!("{other} is not a map of strings"))),
        }
    }
    Ok(labels)
}

fn from_map(field: &str, map: &Map<String, Value>) -> Result<Labels, Error> {
    let label = |(key, value): (&String, &Value)| match value.as_str() {
        Some(value) => checked(field, key, value),
        None => {
            Err(invalid(field, &format!("the value of {key:?} is {value}; labels are strings")))
        }
    };
    map.iter().map(label).collect()
}

fn from_list(field: &str, items: &[Value]) -> Result<Labels, Error> {
    let member = |item: &Value, wanted: &str| -> Option<String> {
        let mut members = item.as_object()?.iter();
        let found = members.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?.1;
        found.as_str().map(str::to_owned)
    };
    let label = |item: &Value| match (member(item, "key"), member(item, "value")) {
        (Some(key), Some(value)) => checked(field, &key, &value),
        _ => Err(invalid(field, &format!("{item} is not {{\"key\": KEY, \"value\": VALUE}}"))),
    };
    items.iter().map(label).collect()
}

/// `app:web,tier:db`: a pair of `CNI_ARGS` can hold no other `=`.
fn from_args(text: &str) -> Result<Labels, Error> {
    let field = "CNI_ARGS: CAUSEWAY_LABELS";
    let label = |part: &str| match part.split_once(':') {
        Some((key, value)) => checked(field, key, value),
        None => Err(invalid(field, &format!("{part:?} is not KEY:VALUE"))),
    };
    text.split(',').filter(|part| !part.is_empty()).map(label).collect()
}

fn annotations(request: &Request) -> Result<Labels, Error> {
    match request.raw_get(&["runtimeConfig", ANNOTATIONS]) {
        None | Some(Value::Null) => Ok(Labels::new()),
        Some(Value::Object(map)) => {
            let label = |(key, value): (&String, &Value)| {
                let value = value.as_str()?;
                manifest::check_label(key, value).ok()?;
                Some((key.clone(), value.to_owned()))
            };
            Ok(map.iter().filter_map(label).collect())
        }
        Some(other) => {
            let field = format!("runtimeConfig.{ANNOTATIONS}");
            Err(invalid(&field, &format!("{other} is not a map of strings")))
        }
    }
}

/// Names that other programs gave: they are not checked as labels, for a container id is longer
/// than a label's value may be.
fn always(request: &Request) -> [(String, String); 3] {
    let argument = |name: &str| request.args.pairs.get(name).filter(|value| !value.is_empty());
    let pod = argument("K8S_POD_NAME").unwrap_or(&request.attachment.container_id);
    let namespace = argument("K8S_POD_NAMESPACE").map_or("default", String::as_str);
    [
        (EndpointRecord::POD_NAME, pod.as_str()),
        (EndpointRecord::POD_NAMESPACE, namespace),
        (EndpointRecord::NETWORK, &request.network),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn checked(field: &str, key: &str, value: &str) -> Result<(String, String), Error> {
    match manifest::check_label(key, value) {
        Ok(()) => Ok((key.to_owned(), value.to_owned())),
        Err(why) => Err(invalid(field, &format!("{key:?}: {value:?} is not a label: {why}"))),
    }
}

fn invalid(field: &str, why: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("{field}: {why}"))
}

#[cfg(test)]
mod tests;
