//! The programs of a node in memory: `true`, `false`, `cat`, `echo WORDS`, `sleep SECONDS`, `sh -c` with `exit N`, `kill -TERM $$`,
//! `echo TEXT >&2` or `echo $NAME`, the agent's `status`, `images`, `load`, `save`, `restore` and `etcd-log FOLDER` (which prints the file `log-end` in it), and `/bin/sh -c` with whatever a stack has done in a node. An archive of images is the name of its image here;
//! one without a name is damaged.

use std::time::Duration;

use bivouac_spec::node::{NodePhase, paths};
use bivouac_spec::{NodeConfig, NodeStatus, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy, duplex, empty};

use super::data;
use super::node::FakeNode;
use crate::{ExecRequest, Process, Reader, Stdio};

/// How much a pipe holds, in bytes.
const PIPE: usize = 64 * 1024;

/// Ends the program when nobody holds it any more.
struct Guard(tokio::task::AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The ends of the pipes that the program holds.
pub(super) struct Streams {
    pub(super) input: Reader,
    pub(super) output: DuplexStream,
    pub(super) errors: DuplexStream,
}

/// What a program does.
enum Program {
    Exit(i32),
    Copy,
    Say(String),
    Complain(String),
    Sleep(Duration),
    Status(Box<NodeConfig>),
    FollowedStatus(Box<NodeConfig>),
    Register(Vec<String>),
    Load,
    Save(FakeNode, Vec<Utf8PathBuf>),
    Restore(FakeNode, Vec<Utf8PathBuf>),
}

/// Starts a program in a node that is to be as the config says.
pub(super) fn start(
    node: &FakeNode,
    config: &NodeConfig,
    request: &ExecRequest,
) -> Result<Process, Problem> {
    let program = find(node, config, request)?;
    let (stdin, input) = duplex(PIPE);
    let (output, stdout) = duplex(PIPE);
    let (errors, stderr) = duplex(PIPE);
    let piped = request.stdio == Stdio::Piped;
    let input: Reader = if piped { Box::new(input) } else { Box::new(empty()) };
    let task = tokio::spawn(run(program, Streams { input, output, errors }));
    let guard = Guard(task.abort_handle());
    let exit = async move {
        let _guard = guard;
        // Aborted only by the guard, which this holds.
        Ok(task.await.unwrap_or(137))
    };
    let inherited = request.stdio == Stdio::Inherited;
    Ok(Process {
        stdin: piped.then(|| Box::new(stdin) as _),
        stdout: (!inherited).then(|| Box::new(stdout) as _),
        stderr: (!inherited).then(|| Box::new(stderr) as _),
        exit: exit.boxed(),
    })
}

/// A stream on which nothing ever comes.
pub(super) fn silence() -> impl tokio::io::AsyncRead + Send + Unpin {
    struct Silence;
    impl tokio::io::AsyncRead for Silence {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Pending
        }
    }
    Silence
}

fn find(node: &FakeNode, config: &NodeConfig, request: &ExecRequest) -> Result<Program, Problem> {
    let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
    let unknown = || {
        let message = format!("`{}` cannot be run in node {}", words.join(" "), config.node);
        Problem::failed("provider.fake.exec", message)
    };
    let program = match words[..] {
        ["true"] => Program::Exit(0),
        ["false"] => Program::Exit(1),
        ["cat"] => Program::Copy,
        ["echo", ref words @ ..] => Program::Say(words.join(" ")),
        ["sleep", seconds] => Program::Sleep(Duration::from_secs(seconds.parse().unwrap_or(0))),
        ["sh", "-c", script] => shell(script, request),
        ["/bin/sh", "-c", ..] => Program::Exit(0),
        [paths::AGENT, "agent", "images", "--directory", paths::SHARED_IMAGES, ref names @ ..] => {
            Program::Register(names.iter().map(ToString::to_string).collect())
        }
        [paths::AGENT, "agent", "load", "-"] => Program::Load,
        [paths::AGENT, "agent", "status"] => Program::Status(Box::new(config.clone())),
        [paths::AGENT, "agent", "status", "--follow"] => {
            Program::FollowedStatus(Box::new(config.clone()))
        }
        [paths::AGENT, "agent", "etcd-log", folder] => {
            let files = node.files();
            let end = files.get(&Utf8Path::new(folder).join("log-end"));
            let end = end.map(|(_, text)| String::from_utf8_lossy(text).into_owned());
            Program::Say(end.unwrap_or_else(|| "0 0".to_owned()))
        }
        [paths::AGENT, "agent", verb @ ("save" | "restore"), ref words @ ..] => {
            let folders = data::folders(words).ok_or_else(unknown)?;
            let program = if verb == "save" { Program::Save } else { Program::Restore };
            program(node.clone(), folders)
        }
        _ => return Err(unknown()),
    };
    Ok(program)
}

