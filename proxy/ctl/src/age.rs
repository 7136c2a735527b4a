//! Times of Kubernetes and ages as kubectl shows them.

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// `age(since, now)` of a timestamp; `<unknown>` if there is none or it does not parse.
pub(crate) fn since(timestamp: Option<&str>, now: u64) -> String {
    match timestamp.and_then(parse) {
        Some(then) => age(now.saturating_sub(then)),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds in kubectl's words: the longer the coarser, two units at most.
pub(crate) fn age(seconds: u64) -> String {
    let (unit, name, rest_unit, rest_name) = match seconds {
        0..120 => return format!("{seconds}s"),
        120..600 => (MINUTE, "m", 1, "s"),
        600..10800 => return format!("{}m", seconds / MINUTE),
        10800..28800 => (HOUR, "h", MINUTE, "m"),
        28800..172_800 => return format!("{}h", seconds / HOUR),
        172_800..691_200 => (DAY, "d", HOUR, "h"),
        691_200..63_072_000 => return format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => (YEAR, "y", DAY, "d"),
        _ => return format!("{}y", seconds / YEAR),
    };
    let (whole, rest) = (seconds / unit, seconds % unit / rest_unit);
    if rest == 0 { format!("{whole}{name}") } else { format!("{whole}{name}{rest}{rest_name}") }
}

/// Seconds since 1970 of an RFC 3339 time, as `2026-11-22T18:42:02Z`; fractions are cut off.
/// `None` for anything else, and for times before 1970.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, offset) = split_offset(time)?;
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let seconds = (days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds).ok()
}

/// Time of day and seconds east of Greenwich.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let offset = number(hours)? * 3600 + number(minutes)? * 60;
    Some((&time[..at], if time.as_bytes()[at] == b'-' { -offset } else { offset }))
}

fn number(digits: &str) -> Option<i64> {
    let plain =
        !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that
/// the leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let before_month = (153 * month + 2) / 5;
    year * 365 + leap_days + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        for (seconds, shown) in [
            (0, "0s"),
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 5 * HOUR, "2d5h"),
            (8 * DAY + 5 * HOUR, "8d"),
            (700 * DAY, "700d"),
            (2 * YEAR, "2y"),
            (3 * YEAR + 7 * DAY, "3y7d"),
            (9 * YEAR, "9y"),
        ] {
            assert_eq!(age(seconds), shown, "{seconds}");
        }
    }

    #[test]
    fn timestamps_parse_or_are_unknown() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:01.999Z", Some(1)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-22T18:42:02Z", Some(1_795_372_922)),
            ("2026-11-22T19:42:02+01:00", Some(1_795_372_922)),
            ("2026-11-22T13:12:02-05:30", Some(1_795_372_922)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-22T18:42:02", None),
            ("2026-11-22", None),
            ("99999999999999999999-01-01T00:00:00Z", None),
            ("+026-11-22T18:42:02Z", None),
            ("", None),
        ] {
            assert_eq!(parse(text), seconds, "{text}");
        }
        assert_eq!(since(None, 7), "<unknown>");
        assert_eq!(since(Some("1970-01-01T00:00:10Z"), 17), "7s");
        assert_eq!(since(Some("1970-01-01T00:00:10Z"), 7), "0s", "from the future");
    }
}
