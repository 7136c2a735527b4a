//! `/healthz`, `/livez`, `/readyz`, `/metrics`, `/proxyMode`: parts of the router, alone on the TCP
//! listeners and together on the unix socket.

use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::api::{Api, unknown_method, unknown_path};
use crate::clock;
pub(crate) use crate::request::answer::Health;
use crate::request::{Query, Refused};
use crate::state::State;

/// A change that is not in the kernel for longer than this is a failure (twice the time after
/// which kube-proxy syncs whatever happens).
const BEHIND: Duration = Duration::from_secs(60);

/// An event loop that does not answer for longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(5);

impl Health {
    /// Of a state.
    pub(crate) fn of(state: &State) -> Self {
        let now = clock::now();
        let unix = clock::unix().as_secs();
        let ago = |instant| now.saturating_duration_since(instant);
        let progress = &state.progress;
        Self {
            healthy: progress.behind.is_none_or(|since| ago(since) < BEHIND),
            eligible: state.index.nodes().get(&state.node.name).is_none_or(|node| !node.deleted),
            updated: progress.synced.map(|synced| unix.saturating_sub(ago(synced).as_secs())),
            now: unix,
            families: super::metrics::families(state),
        }
    }

    /// The loop does not answer.
    fn stuck() -> Self {
        let now = clock::unix().as_secs();
        Self { healthy: false, eligible: true, updated: None, now, families: Vec::new() }
    }

    /// Asks the engine.
    pub(crate) async fn ask(api: &Api) -> Self {
        let asked = api.query(|reply| Query::Health { reply });
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(health)) => health,
            Ok(Err(_)) | Err(_) => Self::stuck(),
        }
    }

    fn body(&self) -> Value {
        let time = |seconds: u64| causeway_model::manifest::rfc3339(seconds);
        let updated = self.updated.map(time);
        let status = json!({ "lastUpdated": updated, "healthy": self.healthy });
        let families = self.families.iter().map(|family| ((*family).to_owned(), status.clone()));
        json!({
            "lastUpdated": updated,
            "currentTime": time(self.now),
            "nodeEligible": self.eligible,
            "healthy": self.healthy,
            "status": families.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// The health listener's part.
pub(crate) fn healthz(api: Api) -> Router {
    let router = Router::new().route("/healthz", get(healthy)).route("/livez", get(alive));
    router.route("/readyz", get(ready)).with_state(api)
}

/// The metrics listener's part, beside `/healthz`.
pub(crate) fn metrics(api: Api) -> Router {
    let router = Router::new().route("/metrics", get(scrape));
    router.route("/proxyMode", get(proxy_mode)).with_state(api)
}

/// All of the health listener.
pub(crate) fn healthz_listener(api: Api) -> Router {
    healthz(api).fallback(unknown_path).method_not_allowed_fallback(unknown_method)
}

/// All of the metrics listener.
pub(crate) fn metrics_listener(api: Api) -> Router {
    let router = Router::new().route("/healthz", get(alive)).with_state(api.clone());
    router.merge(metrics(api)).fallback(unknown_path).method_not_allowed_fallback(unknown_method)
}

/// For load balancers, so not of a node that is about to be deleted.
async fn healthy(Shared(api): Shared<Api>) -> Response {
    respond(&api, "healthz", |health| health.healthy && health.eligible).await
}

async fn ready(Shared(api): Shared<Api>) -> Response {
    respond(&api, "healthz", |health| health.healthy).await
}

async fn alive(Shared(api): Shared<Api>) -> Response {
    respond(&api, "livez", |health| health.healthy).await
}

async fn respond(api: &Api, probe: &'static str, is_good: fn(&Health) -> bool) -> Response {
    let health = Health::ask(api).await;
    let status = if is_good(&health) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    api.metrics.probed(probe, status.as_u16());
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, health.body().to_string()).into_response()
}

async fn scrape(Shared(api): Shared<Api>) -> Result<Response, Refused> {
    let text = api.query(|reply| Query::Metrics { reply }).await?;
    /// What prometheus-client writes.
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

async fn proxy_mode(Shared(api): Shared<Api>) -> Result<Response, Refused> {
    let status = api.query(|reply| Query::Status { reply }).await?;
    Ok(status.backend.into_response())
}
