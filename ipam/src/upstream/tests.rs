use super::*;

/// Rows: RB4
#[test]
fn a_file_of_this_boot_that_names_a_container_counts() {
    let dir = tempfile::tempdir().unwrap();
    let place =
        Place { network: "net".into(), data_dir: dir.path().to_owned(), ..Place::default() };
    // Booted at 1,000,000.
    let now = Now { unix: 1_000_100, boot_ms: 100_000, boot: "boot".into() };
    let upstream = Upstream::new(&place, &now);
    let folder = dir.path().join("net");
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str, written: u64| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(written)).unwrap();
    };
    write("10.0.0.2", "abc\r\neth0", 1_000_001);
    write("10.0.0.3", "abc\r\neth0", 999_000);
    write("10.0.0.4", "", 1_000_001);
    write("fd00::2", "def", 1_000_001);
    let holder = |address: &str| upstream.holder(address.parse().unwrap());
    let owner = |id: &str, ifname: &str| Owner { container_id: id.into(), ifname: ifname.into() };
    assert_eq!(holder("10.0.0.2"), Some(owner("abc", "eth0")));
    assert_eq!(holder("fd00::2"), Some(owner("def", "")));
    for free in ["10.0.0.3", "10.0.0.4", "10.0.0.5"] {
        assert_eq!(holder(free), None, "{free}");
    }
}
