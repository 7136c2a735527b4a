//! What all handlers have at hand: the way to the engine, and refusals as answers.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::extract::Request as HttpRequest;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::listen::Strangers;
use super::metrics::Metrics;
use crate::containerd::Containerd;
use crate::event::{Event, Events};
use crate::request::{Query, Refused, Reply, Request};

/// What handlers have at hand.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) events: Events,
    pub(crate) containerd: Containerd,
    pub(crate) metrics: Metrics,
    pub(crate) run_dir: Arc<FilePath>,
    pub(crate) strangers: Strangers,
}

impl Api {
    /// Asks the engine. It answers in the order of requests, after the changes before them.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, Refused> {
        let ending =
            |()| Refused::new(503, "causewayd is stopping; retry when it is running again");
        let (reply, answer) = oneshot::channel();
        let sent = self.events.send(Event::Request(request(reply))).await;
        sent.map_err(|_| ending(()))?;
        answer.await.map_err(|_| ending(()))?
    }

    /// As [`Api::ask`], for queries.
    pub(crate) async fn query<T>(
        &self,
        query: impl FnOnce(Reply<T>) -> Query,
    ) -> Result<T, Refused> {
        self.ask(|reply| Request::Query(query(reply))).await
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self.problem)).into_response()
    }
}

/// `404` of a path that nothing answers, also of the TCP listeners.
pub(crate) async fn unknown_path(request: HttpRequest) -> Refused {
    let path = request.uri().path().to_owned();
    Refused::new(
        404,
        format!(
            "unknown path {path:?}; causewayd serves /v1/..., /healthz, /livez, /readyz, /metrics \
             and /proxyMode"
        ),
    )
}

/// `405`
pub(crate) async fn unknown_method(request: HttpRequest) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    Refused::new(405, format!("{path} does not support {method}"))
}
