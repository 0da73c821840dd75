//! Files, folders and links of the config.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};

use bivouac_spec::node::{File, FileKind};
use camino::{Utf8Path, Utf8PathBuf};

use super::{Applied, Error};
use crate::options::Places;

/// Makes the file what the config says; unchanged ones are not touched.
pub(super) fn ensure_file(
    file: &File,
    places: &Places,
    applied: &mut Applied,
) -> Result<(), Error> {
    let path = places.inside(&file.path);
    let (what, done) = match &file.kind {
        FileKind::Regular(content) => ("file", ensure_regular(&path, content.0.as_bytes(), file)),
        FileKind::Directory => ("folder", ensure_directory(&path, file)),
        FileKind::Link(target) => ("link", ensure_link(&path, target, file.owner)),
    };
    let changed = done.map_err(|source| Error::File { what, path: file.path.clone(), source })?;
    if changed {
        applied.touch(what, &file.path);
    }
    Ok(())
}

/// Removes what is a file or a link, and its folder if it is empty then and none of these files is in it. A failure is a warning:
/// nothing of this config needs it to be gone.
pub(super) fn ensure_absent(
    path: &Utf8Path,
    files: &[File],
    places: &Places,
    applied: &mut Applied,
) {
    let inside = places.inside(path);
    match present(&inside).and_then(|present| {
        let is_ours = present.is_some_and(|metadata| metadata.is_file() || metadata.is_symlink());
        if is_ours {
            fs::remove_file(&inside)?;
        }
        Ok(is_ours)
    }) {
        Ok(true) => {
            remove_empty_parent(path, files, places);
            applied.touch("no file", path);
        }
        Ok(false) => {}
        Err(error) => applied.warnings.push(format!("{path} cannot be removed: {error}")),
    }
}

/// An empty folder can mean something: containerd takes that of a registry for its settings, and does not look at those for all.
fn remove_empty_parent(path: &Utf8Path, files: &[File], places: &Places) {
    if let Some(parent) = path.parent()
        && !files.iter().any(|file| file.path.starts_with(parent))
    {
        // One that is not empty, or that something is mounted on, refuses.
        let _ = fs::remove_dir(places.inside(parent));
    }
}

fn ensure_regular(path: &Utf8Path, content: &[u8], file: &File) -> io::Result<bool> {
    let present = present(path)?.filter(Metadata::is_file);
    if let Some(metadata) = present
        && metadata.len() == content.len() as u64
        && fs::read(path)? == content
    {
        return ensure_access(path, &metadata, file);
    }
    ensure_parent(path)?;
    let name = path.file_name().unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.new"));
    remove(&temporary)?;
    write_new(&temporary, content, file)?;
    match fs::rename(&temporary, path) {
        Ok(()) => Ok(true),
        // Something is mounted on the path, as container engines do with /etc/hosts: it can only be written in place.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            fs::remove_file(&temporary)?;
            fs::write(path, content)?;
            Ok(true)
        }
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn write_new(path: &Utf8Path, content: &[u8], file: &File) -> io::Result<()> {
    // Nobody else may read it before it has its owner and mode: it may be a key.
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    new.write_all(content)?;
    let (user, group) = file.owner;
    let metadata = new.metadata()?;
    if (metadata.uid(), metadata.gid()) != (user, group) {
        chown(path, Some(user), Some(group))?;
    }
    new.set_permissions(fs::Permissions::from_mode(file.mode))
}

fn ensure_directory(path: &Utf8Path, file: &File) -> io::Result<bool> {
    let mut made = false;
    // A link to a folder is as good as one.
    if !path.is_dir() {
        ensure_parent(path)?;
        fs::create_dir(path)?;
        made = true;
    }
    let metadata = fs::metadata(path)?;
    Ok(ensure_access(path, &metadata, file)? || made)
}

fn ensure_link(path: &Utf8Path, target: &Utf8Path, owner: (u32, u32)) -> io::Result<bool> {
    if fs::read_link(path).is_ok_and(|present| present == target) {
        return Ok(false);
    }
    ensure_parent(path)?;
    let name = path.file_name().unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.new"));
    remove(&temporary)?;
    symlink(target, &temporary)?;
    lchown(&temporary, Some(owner.0), Some(owner.1))?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(true)
}

fn ensure_access(path: &Utf8Path, metadata: &Metadata, file: &File) -> io::Result<bool> {
    let mut changed = false;
    let (user, group) = file.owner;
    if (metadata.uid(), metadata.gid()) != (user, group) {
        chown(path, Some(user), Some(group))?;
        changed = true;
    }
    if metadata.mode() & 0o7777 != file.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(file.mode))?;
        changed = true;
    }
    Ok(changed)
}

