//! The pace of repairs: a change by another process is undone at once; one that comes back again and
//! again is undone after growing pauses, and is reported.

use std::time::{Duration, Instant};

use crate::schedule::Backoff;

/// So many repairs in a row wait for nothing.
const AT_ONCE: u32 = 16;
/// Pause after each repair beyond them.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// Rules that stay right for so long after a pause are at peace: the next repair is a first one.
const QUIET: Duration = Duration::from_secs(10);

/// What is known of those who change our rules.
#[derive(Debug, Default)]
pub(crate) struct Contest {
    /// Repairs in a row, and when the first and the last of them were.
    row: Option<(u32, Instant, Instant)>,
    /// Name and id of the process that last changed our rules, if the kernel reported it.
    by: Option<(String, u32)>,
}

impl Contest {
    /// Another process changed rules that may be ours.
    pub(crate) fn changed(&mut self, by: Option<(String, u32)>) {
        if by.is_some() {
            self.by = by;
        }
    }

    /// Our rules differed and are restored.
    pub(crate) fn repaired(&mut self, now: Instant) {
        let row = self.row.filter(|_| self.due().is_some_and(|end| now < end));
        let (count, first, _) = row.unwrap_or((0, now, now));
        self.row = Some((count.saturating_add(1), first, now));
    }

    /// Not before this is the next repair.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        self.row.map_or(now, |(count, _, last)| last + pause(count))
    }

    /// When the contest is over if nothing happens; `None` if there is none.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.row.map(|(count, _, last)| last + pause(count) + QUIET)
    }

    /// Who it was, for the log.
    pub(crate) fn by(&self) -> String {
        match &self.by {
            Some((name, pid)) => format!("{name} (process {pid})"),
            None => "unknown".to_owned(),
        }
    }

    /// What `status` says of it; `None` if all is well.
    pub(crate) fn report(&mut self, now: Instant) -> Option<String> {
        if self.due().is_some_and(|end| end <= now) {
            *self = Self::default();
        }
        let (count, first, last) = self.row.filter(|(count, ..)| *count > AT_ONCE)?;
        let by = match &self.by {
            Some((name, pid)) => format!("another program, last {name} (process {pid}),"),
            None => "another program".to_owned(),
        };
        Some(format!(
            "{by} keeps changing the service rules: they were restored {count} times within {} s, \
             and are restored after a pause of {} s; stop that program",
            (last - first).as_secs().max(1),
            pause(count).as_secs(),
        ))
    }
}

/// Pause after so many repairs in a row.
fn pause(count: u32) -> Duration {
    BACKOFF.pause(count.saturating_sub(AT_ONCE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn single_changes_are_undone_at_once() {
        let start = clock::now();
        let mut contest = Contest::default();
        for number in 0..1000 {
            let now = at(start, number * 10_000);
            assert_eq!(contest.report(now), None);
            contest.repaired(now);
            assert_eq!(contest.next(now), now);
        }
    }

    /// Rows: RB7
    #[test]
    fn who_comes_back_at_once_is_met_ever_more_rarely() {
        let start = clock::now();
        let mut contest = Contest::default();
        let mut now = start;
        let mut repairs = 0;
        let mut last_pause = Duration::ZERO;
        while now < at(start, 3_600_000) {
            contest.changed(Some(("guard".to_owned(), 77)));
            contest.repaired(now);
            repairs += 1;
            let next = contest.next(now);
            assert!(next - now >= last_pause, "pauses grow");
            last_pause = next - now;
            // It puts its own back within 10 ms.
            now = next + Duration::from_millis(10);
            let report = contest.report(now);
            assert_eq!(report.is_some(), repairs > AT_ONCE, "{report:?}");
        }
        assert!(repairs < 100, "{repairs} repairs in an hour");
        assert_eq!(last_pause, BACKOFF.longest);
        let report = contest.report(now).expect("it is reported");
        assert!(
            report.contains("guard (process 77)") && report.contains("pause of 60 s"),
            "{report}"
        );
        // It stops: the rules stay right, and the next change is undone at once.
        let end = contest.due().expect("an end");
        assert_eq!(contest.report(end), None);
        assert_eq!(contest.due(), None);
        contest.repaired(end);
        assert_eq!(contest.next(end), end);
    }
}
