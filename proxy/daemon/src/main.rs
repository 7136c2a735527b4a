//! The node's daemon: services in the kernel, from events.
//!
//! | module | charter |
//! |---|---|
//! | [`config`] | settings from flags, environment and file |
//! | [`start`] | the order of a start, from lock to readiness |
//! | [`event`], [`request`] | what wakes the daemon; what clients ask |
//! | [`engine`] | facts in, rules out: store, index, plan, backend; the one loop |
//! | [`state`] | what answers are rendered from |
//! | [`backend`] | a plan in the kernel, by nftables or iptables; watched and repaired |
//! | [`node`] | facts of this node, `node.json` |
//! | [`sysctls`] | kernel settings, remembered and restored |
//! | [`watch`] | directories, by inotify |
//! | [`notify`] | words to systemd |
//! | [`cleanup`] | `causewayd cleanup` |
//! | [`serve`] | everything that answers or follows: HTTP, watches, health, metrics, conntrack, probes, labels |

mod backend;
mod clock;
mod config;
mod engine;
mod event;
mod request;
mod serve;
mod state;

fn main() {}
