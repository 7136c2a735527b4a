//! Reaching the store: connections, and what its failures mean.

use std::error::Error as _;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, Identity, KeyValue, TlsOptions,
};
use tokio::time::timeout;

use super::{ClusterSettings, Secret, Tls};

/// So long a call may take.
const CALL: Duration = Duration::from_secs(5);
/// The server forbids less than 5 s.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// So many keys are read at once.
const PAGE: i64 = 1000;
/// A response may be so large: what one page or one revision holds at most.
pub(super) const MESSAGE: usize = 512 << 20;
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
        // gRPC's numbers, which etcd's documentation gives its errors.
        const INVALID_ARGUMENT: i32 = 3;
        const NOT_FOUND: i32 = 5;
        const PERMISSION_DENIED: i32 = 7;
        const RESOURCE_EXHAUSTED: i32 = 8;
        const FAILED_PRECONDITION: i32 = 9;
        const OUT_OF_RANGE: i32 = 11;
        const UNAUTHENTICATED: i32 = 16;
        let text = describe(&error);
        let Error::GRpcStatus(status) = error else { return Self::Away(text) };
        match i32::from(status.code()) {
            NOT_FOUND => Self::NoLease,
            OUT_OF_RANGE => Self::Compacted,
            RESOURCE_EXHAUSTED => Self::Refused(format!(
                "{text}: where its space is used up, compact and defragment etcd, then run \
                 `etcdctl alarm disarm`"
            )),
            INVALID_ARGUMENT | PERMISSION_DENIED | FAILED_PRECONDITION | UNAUTHENTICATED => {
                Self::Refused(text)
            }
            _ => Self::Away(text),
        }
    }
}

/// What went wrong and why, in one line.
fn describe(error: &Error) -> String {
    let (mut text, mut source) = if let Error::GRpcStatus(status) = error {
        (status.message().to_owned(), status.source())
    } else if let Error::TransportError(error) = error {
        (error.to_string(), error.source())
    } else {
        (error.to_string(), None)
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
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CALL)
        .with_keep_alive(PING.0, PING.1)
        .with_keep_alive_while_idle(true)
        .with_tcp_keepalive(PING.0)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if endpoint.starts_with("https://") {
        options = options.with_tls(tls(&settings.tls)?);
    }
    if let Some((user, Secret(password))) = &settings.user {
        options = options.with_user(user, password);
    }
    bounded(Client::connect([endpoint], Some(options)))
        .await
        .map_err(|failure| format!("{endpoint}: {}", failure.into_text()))
}

/// Files are read at each connection: certificates are renewed.
fn tls(files: &Tls) -> Result<TlsOptions, String> {
    let mut options = TlsOptions::new();
    let authorities = match &files.ca {
        Some(path) => read(path)?,
        None => SYSTEM_AUTHORITIES
            .iter()
            .find_map(|path| fs::read(path).ok())
            .ok_or("no authorities of the system found: name a file with --etcd-cafile")?,
    };
    options = options.ca_certificate(Certificate::from_pem(authorities));
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        (None, None) => {}
        _ => return Err("a certificate needs its key, and a key its certificate".into()),
    }
    Ok(options)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// Renews a lease; `false`: it is gone.
pub(super) async fn keep_alive(client: &mut Client, id: i64) -> Result<bool, Failure> {
    let call = async {
        match client.lease_keep_alive(id).await {
            // The answer had no time left.
            Err(Error::LeaseKeepAliveError(_)) => Ok(false),
            other => other.map(|_| true),
        }
    };
    bounded(call).await
}

/// Whether a lease is there, of this length in seconds; then it is renewed.
pub(super) async fn lease_lives(client: &mut Client, id: i64, ttl: i64) -> Result<bool, Failure> {
    let found = match bounded(client.lease_time_to_live(id, None)).await {
        Err(Failure::NoLease) => return Ok(false),
        other => other?,
    };
    Ok(found.ttl() > 0 && found.granted_ttl() == ttl && keep_alive(client, id).await?)
}

/// A new lease.
pub(super) async fn grant(client: &mut Client, ttl: i64) -> Result<i64, Failure> {
    Ok(bounded(client.lease_grant(ttl, None)).await?.id())
}

/// All keys below a prefix at one revision, page by page. Returns the revision.
pub(super) async fn list(
    client: &mut Client,
    prefix: &str,
    mut take: impl FnMut(KeyValue),
) -> Result<i64, Failure> {
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE);
    let end = end_of(prefix);
    let (mut from, mut revision) = (prefix.as_bytes().to_vec(), 0);
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
        let mut page = bounded(kv.get(from, Some(options.with_revision(revision)))).await?;
        if revision == 0 {
            revision = page.header().map_or(0, |header| header.revision());
        }
        let pairs = page.take_kvs();
        let last = pairs.last().map(|pair| pair.key().to_vec());
        pairs.into_iter().for_each(&mut take);
        match last {
            Some(mut last) if page.more() => {
                last.push(0);
                from = last;
            }
            _ => return Ok(revision),
        }
    }
}

/// The first key behind all that begin with `prefix`, which ends with a slash.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
