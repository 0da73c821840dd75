//! The folder of a project on disk.
//!
//! ```text
//! docker-compose.yaml      nothing in it is secret
//! nodes/NODE/node.json     the node config, 0600: it holds keys
//! nodes/NODE/ground.json   what the ground leaves to the agent, 0600
//! ```

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};

use bivouac_provider::NodeRequest;
use bivouac_spec::node::Ground;
use bivouac_spec::{NodeName, Problem};
use camino::{Utf8Path, Utf8PathBuf};

use super::document::Document;
use super::problem::failed;
use crate::docker::furnish;

/// What `docker compose` looks for.
pub(super) const FILE: &str = "docker-compose.yaml";

/// A folder with a project, or for one.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) path: Utf8PathBuf,
}

impl Folder {
    /// The file of the project.
    pub(super) fn file(&self) -> Utf8PathBuf {
        self.path.join(FILE)
    }

    /// The project, if one was written.
    pub(super) fn read(&self) -> Result<Option<Document>, Problem> {
        let text = match std::fs::read_to_string(self.file()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("the project file {} cannot be read", self.file());
                return Err(failed("project", message).because(&error));
            }
        };
        Document::parse(&text).map(Some).map_err(|error| {
            let message = format!("the project file {} is not what bivouac wrote", self.file());
            failed("project", message).because(&error).help(format!(
                "remove the file with `rm {}`, then run the command again",
                self.file()
            ))
        })
    }

    /// Writes the project.
    pub(super) fn write(&self, document: &Document) -> Result<(), Problem> {
        write(&self.file(), document.text()?.as_bytes(), 0o644)
    }

    /// Writes what is put into a node.
    pub(super) fn write_node(&self, request: &NodeRequest) -> Result<(), Problem> {
        for (path, content) in self.documents(request)? {
            write(&path, &content, 0o600)?;
        }
        Ok(())
    }

    /// Writes what was put into a node, which runs: its container has these very files, not what takes their names.
    pub(super) fn rewrite_node(&self, request: &NodeRequest) -> Result<(), Problem> {
        for (path, content) in self.documents(request)? {
            let write = || -> io::Result<()> {
                let mut file = OpenOptions::new().write(true).open(&path)?;
                file.write_all(&content)?;
                file.set_len(content.len() as u64)?;
                file.sync_all()
            };
            write().map_err(|error| {
                failed("write", format_args!("{path} cannot be written")).because(&error)
            })?;
        }
        Ok(())
    }

    fn documents(&self, request: &NodeRequest) -> Result<Vec<(Utf8PathBuf, Vec<u8>)>, Problem> {
        let (folder, machine_id) = (self.node(&request.node), self.machine_id(&request.node)?);
        let documents = furnish::documents(request, &machine_id)?.into_iter();
        // They are called the same in the node.
        let named = documents.filter_map(|(path, content)| {
            Some((folder.join(Utf8Path::new(path).file_name()?), content))
        });
        Ok(named.collect())
    }

    /// Removes what is put into a node.
    pub(super) fn remove_node(&self, node: &NodeName) -> Result<(), Problem> {
        remove(&self.node(node))
    }

    /// The nodes that something is put into.
    pub(super) fn nodes(&self) -> Vec<NodeName> {
        let entries = self.path.join("nodes").read_dir_utf8().into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().parse().ok()).collect()
    }

    fn node(&self, node: &NodeName) -> Utf8PathBuf {
        self.path.join("nodes").join(node.as_str())
    }

    /// The machine id that a node was given, or a fresh one.
    fn machine_id(&self, node: &NodeName) -> Result<String, Problem> {
        let known = std::fs::read(self.node(node).join("ground.json")).unwrap_or_default();
        match serde_json::from_slice::<Ground>(&known) {
            Ok(ground) => Ok(ground.machine_id),
            Err(_) => furnish::new_machine_id(),
        }
    }
}

/// Removes a folder and all that is in it. An absent one is success.
pub(super) fn remove(path: &Utf8Path) -> Result<(), Problem> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("folder", format_args!("the folder {path} cannot be removed"))
                .because(&error))
        }
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all. Folders that are made for it are their owner's alone.
pub(super) fn write(path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), Problem> {
    create(path, mode, |file| file.write_all(content))
}

/// The same, with what `fill` writes.
pub(super) fn create(
    path: &Utf8Path,
    mode: u32,
    fill: impl FnOnce(&mut std::fs::File) -> io::Result<()>,
) -> Result<(), Problem> {
    let new = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default()));
    let written = (|| {
        let folder = path.parent().unwrap_or(Utf8Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        fill(&mut file)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        let problem = failed("write", format_args!("{path} cannot be written")).because(&error);
        match error.kind() {
            io::ErrorKind::StorageFull => {
                problem.help("free some disk, then run the command again")
            }
            _ => problem,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;

    #[test]
    fn keys_are_their_owner_s_and_a_node_keeps_its_machine_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("project")).unwrap();
        let folder = Folder { path };
        assert_eq!(folder.read().unwrap(), None);
        let request = samples::node();
        folder.write_node(&request).unwrap();
        let mode = |path: &str| {
            std::fs::metadata(folder.path.join(path)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode(""), 0o700);
        assert_eq!(mode("nodes/worker-0/node.json"), 0o600);
        assert_eq!(mode("nodes/worker-0/ground.json"), 0o600);
        let before = folder.machine_id(&request.node).unwrap();
        folder.write_node(&request).unwrap();
        assert_eq!(folder.machine_id(&request.node).unwrap(), before);
        assert_eq!(folder.nodes(), ["worker-0".parse().unwrap()]);
        let path = folder.path.join("nodes/worker-0/node.json");
        let held = std::fs::File::open(&path).unwrap();
        let mut changed = request.clone();
        changed.config.modules.push("x".to_owned());
        for wanted in [&changed, &request] {
            folder.rewrite_node(wanted).unwrap();
            let text = std::io::read_to_string(std::fs::File::open(&path).unwrap()).unwrap();
            assert_eq!(text, serde_json::to_string(&wanted.config).unwrap());
            assert_eq!(held.metadata().unwrap().len(), text.len() as u64);
        }
        folder.remove_node(&request.node).unwrap();
        assert_eq!(folder.nodes(), []);
        folder.remove_node(&request.node).unwrap();
    }
}
