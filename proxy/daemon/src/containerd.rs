//! A container's own labels, from containerd: gRPC calls of its API (`containerd.services.namespaces.v1`,
//! `containers.v1`, `images.v1`, `content.v1`).

mod images;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_model::Labels;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::event::{Event, Events};

use self::images::{ImageLabels, Manifest};

/// How long an ADD may be held up.
const PATIENCE: Duration = Duration::from_millis(500);

/// When a container that could not be looked up is looked up again.
const LATER: Duration = Duration::from_secs(5);

/// Largest manifest or configuration of an image that is read.
const LARGEST: usize = 4 << 20;
/// Indexes and manifests of an image that are read; an honest one has two for each platform.
const BLOBS: usize = 256;
/// So many refused labels are remembered as said.
const SAID: usize = 10_000;

/// Asks containerd, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    socket: PathBuf,
    /// Labels of images count.
    image_labels: bool,
    /// Refused labels that were named, by container and key.
    said: Arc<Mutex<BTreeSet<(String, String)>>>,
}

/// A lookup that did not finish.
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
    pub(crate) fn new(socket: &Path, image_labels: bool) -> Self {
        Self { socket: socket.to_owned(), image_labels, said: Arc::default() }
    }

    /// The labels of a container; none if containerd is absent, slow or does not know it. If
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

    /// Looks a container up without anybody waiting, and once more if that fails; its labels come
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
            let Some(found) = container(&channel, &namespace, &id).await? else { continue };
            let image = match self.image_labels || found.image.is_empty() {
                true => ImageLabels::None,
                false => image(&channel, &namespace, &found).await?,
            };
            let sorted = images::sort(found.labels, &image);
            self.name(container_id, &sorted.refused);
            return Ok(Some(sorted.labels));
        }
        Ok(None)
    }

    /// Names labels that do not count, each once.
    fn name(&self, container_id: &str, refused: &[(String, String)]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() > SAID {
            said.clear();
        }
        let id = container_id.to_owned();
        let new = refused.iter().filter(|(key, _)| said.insert((id.clone(), key.clone())));
        for (key, why) in new.take(images::MOST) {
            let key: String = key.chars().take(80).flat_map(char::escape_debug).collect();
            tracing::warn!("label {key} of container {container_id} is ignored: {why}");
        }
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
) -> Result<Option<message::Container>, Failure> {
    let request = message::GetContainer { id: id.to_owned() };
    let path = "/containerd.services.containers.v1.Containers/Get";
    let answer = get::<_, message::GetContainerAnswer>(channel, namespace, path, request).await?;
    Ok(answer.and_then(|answer| answer.container))
}

/// Asks for something in a namespace; `None` if it is not there.
async fn get<Asked, Answer>(
    channel: &Channel,
    namespace: &str,
    path: &'static str,
    request: Asked,
) -> Result<Option<Answer>, Failure>
where
    Asked: prost::Message + 'static,
    Answer: prost::Message + Default + 'static,
{
    let Some(request) = within(namespace, request) else { return Ok(None) };
    found(call(channel, path, request).await, path)
}

