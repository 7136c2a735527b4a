//! The node's daemon: services in the kernel, from events.
//!
//! | module | charter |
//! |---|---|
//! | [`config`] | settings from flags, environment and file |
//! | [`start`] | the order of a start, from lock to readiness |
//! | [`event`], [`request`] | what wakes the daemon; what clients ask |
//! | [`engine`] | facts in, rules out: store, index, plan, backend; the one loop |
//! | [`state`] | what answers are rendered from |
//! | [`announce`] | the thread that announces addresses of load balancers by ARP and neighbour discovery |
//! | [`backend`] | a plan in the kernel, by nftables or iptables; watched and repaired |
//! | [`conditions`] | what does not work, and what to know of: set, cleared, read; pure |
//! | [`contest`] | the pace of repairs if another process keeps changing our rules |
//! | [`network`] | what overlay, plugins and cluster are to know of this node among the others; pure |
//! | [`node`] | facts of this node, `node.json` |
//! | [`membership`] | who is in the cluster and lives, and what the cluster store has: decided, not done |
//! | [`objects`] | objects of users: completed, checked, staged |
//! | [`old_mtu`] | attachments whose MTU is more than the path to other nodes carries |
//! | [`overlay`] | the thread that keeps links, routes, neighbours and FDB to the other nodes |
//! | [`liveness`] | containers that are gone without DEL: out of services, named, freed |
//! | [`localhost`] | the guard of 127.0.0.0/8 on links, which stays when rules are flushed |
//! | [`peers`] | the peers file |
//! | [`reconcile`] | the plan into the kernel: what changes, what drifted, what failed |
//! | [`recorded`] | containers by the records of the plugins |
//! | [`guard`] | what nodes live on and no service or container may have |
//! | [`host_ports`] | host ports that services ask for too, in words |
//! | [`schedule`] | when something that is done again and again is due next; pure |
//! | [`sharing`] | services that ask for one place, in words |
//! | [`sysctls`] | kernel settings, remembered and restored |
//! | [`watch`] | directories, by inotify |
//! | [`notify`] | words to systemd |
//! | [`log`] | log lines |
//! | [`cleanup`] | `causewayd cleanup` |
//! | [`leave`] | `causewayd leave` |
//! | [`serve`] | everything that answers: HTTP, rendering, watches, health, metrics |
//! | [`followers`] | what follows a commit: conntrack, health check ports, probes |
//! | [`containerd`] | labels of containers, asked of containerd |

mod announce;
mod backend;
mod balancers;
mod cleanup;
mod clock;
mod conditions;
mod config;
mod containerd;
mod contest;
mod engine;
mod event;
mod files;
mod followers;
mod forward;
mod guard;
mod host_ports;
mod isolation;
mod keep;
mod keeper;
mod leave;
mod left_out;
mod liveness;
mod localhost;
mod log;
mod membership;
mod names;
mod network;
mod node;
mod notify;
mod objects;
mod old_mtu;
mod overlay;
mod peers;
mod reconcile;
mod recorded;
mod request;
mod schedule;
mod serve;
mod sharing;
mod start;
mod state;
mod sysctls;
mod tables;
#[cfg(test)]
mod testing;
mod watch;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use config::Invocation;

fn main() -> ExitCode {
    let matches = config::command().get_matches();
    let env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    match config::invocation(&matches) {
        Err(error) => failed(2, &error),
        Ok(Invocation::Cleanup(args)) => match cleanup::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(1, &error),
        },
        Ok(Invocation::Leave { settings, force }) => match leave::run(&settings, force) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(1, &error),
        },
        Ok(Invocation::Run(settings)) => {
            log::start(settings.log_format, settings.log_level);
            match start::run(*settings, &env) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(1, &error),
            }
        }
    }
}

fn failed(code: u8, error: &dyn Error) -> ExitCode {
    causeway_kernel::warn("causewayd", &causeway_api::chain(error));
    ExitCode::from(code)
}
