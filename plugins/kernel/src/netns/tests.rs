use super::*;
use crate::testing::{Folder, enter, other};

#[test]
fn work_runs_inside_and_the_thread_stays() {
    let _netlink = enter();
    let before = Netns::current().expect("a namespace");
    let there = other();
    assert!(!before.is_same(&there));
    let same = there.run(|| Netns::current().expect("a namespace").is_same(&there));
    assert!(same.expect("entered"));
    assert!(Netns::current().expect("a namespace").is_same(&before));
}

#[test]
fn a_panic_goes_on_in_the_caller() {
    let there = other();
    let result = std::panic::catch_unwind(|| there.run(|| std::panic::panic_any("inside")));
    let panic = result.expect_err("a panic");
    assert_eq!(panic.downcast_ref(), Some(&"inside"));
}

#[test]
fn each_kind_of_wrong_path_is_told_apart() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.join(name).to_string_lossy().into_owned();
    std::fs::write(path("file"), b"").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
    let fifo = std::ffi::CString::new(path("fifo")).expect("a path");
    // SAFETY: a terminated string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);

    let missing =
        [path("missing"), path("file/below"), "/proc/4294967295/ns/net".to_owned(), String::new()];
    for path in missing {
        let error = Netns::open(&path).expect_err("not there");
        assert!(matches!(error, NetnsError::NotFound { .. }), "{path}: {error:?}");
    }
    let wrong = [
        path("file"),
        path("fifo"),
        path("socket"),
        path(""),
        "/dev/null".to_owned(),
        "/proc/self/ns/mnt".to_owned(),
    ];
    for path in wrong {
        let error = Netns::open(&path).expect_err("not a namespace");
        assert!(matches!(error, NetnsError::NotANetns { .. }), "{path}: {error:?}");
        assert!(error.to_string().contains(&path), "{error}");
    }
}

#[test]
fn ones_own_namespace_is_recognised() {
    let _netlink = enter();
    assert!(own_netns("/proc/thread-self/ns/net"));
    assert!(!own_netns("/proc/1/ns/net"));
    assert!(!own_netns("/no/such/path"));
}

#[test]
fn a_socket_leads_back_to_its_namespace() {
    let _netlink = enter();
    let there = other();
    let netlink = crate::Netlink::open_in(&there).expect("a connection");
    assert!(netlink.netns().expect("a namespace").is_same(&there));
}
