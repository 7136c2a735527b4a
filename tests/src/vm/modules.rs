//! Kernel modules and what they depend on, as their own `.modinfo` says: Debian's package holds no
//! `modules.dep`, which is made when it is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules of a kernel package.
#[derive(Debug)]
pub(super) struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: String,
}

impl Modules {
    /// Those below `lib/modules/VERSION`.
    pub(super) fn below(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        find(&folder.join("kernel"), &mut files);
        let builtin = folder.join("modules.builtin");
        let builtin = std::fs::read_to_string(&builtin)
            .unwrap_or_else(|e| panic!("read {}: {e}", builtin.display()));
        Self { files, builtin }
    }

    /// Files that give `wanted`, with what each depends on before it.
    pub(super) fn in_order(&self, wanted: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut loaded = Vec::new();
        for name in wanted {
            self.load(name, &mut loaded);
        }
        loaded
    }

    fn load(&self, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) {
        if loaded.iter().any(|(one, _)| one == name) {
            return;
        }
        let Some(path) = self.files.get(name) else {
            let is_builtin = self.builtin.lines().any(|line| stem(Path::new(line)) == name);
            assert!(is_builtin, "the kernel package has no module {name}");
            return;
        };
        let content =
            std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        for dependency in depends(&content) {
            self.load(&dependency, loaded);
        }
        loaded.push((name.to_owned(), content));
    }
}

/// The list after `depends=`, a NUL-terminated string of the module's `.modinfo` section.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|window| window == KEY);
    let list = at.map_or(&[][..], |at| &module[at + KEY.len()..]);
    let list = list.split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|e| panic!("list {}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|end| end == "ko") {
            files.insert(stem(&path), path);
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"\x7fELF..\0license=GPL\0depends=nf-tables,llc\0retpoline=Y\0";
        assert_eq!(depends(module), ["nf_tables", "llc"]);
        assert!(depends(b"\0depends=\0name=llc\0").is_empty());
    }
}
