//! Taking the data of a node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use bivouac_spec::node::save::{COPY, PAUSE, SEND, Said};
use camino::Utf8PathBuf;

use super::view::{View, relative};
use super::{LEFT, archive, size};
use crate::client::{Lease, late};
use crate::clock;
use crate::options::Places;

/// What is copied.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// The folders, by absolute paths.
    pub paths: Vec<Utf8PathBuf>,
    /// How long the node may be paused.
    pub patience: Duration,
    /// Say when all is prepared, and pause when told: several nodes are then paused at about the same time.
    pub await_pause: bool,
}

/// Copies folders of this node while nothing in it moves, and writes them to standard output as a tar; in between it says how far it is and
/// waits for what it is told on standard input (see [`bivouac_spec::node::save`]). Call it in a process with a single thread.
#[must_use]
pub fn save(places: &Places, request: &SaveRequest) -> ExitCode {
    let (mut words, mut output) = (io::stdin().lock().lines(), io::stdout().lock());
    let done = copy(places, request, &mut words, &mut output);
    let problem = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(problem) => problem,
    };
    // Nobody may be left to hear it.
    let code = ExitCode::from(problem.class.exit_code());
    let _ = say(&mut output, &Said::Problem(problem));
    code
}

fn copy(
    places: &Places,
    request: &SaveRequest,
    words: &mut dyn Iterator<Item = io::Result<String>>,
    output: &mut dyn Write,
) -> Result<(), Problem> {
    let view = View::open(places.runtime.join("data"), &request.paths)?;
    let file = nameless(places).map_err(|error| failed(&error))?;
    if request.await_pause {
        say(output, &Said::Ready { bytes: size(&view).map_err(|error| failed(&error))? })?;
        hear(words, PAUSE)?;
    }
    let began = Instant::now();
    let lease = Lease::take(&places.socket, request.patience)?;
    say(output, &Said::Paused { processes: lease.processes })?;
    hear(words, COPY)?;
    let archived = archive(&view, &file, began + request.patience);
    let bytes = file.metadata().map_err(|error| failed(&error))?.len();
    match archived {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(late(bytes, request.patience));
        }
        archived => archived.map_err(|error| failed(&error))?,
    }
    lease.give_back().map_err(|()| late(bytes, request.patience))?;
    let paused_for = clock::milliseconds(began.elapsed());
    say(output, &Said::Copied { paused_for, bytes })?;
    hear(words, SEND)?;
    say(output, &Said::Sending { bytes })?;
    send(file, output).map_err(|error| failed(&error))
}

/// A file on the disk of the data that is gone when nobody has it open.
fn nameless(places: &Places) -> io::Result<File> {
    let path = places.state.join(format!(".copy-{}", std::process::id()));
    fs::create_dir_all(&places.state)?;
    // Of somebody who had this number before.
    let _ = fs::remove_file(&path);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// About as much as there will be to copy.
fn size(view: &View) -> io::Result<u64> {
    let left = LEFT.map(|path| relative(path.into()).into());
    let paths = view.paths.iter().map(|path| path.clone().into_std_path_buf());
    size::of(view.root.as_std_path(), paths, &left)
}

fn archive(view: &View, file: &File, deadline: Instant) -> io::Result<()> {
    let left = LEFT.map(|path| relative(path.into()).into());
    let paths = view.paths.iter().map(|path| path.clone().into_std_path_buf());
    let output = io::BufWriter::with_capacity(1 << 20, Timely { file, deadline });
    archive::write(view.root.as_std_path(), paths, &left, output)
}

/// A file that takes nothing when the node is no longer paused: a copy of what moves is of no use, and would fill the disk.
struct Timely<'a> {
    file: &'a File,
    deadline: Instant,
}

impl Write for Timely<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn send(mut file: File, output: &mut dyn Write) -> io::Result<()> {
    file.rewind()?;
    io::copy(&mut file, output)?;
    output.flush()
}

fn say(output: &mut dyn Write, said: &Said) -> Result<(), Problem> {
    let written = output.write_all(said.line().as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| failed(&error))
}

/// Waits for this word.
fn hear(
    words: &mut dyn Iterator<Item = io::Result<String>>,
    expected: &str,
) -> Result<(), Problem> {
    match words.next() {
        Some(Ok(word)) if word == expected => Ok(()),
        Some(Ok(_)) => Err(Problem::usage("agent.save.word", format!("expected `{expected}`"))),
        Some(Err(error)) => Err(failed(&error)),
        None => Err(Problem::failed("agent.save.unwanted", "nobody wants the copy any more")),
    }
}

fn failed(error: &dyn std::error::Error) -> Problem {
    Problem::failed("agent.save.failed", "the data of the node cannot be copied").because(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_copy_is_its_owners_alone_and_ends_with_the_pause() {
        let folder = tempfile::tempdir().unwrap();
        let state = Utf8PathBuf::from_path_buf(folder.path().join("state")).unwrap();
        let file = nameless(&Places { state, ..Places::default() }).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        Timely { file: &file, deadline: now + hour }.write_all(b"data").unwrap();
        let late = Timely { file: &file, deadline: now }.write_all(b"more").unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert_eq!(file.metadata().unwrap().len(), 4);
    }

    #[test]
    fn a_copy_that_is_late_says_how_much_there_was() {
        let problem = late(5_100_000_000, Duration::from_secs(10));
        assert!(problem.message.contains("5100 MB were copied in the 10 s"), "{problem:?}");
    }
}
