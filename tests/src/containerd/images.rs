//! Images that a machine's containerd holds.

use serde_json::{Map, Value, json};

use super::{Machine, link};
use crate::bins;

impl Machine<'_> {
    /// Makes an image of one layer with one program and imports it.
    pub(super) fn load_image(&self) {
        let folder = self.folder.path();
        let rootfs = folder.join("rootfs");
        for inside in ["", "etc", "proc", "sys", "dev", "tmp"] {
            let path = rootfs.join(inside);
            std::fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        }
        link(&bins::ours("causeway-testserver"), &rootfs.join("server"));
        let at = folder.display();
        self.sh(&format!("cd {at}; tar -chf layer.tar --owner=0 --group=0 -C rootfs ."));
        self.import(Self::IMAGE, &[]);
    }

    /// Imports the same image under another name, with labels of its own.
    pub fn import(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: Map<String, Value> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.import_configured(name, &json!({ "Labels": labels }));
    }

    /// The same with more in the part of its configuration that is about containers.
    pub fn import_configured(&self, name: &str, more: &Value) {
        let folder = self.folder.path();
        let at = folder.display();
        let digest = self.sh(&format!("sha256sum {at}/layer.tar"));
        let digest = digest.split_whitespace().next().expect("a digest");
        let mut inner = json!({ "Entrypoint": ["/server"], "Env": ["PATH=/"] });
        let more = more.as_object().into_iter().flatten();
        for (key, value) in more {
            inner[key] = value.clone();
        }
        let config = json!({ "architecture": "amd64", "os": "linux", "config": inner,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] } });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [name],
                                "Layers": ["layer.tar"] }]);
        for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
            std::fs::write(folder.join(name), content.to_string()).expect("write the image");
        }
        self.sh(&format!("cd {at}; tar -cf image.tar manifest.json config.json layer.tar"));
        self.import_archive();
    }

    fn import_archive(&self) {
        let image = self.folder.path().join("image.tar");
        self.ctr(&["images", "import", image.to_str().expect("a plain path")]).ok();
    }

    /// Imports what [`Machine::import`] does, with an index around the index of its manifest.
    pub fn import_nested(&self, name: &str, labels: &[(&str, &str)]) {
        self.import(name, labels);
        let digest_of = |file: &str| {
            let sum = self.sh(&format!("sha256sum {}/{file}", self.folder.path().display()));
            sum.split_whitespace().next().expect("a digest").to_owned()
        };
        let at = self.folder.path().display().to_string();
        self.sh(&format!("rm -rf {at}/oci; mkdir -p {at}/oci/blobs/sha256"));
        let add = |file: &str, kind: &str| {
            let digest = digest_of(file);
            let size = self.sh(&format!("stat -c %s {at}/{file}"));
            self.sh(&format!("cp {at}/{file} {at}/oci/blobs/sha256/{digest}"));
            json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
                    "digest": format!("sha256:{digest}"),
                    "size": size.trim().parse::<u64>().expect("a size") })
        };
        let write = |file: &str, content: &Value| {
            std::fs::write(self.folder.path().join(file), content.to_string())
                .expect("write the image");
        };
        let index = |of: Value| {
            json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                    "manifests": [of] })
        };
        let config = add("config.json", "config.v1+json");
        let layer = add("layer.tar", "layer.v1.tar");
        write(
            "blob.json",
            &json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                     "config": config, "layers": [layer] }),
        );
        for kind in ["manifest", "index"] {
            let inner = add("blob.json", &format!("{kind}.v1+json"));
            write("blob.json", &index(inner));
        }
        let mut outer = add("blob.json", "index.v1+json");
        outer["annotations"] = json!({ "io.containerd.image.name": name });
        write("oci/index.json", &index(outer));
        write("oci/oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }));
        self.sh(&format!("cd {at}/oci; tar -cf ../image.tar oci-layout index.json blobs"));
        self.import_archive();
    }
}
