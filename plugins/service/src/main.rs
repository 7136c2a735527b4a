//! Chained CNI plugin: host ports (a superset of upstream `portmap`).
//!
//! [`plugin`] is the CNI side, [`attachment`] the order of things. [`config`], [`mapping`],
//! [`conditions`], [`layout`] and [`plan`] are pure: they say what is wanted; [`nftables`],
//! [`iptables`], [`localnet`] and [`flows`] make the kernel hold it.

// `eprintln!` panics where nobody reads: `causeway_kernel::warn` does not.
#![deny(clippy::print_stderr)]

mod attachment;
mod conditions;
mod config;
mod failure;
mod flows;
mod iptables;
mod layout;
mod localnet;
mod mapping;
mod nftables;
mod plan;
mod plugin;
mod record;

use std::io::{self, Read as _};
use std::process::ExitCode;

use causeway_kernel::Netns;
use cni_plugin::{About, Environment, Version, dispatch};

const ABOUT: About = About {
    name: "causeway-service",
    version: env!("CARGO_PKG_VERSION"),
    supported: &Version::ALL,
    known_args: &["CAUSEWAY_LABELS", "IP", "MAC"],
};

fn main() -> ExitCode {
    let env: Environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    if env.get("CNI_COMMAND").is_some_and(|command| command == "DEL") {
        // A DEL that was begun is finished (row F48).
        causeway_kernel::ignore_sigterm();
    }
    let stdin = || {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    };
    let own_netns = |path: &str| match (Netns::open(path), Netns::current()) {
        (Ok(theirs), Ok(ours)) => theirs.is_same(&ours),
        _ => false,
    };
    let reply = dispatch(&plugin::Service, &ABOUT, env, stdin, own_netns);
    let exit = reply.deliver(&plugin::Service, &mut io::stdout(), &mut io::stderr());
    if causeway_nft::closing_waits() {
        causeway_kernel::close_in_child();
    }
    ExitCode::from(exit)
}
