//! Chained CNI plugin: host ports (a superset of upstream `portmap`), and the events that make
//! containers endpoints of services.
//!
//! `plugin` is the CNI side, `attachment` the order of things. `config`, `labels`,
//! `mapping`, `conditions`, `layout`, `turns` and `plan` are pure: they say what is wanted;
//! `nftables`, `iptables`, `localnet` and `flows` make the kernel hold it, `endpoint`
//! tells the daemon.

//! The program is `main.rs`; other programs of the node (causewayd) use what is `pub` here: the
//! records of attachments, and what is done by them.

// `eprintln!` panics if nobody reads: `causeway_kernel::warn` does not.
#![deny(clippy::print_stderr)]

mod attachment;
mod conditions;
mod config;
mod endpoint;
mod failure;
mod flows;
mod free;
mod iptables;
mod labels;
mod layout;
mod localnet;
mod mapping;
mod nftables;
mod plan;
mod plugin;
pub mod record;
pub mod repair;
mod turns;

pub use free::{Daemon, Outcome, free, remove};

use std::io;
use std::process::ExitCode;

use causeway_kernel::own_netns;
use cni_plugin::{About, Version, dispatch, environment_of, read_all};

const ABOUT: About = About {
    name: "causeway-service",
    version: env!("CARGO_PKG_VERSION"),
    supported: &Version::ALL,
    known_args: &[],
};

/// The program: one CNI operation.
pub fn main() -> ExitCode {
    causeway_nft::does_one_operation();
    let env = environment_of(std::env::vars_os());
    if env.get("CNI_COMMAND").is_some_and(|command| command == "DEL") {
        // A DEL that was begun is finished (row F48).
        causeway_host::ignore_sigterm();
    }
    let stdin = || read_all(io::stdin().lock());
    let reply = dispatch(&plugin::Service, &ABOUT, env, stdin, own_netns);
    let exit = reply.deliver(&plugin::Service, &mut io::stdout(), &mut io::stderr());
    if causeway_nft::closing_waits() {
        causeway_kernel::close_in_child();
    }
    ExitCode::from(exit)
}
