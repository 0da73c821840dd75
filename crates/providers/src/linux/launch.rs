//! The command's side of [`super::order`]: starting a process of our own binary, and hearing its answers.

use std::process::Stdio as StdStdio;

use bivouac_spec::Problem;
use bivouac_sys::process::{memory_file, pass_descriptor};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, Command};

use super::order::{Answer, Order, Report, VERB};
use super::problem::{OrProblem as _, failed};

/// Where the standard streams of the process go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// Nowhere, but standard error is kept for an error message.
    None,
    /// Standard input and output are pipes; standard error is kept.
    Data,
    /// All are pipes for the caller.
    Piped,
    /// Output and errors are pipes; input is empty.
    NoInput,
    /// The caller's own.
    Inherited,
}

/// A process that carries out an order. While this exists, it knows that its answers are wanted.
#[derive(Debug)]
pub(super) struct Launched {
    /// The process.
    pub(super) child: Child,
    reports: Lines<BufReader<pipe::Receiver>>,
    errors: Option<ChildStderr>,
}

/// Starts the process.
pub(super) fn launch(order: &Order, streams: Streams) -> Result<Launched, Problem> {
    let message = "a process of bivouac's own cannot be started";
    let text = serde_json::to_vec(order).or_problem("launch", message)?;
    let order = memory_file(&text).or_problem("launch", message)?;
    let (reports, sender) = std::io::pipe().or_problem("launch", message)?;
    // The very file that runs now, even if another was installed in its place meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bivouac").arg(VERB);
    for descriptor in [order, sender.into()] {
        let number = pass_descriptor(command.as_std_mut(), descriptor);
        command.arg(number.to_string());
    }
    let (input, output, errors) = streams.stdio();
    command.stdin(input).stdout(output).stderr(errors);
    if streams != Streams::Inherited {
        // Ctrl-C is for the command that was typed, which decides what to end.
        command.process_group(0);
    }
    let mut child = command.spawn().or_problem("launch", message)?;
    // The command holds the sending end; without it gone the reports would never end.
    drop(command);
    let reports = pipe::Receiver::from_owned_fd(reports.into()).or_problem("launch", message)?;
    let errors = streams.keeps_errors().then(|| child.stderr.take()).flatten();
    Ok(Launched { child, reports: BufReader::new(reports).lines(), errors })
}

/// Starts the process and waits for its only answer.
pub(super) async fn ask(order: &Order) -> Result<Answer, Problem> {
    let mut launched = launch(order, Streams::None)?;
    let answer = launched.answer().await?;
    launched.child.wait().await.or_problem("launch", "a process of bivouac's own was lost")?;
    Ok(answer)
}

impl Launched {
    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<Answer, Problem> {
        let line = self.reports.next_line().await;
        let line = line.or_problem("launch", "a process of bivouac's own cannot be heard")?;
        let Some(line) = line else { return Err(self.died().await) };
        let report: Report = serde_json::from_str(&line)
            .or_problem("launch", "a process of bivouac's own says what makes no sense")?;
        report
    }

    async fn died(&mut self) -> Problem {
        let mut text = String::new();
        if let Some(errors) = &mut self.errors {
            // Whatever can be read is better than nothing.
            let _ = errors.read_to_string(&mut text).await;
        }
        let status = self.child.wait().await.map(|status| status.to_string()).unwrap_or_default();
        let mut problem = failed(
            "died",
            format_args!("a process of bivouac's own ended without an answer: {status}"),
        );
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        problem.causes.extend(last.iter().map(|line| (*line).to_owned()));
        problem
    }
}

impl Streams {
    fn stdio(self) -> (StdStdio, StdStdio, StdStdio) {
        let (null, pipe, own) = (StdStdio::null, StdStdio::piped, StdStdio::inherit);
        match self {
            Self::None => (null(), null(), pipe()),
            Self::Data | Self::Piped => (pipe(), pipe(), pipe()),
            Self::NoInput => (null(), pipe(), pipe()),
            Self::Inherited => (own(), own(), own()),
        }
    }

    const fn keeps_errors(self) -> bool {
        matches!(self, Self::None | Self::Data)
    }
}
