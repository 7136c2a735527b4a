//! The router of the unix socket, and its parts for the TCP listeners.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query as Params, Request as HttpRequest, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use causeway_api::{AppliedOutcome, Apply, Delete, DnsRequest, EventAnswer, SvcTest, TraceRequest};
use causeway_model::{EndpointEvent, Labels, ObjectKey, ObjectKind};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::api::{Api, unknown_method, unknown_path};
use super::collect::{Item, Kind};
use super::watch::Lines;
use super::{Query, dns, health, render, svc_test, trace};
use crate::request::{Refused, Request, Target};

/// Largest body of `POST /v1/apply`: 45,000 services are half of it.
const APPLY_LIMIT: usize = 64 << 20;
/// Largest body of any other request.
const LIMIT: usize = 1 << 20;

/// Everything, for the unix socket.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/events", put(put_event))
        .route("/v1/apply", post(apply))
        .route("/v1/delete", post(delete_many))
        .route("/v1/status", get(status))
        .route("/v1/trace", post(trace_packet))
        .route("/v1/svc-test", post(test_service))
        .route("/v1/dns", post(look_up))
        .route("/v1/describe/{namespace}/{name}", get(describe))
        .route("/v1/{kind}", get(list))
        .route("/v1/{kind}/{name}", get(get_global).delete(delete_global))
        .route("/v1/{kind}/{namespace}/{name}", get(get_one).delete(delete_one))
        .with_state(api.clone())
        .merge(health::healthz(api.clone()))
        .merge(health::metrics(api))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
}

async fn put_event(Shared(api): Shared<Api>, request: HttpRequest) -> Result<Response, Refused> {
    let event: EndpointEvent = json(request, LIMIT).await?;
    if let Some(record) = &event.record
        && record.key != event.key
    {
        return Err(Refused::new(
            400,
            "field record: its network, containerID and ifname differ from those of key",
        ));
    }
    let labels = match &event.record {
        Some(record) => api.containerd.labels(&record.key.container_id, &api.events).await,
        None => Labels::new(),
    };
    let warnings = api.ask(|reply| Request::Event { event, labels, reply }).await?;
    Ok(match warnings.is_empty() {
        true => StatusCode::NO_CONTENT.into_response(),
        false => axum::Json(EventAnswer { warnings }).into_response(),
    })
}

async fn apply(Shared(api): Shared<Api>, request: HttpRequest) -> Result<Response, Refused> {
    let apply: Apply<Box<RawValue>> = json(request, APPLY_LIMIT).await?;
    let applied = api.ask(|reply| Request::Apply { apply, reply }).await?;
    Ok(axum::Json(applied).into_response())
}

async fn delete_many(Shared(api): Shared<Api>, request: HttpRequest) -> Result<Response, Refused> {
    let delete: Delete = json(request, APPLY_LIMIT).await?;
    let targets = delete.objects.into_iter().enumerate().map(|(number, name)| {
        target(&name.kind, &name.namespace, &name.name).map_err(|refused| {
            let message = format!("field objects[{number}]: {}", refused.problem.message);
            Refused::new(400, message)
        })
    });
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let applied = api.ask(|reply| Request::Delete { targets, reply }).await?;
    Ok(axum::Json(applied).into_response())
}

async fn status(Shared(api): Shared<Api>) -> Result<Response, Refused> {
    let status = api.query(|reply| Query::Status { reply }).await?;
    Ok(axum::Json(status).into_response())
}

async fn describe(
    Shared(api): Shared<Api>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let key = ObjectKey::new(namespace, name);
    let description = api.query(|reply| Query::Describe { key, reply }).await?;
    Ok(axum::Json(description).into_response())
}

async fn trace_packet(Shared(api): Shared<Api>, request: HttpRequest) -> Result<Response, Refused> {
    let request: TraceRequest = json(request, LIMIT).await?;
    let local = trace::local_addresses().await?;
    let answer = api.query(|reply| Query::Trace { request, local, reply }).await?;
    Ok(axum::Json(answer).into_response())
}

async fn test_service(Shared(api): Shared<Api>, request: HttpRequest) -> Result<Response, Refused> {
    let request: SvcTest = json(request, LIMIT).await?;
    let prepared = api.query(|reply| Query::SvcTest { request, reply }).await?;
    Ok(lines(svc_test::run(prepared)))
}

async fn look_up(Shared(api): Shared<Api>, request: HttpRequest) -> Result<Response, Refused> {
    let request: DnsRequest = json(request, LIMIT).await?;
    let questions = api.query(|reply| Query::Dns { request, reply }).await?;
    Ok(axum::Json(dns::ask(questions).await).into_response())
}

/// `?namespace=NS&watch=true`
#[derive(Debug, Default, Deserialize)]
struct ListParams {
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    watch: bool,
}

async fn list(
    Shared(api): Shared<Api>,
    Path(kind): Path<String>,
    params: Result<Params<ListParams>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Params(params) = params.map_err(|error| {
        let message = "invalid query; use ?namespace=NAMESPACE&watch=true|false";
        Refused::caused(400, message, &error)
    })?;
    let namespace = params.namespace.filter(|namespace| !namespace.is_empty());
    if kind == "leases" {
        if params.watch {
            return Err(Refused::new(400, "leases cannot be watched; list them again instead"));
        }
        return off_loop(move || super::leases::list(&api.run_dir).map(render::list)).await;
    }
    let kind = known(&kind)?;
    if params.watch {
        let watched = api.query(|reply| Query::Watch { kind, namespace, reply }).await?;
        return Ok(lines(watched));
    }
    let items = api.query(|reply| Query::List { kind, namespace, reply }).await?;
    off_loop(move || Ok(render::list(items.iter().filter_map(Item::render).collect()))).await
}

