//! The command line.

use super::*;

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
