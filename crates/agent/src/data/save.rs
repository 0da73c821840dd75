//! Taking the data of a node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Seek as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use bivouac_spec::node::save::{COPY, PAUSE, SEND, Said};
use camino::Utf8PathBuf;

use super::view::{View, relative};
use super::{LEFT, archive};
use crate::client::Lease;
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
        say(output, &Said::Ready {})?;
        hear(words, PAUSE)?;
    }
    let began = Instant::now();
    let lease = Lease::take(&places.socket, request.patience)?;
    say(output, &Said::Paused { processes: lease.processes })?;
    hear(words, COPY)?;
    archive(&view, &file).map_err(|error| failed(&error))?;
    lease.give_back()?;
    let paused_for = clock::milliseconds(began.elapsed());
    let bytes = file.metadata().map_err(|error| failed(&error))?.len();
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
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn archive(view: &View, file: &File) -> io::Result<()> {
    let left = LEFT.map(|path| relative(path.into()).into());
    let paths = view.paths.iter().map(|path| path.clone().into_std_path_buf());
    let output = io::BufWriter::with_capacity(1 << 20, file);
    archive::write(view.root.as_std_path(), paths, &left, output)
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
