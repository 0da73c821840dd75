//! Commands in a node, through the engine's exec and the agent.
//!
//! ```text
//! Process.stdin ──frames──▶ ┐            ┌▶ bivouac agent exec ──▶ the command
//! Process.stdout ◀───────── ┤ one stream ┤
//! Process.stderr ◀───────── ┘            └  the first line of its errors: whether the command could be started
//! ```
//!
//! One task owns the connection and ends with the [`Running`] that it belongs to: then the connection ends, and the agent ends the
//! command. See `bivouac_spec::node::stream` for what goes over it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bivouac_provider::{Reader, Writer};
use bivouac_spec::node::paths;
use bivouac_spec::node::stream::{Answer, FRAME_MAX, head};
use bivouac_spec::{NodeName, Problem};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures::{Stream, StreamExt as _};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval};
use tokio_util::task::AbortOnDropHandle;

use super::problem::{OrProblem as _, failed, said, status};

/// Bytes that wait to be read or sent.
const BUFFER: usize = 64 * 1024;

/// How long an engine may take to notice that a command has ended after its output has.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is asked.
const PROBE: Duration = Duration::from_millis(5);

/// The longest first line that is kept.
const LINE_MAX: usize = 64 * 1024;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A container in which the agent runs commands.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) docker: Docker,
    /// The container.
    pub(super) container: String,
    pub(super) node: NodeName,
}

/// How an agent's command uses its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// The first line of errors is an answer.
    pub(super) answers: bool,
    /// Input goes to it in frames.
    pub(super) input: bool,
}

/// A command of the agent that runs. Dropping it ends the command.
pub(super) struct Running {
    /// Its input.
    pub(super) stdin: Option<Writer>,
    /// Its output.
    pub(super) stdout: Reader,
    /// Its errors, without the answer.
    pub(super) stderr: Reader,
    /// Ends when it does, with its exit code.
    pub(super) end: AbortOnDropHandle<Result<i32, Problem>>,
}

impl Room {
    /// Runs a command of the agent and waits until it is said that it works.
    ///
    /// # Errors
    /// When the engine cannot run it, or the agent says that it cannot.
    pub(super) async fn run(
        &self,
        arguments: impl IntoIterator<Item = String>,
        manner: Manner,
    ) -> Result<Running, Problem> {
        let message = format!("a command cannot be run in node {}", self.node);
        let (exec, output, input) = self.start(arguments, &message).await?;
        let (stdin, input_end) = if manner.input {
            let (user, ours) = duplex(BUFFER);
            (Some(Box::new(user) as Writer), Some(ours))
        } else {
            (None, None)
        };
        let (stdout, stdout_end) = duplex(BUFFER);
        let (stderr, stderr_end) = duplex(BUFFER);
        let (answer, answered) = oneshot::channel();
        let pump = Pump {
            stdout: Some(stdout_end),
            stderr: Some(stderr_end),
            answer: manner.answers.then_some(answer),
            line: Vec::new(),
        };
        let room = self.clone();
        let task = tokio::spawn(async move {
            // The way there stays open until all has come back: its end would end the command.
            let received = tokio::select! {
                received = pump.receive(output) => received,
                never = send(input_end, input) => match never {},
            };
            received
                .or_problem("exec", format_args!("the connection to node {} broke", room.node))?;
            room.exit_code(&exec).await
        });
        let mut end = AbortOnDropHandle::new(task);
        if manner.answers {
            match answered.await {
                Ok(Line::Answer(Answer::Started(_))) => {}
                Ok(Line::Answer(Answer::Problem(problem))) => return Err(localized(problem)),
                Ok(Line::Other(text)) => {
                    let mut problem = failed("exec", message);
                    problem.causes.push(text);
                    return Err(problem);
                }
                // The task ended before it could say anything.
                Err(_) => {
                    let ended = (&mut end).await.unwrap_or(Ok(0));
                    return Err(ended.err().unwrap_or_else(|| failed("exec", message)));
                }
            }
        }
        Ok(Running { stdin, stdout: Box::new(stdout), stderr: Box::new(stderr), end })
    }

