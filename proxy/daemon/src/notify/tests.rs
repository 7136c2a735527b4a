//! What systemd is told.

use std::os::unix::net::UnixDatagram;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    pairs.iter().map(|(key, value)| (OsString::from(key), OsString::from(value))).collect()
}

fn heard(socket: &UnixDatagram, notifier: &Notifier) -> String {
    socket.set_nonblocking(true).unwrap();
    notifier.say("READY=1");
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn it_is_said_to_a_path_and_to_an_abstract_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let pairs = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    assert_eq!(heard(&socket, &Notifier::new(&environment(&pairs)).unwrap()), "READY=1");
    let name = format!("causeway-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let pairs = [("NOTIFY_SOCKET", format!("@{name}"))];
    let pairs = [(pairs[0].0, pairs[0].1.as_str())];
    assert_eq!(heard(&socket, &Notifier::new(&environment(&pairs)).unwrap()), "READY=1");
}

#[test]
fn the_watchdog_is_ours_where_it_names_no_other_process() {
    let check = |pid: Option<&str>, wanted: Option<u64>| {
        let mut pairs = vec![("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "3000000")];
        pairs.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
        let notifier = Notifier::new(&environment(&pairs)).unwrap();
        assert_eq!(notifier.watchdog(), wanted.map(Duration::from_secs));
    };
    check(None, Some(3));
    check(Some(&std::process::id().to_string()), Some(3));
    check(Some("999999999"), None);
    assert_eq!(Notifier::new(&environment(&[])).unwrap().watchdog(), None);
    Notifier::new(&environment(&[])).unwrap().say("nobody listens");
}
