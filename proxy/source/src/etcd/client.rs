//! The client: one connection, made when it is needed and again when it broke.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use prost::Message;
use tokio::sync::{Mutex, mpsc};
use tonic::codegen::http::uri::{InvalidUri, PathAndQuery};
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::message::{
    AuthenticateRequest, AuthenticateResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseRequest, LeaseRevokeResponse, LeaseTimeToLive, RangeRequest,
    RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse, watch_request,
};

/// A response may be so large: what one page or one revision holds at most.
const LARGEST: usize = 512 << 20;
/// So many requests of a stream may wait.
const WAITING: usize = 16;
/// So often a refused token is replaced for one call: users may be changed meanwhile, and each change
/// makes all tokens before it old.
const LOGINS: usize = 3;
/// What refusals say that another token may turn into an answer. The codes differ: "unauthenticated"
/// of a token that expired, "invalid argument" or "unknown" of one older than the last change of any
/// user, "invalid argument" of none.
const STALE: [&str; 4] = [
    "invalid auth token",
    "revision of auth store is old",
    "revision in header is old",
    "user name is empty",
];
/// What etcd before 3.5 says of any token that does not do for a watch.
const NO_WATCH: &str = "permission denied";

type Token = MetadataValue<Ascii>;

/// How an endpoint is reached.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For a connection to stand.
    pub connect_timeout: Option<Duration>,
    /// HTTP/2 pings, also while nothing is asked: how often, and how long for an answer.
    pub ping: Option<(Duration, Duration)>,
    /// TCP keep-alive.
    pub tcp_keepalive: Option<Duration>,
    /// For an endpoint of https.
    pub tls: Option<ClientTlsConfig>,
    /// A member without a leader refuses instead of answering by what it knew.
    pub require_leader: bool,
    /// Name and password.
    pub user: Option<User>,
}

/// Name and password, which are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    name: String,
    password: String,
}

impl User {
    /// Of this name.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into() }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("User").finish_non_exhaustive()
    }
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint is not a URL.
    #[error("invalid URL: {0}")]
    Url(#[from] InvalidUri),
    /// The connection is not possible.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The server, or the way to it, says no.
    #[error("{}", .0.message())]
    Status(#[source] Box<Status>),
    /// The server's token is none.
    #[error("the server's token is not text: {0}")]
    Token(#[from] InvalidMetadataValue),
    /// The server ended a stream.
    #[error("the server ended the stream")]
    Ended,
    /// The server answered in an unknown way.
    #[error("{0}")]
    Answer(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// See the module. Clones share the connection and the token.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    require_leader: bool,
    user: Option<User>,
    token: Arc<Mutex<Option<Token>>>,
}

impl Client {
    /// A client of one endpoint. With a user it is authenticated at once; else nothing is
    /// connected before the first call.
    ///
    /// # Errors
    /// The URL or TLS settings cannot be used, or the user is refused.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let channel = endpoint(url, &options)?.connect_lazy();
        let Options { require_leader, user, .. } = options;
        let client = Self { channel, require_leader, user, token: Arc::default() };
        client.renew_token(None).await?;
        Ok(client)
    }

    /// Reads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, range: RangeRequest) -> Result<RangeResponse, Error> {
        self.call("/etcdserverpb.KV/Range", range).await
    }

    /// Compares and acts on it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Error> {
        self.call("/etcdserverpb.KV/Txn", txn).await
    }

    /// Makes a lease of so many seconds. Returns its id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lease_grant(&self, ttl: i64) -> Result<i64, Error> {
        let path = "/etcdserverpb.Lease/LeaseGrant";
        let granted: LeaseGrantResponse = self.call(path, LeaseGrantRequest { ttl }).await?;
        if granted.error.is_empty() { Ok(granted.id) } else { Err(Error::Answer(granted.error)) }
    }

    /// How long a lease lasts. Of one that is gone, the time is none, or the call is refused.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lease_time_to_live(&self, id: i64) -> Result<LeaseTimeToLive, Error> {
        self.call("/etcdserverpb.Lease/LeaseTimeToLive", LeaseRequest { id }).await
    }

    /// Ends a lease, and the keys that hang on it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        let LeaseRevokeResponse {} = self.call(path, LeaseRequest { id }).await?;
        Ok(())
    }

    /// Renews a lease once. Returns the seconds that it lasts; 0: it is gone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lease_keep_alive(&self, id: i64) -> Result<i64, Error> {
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        let stream = self.open(path, LeaseRequest { id }, |_: &LeaseKeepAliveResponse| false);
        Ok(stream.await?.first.ok_or(Error::Ended)?.ttl)
    }

    /// Watches keys.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn watch(&self, create: WatchCreateRequest) -> Result<Watch, Error> {
        let request = watch_request::Request::Create(create);
        let request = WatchRequest { request_union: Some(request) };
        let refused = |answer: &WatchResponse| {
            let why = &answer.cancel_reason;
            answer.canceled && (is_stale(why) || why.contains(NO_WATCH))
        };
        Ok(Watch(self.open("/etcdserverpb.Watch/Watch", request, refused).await?))
    }

    /// One request, one answer; again with another token if this one was refused.
    async fn call<Asked, Answer>(&self, path: &'static str, asked: Asked) -> Result<Answer, Error>
    where
        Asked: Message + Clone + 'static,
        Answer: Message + Default + 'static,
    {
        for _ in 0..LOGINS {
            let token = self.token.lock().await.clone();
            let request = self.request(asked.clone(), token.as_ref());
            match unary(&self.channel, path, request).await {
                Err(status) if self.may_log_in(&status) => self.renew_token(token).await?,
                other => return Ok(other?),
            }
        }
        let token = self.token.lock().await.clone();
        let request = self.request(asked, token.as_ref());
        Ok(unary(&self.channel, path, request).await?)
    }

    /// A stream each way, the first request sent and answered; again with another token if this one
    /// was refused, by an error or by an answer that is `refused`.
    async fn open<Asked, Answer>(
        &self,
        path: &'static str,
        first: Asked,
        refused: impl Fn(&Answer) -> bool,
    ) -> Result<Stream<Asked, Answer>, Error>
    where
        Asked: Message + Clone + 'static,
        Answer: Message + Default + 'static,
    {
        for _ in 0..LOGINS {
            let token = self.token.lock().await.clone();
            match self.stream(path, first.clone(), token.as_ref()).await {
                Err(status) if self.may_log_in(&status) => self.renew_token(token).await?,
                Ok(stream)
                    if self.user.is_some() && stream.first.as_ref().is_some_and(&refused) =>
                {
                    self.renew_token(token).await?;
                }
                other => return Ok(other?),
            }
        }
        let token = self.token.lock().await.clone();
        Ok(self.stream(path, first, token.as_ref()).await?)
    }

    async fn stream<Asked, Answer>(
        &self,
        path: &'static str,
        first: Asked,
        token: Option<&Token>,
    ) -> Result<Stream<Asked, Answer>, Status>
    where
        Asked: Message + 'static,
        Answer: Message + Default + 'static,
    {
        let (requests, receiver) = mpsc::channel(WAITING);
        // There is room, and the receiver is here.
        drop(requests.try_send(first));
        let asked = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Asked>| {
            let request = receiver.recv().await?;
            Some((request, receiver))
        });
        let mut client = ready(&self.channel).await?;
        let codec = tonic_prost::ProstCodec::default();
        let request = self.request(asked, token);
        let path = PathAndQuery::from_static(path);
        let mut answers: Streaming<Answer> =
            client.streaming(request, path, codec).await?.into_inner();
        let first = answers.message().await?;
        Ok(Stream { requests, answers, first })
    }

    fn request<Asked>(&self, asked: Asked, token: Option<&Token>) -> Request<Asked> {
        let mut request = Request::new(asked);
        if self.require_leader {
            request.metadata_mut().insert("hasleader", Token::from_static("true"));
        }
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// Whether another token may help.
    fn may_log_in(&self, status: &Status) -> bool {
        let stale = status.code() == Code::Unauthenticated || is_stale(status.message());
        self.user.is_some() && stale
    }

    /// Fetches a token in place of this one, unless another call has done so.
    async fn renew_token(&self, stale: Option<Token>) -> Result<(), Error> {
        let Some(User { name, password }) = self.user.clone() else { return Ok(()) };
        let mut token = self.token.lock().await;
        if *token != stale {
            return Ok(());
        }
        let request = self.request(AuthenticateRequest { name, password }, None);
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: AuthenticateResponse = unary(&self.channel, path, request).await?;
        *token = Some(answer.token.parse()?);
        Ok(())
    }
}

