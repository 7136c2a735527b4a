use super::*;
use crate::testing::{enter, other};

#[test]
fn reads_and_writes_inside_the_namespace_only() {
    let _netlink = enter();
    let container = other();
    let here = Sysctl { netns: None };
    let there = Sysctl { netns: Some(&container) };
    let key = "net/ipv4/ip_forward";
    there.ensure(&[(key.to_owned(), "1")]).expect("written");
    assert_eq!(there.read(key).expect("readable").as_deref(), Some("1"));
    assert_eq!(here.read(key).expect("readable").as_deref(), Some("0"));
    there.ensure(&[(key.to_owned(), "1")]).expect("nothing to do");
    assert_eq!(here.read("net/ipv4/conf/nosuch/arp_notify").expect("absence is fine"), None);
    let error = here.ensure(&[("net/ipv4/conf/nosuch/arp_notify".to_owned(), "1")]);
    let error = error.expect_err("no such key");
    assert_eq!(error.raw(), Some(libc::ENOENT));
    assert!(error.action.contains("nosuch/arp_notify to 1"), "{error}");
}

/// Rows: F43
#[test]
fn a_read_only_proc_is_fine_where_the_value_is_right() {
    let _netlink = enter();
    // SAFETY: changes this thread's mounts only, and these strings are terminated.
    let mounted = unsafe {
        let none = std::ptr::null();
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast())
                == 0
            && libc::mount(
                c"/proc/sys".as_ptr(),
                c"/proc/sys".as_ptr(),
                none,
                libc::MS_BIND,
                none.cast(),
            ) == 0
            && libc::mount(
                none,
                c"/proc/sys".as_ptr(),
                none,
                libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY,
                none.cast(),
            ) == 0
    };
    assert!(mounted, "{}", io::Error::last_os_error());
    let sysctl = Sysctl { netns: None };
    sysctl.ensure(&[("net/ipv4/ip_forward".to_owned(), "0")]).expect("right already");
    let error = sysctl.ensure(&[("net/ipv4/ip_forward".to_owned(), "1")]).expect_err("read-only");
    assert_eq!(error.raw(), Some(libc::EROFS));
    assert!(error.action.contains("set net/ipv4/ip_forward = 1 on the host"), "{error}");
}
