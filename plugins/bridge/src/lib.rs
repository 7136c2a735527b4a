//! Main CNI plugin: a container on a bridge, and the bridge on a vxlan; or on a link of its own.
//!
//! A request becomes a checked configuration (`config`), decisions are values (`plan`), and
//! `apply` makes them so with an `undo` at hand. What an attachment owns stands in its
//! `record`, so that `del` and `gc` need nothing else.
//!
//! `"mode": "ptp"` attaches without a bridge: the container has its address alone (`/32`, `/128`), a
//! route to the gateway on the link and, by way of it, its subnet's and the default route
//! (`"isDefaultGateway": false`: the IPAM plugin's routes only). The host end carries the gateway's
//! address and a route to the container, so that traffic of the container, to itself through a
//! service too, is routed by the host. Keys: `ipam` (required), `isDefaultGateway`, `ipMasq` and its
//! kin, `mtu`, `dns`, `enabledad`, `mac`, `runDir`; `isGateway` and `hairpinMode` are taken and say
//! nothing new; a key that needs a bridge is refused by name (code 2). The subnet has to be one that
//! no bridge of the node is on: who is on a bridge looks there for his neighbours.
//!
//! Invariants: a failed ADD leaves nothing behind and DEL succeeds any number of times, with or
//! without netns, prevResult and runtimeConfig (I7); stdout carries the protocol only (I8).

//! The program is `main.rs`; other programs of the node (causewayd) use what is `pub` here: the
//! records of attachments, and what is done by them.

// `eprintln!` panics if nobody reads: `causeway_kernel::warn` does not.
#![deny(clippy::print_stderr)]

mod apply;
mod check;
mod collision;
mod config;
mod del;
mod fault;
mod free;
mod gc;
mod ipam;
mod masq;
mod names;
mod node;
mod plan;
mod reclaim;
pub mod record;
pub mod repair;
mod rules;
mod spoof;
mod status;
mod undo;
mod vxlan;

pub use free::{Outcome, Owners, Release, free, free_unrecorded, release_by_delegate};

use std::io;
use std::process::ExitCode;

use causeway_kernel::own_netns;
use cni_plugin::{About, CniResult, Error, Plugin, Request, Version, environment_of, read_all};

const ABOUT: About = About {
    name: "causeway-bridge",
    version: env!("CARGO_PKG_VERSION"),
    supported: &Version::ALL,
    known_args: &[],
};

struct Bridge;

impl Plugin for Bridge {
    fn add(&self, request: &Request) -> Result<CniResult, Error> {
        apply::add(request)
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        // Half a DEL helps nobody (row F48). The IPAM plugin inherits this.
        causeway_host::ignore_sigterm();
        del::del(request)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        check::check(request)
    }

    fn gc(&self, request: &Request) -> Result<(), Error> {
        gc::gc(request)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        status::status(request)
    }
}

/// The program: one CNI operation.
pub fn main() -> ExitCode {
    causeway_nft::does_one_operation();
    let env = environment_of(std::env::vars_os());
    let stdin = || read_all(io::stdin().lock());
    let reply = cni_plugin::dispatch(&Bridge, &ABOUT, env, stdin, own_netns);
    let exit = reply.deliver(&Bridge, &mut io::stdout(), &mut io::stderr());
    if causeway_nft::closing_waits() {
        causeway_kernel::close_in_child();
    }
    ExitCode::from(exit)
}
