use std::fs;
use std::io::Write as _;

use super::*;

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec:\n  ports: [{port: 80}]\n";

fn put(dir: &Path, file: &str, name: &str) {
    fs::write(dir.join(file), SERVICE.replace("NAME", name)).expect("written");
}

/// `file: object object` or `file: refused field`, one line each.
fn shown(scan: &Scan) -> String {
    let document = |document: &Document| match &document.objects {
        Ok(objects) => objects.iter().map(|object| object.key().to_string()).collect::<Vec<_>>(),
        Err(refusal) => vec![format!("refused {}", refusal.field)],
    };
    let line = |(file, documents): (&String, &Vec<Document>)| {
        let words: Vec<String> = documents.iter().flat_map(document).collect();
        format!("{file}: {}\n", words.join(" "))
    };
    scan.files.iter().map(line).collect()
}

#[test]
fn manifests_are_the_visible_files_of_a_few_endings() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifests = ManifestDir::new(&folder.path().join("manifests"));
    assert_eq!(shown(&manifests.scan()), "");
    let dir = folder.path().join("manifests");
    fs::create_dir_all(dir.join("dir.yaml")).expect("made");
    for (file, name) in [("b.yaml", "b"), ("a.yml", "a"), ("c.json", "c")] {
        put(&dir, file, name);
    }
    for file in [".a.yaml", ".b.yaml.swp", "b.yaml~", "#b.yaml#", "b.yaml.bak", "README", "4913"] {
        put(&dir, file, "hidden");
    }
    fs::write(dir.join("d.yaml"), [0xff, 0xfe]).expect("written");
    std::os::unix::fs::symlink("nowhere", dir.join("e.yaml")).expect("linked");
    std::os::unix::fs::symlink("b.yaml", dir.join("f.yaml")).expect("linked");
    let pipe = std::ffi::CString::new(dir.join("g.yaml").as_os_str().as_encoded_bytes());
    // SAFETY: a terminated name that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.expect("no zero").as_ptr(), 0o600) }, 0);
    assert_eq!(
        shown(&manifests.scan()),
        "a.yml: default/a\nb.yaml: default/b\nc.json: default/c\nd.yaml: refused file\n\
         f.yaml: default/b\ng.yaml: refused file\n"
    );
    let file = ManifestDir::new(&dir.join("a.yml"));
    assert_eq!(shown(&file.scan()), "");
}

#[test]
fn a_file_that_is_being_written_is_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    put(dir, "a.yaml", "a");
    put(dir, "b.yaml", "b");
    let manifests = ManifestDir::new(dir);
    let mut watch = manifests.watch().expect("a watch");
    let mut writer = File::create(dir.join("a.yaml")).expect("open for writing");
    writer.write_all(b"apiVersion: v1\nkind: Se").expect("written");
    let scan = manifests.scan();
    assert_eq!(shown(&scan), "b.yaml: default/b\n");
    assert_eq!(scan.busy, BTreeSet::from(["a.yaml".to_owned()]));
    assert!(!watch.changed().expect("readable"));
    writer.set_len(0).expect("emptied");
    drop(writer);
    assert!(watch.changed().expect("readable"));
    assert_eq!(shown(&manifests.scan()), "a.yaml: \nb.yaml: default/b\n");
}

#[test]
fn a_writer_that_comes_while_a_file_is_read_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.yaml");
    put(folder.path(), "a.yaml", "a");
    let file = File::open(&path).expect("opened");
    let lease = Lease::take(&file).expect("no writer");
    assert!(lease.0.is_some(), "this file system has no leases");
    let (sender, opened) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let file = OpenOptions::new().append(true).open(&path).expect("opened");
        sender.send(()).expect("told");
        file
    });
    // The kernel asks for the lease back: F_GETLEASE says what it is to become.
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open.
    while unsafe { libc::fcntl(fd, libc::F_GETLEASE) } == libc::F_RDLCK {
        assert!(!writer.is_finished(), "the writer did not wait");
        std::thread::yield_now();
    }
    assert!(opened.try_recv().is_err());
    drop(lease);
    opened.recv_timeout(std::time::Duration::from_secs(10)).expect("the writer goes on");
    drop(writer.join().expect("a writer"));
}

#[test]
fn editors_and_mounted_volumes_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("manifests");
    let manifests = ManifestDir::new(&dir);
    let mut watch = manifests.watch().expect("a watch");
    let mut told = || watch.changed().expect("readable");
    fs::create_dir(&dir).expect("made");
    assert!(told());
    // vim: a swap file, the old one aside, the new one, the backup removed.
    put(&dir, ".a.yaml.swp", "swap");
    put(&dir, "4913", "probe");
    assert!(!told());
    put(&dir, "a.yaml", "a");
    assert!(told());
    fs::rename(dir.join("a.yaml"), dir.join("a.yaml~")).expect("renamed");
    put(&dir, "a.yaml", "a2");
    fs::remove_file(dir.join("a.yaml~")).expect("removed");
    assert!(told());
    assert_eq!(shown(&manifests.scan()), "a.yaml: default/a2\n");
    // A ConfigMap: links through `..data`, which is renamed over.
    for (version, name) in [("..1", "v1"), ("..2", "v2")] {
        fs::create_dir(dir.join(version)).expect("made");
        put(&dir.join(version), "a.yaml", name);
    }
    fs::remove_file(dir.join("a.yaml")).expect("removed");
    std::os::unix::fs::symlink("..1", dir.join("..data")).expect("linked");
    std::os::unix::fs::symlink("..data/a.yaml", dir.join("a.yaml")).expect("linked");
    assert!(told());
    assert_eq!(shown(&manifests.scan()), "a.yaml: default/v1\n");
    std::os::unix::fs::symlink("..2", dir.join("..tmp")).expect("linked");
    fs::rename(dir.join("..tmp"), dir.join("..data")).expect("turned");
    assert!(told());
    assert_eq!(shown(&manifests.scan()), "a.yaml: default/v2\n");
}