/// A stream each way.
#[derive(Debug)]
struct Stream<Asked, Answer> {
    requests: mpsc::Sender<Asked>,
    answers: Streaming<Answer>,
    /// The first answer, until it is taken.
    first: Option<Answer>,
}

/// What happens to keys.
#[derive(Debug)]
pub struct Watch(Stream<WatchRequest, WatchResponse>);

impl Watch {
    /// The next message; `None`: the server ended the stream.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn message(&mut self) -> Result<Option<WatchResponse>, Error> {
        if let Some(first) = self.0.first.take() {
            return Ok(Some(first));
        }
        Ok(self.0.answers.message().await?)
    }

    /// Asks for a message about how far the watch is.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn request_progress(&self) -> Result<(), Error> {
        let request = watch_request::Request::Progress(WatchProgressRequest {});
        let request = WatchRequest { request_union: Some(request) };
        self.0.requests.send(request).await.map_err(|_| Error::Ended)
    }
}

/// Whether a refusal is about the token.
fn is_stale(why: &str) -> bool {
    STALE.iter().any(|sign| why.contains(sign))
}

fn endpoint(url: &str, options: &Options) -> Result<Endpoint, Error> {
    let mut endpoint = Channel::builder(url.parse()?);
    if let Some(tls) = &options.tls {
        endpoint = endpoint.tls_config(tls.clone())?;
    }
    if let Some((interval, limit)) = options.ping {
        endpoint = endpoint
            .keep_alive_while_idle(true)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(limit);
    }
    if let Some(limit) = options.connect_timeout {
        endpoint = endpoint.connect_timeout(limit);
    }
    Ok(endpoint.tcp_keepalive(options.tcp_keepalive))
}

async fn ready(channel: &Channel) -> Result<tonic::client::Grpc<Channel>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(LARGEST);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    Ok(client)
}

async fn unary<Asked, Answer>(
    channel: &Channel,
    path: &'static str,
    request: Request<Asked>,
) -> Result<Answer, Status>
where
    Asked: Message + 'static,
    Answer: Message + Default + 'static,
{
    let mut client = ready(channel).await?;
    let codec = tonic_prost::ProstCodec::default();
    let path = PathAndQuery::from_static(path);
    Ok(client.unary(request, path, codec).await?.into_inner())
}