fn ensure_parent(path: &Utf8Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent: &Utf8Path| fs::create_dir_all(parent))
}

fn present(path: &Utf8Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn remove(path: &Utf8PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::node::Content;

    fn ensure(files: &[File], places: &Places) -> Vec<String> {
        let mut applied = Applied::default();
        for file in files {
            ensure_file(file, places, &mut applied).unwrap();
        }
        applied.changes
    }

    #[test]
    fn what_is_no_longer_named_is_removed_but_no_folder() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let places = Places { root: root.clone(), ..Places::default() };
        fs::create_dir_all(root.join("etc/folder")).unwrap();
        fs::write(root.join("etc/file"), "x").unwrap();
        symlink("/nowhere", root.join("etc/link")).unwrap();
        let mut applied = Applied::default();
        for path in ["/etc/file", "/etc/link", "/etc/folder", "/etc/absent", "/etc/file/below"] {
            ensure_absent(Utf8Path::new(path), &[], &places, &mut applied);
        }
        assert_eq!(applied.changes, ["no file /etc/file", "no file /etc/link"]);
        assert_eq!(applied.warnings, Vec::<String>::new());
        assert!(root.join("etc/folder").is_dir());
    }

    #[test]
    fn the_folder_of_what_is_removed_goes_once_it_is_empty_and_not_named() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let places = Places { root: root.clone(), ..Places::default() };
        let stale = ["/etc/a/one", "/etc/a/two", "/etc/named/file", "/etc/full/file"];
        for path in stale.into_iter().chain(["/etc/full/other"]) {
            fs::create_dir_all(places.inside(Utf8Path::new(path)).parent().unwrap()).unwrap();
            fs::write(places.inside(Utf8Path::new(path)), "x").unwrap();
        }
        let files = [File::directory("/etc/named", 0o755)];
        let mut applied = Applied::default();
        let mut remove =
            |path: &str| ensure_absent(Utf8Path::new(path), &files, &places, &mut applied);
        remove(stale[0]);
        assert!(root.join("etc/a/two").exists());
        stale[1..].iter().for_each(|path| remove(path));
        assert!(!root.join("etc/a").exists());
        assert!(root.join("etc/named").is_dir() && root.join("etc/full/other").exists());
        assert_eq!(applied.changes, stale.map(|path| format!("no file {path}")));
        assert_eq!(applied.warnings, Vec::<String>::new());
    }

    #[test]
    fn applying_twice_changes_nothing_and_drift_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let places = Places { root: root.clone(), ..Places::default() };
        let owner = (fs::metadata(&root).unwrap().uid(), fs::metadata(&root).unwrap().gid());
        let with_owner = |file: File| File { owner, ..file };
        let link = FileKind::Link("/etc/deep/er/key".into());
        let files = [
            with_owner(File::secret("/etc/deep/er/key", "secret")),
            with_owner(File::public("/etc/hosts", "127.0.0.1 localhost\n")),
            with_owner(File::directory("/var/lib/x", 0o700)),
            File { path: "/link".into(), mode: 0, owner, kind: link },
        ];
        assert_eq!(ensure(&files, &places).len(), 4);
        assert_eq!(ensure(&files, &places), Vec::<String>::new());

        let key = root.join("etc/deep/er/key");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 lokalhost\n").unwrap();
        fs::remove_file(root.join("link")).unwrap();
        fs::write(root.join("link"), "in the way").unwrap();
        let mended = ["file /etc/deep/er/key", "file /etc/hosts", "link /link"];
        assert_eq!(ensure(&files, &places), mended);
        assert_eq!(ensure(&files, &places), Vec::<String>::new());
        assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
        assert_eq!(fs::read_dir(key.parent().unwrap()).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn a_folder_in_the_way_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        fs::create_dir_all(root.join("etc/file/inside")).unwrap();
        let places = Places { root: root.clone(), ..Places::default() };
        let kind = FileKind::Regular(Content("x".into()));
        let metadata = fs::metadata(&root).unwrap();
        let owner = (metadata.uid(), metadata.gid());
        let file = File { path: "/etc/file".into(), mode: 0o644, owner, kind };
        let error = ensure_file(&file, &places, &mut Applied::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot make file /etc/file");
        assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 1, "no leftovers");
    }
}
