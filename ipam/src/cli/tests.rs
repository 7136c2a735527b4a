//! The command line.

use super::*;

#[test]
fn times_are_those_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_795_359_840, "2026-11-22T15:04:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(seconds), text);
    }
}

#[test]
fn a_wrong_command_line_shows_the_usage() {
    let now = Now { unix: 0, boot_ms: 0, boot: String::new() };
    for args in
        [&["import"][..], &["x"], &["repair", "y"], &["show", "--netwrk"], &["show", "--network"]]
    {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&args, &now, &mut out, &mut err), 2, "{args:?}");
        assert_eq!((out.as_slice(), err.as_slice()), (&b""[..], USAGE.as_bytes()));
    }
}
