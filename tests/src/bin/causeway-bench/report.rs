//! How figures are printed.

use std::time::Duration;

use causeway_tests::Daemon;

/// One figure: ours and the peer's, median and 99th percentile.
pub(crate) fn report(what: &str, peer_name: &str, ours: &[Duration], peer: &[Duration]) {
    let (mut ours, mut peer) = (ours.to_vec(), peer.to_vec());
    let (a, b) = (median(&mut ours), median(&mut peer));
    println!(
        "  {what:<18} {:>8} median {:>8} p99   {peer_name} {:>8} median {:>8} p99   {:.1} times",
        ms(a),
        ms(p99(&ours)),
        ms(b),
        ms(p99(&peer)),
        b.as_secs_f64() / a.as_secs_f64()
    );
}

/// One figure of operations per second.
pub(crate) fn rate(what: &str, ours: f64, peer: f64) {
    println!("  {what:<18} {ours:>6.0}/s   upstream {peer:>6.0}/s   {:.1} times", ours / peer);
}

/// The median of rates; sorts.
pub(crate) fn middle(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The median; sorts.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The 99th percentile of sorted times.
pub(crate) fn p99(times: &[Duration]) -> Duration {
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Resident memory of a daemon as the kernel counts it.
pub(crate) fn memory(daemon: &Daemon<'_>) -> String {
    format!("{:.1} MiB resident", counted(daemon, "VmRSS:"))
}

/// The most that it ever was.
pub(crate) fn peak(daemon: &Daemon<'_>) -> String {
    format!("{:.1} MiB at its peak", counted(daemon, "VmHWM:"))
}

/// A line of the kernel's account of a process, in MiB.
fn counted(daemon: &Daemon<'_>, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u32>().ok());
    f64::from(kib.expect("a number")) / 1024.0
}
