//! Reading a file that goes on: its last lines, what is added, and the file that takes its place when it is rotated.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::Result;
use crate::error::Context;

/// How much is looked at at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// A growing file, read from wherever it was moved to.
#[derive(Debug)]
pub struct Tail {
    file: File,
    /// Where the file that takes its place will be.
    path: PathBuf,
}

impl Tail {
    /// Opens a file at its start. A link in its place is refused: whoever may write the folder cannot point elsewhere.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open_no_follow(path).at("open", path.display())?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The same, but what takes its place is looked for at another path.
    #[must_use]
    pub fn succeeded_by(self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Moves to the start of the last so many lines.
    pub fn seek_to_lines(&mut self, lines: usize) -> Result<()> {
        self.seek(lines).at("read", self.path.display())
    }

    fn seek(&mut self, lines: usize) -> io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0))?;
        if lines == 0 {
            return Ok(());
        }
        let (mut position, mut found) = (end, 0);
        let mut block = vec![0; BLOCK];
        while position > 0 {
            let length = position.min(BLOCK as u64);
            position -= length;
            self.file.seek(SeekFrom::Start(position))?;
            // Never longer than a block.
            let part = &mut block[..usize::try_from(length).unwrap_or(BLOCK)];
            self.file.read_exact(part)?;
            for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let next = position + index as u64 + 1;
                // A newline at the very end closes the last line and starts none.
                found += usize::from(next < end);
                if found == lines && next < end {
                    return self.file.seek(SeekFrom::Start(next)).map(drop);
                }
            }
        }
        self.file.rewind()
    }

    /// Reads what is there, also in the file that has taken the place of this one; 0 when there is nothing yet.
    pub fn read_more(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.file.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            if let Some(next) = self.successor()? {
                // Nobody writes to the old file any more: what came since the last look is its end.
                let rest = self.file.read(buffer)?;
                if rest > 0 {
                    return Ok(rest);
                }
                self.file = next;
            } else if self.file.metadata()?.len() < self.file.stream_position()? {
                // Cut, and written from its start again.
                self.file.rewind()?;
            } else {
                return Ok(0);
            }
        }
    }

    /// The file as it is now, without what may take its place.
    pub fn into_file(self) -> File {
        self.file
    }

    fn successor(&self) -> io::Result<Option<File>> {
        match open_no_follow(&self.path) {
            Ok(next) if next.metadata()?.ino() != self.file.metadata()?.ino() => Ok(Some(next)),
            Ok(_) => Ok(None),
            // Between the removal of one and the making of the next.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn open_no_follow(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn rest(tail: &mut Tail) -> String {
        let (mut text, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match tail.read_more(&mut buffer).unwrap() {
                0 => return String::from_utf8(text).unwrap(),
                length => text.extend(&buffer[..length]),
            }
        }
    }

    #[test]
    fn the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(BLOCK);
        for (content, lines, expected) in [
            ("a\nb\nc\n".to_owned(), 0, String::new()),
            ("a\nb\nc\n".to_owned(), 1, "c\n".to_owned()),
            ("a\nb\nc".to_owned(), 2, "b\nc".to_owned()),
            ("a\nb\n".to_owned(), 9, "a\nb\n".to_owned()),
            ("\n\n\n".to_owned(), 2, "\n\n".to_owned()),
            (format!("a\n{long}\n{long}\n"), 2, format!("{long}\n{long}\n")),
            (String::new(), 3, String::new()),
        ] {
            fs::write(&path, content).unwrap();
            let mut tail = Tail::open(&path).unwrap();
            tail.seek_to_lines(lines).unwrap();
            assert_eq!(rest(&mut tail), expected);
        }
    }

    #[test]
    fn over_rotation_and_cutting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "old\none\n").unwrap();
        let mut tail = Tail::open(&path).unwrap();
        tail.seek_to_lines(1).unwrap();
        assert_eq!(rest(&mut tail), "one\n");
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        file.write_all(b"late\n").unwrap();
        fs::write(&path, "three\nfour\n").unwrap();
        assert_eq!(rest(&mut tail), "late\nthree\nfour\n");
        fs::write(&path, "5\n").unwrap();
        assert_eq!(rest(&mut tail), "5\n");
    }

    #[test]
    fn a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(Tail::open(&path).is_err());
    }
}
