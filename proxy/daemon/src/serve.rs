//! Everything that answers: HTTP router and rendering, watches, health and metrics.

mod api;
mod collect;
mod describe;
mod dns;
mod health;
mod http;
mod leases;
pub(crate) mod listen;
mod metrics;
mod nodes;
mod places;
mod render;
mod status;
mod svc_test;
mod trace;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use causeway_model::ObjectKey;
use tokio::net::UnixListener;

use crate::conditions::Concern;
use crate::config::Settings;
use crate::containerd::Containerd;
use crate::event::Events;
use crate::request::{Query, Refused, Reply};
use crate::state::{Committed, State};

pub(crate) use self::api::Api;
use self::collect::Kind;
pub(crate) use self::health::Health;
pub(crate) use self::metrics::Metrics;

/// Owned by the engine, on its thread; tasks that it spawns send events.
#[derive(Debug)]
pub(crate) struct Front {
    api: Api,
    watchers: watch::Watchers,
}

impl Front {
    /// Nothing listens yet.
    pub(crate) fn new(events: Events, settings: &Settings) -> Self {
        let metrics = Metrics::new();
        let containerd = Containerd::new(&settings.containerd_socket, settings.image_labels);
        Self {
            watchers: watch::Watchers::default(),
            api: Api {
                events,
                containerd,
                metrics,
                run_dir: settings.run_dir.as_path().into(),
                strangers: listen::Strangers::default(),
            },
        }
    }

    /// What handlers have at hand.
    pub(crate) fn api(&self) -> Api {
        self.api.clone()
    }

    /// Starts to answer on the socket, which is bound (root alone) and listens, and on the TCP
    /// listeners of the settings. A listener that cannot be bound is one of `state.conditions`.
    /// Called once, inside the runtime, before the first commit: answers come after it.
    pub(crate) fn start(&mut self, socket: UnixListener, state: &mut State) {
        let router = http::router(self.api.clone());
        tokio::spawn(async move {
            // It returns never.
            drop(axum::serve(socket, router).await);
        });
        let listeners = [
            (
                "healthz-listen",
                state.settings.healthz_listen.clone(),
                health::healthz_listener as fn(Api) -> axum::Router,
            ),
            ("metrics-listen", state.settings.metrics_listen.clone(), health::metrics_listener),
        ];
        for (flag, addresses, router) in listeners {
            for address in addresses {
                self.listen(flag, address, router(self.api.clone()), state);
            }
        }
    }

    /// Answers a question; `conntrack` tells what does not work there. What takes long is spawned.
    pub(crate) fn answer(
        &mut self,
        state: &State,
        query: Query,
        conntrack: impl FnOnce() -> Option<String>,
    ) {
        /// Whoever asked may be gone.
        fn give<T>(reply: Reply<T>, answer: Result<T, Refused>) {
            drop(reply.send(answer));
        }
        match query {
            Query::List { kind, namespace, reply } => {
                give(reply, Ok(collect::all(state, kind, namespace.as_deref())));
            }
            Query::Get { kind, key, reply } => {
                let found = collect::one(state, kind, &key);
                give(reply, found.ok_or_else(|| unknown(kind, &key)));
            }
            Query::Watch { kind, namespace, reply } => {
                give(reply, Ok(self.watchers.add(state, kind, namespace)));
            }
            Query::Describe { key, reply } => give(reply, describe::describe(state, &key)),
            Query::Status { reply } => {
                let more = [
                    ("conntrack", conntrack()),
                    ("state-dir", disk(state)),
                    ("store", lost(state)),
                ];
                let more = more.into_iter().filter_map(|(of, what)| Some((of.to_owned(), what?)));
                give(reply, Ok(status::status(state, &more.collect::<BTreeMap<_, _>>())));
            }
            Query::Trace { request, local, reply } => {
                give(reply, trace::answer(state, &request, &local));
            }
            Query::Dns { request, reply } => give(reply, dns::prepare(state, &request)),
            Query::SvcTest { request, reply } => give(reply, svc_test::prepare(state, &request)),
            Query::Health { reply } => give(reply, Ok(Health::of(state))),
            Query::Metrics { reply } => {
                give(reply, Ok(self.api.metrics.text(state, self.watchers.count())));
            }
        }
    }

    /// The kernel holds the plan: watches and metrics follow. Not called for commits that changed
    /// nothing at all.
    pub(crate) fn synced(&mut self, state: &State, commit: &Committed) {
        self.api.metrics.committed(state, commit);
        self.watchers.touched(state, &commit.touched);
    }

    /// Asks containerd for the labels of a container that came otherwise than by `PUT /v1/events`;
    /// [`crate::event::Event::Labels`] brings them.
    pub(crate) fn look_up(&mut self, container_id: &str) {
        self.api.containerd.later(container_id.to_owned(), self.api.events.clone(), Duration::ZERO);
    }

    fn listen(
        &self,
        flag: &'static str,
        address: SocketAddr,
        router: axum::Router,
        state: &mut State,
    ) {
        match listen::bind(address) {
            Ok(listener) => {
                drop(listen::serve(listener, router, self.api.strangers.clone()));
            }
            Err(error) => {
                let what = format!(
                    "{address} cannot be bound ({error}); free the port, or set --{flag} to \
                     another address"
                );
                tracing::warn!("{flag}: {what}");
                state.conditions.set(Concern::Listener(flag, address), what);
            }
        }
    }
}

/// Asked when the question comes, so that the answer is about now. It takes some microseconds.
fn disk(state: &State) -> Option<String> {
    let trouble = causeway_source::disk_trouble(&state.settings.state_dir)?;
    Some(format!(
        "{trouble}: apply is refused, and new containers are not added to services; free some space"
    ))
}

/// A store that was damaged, as long as nobody has dealt with it: restarts do not make it whole.
fn lost(state: &State) -> Option<String> {
    let folders = causeway_source::lost_stores(&state.settings.state_dir);
    let folders: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
    (!folders.is_empty()).then(|| {
        let folders = folders.join(", ");
        format!(
            "the store was damaged and was recreated; the damaged files are in {folders}. State \
             from manifest files, etcd and running containers is restored. Apply the services that \
             are missing, then remove {folders}"
        )
    })
}

fn unknown(kind: Kind, key: &ObjectKey) -> Refused {
    let shown = if key.namespace.is_empty() { key.name.to_string() } else { key.to_string() };
    Refused::new(404, format!("{} {shown} not found", kind.singular()))
}

#[cfg(test)]
mod tests;