/// The labels of the image that a container was made of. If another image may have its name
/// since, its layers tell whether it is the same one, and whether it was here before the container.
async fn image(
    channel: &Channel,
    namespace: &str,
    container: &message::Container,
) -> Result<ImageLabels, Failure> {
    let name = &container.image;
    let unknown = |why: &str| Ok(ImageLabels::Unknown(format!("image {name} {why}")));
    let request = message::GetImage { name: name.clone() };
    let path = "/containerd.services.images.v1.Images/Get";
    let answer = get::<_, message::GetImageAnswer>(channel, namespace, path, request).await?;
    let Some(message::Image { target: Some(target), updated_at }) =
        answer.and_then(|answer| answer.image)
    else {
        return unknown("is gone");
    };
    let parent = match updated_at > container.created_at {
        true => Some(parent(channel, namespace, container).await?),
        false => None,
    };
    let Some(digests) = configurations(channel, namespace, target.digest).await? else {
        return unknown("has a manifest that is too large to read");
    };
    let mut configs = Vec::new();
    for digest in digests {
        let Some(bytes) = content(channel, namespace, &digest).await? else { continue };
        // Whichever of the platforms it runs: none of their labels counts.
        match images::Config::read(&bytes) {
            Some(config) => configs.push((digest, config)),
            None => return unknown("has a configuration that cannot be read"),
        }
    }
    if let Some(parent) = parent {
        // Another image may have the same layers. One that came later is not the container's.
        let mut older = Vec::new();
        for (digest, config) in configs {
            let same = Some(config.chain()) == parent
                && came(channel, namespace, &digest).await? <= container.created_at;
            older.extend(same.then_some((digest, config)));
        }
        configs = older;
        if configs.is_empty() {
            return unknown("was replaced after the container was created");
        }
    }
    match configs.is_empty() {
        true => unknown("has no configuration on this node"),
        false => {
            let labels = configs.into_iter().flat_map(|(_, config)| config.labels);
            Ok(ImageLabels::Labels(labels.collect()))
        }
    }
}

/// The digests of the configurations that an image leads to, of all its platforms that are there, as
/// deep as containerd looks for them. `None`: there may be more.
async fn configurations(
    channel: &Channel,
    namespace: &str,
    target: String,
) -> Result<Option<BTreeSet<String>>, Failure> {
    let mut configs = BTreeSet::new();
    let (mut seen, mut waiting) = (BTreeSet::from([target.clone()]), vec![target]);
    while let Some(digest) = waiting.pop() {
        // Of other platforms it is seldom there.
        let Some(bytes) = content(channel, namespace, &digest).await? else { continue };
        let Some((manifests, config)) = Manifest::read(&bytes) else { return Ok(None) };
        configs.extend(config);
        waiting.extend(manifests.into_iter().filter(|one| seen.insert(one.clone())));
        if seen.len() > BLOBS {
            return Ok(None);
        }
    }
    Ok(Some(configs))
}

/// The layers that a container stands on.
async fn parent(
    channel: &Channel,
    namespace: &str,
    container: &message::Container,
) -> Result<Option<String>, Failure> {
    let message::Container { snapshotter, snapshot_key, .. } = container;
    let request =
        message::StatSnapshot { snapshotter: snapshotter.clone(), key: snapshot_key.clone() };
    let path = "/containerd.services.snapshots.v1.Snapshots/Stat";
    let answer = get::<_, message::StatSnapshotAnswer>(channel, namespace, path, request).await?;
    Ok(answer.and_then(|answer| answer.info).map(|info| info.parent))
}

/// When a blob came; that of one that is gone is now.
async fn came(
    channel: &Channel,
    namespace: &str,
    digest: &str,
) -> Result<Option<message::Time>, Failure> {
    const GONE: message::Time = message::Time { seconds: i64::MAX, nanos: 0 };
    let request = message::ContentInfo { digest: digest.to_owned() };
    let path = "/containerd.services.content.v1.Content/Info";
    let answer = get::<_, message::ContentInfoAnswer>(channel, namespace, path, request).await?;
    let info = answer.and_then(|answer| answer.info);
    Ok(Some(info.and_then(|info| info.created_at).unwrap_or(GONE)))
}

