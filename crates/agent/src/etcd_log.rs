//! How far a copy of etcd's data goes, and what makes all of it count.
//!
//! The member whose log goes furthest is the one that the others would elect: it has everything that a majority has confirmed. But etcd
//! writes down only with the next entry how much of its log is confirmed, and a member that is made to be alone (`--force-new-cluster`)
//! forgets whatever is behind that. So its whole log is noted as confirmed before.
//!
//! ```text
//! DATA/member/wal/SEQUENCE-INDEX.wal   segments: (length, record, padding to 8 bytes)*, zeros
//! record                               kind, checksum of all data so far, data: an entry, a state (term, vote, confirmed), …
//! ```
//!
//! As etcd's `server/storage/wal` has it since version 2; etcd checks all of it when it starts.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};
use crc32c::crc32c_append;
use prost::Message;

/// Kinds of records.
const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CHECKSUM: i64 = 4;
const SNAPSHOT: i64 = 5;

/// The lower bytes of a record's length; the highest says how long its padding is.
const LENGTH: u64 = (1 << 56) - 1;
const FRAME: usize = 8;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    checksum: u32,
    #[prost(bytes = "vec", optional, tag = "3")]
    data: Option<Vec<u8>>,
}

/// An entry of the log, without what it says.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    vote: u64,
    #[prost(uint64, tag = "3")]
    confirmed: u64,
}

/// Up to where everything is also elsewhere than in the log.
#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
}

/// How far a log goes. Of two logs the greater one has everything that is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogEnd {
    /// The term of the last entry.
    pub term: u64,
    /// The number of the last entry.
    pub index: u64,
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.term, self.index)
    }
}

/// How far the log of etcd in this data folder goes. Without a log it does not go anywhere.
///
/// # Errors
/// When it cannot be read.
pub fn etcd_log_end(data: &Utf8Path) -> Result<LogEnd, Problem> {
    let log = Log::read(data).map_err(|error| failed(data, &error))?;
    Ok(log.map(|log| log.end).unwrap_or_default())
}

/// Notes in the log of etcd in this data folder that all of it is confirmed. etcd must not run.
///
/// # Errors
/// When it cannot be read or written.
pub fn confirm_etcd_log(data: &Utf8Path) -> Result<(), Problem> {
    let confirm = || match Log::read(data)? {
        Some(log) => log.confirm(),
        None => Err(ErrorKind::NotFound.into()),
    };
    confirm().map_err(|error| failed(data, &error))
}

fn failed(data: &Utf8Path, error: &io::Error) -> Problem {
    Problem::failed("agent.etcd_log", format!("the log of etcd in {data} cannot be used"))
        .because(error)
}

/// A log, read to its end.
struct Log {
    end: LogEnd,
    state: State,
    last: Utf8PathBuf,
    /// Where the next record goes in the last segment, and the checksum of all before it.
    next: (u64, u32),
}

impl Log {
    fn read(data: &Utf8Path) -> io::Result<Option<Self>> {
        let mut segments = segments(data)?;
        let Some(last) = segments.pop() else { return Ok(None) };
        let mut read = Segment::read(&last, true)?;
        // A segment that was just begun has nothing of its own yet.
        while let Some(before) = segments.pop().filter(|_| !read.is_enough()) {
            let before = Segment::read(&before, false)?;
            read.entry = read.entry.or(before.entry);
            read.snapshot = read.snapshot.max(before.snapshot);
            read.state = read.state.or(before.state);
        }
        let end = read.entry.max(read.snapshot).unwrap_or_default();
        let state = read.state.unwrap_or_default();
        Ok(Some(Self { end, state, last, next: (read.length, read.checksum) }))
    }

    /// Whatever is behind the last whole record was never finished: it goes.
    fn confirm(&self) -> io::Result<()> {
        let state = State {
            term: self.state.term.max(self.end.term),
            vote: if self.state.term < self.end.term { 0 } else { self.state.vote },
            confirmed: self.state.confirmed.max(self.end.index),
        };
        let (offset, before) = self.next;
        let written = frame(STATE, before, Some(state.encode_to_vec())).0;
        let file = OpenOptions::new().write(true).open(&self.last)?;
        let size = file.metadata()?.len();
        file.set_len(offset)?;
        file.write_all_at(&written, offset)?;
        file.set_len(size.max(offset + written.len() as u64))?;
        file.sync_all()
    }
}

/// The segments of a log, in order: their names begin with their numbers, all of the same length.
fn segments(data: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let entries = match data.join("member/wal").read_dir_utf8() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.into_path())).collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> =
        paths.into_iter().filter(|path| path.extension() == Some("wal")).collect();
    paths.sort();
    Ok(paths)
}

