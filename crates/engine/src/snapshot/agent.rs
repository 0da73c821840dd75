//! The words between the engine and the agent of a node whose data leaves it, or comes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bivouac_provider::{ExecRequest, Node, Process, Reader, Writer};
use bivouac_spec::node::paths;
use bivouac_spec::node::save::{COPY, PAUSE, SEND, Said};
use bivouac_spec::node::stream::Answer;
use bivouac_spec::{Class, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::state::unwritable;
use crate::transfer::Transfer;

/// Bytes that are read and sent at once.
const CHUNK: usize = 256 * 1024;

/// How long a node may take to pause, and to set its data aside. It goes on by itself before that.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines of what a command complained of are told.
const LINES: usize = 12;

/// All bytes of a transfer that several nodes share.
pub(super) struct Tally<'a> {
    transfer: &'a Transfer,
    done: AtomicU64,
    total: u64,
}

impl<'a> Tally<'a> {
    pub(super) const fn new(transfer: &'a Transfer, total: u64) -> Self {
        Self { transfer, done: AtomicU64::new(0), total }
    }

    fn add(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        // The total is about that much.
        self.transfer.reached(done, if self.total == 0 { 0 } else { self.total.max(done) });
    }
}

/// A node that is being saved. It goes on when this is dropped.
pub(super) struct Saving {
    node: Arc<dyn Node>,
    stdin: Writer,
    stdout: BufReader<Reader>,
    stderr: Option<Reader>,
    exit: BoxFuture<'static, Result<i32, Problem>>,
    /// About how many bytes there are to copy; 0 where that is not known.
    pub(super) bytes: u64,
}

fn command(verb: &str, folders: &[Utf8PathBuf]) -> ExecRequest {
    let mut request = ExecRequest::piped([paths::AGENT, "agent", verb]);
    for folder in folders {
        request.command.extend(["--path".to_owned(), folder.to_string()]);
    }
    request
}

