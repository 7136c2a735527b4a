//! The listeners of all addresses: made, checked, and made anew if they are deaf (rows D-50, D-58).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::check::{self, Wrong};
use super::desk::{Desk, Outside};
use super::{bind, tcp, udp};

/// A listener is asked so often.
const CHECK: Duration = Duration::from_secs(10);

/// One that has something wrong, or is new.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// UDP and TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// One address and transport.
struct Half {
    transport: Transport,
    task: Option<AbortHandle>,
    problem: Option<String>,
    due: Instant,
    checking: bool,
}

struct Listening {
    outside: Outside,
    halves: [Half; 2],
}

/// All of them.
pub(super) struct Listeners {
    desk: Rc<Desk>,
    connections: Rc<RefCell<tcp::Connections>>,
    all: RefCell<BTreeMap<SocketAddr, Listening>>,
}

impl Listeners {
    pub(super) fn new(desk: Rc<Desk>) -> Rc<Self> {
        Rc::new(Self { desk, connections: Rc::default(), all: RefCell::default() })
    }

    /// Listens at these addresses and at no others; those that stay go on as they are.
    pub(super) fn set(self: &Rc<Self>, wanted: &BTreeMap<SocketAddr, Outside>) {
        let mut all = self.all.borrow_mut();
        all.retain(|address, listening| {
            let stays = wanted.get(address) == Some(&listening.outside);
            if !stays {
                listening.halves.iter_mut().for_each(Half::end);
            }
            stays
        });
        for (address, outside) in wanted {
            all.entry(*address).or_insert_with(|| Listening {
                outside: *outside,
                halves: [Transport::Udp, Transport::Tcp].map(Half::new),
            });
        }
        *self.desk.own.borrow_mut() = all.keys().map(SocketAddr::ip).collect();
        drop(all);
        self.tend();
    }

    /// What is due: sockets that could not be bound, and questions to those that are.
    pub(super) fn tend(self: &Rc<Self>) {
        let now = Instant::now();
        for (address, listening) in &mut *self.all.borrow_mut() {
            for half in &mut listening.halves {
                if half.task.as_ref().is_none_or(AbortHandle::is_finished) {
                    self.start(*address, listening.outside, half);
                }
                if half.task.is_some() && now >= half.due && !half.checking {
                    half.checking = true;
                    let check = Rc::clone(self).check(*address, half.transport);
                    tokio::task::spawn_local(check);
                }
            }
        }
    }

    /// What does not work, by address.
    pub(super) fn problems(&self) -> BTreeMap<SocketAddr, String> {
        let all = self.all.borrow();
        let wrong = all.iter().filter_map(|(address, listening)| {
            let wrong = listening.halves.iter().filter_map(|half| half.problem.clone());
            let wrong: Vec<_> = wrong.collect();
            (!wrong.is_empty()).then(|| (*address, wrong.join("; ")))
        });
        wrong.collect()
    }

    fn start(&self, address: SocketAddr, outside: Outside, half: &mut Half) {
        match self.spawn(address, outside, half.transport) {
            Ok(task) => half.task = Some(task),
            Err(error) => half.wrong(address, Some(format!("cannot listen: {error}"))),
        }
    }

    fn spawn(
        &self,
        address: SocketAddr,
        outside: Outside,
        transport: Transport,
    ) -> io::Result<AbortHandle> {
        let desk = Rc::clone(&self.desk);
        let task = match transport {
            Transport::Udp => {
                tokio::task::spawn_local(udp::serve(bind::udp(address)?, desk, outside))
            }
            Transport::Tcp => {
                let connections = Rc::clone(&self.connections);
                let listener = bind::tcp(address)?;
                tokio::task::spawn_local(tcp::serve(listener, desk, outside, connections))
            }
        };
        Ok(task.abort_handle())
    }

    async fn check(self: Rc<Self>, address: SocketAddr, transport: Transport) {
        let domain = self.desk.zone.borrow().settings().domain.clone();
        let checked = match transport {
            Transport::Udp => check::udp(address, domain).await,
            Transport::Tcp => check::tcp(address, domain).await,
        };
        let all = &mut *self.all.borrow_mut();
        let Some(listening) = all.get_mut(&address) else { return };
        let outside = listening.outside;
        let halves = &mut listening.halves;
        let Some(half) = halves.iter_mut().find(|half| half.transport == transport) else { return };
        half.checking = false;
        half.due = Instant::now() + if checked.is_ok() { CHECK } else { CHECK_AGAIN };
        match checked {
            Ok(()) => half.wrong(address, None),
            Err(Wrong::NotThere) => {
                half.wrong(address, Some("the address is not there yet".to_owned()));
            }
            Err(Wrong::Deaf(why)) => {
                self.desk.counters.deaf.add();
                half.wrong(address, Some(why));
                // The old one goes if there is a new one: without file descriptors there is none.
                if let Ok(task) = self.spawn(address, outside, transport) {
                    half.end();
                    half.task = Some(task);
                }
            }
        }
    }
}

impl Half {
    fn new(transport: Transport) -> Self {
        Self { transport, task: None, problem: None, due: Instant::now(), checking: false }
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    fn wrong(&mut self, address: SocketAddr, problem: Option<String>) {
        let problem = problem.map(|why| format!("{}: {why}", self.transport));
        if self.problem == problem {
            return;
        }
        match &problem {
            Some(why) => tracing::warn!(%address, "DNS listener: {why}"),
            None => tracing::info!(%address, "DNS listener over {} answers again", self.transport),
        }
        self.problem = problem;
    }
}