    async fn start(
        &self,
        arguments: impl IntoIterator<Item = String>,
        message: &str,
    ) -> Result<(String, Output, Input), Problem> {
        let command = [paths::AGENT.to_owned(), "agent".to_owned()].into_iter().chain(arguments);
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.collect()),
            ..ExecConfig::default()
        };
        let exec = self.docker.create_exec(&self.container, config).await;
        let exec = self.running(exec, message)?.id;
        let started = self.docker.start_exec(&exec, None::<StartExecOptions>).await;
        match self.running(started, message)? {
            StartExecResults::Attached { output, input } => Ok((exec, output, input)),
            StartExecResults::Detached => Err(failed("exec", message)),
        }
    }

    /// Tells a node that does not run from other trouble.
    pub(super) fn running<T>(&self, result: Result<T, Error>, message: &str) -> Result<T, Problem> {
        result.map_err(|error| {
            // Docker answers with one of these numbers, podman with this text.
            let stopped = matches!(status(&error), Some(404 | 409))
                || said(&error).contains("container state improper");
            if stopped {
                let mut problem =
                    failed("not_running", format_args!("node {} does not run", self.node));
                problem.causes.push(said(&error).trim().to_owned());
                return problem.help("start it with `bivouac up`");
            }
            let result: Result<(), Error> = Err(error);
            result.or_problem("exec", message).expect_err("it is an error")
        })
    }

    /// The exit code of a command whose output has ended. Engines learn of the end of output and of the process apart from each
    /// other, and tell nobody.
    pub(super) async fn exit_code(&self, exec: &str) -> Result<i32, Problem> {
        let message = format!("the end of a command in node {} is not known", self.node);
        let deadline = Instant::now() + PATIENCE;
        let mut probe = interval(PROBE);
        loop {
            probe.tick().await;
            let state = self.docker.inspect_exec(exec).await.or_problem("exec", &message)?;
            if let (Some(code), false) = (state.exit_code, state.running.unwrap_or(false)) {
                return Ok(i32::try_from(code).unwrap_or(i32::MAX));
            }
            if Instant::now() >= deadline {
                return Err(failed("exec", message));
            }
        }
    }
}

/// The problem of an agent, as one of this ground.
pub(super) fn localized(mut problem: Problem) -> Problem {
    if let Some(rest) = problem.code.strip_prefix("agent.") {
        problem.code = format!("provider.docker.{rest}");
    }
    problem
}

/// Sends input in frames, and keeps the way open until this is dropped.
async fn send(source: Option<DuplexStream>, mut input: Input) -> Infallible {
    if let Some(source) = source {
        // A command that does not listen any more takes no input, and says how it ended all the same.
        let _ = copy_framed(source, &mut input).await;
    }
    std::future::pending().await
}

