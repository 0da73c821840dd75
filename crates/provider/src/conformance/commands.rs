//! Cases about what can be done with a node.

use std::io;
use std::time::Duration;

use bivouac_spec::node::paths;
use bivouac_spec::{Class, NodeConfig, NodeStatus};
use camino::Utf8Path;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::life::{GRACE, first};
use super::{Ground, Stop, check, refused};
use crate::{ExecRequest, LogRequest, Node, Process, Provider, Reader, Stdio};

/// How long a node may take to do a little thing.
const SOON: Duration = Duration::from_secs(120);

/// Text as something to read.
pub(super) fn content(text: &str) -> Reader {
    Box::new(io::Cursor::new(text.as_bytes().to_vec()))
}

/// All that can be read.
pub(super) async fn text(mut reader: Reader) -> Result<String, Stop> {
    let mut text = String::new();
    reader.read_to_string(&mut text).await?;
    Ok(text)
}

struct Output {
    out: String,
    err: String,
    code: i32,
}

async fn finish(mut process: Process) -> Result<Output, Stop> {
    drop(process.stdin.take());
    let stream = |stream: Option<Reader>| async {
        match stream {
            Some(reader) => text(reader).await,
            None => Err(Stop::Fail("a command has no streams".to_owned())),
        }
    };
    let (out, err) = futures::join!(stream(process.stdout.take()), stream(process.stderr.take()));
    Ok(Output { out: out?, err: err?, code: process.exit.await? })
}

async fn run(node: &dyn Node, command: &[&str]) -> Result<Output, Stop> {
    finish(node.exec(&ExecRequest::piped(command.iter().copied())).await?).await
}

pub(super) async fn exit_codes(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let commands: [(&[&str], i32); 4] = [
        (&["true"], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 143),
    ];
    for (command, expected) in commands {
        let code = run(&*node, command).await?.code;
        check(code == expected, format!("{command:?} ends with {code}, not {expected}"))?;
    }
    Ok(())
}

pub(super) async fn streams(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let output = run(&*node, &["echo", "a  b", "$HOME"]).await?;
    check(output.out == "a  b $HOME\n", format!("arguments arrive as `{}`", output.out))?;
    let output = run(&*node, &["sh", "-c", "echo wrong >&2"]).await?;
    let apart = output.err == "wrong\n" && output.out.is_empty();
    check(apart, format!("errors are `{}`, output is `{}`", output.err, output.out))?;

    let mut request = ExecRequest::piped(["sh", "-c", "echo $GREETING"]);
    request.environment.insert("GREETING".to_owned(), "hello".to_owned());
    let output = finish(node.exec(&request).await?).await?;
    check(output.out == "hello\n", format!("the environment says `{}`", output.out))?;

    // More than any pipe holds.
    let long = "0123456789abcde\n".repeat(20_000);
    let mut process = node.exec(&ExecRequest::piped(["cat"])).await?;
    let Some(mut input) = process.stdin.take() else {
        return Err(Stop::Fail("a command has no input".to_owned()));
    };
    let writing = async {
        input.write_all(long.as_bytes()).await?;
        input.shutdown().await?;
        drop(input);
        Ok::<_, Stop>(())
    };
    let (written, output) = futures::join!(writing, finish(process));
    written?;
    check(output?.out == long, "what goes through `cat` changes")?;

    let request = ExecRequest { stdio: Stdio::NoInput, ..ExecRequest::piped(["cat"]) };
    let process = node.exec(&request).await?;
    check(process.stdin.is_none(), "a command without input has one")?;
    let output = finish(process).await?;
    check(output.code == 0 && output.out.is_empty(), "input that is empty does not end")
}

pub(super) async fn dropped(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let mut process = node.exec(&ExecRequest::piped(["sleep", "3600"])).await?;
    let output = process.stdout.take();
    drop(process);
    let Some(output) = output else { return Err(Stop::Fail("it has no output".to_owned())) };
    // Its output ends when it does.
    let ended = tokio::time::timeout(SOON, text(output)).await;
    check(ended.is_ok(), "it still runs")
}

pub(super) async fn unknown(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let request = ExecRequest::piped(["no-such-program"]);
    let problem = refused(node.exec(&request).await, "an unknown command")?;
    let named = problem.message.contains("no-such-program");
    check(named, format!("the message does not name it: {problem}"))
}

pub(super) async fn files(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let path = Utf8Path::new("/etc/conformance/file");
    let long = "a line of text\n".repeat(40_000);
    for wanted in ["first", "", &long] {
        node.put(path, 0o640, content(wanted)).await?;
        let read = text(node.get(path).await?).await?;
        check(read == wanted, format!("{} bytes come back of {}", read.len(), wanted.len()))?;
    }
    let broken: Reader = Box::new(content("half").chain(Broken));
    refused(node.put(path, 0o640, broken).await, "half a file")?;
    let read = text(node.get(path).await?).await?;
    check(read == long, "half a file takes the place of a whole one")?;
    let absent = Utf8Path::new("/etc/conformance/absent");
    refused(node.get(absent).await, "reading a file that is absent").map(drop)
}

/// A source that breaks.
struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::Error::other("broken")))
    }
}

pub(super) async fn status(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let wanted = &ground.nodes[0].config;
    let read = text(node.get(Utf8Path::new(paths::CONFIG)).await?).await?;
    let config: Option<NodeConfig> = serde_json::from_str(&read).ok();
    check(config.as_ref() == Some(wanted), "the config in the node is another one")?;
    let request = ExecRequest {
        stdio: Stdio::NoInput,
        ..ExecRequest::piped([paths::AGENT, "agent", "status", "--follow"])
    };
    let mut process = node.exec(&request).await?;
    let Some(output) = process.stdout.take() else {
        return Err(Stop::Fail("the agent's status has no output".to_owned()));
    };
    let line = BufReader::new(output).lines().next_line().await?.unwrap_or_default();
    let status: Option<NodeStatus> = serde_json::from_str(&line).ok();
    let named = status.is_some_and(|status| status.node == wanted.node);
    check(named, format!("the agent's status is `{line}`"))
}

pub(super) async fn logs(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let follow = LogRequest { follow: true, ..LogRequest::default() };
    let mut lines = BufReader::new(node.logs(&follow).await?).lines();
    let line = tokio::time::timeout(SOON, lines.next_line()).await;
    let Ok(line) = line else { return Err(Stop::Fail("the agent's log stays empty".to_owned())) };
    check(line?.is_some(), "a log that is followed ends")?;
    let last = LogRequest { tail: Some(1), ..LogRequest::default() };
    let tail = text(node.logs(&last).await?).await?;
    check(tail.lines().count() == 1, format!("the last line is `{tail}`"))?;
    let other = LogRequest { service: Some("agnet".to_owned()), ..LogRequest::default() };
    let problem = refused(node.logs(&other).await, "an unknown log")?;
    check(problem.class == Class::Usage, format!("an unknown log is {:?}", problem.class))?;
    let help = problem.help.unwrap_or_default();
    check(help.contains("agent"), format!("the help does not name the nearest: `{help}`"))
}

pub(super) async fn stopped(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let node = first(provider, ground).await?;
    let request = &ground.nodes[0];
    provider.stop_node(&request.cluster, &request.node, GRACE).await?;
    refused(node.exec(&ExecRequest::piped(["true"])).await, "a command in a stopped node")?;
    let path = Utf8Path::new("/etc/conformance/file");
    refused(node.put(path, 0o600, content("x")).await, "writing to a stopped node")?;
    refused(node.get(path).await, "reading from a stopped node").map(drop)
}
