//! Which files and links were made for a config: a list that outlives the agent, so that they are removed when a later config does
//! not have them, whether the node ran in between or not.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use bivouac_spec::node::{File, FileKind};
use camino::{Utf8Path, Utf8PathBuf};

use super::Applied;
use crate::options::Places;

const NAME: &str = "files.json";

type Paths = BTreeSet<Utf8PathBuf>;

/// The record while a config is applied.
#[derive(Debug)]
pub(super) struct Record {
    path: Utf8PathBuf,
    before: Paths,
    wanted: Paths,
    /// What the file says.
    written: Paths,
}

/// Reads the record and adds the files that are about to be made.
pub(super) fn open(files: &[File], places: &Places, applied: &mut Applied) -> Record {
    let path = places.state.join(NAME);
    let text = fs::read_to_string(&path).unwrap_or_default();
    // One that cannot be read removes nothing.
    let before: Paths = serde_json::from_str(&text).unwrap_or_default();
    let named = files.iter().filter(|file| !matches!(file.kind, FileKind::Directory));
    let wanted = named.map(|file| file.path.clone()).collect();
    let mut record = Record { path, written: before.clone(), before, wanted };
    let both = &record.before | &record.wanted;
    record.keep(both, applied);
    record
}

impl Record {
    /// What was made before and is not wanted any more.
    pub(super) fn stale(&self) -> impl Iterator<Item = &Utf8Path> {
        self.before.difference(&self.wanted).map(Utf8PathBuf::as_path)
    }

    /// All wanted files are made, all others are gone.
    pub(super) fn close(mut self, applied: &mut Applied) {
        let wanted = std::mem::take(&mut self.wanted);
        self.keep(wanted, applied);
    }

    fn keep(&mut self, paths: Paths, applied: &mut Applied) {
        if paths == self.written {
            return;
        }
        if let Err(error) = write(&self.path, &paths) {
            let path = &self.path;
            applied
                .warnings
                .push(format!("files may stay that no config has any more: {path}: {error}"));
        }
        self.written = paths;
    }
}

fn write(path: &Utf8Path, paths: &Paths) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_string(paths)?)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale(names: &[&str], finish: bool, places: &Places) -> Vec<String> {
        let files: Vec<_> = names.iter().map(|name| File::public(*name, "x")).collect();
        let mut applied = Applied::default();
        let record = open(&files, places, &mut applied);
        let stale = record.stale().map(ToString::to_string).collect();
        if finish {
            record.close(&mut applied);
        }
        assert_eq!(applied, Applied::default());
        stale
    }

    #[test]
    fn what_was_begun_and_never_finished_is_known_too() {
        let directory = tempfile::tempdir().unwrap();
        let state = Utf8PathBuf::from_path_buf(directory.path().join("deep")).unwrap();
        let places = Places { state: state.clone(), ..Places::default() };
        assert_eq!(stale(&["/a", "/b"], true, &places), Vec::<String>::new());
        assert_eq!(stale(&["/b", "/c"], false, &places), ["/a"]);
        assert_eq!(stale(&["/b"], true, &places), ["/a", "/c"]);
        assert_eq!(stale(&["/b"], true, &places), Vec::<String>::new());
        fs::write(state.join(NAME), "{").unwrap();
        assert_eq!(stale(&[], true, &places), Vec::<String>::new());
    }
}
