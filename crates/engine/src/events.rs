//! What the verbs did to a cluster, kept beside its state: a line of JSON for each event worth keeping.
//!
//! ```text
//! STATE/clusters/NAME/events.jsonl     newest; 0600, for problems may quote what programs said
//!                     events.1.jsonl   what was set aside when it had grown large
//! ```
//!
//! Whoever holds the cluster's lock writes. The record never makes the cluster's folder: until the state is there it waits in memory,
//! and it goes with the folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bivouac_spec::{ClusterName, Problem, Problems};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Event, Reporter, StateDirectory};

/// The file that is written.
pub(crate) const NEWEST: &str = "events.jsonl";

/// The file with what was set aside.
pub(crate) const OLDER: &str = "events.1.jsonl";

/// From this size on, in bytes, a file is set aside.
const LARGE: u64 = 1 << 20;

/// An event of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When it happened.
    pub time: Timestamp,
    /// The version of bivouac that did it.
    pub bivouac: String,
    /// The verb that did it.
    pub verb: String,
    /// What happened.
    pub event: Event,
}

/// Whether an event is worth to be kept: what changed or may explain trouble, not how far something is.
const fn is_kept(event: &Event) -> bool {
    !matches!(event, Event::Step(_) | Event::NodeStatus { .. })
}

/// The record of one cluster.
#[derive(Debug, Clone)]
pub struct Events {
    folder: Utf8PathBuf,
}

impl Events {
    /// The record of a cluster, which may not be there.
    #[must_use]
    pub fn of(state: &StateDirectory, cluster: &ClusterName) -> Self {
        Self { folder: state.cluster_path(cluster) }
    }

    /// All entries, the oldest first. Lines that cannot be read are left out: a crash may have cut the last, and another version may
    /// know other events.
    ///
    /// # Errors
    /// When a file of the record cannot be read.
    pub fn read(&self) -> Result<Vec<Entry>, Problem> {
        Ok(self.read_all()?.0)
    }

    /// All entries, and those that come.
    ///
    /// # Errors
    /// When a file of the record cannot be read.
    pub fn follow(&self) -> Result<(Vec<Entry>, Followed), Problem> {
        let (entries, newest) = self.read_all()?;
        Ok((entries, Followed { folder: self.folder.clone(), newest }))
    }

    fn read_all(&self) -> Result<(Vec<Entry>, Option<Reading>), Problem> {
        // The newest is opened first: what is set aside meanwhile is read twice at most, and then left out.
        let mut newest = Reading::open(&self.folder.join(NEWEST))?;
        let mut older = Reading::open(&self.folder.join(OLDER))?;
        if let (Some(one), Some(other)) = (&newest, &older)
            && one.inode == other.inode
        {
            older = None;
        }
        let mut entries = Vec::new();
        for file in older.iter_mut().chain(newest.iter_mut()) {
            entries.extend(file.more()?);
        }
        Ok((entries, newest))
    }

    /// Appends lines, each with its end. Without the folder nothing is written.
    fn append(&self, lines: &str) -> io::Result<()> {
        let path = self.folder.join(NEWEST);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        if size >= LARGE {
            std::fs::rename(&path, self.folder.join(OLDER))?;
            return self.append(lines);
        }
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        // A line that was cut by a crash must not swallow the next.
        let cut = if last == [b'\n'] { "" } else { "\n" };
        // In one call, so that a crash leaves as little as possible in halves.
        (&file).write_all(format!("{cut}{lines}").as_bytes())
    }
}

/// A record that goes on.
#[derive(Debug)]
pub struct Followed {
    folder: Utf8PathBuf,
    newest: Option<Reading>,
}

