use super::*;

struct Files {
    folder: tempfile::TempDir,
    follow: Follow,
    own: BTreeSet<SocketAddr>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let sources = Sources::File { path: path("resolv.conf"), behind_stub: path("systemd") };
        Self { follow: Follow::new(sources), folder, own: BTreeSet::new() }
    }

    /// As programs do it: a new file in the place of the old one.
    fn replace(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join("new"), content).unwrap();
        fs::rename(self.folder.path().join("new"), self.folder.path().join(name)).unwrap();
    }

    fn look(&mut self) -> Option<Vec<String>> {
        let found = self.follow.look(&self.own)?;
        Some(found.iter().map(ToString::to_string).collect())
    }

    fn warning(&self) -> &str {
        self.follow.warnings().first().map_or("", String::as_str)
    }
}

/// Rows: D-31
#[test]
fn the_list_follows_the_file_and_leaves_own_addresses_out() {
    let mut files = Files::new();
    files.replace("resolv.conf", "nameserver 192.0.2.1\nnameserver 10.1.0.1\n");
    assert_eq!(files.look().unwrap(), ["192.0.2.1", "10.1.0.1"]);
    assert_eq!(files.look(), None, "nothing has changed");
    files.replace("resolv.conf", "nameserver 192.0.2.2\nnameserver 10.1.0.1\n");
    assert_eq!(files.look().unwrap(), ["192.0.2.2", "10.1.0.1"]);
    files.own.insert("10.1.0.1:53".parse().unwrap());
    assert_eq!(files.look().unwrap(), ["192.0.2.2"]);
    assert!(files.warning().contains("own address"), "{}", files.warning());

    fs::remove_file(files.folder.path().join("resolv.conf")).unwrap();
    assert_eq!(files.look().unwrap(), ["192.0.2.2"]);
    assert!(files.warning().contains("known before"), "{}", files.warning());
    files.replace("resolv.conf", "search example\n");
    assert_eq!(files.look().unwrap(), [""; 0]);
    assert!(files.warning().contains("--dns-upstream"), "{}", files.warning());
}

/// Rows: D-32
#[test]
fn behind_the_stub_of_systemd_its_own_list_is_used() {
    let mut files = Files::new();
    files.replace("resolv.conf", "nameserver 127.0.0.53\n");
    assert_eq!(files.look().unwrap(), ["127.0.0.53"], "there is nothing else");
    files.replace("systemd", "nameserver 192.0.2.7\n");
    assert_eq!(files.look().unwrap(), ["192.0.2.7"]);
    files.replace("systemd", "nameserver 192.0.2.8\n");
    assert_eq!(files.look().unwrap(), ["192.0.2.8"]);
    files.replace("systemd", "");
    assert_eq!(files.look().unwrap(), ["127.0.0.53"]);
}

#[test]
fn a_given_list_is_used_as_it_is() {
    let mut files = Files::new();
    let list = ["192.0.2.1:5353", "10.1.0.1"].map(|text| text.parse().unwrap()).to_vec();
    files.follow.set(Sources::List(list));
    files.own.insert("10.1.0.1:53".parse().unwrap());
    assert_eq!(files.look().unwrap(), ["192.0.2.1:5353"]);
    assert_eq!(files.look(), None);
}
