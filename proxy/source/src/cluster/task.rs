//! The task: connects, and connects again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::listing::Opened;
use super::session::{End, Session};
use super::state::{Ended, TaskState};
use super::{ClusterSettings, Command, Report, random};

/// Pauses between attempts to reach the store.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// See [`super::Cluster::start`].
pub(super) async fn run(
    settings: ClusterSettings,
    commands: mpsc::UnboundedReceiver<Command>,
    reports: mpsc::Sender<Report>,
) {
    let mut state = TaskState::new(settings, commands, reports);
    drop(connect(&mut state).await);
    // What was decided is told, as long as there is a receiver.
    state.outbox.flush().await;
}

/// Connects, and connects again.
async fn connect(state: &mut TaskState) -> Result<(), Ended> {
    let (mut next, mut pause) = (0, FIRST_PAUSE);
    loop {
        let began = Instant::now();
        let why = round(state, &mut next).await?;
        // One that lasted is none of a row of failures.
        if began.elapsed() > 2 * LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if let Some(why) = why {
            state.say_connection(Err(why));
        }
        state.meanwhile(sleep(jittered(pause))).await?;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Tries all endpoints, from `next` on, until one serves, and stays there. Says why it does
/// not any more; `None`: nothing is wrong with the connection.
async fn round(state: &mut TaskState, next: &mut usize) -> Result<Option<String>, Ended> {
    let settings = Arc::clone(&state.settings);
    let mut why = "no etcd endpoint is set: set --etcd-endpoints".to_owned();
    for _ in 0..settings.endpoints.len() {
        let endpoint = &settings.endpoints[*next % settings.endpoints.len()];
        let opening = Opened::open(Arc::clone(&state.settings), Arc::clone(&state.keys), endpoint);
        match state.meanwhile(opening).await? {
            Ok(opened) => match Session::new(state, opened).run().await {
                End::Stopped => return Err(Ended),
                End::Again => return Ok(None),
                End::Lost(reason) => {
                    // Another endpoint may do better at once.
                    *next += 1;
                    return Ok(Some(reason));
                }
            },
            Err(reason) => {
                *next += 1;
                why = reason;
            }
        }
    }
    Ok(Some(why))
}

/// Half of it to all of it, so that nodes do not come back together.
fn jittered(pause: Duration) -> Duration {
    let share = random() % 512;
    pause.mul_f64(0.5 + f64::from(u16::try_from(share).unwrap_or(0)) / 1024.0)
}
