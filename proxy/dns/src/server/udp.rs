//! Datagrams of one address: a batch is answered with each wake-up, what waits for other servers goes on
//! beside it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::Limit;

use super::desk::{Client, Desk, Handled, Outside};

/// Questions that are answered before others have their turn.
const BATCH: usize = 64;

/// Longer questions are none.
const LONGEST: usize = 4096;

/// After an error of the socket, which none is expected to have.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers until it is aborted.
pub(super) async fn serve(socket: UdpSocket, desk: Rc<Desk>, outside: Outside) {
    let socket = Rc::new(socket);
    let mut buffers = (vec![0; LONGEST], Vec::with_capacity(LONGEST));
    loop {
        let ready = socket.readable().await;
        match ready.and_then(|()| batch(&socket, &desk, outside, &mut buffers)) {
            Ok(()) => yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Takes questions until none is left (`WouldBlock`), or others have to have their turn.
fn batch(
    socket: &Rc<UdpSocket>,
    desk: &Rc<Desk>,
    outside: Outside,
    (question, answer): &mut (Vec<u8>, Vec<u8>),
) -> io::Result<()> {
    for _ in 0..BATCH {
        let (length, from) = socket.try_recv_from(question)?;
        let client = Client { address: from.ip(), limit: Limit::Udp, outside };
        match desk.take(&question[..length], client, answer) {
            Handled::Now => send(desk, socket, answer, from),
            Handled::Later(later) => {
                let (desk, socket) = (Rc::clone(desk), Rc::clone(socket));
                tokio::task::spawn_local(async move {
                    let answer = later.answer(&desk).await;
                    send(&desk, &socket, &answer, from);
                });
            }
            Handled::Never => {}
        }
    }
    Ok(())
}

/// Sends at once or drops the answer. A full socket waits for the link address of a client, which may
/// not exist; one that does exist asks again.
fn send(desk: &Desk, socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if socket.try_send_to(answer, to).is_err() {
        desk.counters.unsent.add();
    }
}