/// A blob; `None` if it is not there. Of one that is larger than any honest one nothing is read.
async fn content(
    channel: &Channel,
    namespace: &str,
    digest: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    let request = message::ReadContent { digest: digest.to_owned(), offset: 0, size: 0 };
    let Some(request) = within(namespace, request) else { return Ok(None) };
    let mut client = tonic::client::Grpc::new(channel.clone());
    let unready = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    let failed = |status| Failure::Call("an image's content", Box::new(status));
    client.ready().await.map_err(unready).map_err(failed)?;
    let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
    let codec = tonic_prost::ProstCodec::<_, message::ReadContentAnswer>::default();
    let answer = client.server_streaming(request, path, codec).await;
    let Some(answer) = found(answer, "an image's content")? else { return Ok(None) };
    let (mut parts, mut bytes) = (answer.into_inner(), Vec::new());
    loop {
        let Some(part) = found(parts.message().await, "an image's content")? else {
            return Ok(None);
        };
        let Some(part) = part else { return Ok(Some(bytes)) };
        if bytes.len() + part.data.len() > LARGEST {
            return Ok(Some(Vec::new()));
        }
        bytes.extend(part.data);
    }
}

/// A request in a namespace of containerd; `None`: it has no such name.
fn within<T>(namespace: &str, request: T) -> Option<tonic::Request<T>> {
    /// Metadata that says in which namespace a call works.
    const NAMESPACE: &str = "containerd-namespace";
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert(NAMESPACE, namespace.parse().ok()?);
    Some(request)
}

/// `None` if something is not there. A name that is none in containerd's eyes is not there either.
fn found<T>(answer: Result<T, tonic::Status>, what: &'static str) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status)
            if matches!(status.code(), tonic::Code::NotFound | tonic::Code::InvalidArgument) =>
        {
            Ok(None)
        }
        Err(status) => Err(Failure::Call(what, Box::new(status))),
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
        /// Name of the image; empty if it was made without one.
        #[prost(string, tag = "3")]
        pub(super) image: String,
        #[prost(string, tag = "6")]
        pub(super) snapshotter: String,
        #[prost(string, tag = "7")]
        pub(super) snapshot_key: String,
        #[prost(message, optional, tag = "8")]
        pub(super) created_at: Option<Time>,
    }

    /// `google.protobuf.Timestamp`
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
    pub(super) struct Time {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }

    /// `GetImageRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct GetImage {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }

    /// `GetImageResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct GetImageAnswer {
        #[prost(message, optional, tag = "1")]
        pub(super) image: Option<Image>,
    }

    /// `Image`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Image {
        #[prost(message, optional, tag = "3")]
        pub(super) target: Option<Descriptor>,
        #[prost(message, optional, tag = "8")]
        pub(super) updated_at: Option<Time>,
    }

    /// `containerd.types.Descriptor`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Descriptor {
        #[prost(string, tag = "2")]
        pub(super) digest: String,
    }

    /// `StatSnapshotRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct StatSnapshot {
        #[prost(string, tag = "1")]
        pub(super) snapshotter: String,
        #[prost(string, tag = "2")]
        pub(super) key: String,
    }

    /// `StatSnapshotResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct StatSnapshotAnswer {
        #[prost(message, optional, tag = "1")]
        pub(super) info: Option<Snapshot>,
    }

    /// `containerd.services.snapshots.v1.Info`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Snapshot {
        #[prost(string, tag = "2")]
        pub(super) parent: String,
    }

    /// `InfoRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ContentInfo {
        #[prost(string, tag = "1")]
        pub(super) digest: String,
    }

    /// `InfoResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ContentInfoAnswer {
        #[prost(message, optional, tag = "1")]
        pub(super) info: Option<Content>,
    }

    /// `containerd.services.content.v1.Info`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Content {
        #[prost(message, optional, tag = "3")]
        pub(super) created_at: Option<Time>,
    }

    /// `ReadContentRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ReadContent {
        #[prost(string, tag = "1")]
        pub(super) digest: String,
        #[prost(int64, tag = "2")]
        pub(super) offset: i64,
        #[prost(int64, tag = "3")]
        pub(super) size: i64,
    }

    /// `ReadContentResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ReadContentAnswer {
        #[prost(bytes = "vec", tag = "2")]
        pub(super) data: Vec<u8>,
    }
}

#[cfg(test)]
mod tests;
