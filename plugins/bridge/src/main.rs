//! Main CNI plugin: a container on a bridge, and the bridge on a vxlan.
//!
//! A request becomes a checked configuration ([`config`]), decisions are values ([`plan`]), and
//! [`apply`] makes them so with an [`undo`] at hand. What an attachment owns stands in its
//! [`record`], so that [`del`] and [`gc`] need nothing else.
//!
//! Invariants: a failed ADD leaves nothing behind and DEL succeeds any number of times, with or
//! without netns, prevResult and runtimeConfig (I7); stdout carries the protocol only (I8).

// `eprintln!` panics where nobody reads: `causeway_kernel::warn` does not.
#![deny(clippy::print_stderr)]

mod apply;
mod check;
mod config;
mod del;
mod fault;
mod gc;
mod ipam;
mod masq;
mod node;
mod plan;
mod record;
mod rules;
mod spoof;
mod status;
mod undo;
mod vxlan;

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use cni_plugin::{About, CniResult, Environment, Error, Plugin, Request, Version};

const ABOUT: About = About {
    name: "causeway-bridge",
    version: env!("CARGO_PKG_VERSION"),
    supported: &Version::ALL,
    known_args: &["MAC"],
};

struct Bridge;

impl Plugin for Bridge {
    fn add(&self, request: &Request) -> Result<CniResult, Error> {
        apply::add(request)
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        // Half a DEL helps nobody (row F48). The IPAM plugin inherits this.
        causeway_kernel::ignore_sigterm();
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

fn main() -> ExitCode {
    let env: Environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let stdin = || {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let reply = cni_plugin::dispatch(&Bridge, &ABOUT, env, stdin, is_own_netns);
    let exit = reply.deliver(&Bridge, &mut io::stdout(), &mut io::stderr());
    if causeway_nft::closing_waits() {
        causeway_kernel::close_in_child();
    }
    ExitCode::from(exit)
}

/// Whether `path` is the network namespace of this process (row C12).
fn is_own_netns(path: &str) -> bool {
    let own = std::fs::metadata("/proc/self/ns/net");
    let (Ok(own), Ok(other)) = (own, std::fs::metadata(path)) else { return false };
    (own.dev(), own.ino()) == (other.dev(), other.ino())
}
