//! `make bench`: each figure as a ratio against a peer in the same run.
//!
//! `causeway-bench [attach|ports|services|connections|daemon|overlay|cluster]`, all without an argument. Runs of
//! ours and of the peer take turns, so that noise of a shared machine meets both.
#![expect(clippy::print_stdout, reason = "the report goes to stdout")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and starts programs")]

mod attach;
mod cluster;
mod connections;
mod daemon;
mod layouts;
mod overlay;
mod ports;
mod report;
mod services;

use causeway_tests::assert_entered;

fn main() {
    assert_entered();
    let only = std::env::args().nth(1);
    let wanted = |section: &str| only.as_deref().is_none_or(|only| only == section);
    println!("Each figure: ours, the peer's, and how many times faster ours is. Two cores shared");
    println!("with everything else on this machine; runs of ours and of the peer take turns.\n");
    if wanted("attach") {
        attach::run();
    }
    if wanted("ports") {
        ports::run();
    }
    if wanted("services") {
        services::run();
    }
    if wanted("connections") {
        connections::run();
    }
    if wanted("daemon") {
        daemon::run();
    }
    if wanted("cluster") {
        cluster::run();
    }
    if wanted("overlay") {
        overlay::run();
    }
}