impl Followed {
    /// What has come since the last time; `None` when the cluster is gone, and all was said.
    ///
    /// # Errors
    /// When a file of the record cannot be read.
    pub fn more(&mut self) -> Result<Option<Vec<Entry>>, Problem> {
        let mut entries = self.newest.as_mut().map_or_else(|| Ok(Vec::new()), Reading::more)?;
        let current = Reading::open(&self.folder.join(NEWEST))?;
        let inode = |reading: &Option<Reading>| reading.as_ref().map(|reading| reading.inode);
        if current.is_some() && inode(&current) != inode(&self.newest) {
            // What was written between the reading above and the setting aside.
            if let Some(before) = &mut self.newest {
                entries.extend(before.more()?);
            }
            self.newest = current;
            entries.extend(self.newest.as_mut().map_or_else(|| Ok(Vec::new()), Reading::more)?);
        }
        Ok((!entries.is_empty() || self.folder.exists()).then_some(entries))
    }
}

/// A file that is read as it grows.
#[derive(Debug)]
struct Reading {
    file: File,
    path: Utf8PathBuf,
    inode: u64,
    /// How much was read as whole lines.
    position: u64,
}

impl Reading {
    fn open(path: &Utf8Path) -> Result<Option<Self>, Problem> {
        let opened = File::open(path)
            .and_then(|file| file.metadata().map(|metadata| (file, metadata.ino())));
        match opened {
            Ok((file, inode)) => Ok(Some(Self { file, path: path.to_owned(), inode, position: 0 })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// The entries of the whole lines that came.
    fn more(&mut self) -> Result<Vec<Entry>, Problem> {
        let mut bytes = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.position))
            .and_then(|_| self.file.read_to_end(&mut bytes))
            .map_err(|error| unreadable(&self.path, &error))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.position += whole as u64;
        let lines = bytes[..whole].split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

fn unreadable(path: &Utf8Path, error: &io::Error) -> Problem {
    Problem::failed("events.unreadable", format!("cannot read {path}"))
        .because(error)
        .help("run it as root")
}

/// A verb that is recorded while it works.
pub(crate) struct Recording {
    reporter: Reporter,
    verb: String,
    started: Instant,
}

impl Recording {
    /// Reports that a verb began, to `reporter` and into the record, as all that follows.
    pub(crate) fn begin(
        state: &StateDirectory,
        cluster: &ClusterName,
        verb: &str,
        reporter: &Reporter,
    ) -> Self {
        let writer = Mutex::new(Writer {
            events: Events::of(state, cluster),
            verb: verb.to_owned(),
            waiting: String::new(),
        });
        let (writer, told) = (Arc::new(writer), reporter.clone());
        let reporter = Reporter::new(move |event| {
            if is_kept(&event) {
                writer.lock().unwrap_or_else(PoisonError::into_inner).keep(&event);
            }
            told.report(event);
        });
        reporter.report(Event::Started { verb: verb.to_owned(), cluster: cluster.clone() });
        Self { reporter, verb: verb.to_owned(), started: Instant::now() }
    }

    /// Where the verb reports to.
    pub(crate) const fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Reports how the verb ended.
    pub(crate) fn end<T>(self, outcome: &Result<T, Problems>) {
        let problems = outcome.as_ref().err().map(|problems| problems.as_slice().to_vec());
        self.reporter.report(Event::Ended {
            verb: self.verb,
            after: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            problems: problems.unwrap_or_default(),
        });
    }
}

/// Writes the record of one verb.
struct Writer {
    events: Events,
    verb: String,
    /// Lines that were not written, for want of a folder.
    waiting: String,
}

impl Writer {
    fn keep(&mut self, event: &Event) {
        let entry = Entry {
            time: Timestamp::now(),
            bivouac: env!("CARGO_PKG_VERSION").to_owned(),
            verb: self.verb.clone(),
            event: event.clone(),
        };
        let line = serde_json::to_string(&entry).expect("an event has string keys only");
        self.waiting.push_str(&line);
        self.waiting.push('\n');
        // A full disk loses the record, never the verb.
        if self.events.append(&self.waiting).is_ok() {
            self.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        state: StateDirectory,
        cluster: ClusterName,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = Utf8Path::from_path(folder.path()).unwrap().join("state");
            let state = StateDirectory::open(path);
            Self { _folder: folder, state, cluster: "demo".parse().unwrap() }
        }

        fn make(&self) -> Utf8PathBuf {
            let folder = self.state.cluster_path(&self.cluster);
            std::fs::create_dir_all(&folder).unwrap();
            folder
        }

        fn events(&self) -> Events {
            Events::of(&self.state, &self.cluster)
        }

        fn begin(&self) -> Recording {
            Recording::begin(&self.state, &self.cluster, "up", &Reporter::silent())
        }
    }

    fn note(text: &str) -> Event {
        Event::Noted { note: text.to_owned() }
    }

    /// The notes among entries.
    fn notes(entries: &[Entry]) -> Vec<&str> {
        let notes = entries.iter().filter_map(|entry| match &entry.event {
            Event::Noted { note } => Some(note.as_str()),
            _ => None,
        });
        notes.collect()
    }

    #[test]
    fn what_happens_is_kept_from_the_first_event_once_there_is_a_folder() {
        let place = Place::new();
        let recording = place.begin();
        recording.reporter().report(note("early"));
        assert!(!place.state.path().exists(), "the record made the folder");
        let folder = place.make();
        recording.reporter().report(note("late"));
        let refused: Result<(), Problems> = Err(Problem::failed("a.b", "it broke").into());
        recording.end(&refused);
        let entries = place.events().read().unwrap();
        assert!(matches!(entries[0].event, Event::Started { .. }));
        assert_eq!(notes(&entries), ["early", "late"]);
        let Event::Ended { problems, .. } = &entries[3].event else { panic!("{entries:?}") };
        assert_eq!(problems[0].code, "a.b");
        assert_eq!((entries.len(), entries[3].verb.as_str()), (4, "up"));
        let mode = std::fs::metadata(folder.join(NEWEST)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn how_far_something_is_is_told_and_not_kept() {
        let place = Place::new();
        place.make();
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        let reporter = Reporter::new(move |_| *count.lock().unwrap() += 1);
        let recording = Recording::begin(&place.state, &place.cluster, "up", &reporter);
        recording.reporter().report(Event::Step(crate::Progress {
            step: "kubernetes".to_owned(),
            state: crate::StepState::Running,
            done: 1,
            total: 2,
            unit: crate::Unit::Items,
            remaining: None,
            detail: None,
        }));
        assert_eq!(*told.lock().unwrap(), 2);
        assert_eq!(place.events().read().unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_a_crash_cut_is_skipped_and_swallows_nothing() {
        let place = Place::new();
        let folder = place.make();
        place.begin().reporter().report(note("one"));
        let path = folder.join(NEWEST);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"time\":\"2026-")).unwrap();
        assert_eq!(notes(&place.events().read().unwrap()), ["one"]);
        place.begin().reporter().report(note("two"));
        assert_eq!(notes(&place.events().read().unwrap()), ["one", "two"]);
    }

    #[test]
    fn a_large_file_is_set_aside_once_and_followed_over_it() {
        let place = Place::new();
        let folder = place.make();
        let recording = place.begin();
        let (_, mut followed) = place.events().follow().unwrap();
        let long = "x".repeat(usize::try_from(LARGE).unwrap() / 2);
        let mut seen = Vec::new();
        for number in 0..7 {
            recording.reporter().report(note(&format!("{number}{long}")));
            let more = followed.more().unwrap().unwrap();
            seen.extend(notes(&more).iter().map(|note| note[..1].to_owned()));
        }
        assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6"]);
        let names = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(names, 2, "one file is written, one set aside");
        let entries = place.events().read().unwrap();
        let kept: Vec<_> = notes(&entries).iter().map(|note| note[..1].to_owned()).collect();
        assert!(kept.len() < 7 && kept.last().unwrap() == "6", "{kept:?}");
    }

    #[test]
    fn a_record_ends_with_its_cluster() {
        let place = Place::new();
        place.make();
        let recording = place.begin();
        let (entries, mut followed) = place.events().follow().unwrap();
        assert_eq!(entries.len(), 1);
        recording.reporter().report(note("last"));
        place.state.remove(&place.cluster).unwrap();
        recording.end(&Ok(()));
        assert_eq!(notes(&followed.more().unwrap().unwrap()), ["last"]);
        assert_eq!(followed.more().unwrap(), None);
        assert!(!place.state.cluster_path(&place.cluster).exists());
    }
}
