//! Reaching the store: connections, and what its failures mean.

use std::error::Error as _;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::{ClusterSettings, Secret, Tls};
use crate::etcd::{
    Client, Compare, CompareResult, Error, KeyValue, Options, RangeRequest, RequestOp, TxnRequest,
    User, end_of,
};

/// So long a call may take.
const CALL: Duration = Duration::from_secs(5);
/// The server forbids less than 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// So many keys are read at once.
const PAGE: i64 = 1000;
/// Where distributions keep the authorities that the system trusts.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why the store did not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It does not answer, or another one would; why.
    Away(String),
    /// It answers, and refuses; why.
    Refused(String),
    /// The lease is gone.
    NoLease,
    /// The revision is compacted.
    Compacted,
}

impl Failure {
    /// In words.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Away(why) | Self::Refused(why) => why,
            Self::NoLease => "the lease expired".into(),
            Self::Compacted => "the revision was compacted".into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = describe(&error);
        let Error::Status(status) = error else { return Self::Away(text) };
        match status.code() {
            Code::NotFound => Self::NoLease,
            Code::OutOfRange => Self::Compacted,
            Code::ResourceExhausted => Self::Refused(format!(
                "{text}: if its space is used up, compact and defragment etcd, then run `etcdctl \
                 alarm disarm`"
            )),
            Code::PermissionDenied => Self::Refused(format!(
                "{text}: the user (--etcd-username) needs read and write permission on all keys \
                 under --etcd-prefix"
            )),
            Code::InvalidArgument | Code::FailedPrecondition | Code::Unauthenticated => {
                Self::Refused(text)
            }
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Self::Away(text),
        }
    }
}

/// What went wrong and why, in one line.
fn describe(error: &Error) -> String {
    let (mut text, mut source) = if let Error::Status(status) = error {
        (status.message().to_owned(), status.source())
    } else {
        (error.to_string(), error.source())
    };
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A call with an end.
pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(CALL, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::Away(format!("no answer within {} s", CALL.as_secs()))),
    }
}

/// Connects to one endpoint.
///
/// # Errors
/// In words, naming the file or the endpoint.
pub(super) async fn connect(settings: &ClusterSettings, endpoint: &str) -> Result<Client, String> {
    let tls = endpoint.starts_with("https://").then(|| tls(&settings.tls)).transpose()?;
    let user = settings.user.as_ref();
    let options = Options {
        connect_timeout: Some(CALL),
        ping: Some(PING),
        tcp_keepalive: Some(PING.0),
        tls,
        require_leader: true,
        user: user.map(|(name, Secret(password))| User::new(name, password)),
    };
    bounded(Client::connect(endpoint, options))
        .await
        .map_err(|failure| format!("{endpoint}: {}", failure.into_text()))
}

/// Files are read at each connection: certificates are renewed.
fn tls(files: &Tls) -> Result<ClientTlsConfig, String> {
    let mut options = ClientTlsConfig::new();
    let authorities = match &files.ca {
        Some(path) => read(path)?,
        None => SYSTEM_AUTHORITIES
            .iter()
            .find_map(|path| fs::read(path).ok())
            .ok_or("no system CA certificates found: set --etcd-cafile")?,
    };
    options = options.ca_certificate(Certificate::from_pem(authorities));
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        (None, None) => {}
        _ => return Err("a certificate needs a key, and a key needs a certificate".into()),
    }
    Ok(options)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// Renews a lease; `false`: it is gone.
pub(super) async fn keep_alive(client: &Client, id: i64) -> Result<bool, Failure> {
    Ok(bounded(client.lease_keep_alive(id)).await? > 0)
}

/// Whether a lease is there, of this length in seconds; then it is renewed.
pub(super) async fn lease_lives(client: &Client, id: i64, ttl: i64) -> Result<bool, Failure> {
    let found = match bounded(client.lease_time_to_live(id)).await {
        Err(Failure::NoLease) => return Ok(false),
        other => other?,
    };
    Ok(found.ttl > 0 && found.granted_ttl == ttl && keep_alive(client, id).await?)
}

/// A new lease.
pub(super) async fn grant(client: &Client, ttl: i64) -> Result<i64, Failure> {
    bounded(client.lease_grant(ttl)).await
}

/// Asks whether the store would let this node write a key. Nothing is written: no revision is below 0,
/// and rights and space are looked at first.
pub(super) async fn may_write(client: &Client, key: &str) -> Result<(), Failure> {
    let never = [Compare::mod_revision(key, CompareResult::Less, 0)];
    let write = TxnRequest::new().when(never).and_then([RequestOp::put(key, "", 0)]);
    bounded(client.txn(write)).await.map(drop)
}

/// All keys below a prefix at one revision, page by page. Returns the revision.
pub(super) async fn list(
    client: &Client,
    prefix: &str,
    mut take: impl FnMut(KeyValue),
) -> Result<i64, Failure> {
    let end = end_of(prefix.as_bytes());
    let (mut from, mut revision) = (prefix.as_bytes().to_vec(), 0);
    loop {
        let range = RangeRequest {
            key: from,
            range_end: end.clone(),
            limit: PAGE,
            revision,
            keys_only: false,
        };
        let page = bounded(client.get(range)).await?;
        if revision == 0 {
            revision = page.header.map_or(0, |header| header.revision);
        }
        let last = page.kvs.last().map(|pair| pair.key.clone());
        page.kvs.into_iter().for_each(&mut take);
        match last {
            Some(mut last) if page.more => {
                last.push(0);
                from = last;
            }
            _ => return Ok(revision),
        }
    }
}