/// Copies in frames to the end, and says that it is the end.
pub(super) async fn copy_framed(
    mut source: impl AsyncRead + Unpin,
    mut input: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut frame = vec![0; FRAME_MAX + 4];
    loop {
        let length = source.read(&mut frame[4..]).await?;
        frame[..4].copy_from_slice(&head(length));
        input.write_all(&frame[..4 + length]).await?;
        input.flush().await?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// The first line of errors.
#[derive(Debug)]
enum Line {
    Answer(Answer),
    /// The agent did not even start.
    Other(String),
}

/// Takes apart what comes back.
struct Pump {
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    /// Where the answer goes, until it is there.
    answer: Option<oneshot::Sender<Line>>,
    line: Vec<u8>,
}

impl Pump {
    async fn receive(mut self, mut output: Output) -> Result<(), Error> {
        // Output that comes before the answer must not keep it from being read: until somebody reads it, it is kept here.
        let mut early = Vec::new();
        while let Some(part) = output.next().await {
            match part? {
                LogOutput::StdErr { message } => {
                    let rest = self.take_line(&message);
                    write(&mut self.stderr, rest).await;
                }
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    early.extend_from_slice(&message);
                }
                LogOutput::StdIn { .. } => {}
            }
            if self.answer.is_none() && !early.is_empty() {
                write(&mut self.stdout, &early).await;
                early.clear();
            }
        }
        if let Some(answer) = self.answer.take() {
            let said = if self.line.is_empty() { &early } else { &self.line };
            let text = String::from_utf8_lossy(said).trim().to_owned();
            let text = if text.is_empty() { "it ended without a word".to_owned() } else { text };
            let _ = answer.send(Line::Other(text));
        }
        Ok(())
    }

    /// Takes the first line away; gives what belongs to the command.
    fn take_line<'a>(&mut self, message: &'a [u8]) -> &'a [u8] {
        if self.answer.is_none() {
            return message;
        }
        let end = message.iter().position(|byte| *byte == b'\n');
        let (part, rest) = message.split_at(end.map_or(message.len(), |end| end + 1));
        self.line.extend_from_slice(part);
        if end.is_none() && self.line.len() < LINE_MAX {
            return rest;
        }
        let text = String::from_utf8_lossy(&self.line);
        if let Some(answer) = Answer::parse(text.trim_end())
            && let Some(sender) = self.answer.take()
        {
            let _ = sender.send(Line::Answer(answer));
        }
        // No answer: all of it is told when it ends.
        rest
    }
}

/// Hands bytes to whoever reads them; nobody may.
async fn write(target: &mut Option<DuplexStream>, bytes: &[u8]) {
    if let Some(stream) = target
        && stream.write_all(bytes).await.is_err()
    {
        *target = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn err(text: &str) -> Result<LogOutput, Error> {
        Ok(LogOutput::StdErr { message: text.to_owned().into() })
    }

    fn out(text: &str) -> Result<LogOutput, Error> {
        Ok(LogOutput::StdOut { message: text.to_owned().into() })
    }

    async fn received(parts: Vec<Result<LogOutput, Error>>) -> (Line, String, String) {
        let ((mut stdout, stdout_end), (mut stderr, stderr_end)) = (duplex(1024), duplex(1024));
        let (answer, answered) = oneshot::channel();
        let pump = Pump {
            stdout: Some(stdout_end),
            stderr: Some(stderr_end),
            answer: Some(answer),
            line: Vec::new(),
        };
        pump.receive(Box::pin(stream::iter(parts))).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        stdout.read_to_string(&mut out).await.unwrap();
        stderr.read_to_string(&mut err).await.unwrap();
        (answered.await.unwrap(), out, err)
    }

    #[tokio::test]
    async fn the_answer_is_not_the_commands_own() {
        let parts = vec![
            out("early "),
            err("{\"started\""),
            err(":true}\nwrong"),
            out("late"),
            err("{\"started\":true}\n"),
        ];
        let (line, out, err) = received(parts).await;
        assert!(matches!(line, Line::Answer(Answer::Started(true))));
        assert_eq!(out, "early late");
        assert_eq!(err, "wrong{\"started\":true}\n");
    }

    #[tokio::test]
    async fn an_agent_that_does_not_start_is_told() {
        let (line, ..) = received(vec![out("OCI runtime exec failed")]).await;
        assert!(matches!(line, Line::Other(text) if text == "OCI runtime exec failed"));
        let (line, ..) = received(vec![err("panicked\n"), err("at x\n")]).await;
        assert!(matches!(line, Line::Other(text) if text == "panicked\nat x"));
        let (line, ..) = received(Vec::new()).await;
        assert!(matches!(line, Line::Other(text) if text == "it ended without a word"));
    }

    #[tokio::test]
    async fn frames_end_with_an_empty_one() {
        let mut sent = Vec::new();
        copy_framed(&b"hello"[..], &mut sent).await.unwrap();
        assert_eq!(sent, b"\0\0\0\x05hello\0\0\0\0");
    }

    #[test]
    fn codes_are_of_this_ground() {
        let problem = localized(Problem::failed("agent.exec.not_found", "x"));
        assert_eq!(problem.code, "provider.docker.exec.not_found");
    }
}
