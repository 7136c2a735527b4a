//! TCP listeners for untrusted clients: few connections each, one request per connection, for a
//! short time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{AbortHandle, JoinHandle};

use super::places::Places;

/// How long the head of a request may take to come.
const HEAD: Duration = Duration::from_secs(3);
/// How long a connection may live, whatever it does.
const LIFE: Duration = Duration::from_secs(15);

/// The connections of all listeners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers(Arc<Mutex<OpenConnections>>);

#[derive(Debug, Default)]
struct OpenConnections {
    listeners: u32,
    places: Places<AbortHandle>,
}

/// A connection that is counted until this is dropped.
struct Place(Strangers, u64);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.with(|held| held.places.leave(self.1));
    }
}

impl Strangers {
    fn with<T>(&self, work: impl FnOnce(&mut OpenConnections) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for a client; another connection may have to end for it.
    fn admit(&self, listener: u32, from: IpAddr) -> Place {
        let (number, ended) = self.with(|held| held.places.admit((listener, from)));
        if let Some(ended) = ended {
            ended.abort();
        }
        Place(self.clone(), number)
    }
}

/// Binds a listener. An IPv6 one is for IPv6 alone.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

/// Serves until the handle is aborted. Must be called inside the runtime.
pub(crate) fn serve(listener: TcpListener, router: Router, strangers: Strangers) -> JoinHandle<()> {
    let number = strangers.with(|held| {
        held.listeners += 1;
        held.listeners
    });
    tokio::spawn(async move {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(_) => {
                    // Out of descriptors, or the client is gone again.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(router.clone());
            let place = strangers.admit(number, from.ip());
            let id = place.1;
            let task = tokio::spawn(async move {
                let _place = place;
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
                let connection = http.serve_connection(TokioIo::new(stream), service);
                // How a connection of an untrusted client ends is of no interest.
                drop(tokio::time::timeout(LIFE, connection).await);
            });
            strangers.with(|held| held.places.ends_by(id, task.abort_handle()));
        }
    })
}
