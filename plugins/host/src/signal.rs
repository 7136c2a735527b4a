//! Signals of runtimes.

/// Ignores SIGTERM from now on, here and in children: a runtime that gives up on DEL sends it
/// first, and what was begun is finished (row F48). For plugins alone: it would take away causewayd's
/// handler.
pub fn ignore_sigterm() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}
