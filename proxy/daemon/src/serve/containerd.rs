//! A container's own labels, from containerd: two unary gRPC calls of its API
//! (`containerd.services.namespaces.v1`, `containerd.services.containers.v1`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_model::Labels;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::event::{Event, Events};

/// How long an ADD may be held up.
const PATIENCE: Duration = Duration::from_millis(500);

/// When a container that could not be looked up is looked up again.
const LATER: Duration = Duration::from_secs(5);

/// Longest label value that is kept: longer ones, as nerdctl writes for itself, fit no selector.
const LONGEST: usize = 63;

/// Asks containerd, where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    socket: PathBuf,
}

/// A look-up that did not come to an end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("connect to {}", .0.display())]
    Connect(PathBuf, #[source] tonic::transport::Error),
    #[error("ask containerd for {0}")]
    Call(&'static str, #[source] Box<tonic::Status>),
    #[error("containerd did not answer within {} ms", PATIENCE.as_millis())]
    Slow,
}

impl Containerd {
    /// The containerd at a socket, which may be absent.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The labels of a container; none where containerd is absent, slow or does not know it. Where
    /// it was slow, or failed, they come later by an event of their own.
    pub(crate) async fn labels(&self, container_id: &str, events: &Events) -> Labels {
        if !self.socket.exists() {
            return Labels::new();
        }
        match self.look_up(container_id).await {
            Ok(labels) => labels.unwrap_or_default(),
            Err(failure) => {
                complain(container_id, &failure);
                self.later(container_id.to_owned(), events.clone(), LATER);
                Labels::new()
            }
        }
    }

    /// Looks a container up without anybody waiting, and once more where that fails; its labels come
    /// by an event.
    pub(crate) fn later(&self, container_id: String, events: Events, after: Duration) {
        let this = self.clone();
        tokio::spawn(async move {
            for pause in [after, LATER] {
                tokio::time::sleep(pause).await;
                if !this.socket.exists() {
                    return;
                }
                match this.look_up(&container_id).await {
                    Ok(Some(labels)) => {
                        // Without an engine nobody needs labels.
                        drop(events.send(Event::Labels { container_id, labels }).await);
                        return;
                    }
                    Ok(None) => return,
                    Err(failure) => complain(&container_id, &failure),
                }
            }
        });
    }

    /// `None`: containerd does not know the container.
    async fn look_up(&self, container_id: &str) -> Result<Option<Labels>, Failure> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(container_id));
        asked.await.unwrap_or(Err(Failure::Slow))
    }

    async fn ask(&self, container_id: &str) -> Result<Option<Labels>, Failure> {
        let failed = |error| Failure::Connect(self.socket.clone(), error);
        let uri = format!("unix://{}", self.socket.display());
        let endpoint = Endpoint::from_shared(uri).map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed)?;
        let namespaces = namespaces(&channel).await?;
        for (namespace, id) in candidates(container_id, &namespaces) {
            if let Some(mut labels) = container(&channel, &namespace, &id).await? {
                labels.retain(|_, value| value.len() <= LONGEST);
                return Ok(Some(labels));
            }
        }
        Ok(None)
    }
}

/// Where a container may be found, likely places first. `nerdctl` and `ctr` give the plugins
/// `NAMESPACE-ID`, Kubernetes' runtime service the bare id.
fn candidates(container_id: &str, namespaces: &[String]) -> Vec<(String, String)> {
    let prefixed = namespaces.iter().filter_map(|namespace| {
        let id = container_id.strip_prefix(namespace.as_str())?.strip_prefix('-')?;
        (!id.is_empty()).then(|| (namespace.clone(), id.to_owned()))
    });
    let bare = namespaces.iter().map(|namespace| (namespace.clone(), container_id.to_owned()));
    prefixed.chain(bare).collect()
}

fn complain(container_id: &str, failure: &Failure) {
    let cause = std::error::Error::source(failure).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(container = container_id, cause, "labels of the container: {failure}");
}

async fn namespaces(channel: &Channel) -> Result<Vec<String>, Failure> {
    let request = tonic::Request::new(message::ListNamespaces {});
    let path = "/containerd.services.namespaces.v1.Namespaces/List";
    let answer: message::Namespaces = call(channel, path, request)
        .await
        .map_err(|status| Failure::Call("its namespaces", Box::new(status)))?;
    Ok(answer.namespaces.into_iter().map(|namespace| namespace.name).collect())
}

async fn container(
    channel: &Channel,
    namespace: &str,
    id: &str,
) -> Result<Option<Labels>, Failure> {
    /// Metadata that says in which namespace a call works.
    const NAMESPACE: &str = "containerd-namespace";
    let mut request = tonic::Request::new(message::GetContainer { id: id.to_owned() });
    let Ok(value) = namespace.parse() else { return Ok(None) };
    request.metadata_mut().insert(NAMESPACE, value);
    let path = "/containerd.services.containers.v1.Containers/Get";
    match call::<_, message::GetContainerAnswer>(channel, path, request).await {
        Ok(answer) => Ok(answer.container.map(|container| container.labels)),
        // An id that is none in this namespace's eyes is not there either.
        Err(status)
            if matches!(status.code(), tonic::Code::NotFound | tonic::Code::InvalidArgument) =>
        {
            Ok(None)
        }
        Err(status) => Err(Failure::Call("a container", Box::new(status))),
    }
}

async fn call<Asked, Answer>(
    channel: &Channel,
    path: &'static str,
    request: tonic::Request<Asked>,
) -> Result<Answer, tonic::Status>
where
    Asked: prost::Message + 'static,
    Answer: prost::Message + Default + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    let unready = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    client.ready().await.map_err(unready)?;
    let codec = tonic_prost::ProstCodec::default();
    let answer = client.unary(request, PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

/// The parts of containerd's messages that are read.
mod message {
    use causeway_model::Labels;

    /// `ListNamespacesRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ListNamespaces {}

    /// `ListNamespacesResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Namespaces {
        #[prost(message, repeated, tag = "1")]
        pub(super) namespaces: Vec<Namespace>,
    }

    /// `Namespace`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Namespace {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }

    /// `GetContainerRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct GetContainer {
        #[prost(string, tag = "1")]
        pub(super) id: String,
    }

    /// `GetContainerResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct GetContainerAnswer {
        #[prost(message, optional, tag = "1")]
        pub(super) container: Option<Container>,
    }

    /// `Container`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Container {
        #[prost(string, tag = "1")]
        pub(super) id: String,
        #[prost(btree_map = "string, string", tag = "2")]
        pub(super) labels: Labels,
    }
}

#[cfg(test)]
mod tests;