#[derive(Default)]
struct Segment {
    entry: Option<LogEnd>,
    snapshot: Option<LogEnd>,
    state: Option<State>,
    length: u64,
    checksum: u32,
}

impl Segment {
    const fn is_enough(&self) -> bool {
        self.entry.is_some() && self.state.is_some()
    }

    /// Only in the last segment may a record be cut short: it was being written. Everything else that cannot be read is damage, behind which
    /// there may be what a majority has confirmed.
    fn read(path: &Utf8Path, is_last: bool) -> io::Result<Self> {
        let (bytes, mut segment) = (fs::read(path)?, Self::default());
        let mut rest = &bytes[..];
        while let Some((record, size)) = whole(rest)
            && segment.take(&record).is_some()
        {
            rest = &rest[size..];
        }
        let offset = bytes.len() - rest.len();
        let is_end = if is_last { is_torn(rest) } else { rest.iter().all(|byte| *byte == 0) };
        if !is_end {
            let message = format!("{path} has a broken record at byte {offset}");
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
        segment.length = offset as u64;
        Ok(segment)
    }

    /// Takes the next record, if its checksum is right.
    fn take(&mut self, record: &Record) -> Option<()> {
        let data = record.data.as_deref().unwrap_or_default();
        // The first of a segment says how the one before it ended.
        let is_first = record.kind == CHECKSUM;
        let checksum = if is_first { record.checksum } else { crc32c_append(self.checksum, data) };
        if checksum != record.checksum {
            return None;
        }
        match record.kind {
            ENTRY => {
                let Entry { term, index } = Entry::decode(data).ok()?;
                self.entry = Some(LogEnd { term, index });
            }
            STATE => self.state = Some(State::decode(data).ok()?),
            SNAPSHOT => {
                let Snapshot { term, index } = Snapshot::decode(data).ok()?;
                self.snapshot = self.snapshot.max(Some(LogEnd { term, index }));
            }
            _ => {}
        }
        self.checksum = checksum;
        Some(())
    }
}

/// How long the record is that begins here, and with its length and its padding. None where there is none.
fn size(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = u64::from_le_bytes(*bytes.first_chunk()?);
    let length = usize::try_from(head & LENGTH).ok().filter(|length| *length > 0)?;
    Some((length, FRAME + length.next_multiple_of(FRAME)))
}

/// The record that begins here, if all of it is there, and what it takes.
fn whole(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, size) = size(bytes)?;
    let record = Record::decode(bytes.get(..size)?.get(FRAME..FRAME + length)?).ok()?;
    (METADATA..=SNAPSHOT).contains(&record.kind).then_some((record, size))
}

/// Whether this is what a write leaves behind that did not come to its end: nothing, or a part of a record with nothing behind it.
fn is_torn(rest: &[u8]) -> bool {
    let Some(written) = rest.iter().rposition(|byte| *byte != 0) else { return true };
    let is_short =
        rest.len() < FRAME || size(rest).is_some_and(|(length, _)| written + 1 < FRAME + length);
    is_short && !(FRAME..written).step_by(FRAME).any(|at| whole(&rest[at..]).is_some())
}

