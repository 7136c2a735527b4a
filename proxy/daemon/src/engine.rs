//! Facts in, rules out: store, allocator, index, plan and backend, and the one loop over events.

use tokio::sync::mpsc;

use crate::event::Event;
use crate::serve::Front;
use crate::state::State;

/// Owns everything; nothing is shared.
pub(crate) struct Engine {
    /// What answers are rendered from.
    pub state: State,
    front: Front,
}

impl Engine {
    /// Takes events until [`Event::Stop`]: all that are ready, then one plan and one commit for them
    /// together, then their answers.
    pub(crate) async fn run(&mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Stop => return,
                _ => todo!(),
            }
        }
    }
}