fn shell(script: &str, request: &ExecRequest) -> Program {
    let words: Vec<&str> = script.split_whitespace().collect();
    match words[..] {
        ["exit", code] => Program::Exit(code.parse().unwrap_or(2)),
        ["kill", "-TERM", "$$"] => Program::Exit(128 + 15),
        ["echo", text, ">&2"] => Program::Complain(text.to_owned()),
        ["echo", name] => {
            let value = request.environment.get(name.trim_start_matches('$'));
            Program::Say(value.cloned().unwrap_or_default())
        }
        _ => Program::Exit(127),
    }
}

async fn run(program: Program, mut streams: Streams) -> i32 {
    let done = match program {
        Program::Exit(code) => return code,
        Program::Copy => copy(&mut streams.input, &mut streams.output).await.map(drop),
        Program::Say(text) => streams.output.write_all(format!("{text}\n").as_bytes()).await,
        Program::Complain(text) => streams.errors.write_all(format!("{text}\n").as_bytes()).await,
        Program::Sleep(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Program::Status(config) => {
            say_status(&config, NodePhase::Usable, &mut streams.output).await
        }
        Program::FollowedStatus(config) => follow_status(&config, &mut streams.output).await,
        Program::Register(names) => say_registered(&names, &mut streams.output).await,
        Program::Save(node, folders) => data::save(&node, &folders, &mut streams).await,
        Program::Restore(node, folders) => data::restore(&node, &folders, &mut streams).await,
        Program::Load => {
            let mut archive = String::new();
            let read = streams.input.read_to_string(&mut archive).await;
            if read.is_err() || archive.trim().is_empty() {
                // Nobody may be there to hear it.
                let _ = streams.errors.write_all(b"this is no archive\n").await;
                return 1;
            }
            say_registered(&[archive.trim().to_owned()], &mut streams.output).await
        }
    };
    i32::from(done.is_err())
}

/// First that it is starting, then that it is usable; then nothing more, for as long as anybody listens.
async fn follow_status(config: &NodeConfig, output: &mut DuplexStream) -> std::io::Result<()> {
    for phase in [NodePhase::Starting, NodePhase::Usable] {
        say_status(config, phase, output).await?;
    }
    std::future::pending().await
}

async fn say_status(
    config: &NodeConfig,
    phase: NodePhase,
    output: &mut DuplexStream,
) -> std::io::Result<()> {
    let status = NodeStatus {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        config: config.digest(),
        phase,
        uptime: if phase == NodePhase::Starting { 1 } else { 2 },
        units: Vec::new(),
        warnings: Vec::new(),
        problems: Vec::new(),
        usage: None,
    };
    let line = serde_json::to_string(&status)?;
    output.write_all(format!("{line}\n").as_bytes()).await
}

async fn say_registered(names: &[String], output: &mut DuplexStream) -> std::io::Result<()> {
    let image = |name| serde_json::json!({"name": name, "digest": "sha256:0", "isNew": true});
    let images: Vec<_> = names.iter().map(image).collect();
    output.write_all(serde_json::to_string(&images)?.as_bytes()).await
}