/// A record as it is written, and the checksum of all data with it.
fn frame(kind: i64, before: u32, data: Option<Vec<u8>>) -> (Vec<u8>, u32) {
    let checksum = crc32c_append(before, data.as_deref().unwrap_or_default());
    let record = Record { kind, checksum, data }.encode_to_vec();
    let padding = record.len().next_multiple_of(FRAME) - record.len();
    let mut length = record.len() as u64;
    if padding > 0 {
        length |= (0x80 | padding as u64) << 56;
    }
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(record);
    bytes.resize(bytes.len() + padding, 0);
    (bytes, checksum)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A log of segments, each with entries of these terms and numbers and a state behind them.
    struct Written {
        folder: tempfile::TempDir,
        checksum: u32,
    }

    impl Written {
        fn new() -> Self {
            let written = Self { folder: tempfile::tempdir().unwrap(), checksum: 0 };
            fs::create_dir_all(written.data().join("member/wal")).unwrap();
            fs::write(written.data().join("member/wal/0.tmp"), "not yet one").unwrap();
            written
        }

        fn data(&self) -> &Utf8Path {
            self.folder.path().try_into().unwrap()
        }

        fn segment(&mut self, number: u32, records: &[(i64, Vec<u8>)]) -> Utf8PathBuf {
            let mut bytes = frame(CHECKSUM, self.checksum, None).0;
            bytes.extend(self.add(&[(METADATA, b"metadata".to_vec())]));
            bytes.extend(self.add(records));
            bytes.resize(4096, 0);
            let path = self.data().join(format!("member/wal/{number:016x}-{number:016x}.wal"));
            fs::write(&path, bytes).unwrap();
            path
        }

        fn add(&mut self, records: &[(i64, Vec<u8>)]) -> Vec<u8> {
            let mut bytes = Vec::new();
            for (kind, data) in records {
                let (record, checksum) = frame(*kind, self.checksum, Some(data.clone()));
                bytes.extend(record);
                self.checksum = checksum;
            }
            bytes
        }

        fn end(&self) -> (u64, u64) {
            let LogEnd { term, index } = etcd_log_end(self.data()).unwrap();
            (term, index)
        }

        fn state(&self) -> State {
            Log::read(self.data()).unwrap().unwrap().state
        }
    }

    fn entry(term: u64, index: u64) -> (i64, Vec<u8>) {
        let mut data = Entry { term, index }.encode_to_vec();
        // What the entry says.
        data.extend([0x22, 3, 1, 2, 3]);
        (ENTRY, data)
    }

    fn state(term: u64, confirmed: u64) -> (i64, Vec<u8>) {
        (STATE, State { term, vote: 7, confirmed }.encode_to_vec())
    }

    #[test]
    fn a_log_goes_as_far_as_its_last_entry() {
        let mut log = Written::new();
        assert_eq!(log.end(), (0, 0));
        confirm_etcd_log(log.data()).unwrap_err();
        // Entries that nobody confirmed are written over by those of the next term.
        let first = [entry(2, 4), entry(2, 5), entry(2, 6), state(2, 4), entry(3, 5), state(3, 4)];
        log.segment(0, &first);
        assert_eq!(log.end(), (3, 5));
        // One that was just begun, and has what is behind the log already.
        let behind = Snapshot { index: 4, term: 2 }.encode_to_vec();
        log.segment(1, &[state(4, 4), (SNAPSHOT, behind)]);
        assert_eq!((log.end(), log.state().term), ((3, 5), 4));
        log.segment(2, &[entry(4, 6)]);
        assert_eq!((log.end(), log.state().term), ((4, 6), 4));
        // Who was far behind got everything at once.
        log.segment(3, &[(SNAPSHOT, Snapshot { index: 90, term: 5 }.encode_to_vec())]);
        assert_eq!(log.end(), (5, 90));
    }

    #[test]
    fn all_of_a_log_is_confirmed_and_a_half_of_a_record_is_none() {
        let mut log = Written::new();
        let path = log.segment(0, &[entry(2, 4), state(2, 4), entry(2, 5), entry(2, 6)]);
        let whole = fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let used = used.next_multiple_of(FRAME);
        let torn = frame(ENTRY, log.checksum, Some(entry(2, 7).1)).0;
        for cut in [0, 9, 20] {
            let mut bytes = whole.clone();
            bytes[used..used + cut].copy_from_slice(&torn[..cut]);
            fs::write(&path, &bytes).unwrap();
            assert_eq!((log.end(), log.state().confirmed), ((2, 6), 4), "{cut}");
            for _ in 0..2 {
                confirm_etcd_log(log.data()).unwrap();
                assert_eq!(
                    (log.end(), log.state()),
                    ((2, 6), State { term: 2, vote: 7, confirmed: 6 })
                );
            }
            let after = fs::read(&path).unwrap();
            assert_eq!((after.len(), &after[..used]), (whole.len(), &whole[..used]));
            assert!(after[used + 128..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_broken_record_is_no_end() {
        let mut log = Written::new();
        let first = log.segment(0, &[entry(2, 4), state(2, 4), entry(2, 5), entry(2, 6)]);
        let whole = fs::read(&first).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let refused = |path: &Utf8Path, at: usize, byte: u8| {
            let kept = fs::read(path).unwrap();
            let mut bytes = kept.clone();
            bytes[at] = byte;
            fs::write(path, bytes).unwrap();
            let problems =
                [etcd_log_end(log.data()).unwrap_err(), confirm_etcd_log(log.data()).unwrap_err()];
            for problem in problems {
                let cause = &problem.causes[0];
                assert!(cause.starts_with(&format!("{path} has a broken record")), "{cause}");
            }
            fs::write(path, kept).unwrap();
        };
        // The last one is all there, and wrong; so is one before it, in what it says and in how long it is.
        let frame = |from: usize| from + FRAME + size(&whole[from..]).unwrap().1 - FRAME;
        let entry = frame(frame(0));
        for (at, byte) in [(used - 1, 9), (entry + FRAME + 12, 9), (entry, 0), (entry + 2, 9)] {
            refused(&first, at, byte);
        }
        // What was being written when another segment was begun was written.
        let torn = fs::read(&first).unwrap();
        let second = log.data().join("member/wal/0000000000000001-0000000000000007.wal");
        fs::write(&second, []).unwrap();
        refused(&first, used - 1, 0);
        assert_eq!(fs::read(&first).unwrap(), torn);
        assert_eq!(log.end(), (2, 6));
    }
}
