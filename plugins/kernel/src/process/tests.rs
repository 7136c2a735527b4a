use super::*;
use crate::testing::Folder;

fn shell(script: &str) -> Program<'static> {
    Program {
        path: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::new(),
        stdin: b"",
        timeout: Duration::from_secs(20),
    }
}

#[test]
fn environment_and_input_are_exactly_those_given() {
    let mut program = shell("/usr/bin/env | /usr/bin/sort; cat; echo oops >&2; exit 3");
    program.env = [("A", "1"), ("CNI_COMMAND", "ADD")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    program.stdin = b"{}";
    let output = run(&program).expect("it starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("PWD=")).collect();
    let lines: Vec<&str> = lines
        .into_iter()
        .filter(|line| !line.starts_with("_=") && !line.starts_with("SHLVL="))
        .collect();
    assert_eq!(lines, ["A=1", "CNI_COMMAND=ADD", "{}"]);
    assert_eq!((output.success, output.code, output.timed_out), (false, Some(3), false));
    assert_eq!(output.stderr, "oops\n");
}

#[test]
fn more_than_a_pipe_holds_goes_both_ways_at_once() {
    let megabytes = vec![b'x'; 3 << 20];
    let program = Program { stdin: &megabytes, ..shell("tee /dev/stderr") };
    let output = run(&program).expect("it starts");
    assert!(output.success);
    assert_eq!(output.stdout.len(), megabytes.len());
    assert_eq!(output.stderr.len(), megabytes.len());
}

#[test]
fn a_program_need_not_read_its_input() {
    let megabytes = vec![b'x'; 3 << 20];
    let program = Program { stdin: &megabytes, ..shell("exec <&-; echo done") };
    let output = run(&program).expect("it starts");
    assert!(output.success);
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_hanging_program_is_ended_and_said_so() {
    let program =
        Program { timeout: Duration::from_millis(100), ..shell("echo begun; exec sleep 600") };
    let output = run(&program).expect("it starts");
    assert!(output.timed_out && !output.success);
    assert_eq!(output.code, None);
    assert_eq!(output.stdout, b"begun\n");
}

/// Rows: RC7
#[test]
fn what_a_hanging_program_started_ends_with_it() {
    let folder = Folder::new();
    let lock = folder.0.join("lock");
    let script = format!("exec 9> {}; flock 9; sleep 600 & echo begun; wait", lock.display());
    let program = Program { timeout: Duration::from_secs(1), ..shell(&script) };
    let output = run(&program).expect("it starts");
    assert!(output.timed_out);
    assert_eq!(output.stdout, b"begun\n");
    // The grandchild has it as long as it lives.
    causeway_host::FileLock::acquire(&lock, Duration::from_secs(20)).expect("nobody holds it");
}

#[test]
fn a_grandchild_that_keeps_the_pipes_is_not_waited_for() {
    let output = run(&shell("sleep 2 & echo done")).expect("it starts");
    assert!(output.success);
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_signal_is_told_from_a_code() {
    let output = run(&shell("kill -KILL $$")).expect("it starts");
    assert_eq!((output.success, output.code, output.timed_out), (false, None, false));
}

#[test]
fn what_is_not_there_cannot_be_started() {
    let program = Program { path: "/no/such/plugin".into(), ..shell("") };
    let error = run(&program).expect_err("it cannot start");
    assert_eq!(error.raw(), Some(libc::ENOENT));
    assert!(error.action.contains("/no/such/plugin"), "{error}");
}

/// Rows: C27
#[test]
fn a_program_that_is_being_written_is_tried_again() {
    let folder = Folder::new();
    let path = folder.0.join("plugin");
    std::fs::copy("/bin/true", &path).expect("a copy");
    let writer = std::fs::OpenOptions::new().append(true).open(&path).expect("open for writing");
    let busy = Program { path: path.clone(), timeout: Duration::from_millis(30), ..shell("") };
    assert_eq!(run(&busy).expect_err("still open").raw(), Some(libc::ETXTBSY));
    std::thread::scope(|scope| {
        let program = Program { path, ..shell("") };
        let running = scope.spawn(move || run(&program).expect("it starts in the end"));
        drop(writer);
        assert!(running.join().expect("no panic").success);
    });
}

#[test]
fn a_child_ignores_sigterm_where_we_do() {
    // In a process of its own: the disposition belongs to the whole process.
    // SAFETY: the child only calls into libc and execs.
    let child = unsafe { libc::fork() };
    if child == 0 {
        causeway_host::ignore_sigterm();
        let script = c"kill -TERM $$; exit 7";
        // SAFETY: terminated strings; execl returns only on failure.
        unsafe {
            libc::execl(
                c"/bin/sh".as_ptr(),
                c"sh".as_ptr(),
                c"-c".as_ptr(),
                script.as_ptr(),
                std::ptr::null::<libc::c_char>(),
            );
            libc::_exit(1);
        }
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
}

/// Rows: F49
#[test]
fn a_program_that_prints_without_end_is_ended() {
    for stream in ["exec yes", "exec yes >&2"] {
        let error = run(&shell(stream)).expect_err("it never ends by itself");
        assert_eq!(error.source.kind(), io::ErrorKind::InvalidData, "{stream}");
    }
}