impl Saving {
    /// Prepares a node. Nothing is left to be done then but to stop it.
    pub(super) async fn begin(
        node: Arc<dyn Node>,
        folders: &[Utf8PathBuf],
    ) -> Result<Self, Problem> {
        let mut request = command("save", folders);
        request.command.push("--await-pause".to_owned());
        let Process { stdin, stdout, stderr, exit } = node.exec(&request).await?;
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(refused(node.as_ref(), "its command came without a stream".to_owned()));
        };
        let mut saving =
            Self { node, stdin, stdout: BufReader::new(stdout), stderr, exit, bytes: 0 };
        match saving.hear("to be ready for a pause").await? {
            Said::Ready { bytes } => Ok(Self { bytes, ..saving }),
            other => Err(saving.unexpected(&other)),
        }
    }

    /// Pauses it.
    pub(super) async fn pause(&mut self) -> Result<(), Problem> {
        self.say(PAUSE).await;
        match self.hear("to pause").await? {
            Said::Paused { .. } => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Has it set its data aside and go on. Gives how long it was paused, in milliseconds, and about how many bytes there are.
    pub(super) async fn copy(&mut self) -> Result<(u64, u64), Problem> {
        self.say(COPY).await;
        match self.hear("to copy its data").await? {
            Said::Copied { paused_for, bytes } => Ok((paused_for, bytes)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Writes what was set aside into a file. Gives its size.
    pub(super) async fn send(mut self, path: &Utf8Path, tally: &Tally<'_>) -> Result<u64, Problem> {
        self.say(SEND).await;
        match self.hear("to send its data").await? {
            Said::Sending { .. } => {}
            other => return Err(self.unexpected(&other)),
        }
        let mut options = tokio::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path).await;
        let mut file = file.map_err(|error| unwritable(&error))?;
        let (mut buffer, mut size) = (vec![0; CHUNK], 0);
        loop {
            let read = self.stdout.read(&mut buffer).await;
            let read = read.map_err(|error| self.refusal(&error.to_string()))?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).await.map_err(|error| unwritable(&error))?;
            size += read as u64;
            tally.add(read);
        }
        file.flush().await.map_err(|error| unwritable(&error))?;
        file.sync_all().await.map_err(|error| unwritable(&error))?;
        self.finish().await?;
        Ok(size)
    }

    async fn say(&mut self, word: &str) {
        let line = format!("{word}\n");
        let said = async {
            self.stdin.write_all(line.as_bytes()).await?;
            self.stdin.flush().await
        };
        // One that does not listen says why in its answer.
        let _ = said.await;
    }

    async fn hear(&mut self, what: &str) -> Result<Said, Problem> {
        let mut line = String::new();
        let heard = tokio::time::timeout(PATIENCE, self.stdout.read_line(&mut line)).await;
        let Ok(heard) = heard else {
            let (node, seconds) = (self.node.name(), PATIENCE.as_secs());
            let message = format!("node `{node}` took more than {seconds} s {what}");
            return Err(Problem::new(Class::TimedOut, "snapshot.node_slow", message)
                .help(format!("the disk below the node does not answer in time, or has too much to do: see what it holds with `bivouac exec {node} -- du -shx /var`, and save again when there is less to do or to copy")));
        };
        match heard {
            Ok(1..) => match Said::parse(line.trim_end()) {
                Some(Said::Problem(problem)) => Err(self.blame(problem)),
                Some(said) => Ok(said),
                None => Err(self.refusal(line.trim_end())),
            },
            Ok(0) => Err(self.explain_end().await),
            Err(error) => Err(self.refusal(&error.to_string())),
        }
    }

    fn unexpected(&self, said: &Said) -> Problem {
        self.refusal(said.line().trim_end())
    }

    fn refusal(&self, why: &str) -> Problem {
        refused(self.node.as_ref(), why.to_owned())
    }

    /// What the agent says goes for its node.
    fn blame(&self, problem: Problem) -> Problem {
        let mut refused = self.refusal(&problem.message);
        (refused.class, refused.code) = (problem.class, problem.code);
        refused.causes.extend(problem.causes);
        if problem.help.is_some() {
            refused.help = problem.help;
        }
        refused
    }

    async fn finish(mut self) -> Result<(), Problem> {
        // While it is open the agent knows that somebody wants what it sends; now it has ended.
        let complaints = complaints(self.stderr.take());
        let (complaints, code) = tokio::join!(complaints, self.exit);
        drop(self.stdin);
        match code? {
            0 => Ok(()),
            code => Err(told(self.node.as_ref(), "save", code, &complaints)),
        }
    }

    async fn explain_end(&mut self) -> Problem {
        let complaints = complaints(self.stderr.take());
        match tokio::join!(complaints, &mut self.exit) {
            (_, Err(problem)) => problem,
            (complaints, Ok(code)) => told(self.node.as_ref(), "save", code, &complaints),
        }
    }
}

/// Puts the data of a file into a bare node.
pub(super) async fn fill(
    node: &dyn Node,
    folders: &[Utf8PathBuf],
    (path, size): (&Utf8Path, u64),
    tally: &Tally<'_>,
) -> Result<(), Problem> {
    let damaged = |error: std::io::Error| {
        Problem::failed("snapshot.damaged", format!("{path} cannot be read to its end"))
            .because(&error)
    };
    let mut file = tokio::fs::File::open(path).await.map_err(damaged)?;
    let mut request = command("restore", folders);
    // One that ends between two files looks whole.
    request.command.extend(["--size".to_owned(), size.to_string()]);
    let Process { stdin, stdout, stderr, exit } = node.exec(&request).await?;
    let sending = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = file.read(&mut buffer).await?;
            // A node that takes no more says why in its answer.
            let taken = match read {
                0 => stdin.shutdown().await,
                _ => stdin.write_all(&buffer[..read]).await,
            };
            if read == 0 || taken.is_err() {
                return Ok::<_, std::io::Error>(());
            }
            tally.add(read);
        }
    };
    let hearing = async { tokio::join!(complaints(stdout), complaints(stderr), exit) };
    // What a source that broke has sent so far ends with the command.
    let done = tokio::try_join!(sending, async { Ok(hearing.await) });
    let ((), (said, complaints, code)) = done.map_err(damaged)?;
    match code? {
        0 => Ok(()),
        code => Err(told(node, "restore", code, &format!("{said}{complaints}"))),
    }
}

async fn complaints(stream: Option<Reader>) -> String {
    let mut text = String::new();
    if let Some(mut stream) = stream {
        // Whatever can be read is better than nothing.
        let _ = stream.read_to_string(&mut text).await;
    }
    text
}

fn refused(node: &dyn Node, why: String) -> Problem {
    let node = node.name();
    let mut problem =
        Problem::failed("snapshot.node_refused", format!("node `{node}` cannot be saved"));
    problem.causes.push(why);
    problem.help(format!("run `bivouac logs {node}` for the agent's log"))
}

/// What a command of the agent ended with.
fn told(node: &dyn Node, verb: &str, code: i32, complaints: &str) -> Problem {
    let name = node.name();
    let message = match verb {
        "save" => format!("node `{name}` cannot be saved"),
        _ => format!("node `{name}` does not take its data"),
    };
    let mut problem = Problem::failed("snapshot.node_refused", message);
    problem = problem.help(format!("run `bivouac logs {name}` for the agent's log"));
    let lines: Vec<&str> = complaints.lines().map(str::trim).collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        match (Answer::parse(line), line.split_once(": ")) {
            (Some(Answer::Problem(told)), _) => {
                problem.causes.push(told.message);
                problem.causes.extend(told.causes);
                problem.help = told.help.or(problem.help);
            }
            (Some(Answer::Started(_)), _) => {}
            (None, Some(("hint", hint))) => problem.help = Some(hint.to_owned()),
            (None, Some(("error" | "because", why))) => problem.causes.push(why.to_owned()),
            _ if line.is_empty() => {}
            _ => problem.causes.push((*line).to_owned()),
        }
    }
    if problem.causes.is_empty() {
        problem.causes.push(format!("exit code {code}"));
    }
    problem
}
