use super::*;
use crate::testing::enter;

#[test]
fn one_holder_per_network_namespace() {
    const NAME: &str = "causeway-test-lock";
    let _netlink = enter();
    let first = NetnsLock::acquire(NAME).expect("a socket").expect("free");
    let holder = NetnsLock::acquire(NAME).expect("a socket").expect_err("held");
    let holder = holder.expect("this process is seen");
    assert_eq!(holder.pid, std::process::id());
    assert!(!holder.name.is_empty());
    // Names are compared as a whole.
    let other = NetnsLock::acquire("causeway-test").expect("a socket");
    other.expect("another name");
    std::thread::spawn(|| {
        let _netlink = enter();
        let elsewhere = NetnsLock::acquire(NAME).expect("a socket");
        elsewhere.expect("another namespace has a lock of its own");
    })
    .join()
    .expect("no panic");
    drop(first);
    NetnsLock::acquire(NAME).expect("a socket").expect("free again");
}
