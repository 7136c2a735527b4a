//! IPAM CNI plugin: addresses from ranges, leases in sled; and a list of the leases for other
//! programs of the node.
//!
//! Invariants: stdout carries the protocol and nothing else (I8); a failed ADD leaves nothing
//! behind and DEL succeeds any number of times, whatever the configuration says by then (I7).

mod allocator;
mod auto;
mod cli;
mod config;
mod data_dirs;
mod disk;
mod facts;
mod import;
mod leftover;
mod list;
mod lock;
mod plugin;
mod range;
mod repair;
mod session;
mod store;
mod upstream;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use cni_plugin::{environment_of, read_all};

pub use data_dirs::{noted_data_dirs, remove_leases};
pub use list::{ListError, ListedLease, list, list_all, release};

/// Where the stores are unless a configuration says otherwise.
pub const DATA_DIR: &str = config::DATA_DIR;

/// The program: the plugin if `CNI_COMMAND` is set, else the command line.
pub fn main() -> ExitCode {
    let env = environment_of(std::env::vars_os());
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if !args.is_empty() && env.get("CNI_COMMAND").is_none_or(String::is_empty) {
        let (out, err) = (&mut io::stdout(), &mut io::stderr());
        return ExitCode::from(cli::run(&args, &facts::now(), out, err));
    }
    let plugin = plugin::Ipam { now: facts::now() };
    let stdin = || read_all(io::stdin().lock());
    let reply = cni_plugin::dispatch(&plugin, &plugin::ABOUT, env, stdin, is_own_netns);
    ExitCode::from(reply.deliver(&plugin, &mut io::stdout(), &mut io::stderr()))
}

/// Whether `path` is the network namespace of this process (row C12).
fn is_own_netns(path: &str) -> bool {
    let own = std::fs::metadata("/proc/self/ns/net");
    let (Ok(own), Ok(other)) = (own, std::fs::metadata(path)) else { return false };
    (own.dev(), own.ino()) == (other.dev(), other.ino())
}