async fn get_one(
    Shared(api): Shared<Api>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Response, Refused> {
    let kind = known(&kind)?;
    if kind == Kind::Nodes {
        return Err(Refused::new(404, "nodes are not namespaced; use /v1/nodes/NAME"));
    }
    show(&api, kind, ObjectKey::new(namespace, name)).await
}

async fn get_global(
    Shared(api): Shared<Api>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    show(&api, global(&kind, &name)?, ObjectKey::new("", name)).await
}

async fn show(api: &Api, kind: Kind, key: ObjectKey) -> Result<Response, Refused> {
    let item = api.query(|reply| Query::Get { kind, key, reply }).await?;
    off_loop(move || Ok(item.render().unwrap_or_default())).await
}

async fn delete_one(
    Shared(api): Shared<Api>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Response, Refused> {
    if known(&kind)? == Kind::Nodes {
        return Err(Refused::new(404, "nodes are not namespaced; delete /v1/nodes/NAME"));
    }
    delete(&api, target(&kind, &namespace, &name)?).await
}

async fn delete_global(
    Shared(api): Shared<Api>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    global(&kind, &name)?;
    delete(&api, target(&kind, "", &name)?).await
}

/// Deletes one object: what became of it is the status.
async fn delete(api: &Api, target: Target) -> Result<Response, Refused> {
    let applied = api.ask(|reply| Request::Delete { targets: vec![target], reply }).await?;
    let Some(one) = applied.results.first() else {
        return Ok(axum::Json(applied).into_response());
    };
    let slash = if one.namespace.is_empty() { "" } else { "/" };
    let object = format!("{} {}{slash}{}", one.kind, one.namespace, one.name);
    match (one.outcome, &one.refusal) {
        (AppliedOutcome::NotFound, _) => Err(Refused::new(404, format!("{object} not found"))),
        (_, Some(refusal)) => Err(Refused::new(409, format!("{object}: {}", refusal.reason))),
        _ => Ok(axum::Json(applied).into_response()),
    }
}

/// What is to be deleted, by the words of its path.
fn target(kind: &str, namespace: &str, name: &str) -> Result<Target, Refused> {
    let key = || ObjectKey::new(namespace, name);
    Ok(match known(kind)? {
        Kind::Services => Target::Object(ObjectKind::Service, key()),
        Kind::EndpointSlices => Target::Object(ObjectKind::EndpointSlice, key()),
        Kind::Endpoints => Target::Endpoints(key()),
        Kind::Nodes => Target::Object(ObjectKind::Node, ObjectKey::new("", name)),
        Kind::Pods => return Err(pods_are_not_deleted()),
    })
}

fn pods_are_not_deleted() -> Refused {
    Refused::new(405, "pods are attached containers; remove the container through its runtime")
}

fn known(kind: &str) -> Result<Kind, Refused> {
    Kind::of(kind).ok_or_else(|| {
        let message = format!(
            "unknown resource type {kind:?}; valid types: services, endpoints, endpointslices, \
             pods, nodes"
        );
        Refused::new(404, message)
    })
}

/// A kind without namespaces.
fn global(kind: &str, name: &str) -> Result<Kind, Refused> {
    match known(kind)? {
        Kind::Nodes => Ok(Kind::Nodes),
        Kind::Services | Kind::Endpoints | Kind::EndpointSlices | Kind::Pods => {
            let message = format!("{kind} are namespaced; use /v1/{kind}/NAMESPACE/{name}");
            Err(Refused::new(404, message))
        }
    }
}

/// Reads a JSON body of at most `limit` bytes.
async fn json<T: DeserializeOwned>(request: HttpRequest, limit: usize) -> Result<T, Refused> {
    /// A client that stops sending must not keep its request open.
    const PATIENCE: Duration = Duration::from_secs(30);
    let body = tokio::time::timeout(PATIENCE, bytes(request.into_body(), limit)).await;
    let bytes = body.map_err(|_| {
        Refused::new(
            408,
            format!("the request body did not arrive within {} seconds", PATIENCE.as_secs()),
        )
    })??;
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let place = if field == "." { "the body".to_owned() } else { format!("field {field}") };
        Refused::new(400, format!("{place}: {}", error.inner()))
    })?;
    reader.end().map_err(|error| {
        Refused::new(400, format!("trailing data after the JSON object: {error}"))
    })?;
    Ok(parsed)
}

async fn bytes(mut body: Body, limit: usize) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Refused::caused(400, "the request body did not arrive", &error))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= limit {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
        }
        // A client that is still writing would not read the refusal.
        if length > 2 * APPLY_LIMIT {
            break;
        }
    }
    if length > limit {
        let message = format!("the request body is larger than {limit} bytes; send it in parts");
        return Err(Refused::new(413, message));
    }
    Ok(bytes)
}

/// Renders and writes on a thread of its own.
async fn off_loop(
    work: impl FnOnce() -> Result<Value, Refused> + Send + 'static,
) -> Result<Response, Refused> {
    let write = move || work().map(|value| value.to_string());
    let text = tokio::task::spawn_blocking(write)
        .await
        .map_err(|error| Refused::caused(500, "rendering the answer failed", &error))??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Sends lines as they come.
fn lines(lines: impl Into<Lines>) -> Response {
    let body = Body::new(LinesBody(lines.into()));
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

/// A body of lines.
struct LinesBody(Lines);

impl http_body::Body for LinesBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.poll(context).map(|line| line.map(|line| Ok(http_body::Frame::data(line.into()))))
    }
}

#[cfg(test)]
mod tests;
