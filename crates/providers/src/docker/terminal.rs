//! Commands whose streams are this process's own, a terminal included.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _, Read as _};

use bivouac_provider::{ExecRequest, Process};
use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use bollard::Docker;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::ResizeExecOptions;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::exec::{Manner, Room, Running};
use super::node::{ended, exec_arguments};
use super::problem::{OrProblem as _, failed};

/// Bytes of input that are read at once.
const PIECE: usize = 16 * 1024;

/// Runs a command on this process's own streams.
pub(super) async fn exec(room: &Room, request: &ExecRequest) -> Result<Process, Problem> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        on_terminal(room, request).await
    } else {
        on_pipes(room, request).await
    }
}

async fn on_pipes(room: &Room, request: &ExecRequest) -> Result<Process, Problem> {
    let arguments = exec_arguments(request, None);
    let running = room.run(arguments, Manner { answers: true, input: true }).await?;
    let Running { stdin, mut stdout, mut stderr, end } = running;
    let copying = async move {
        let (mut own_out, mut own_err) = (tokio::io::stdout(), tokio::io::stderr());
        let input = async {
            if let Some(stdin) = stdin {
                send_input(stdin).await;
            }
            std::future::pending().await
        };
        let output = async {
            let copied = tokio::join!(
                tokio::io::copy(&mut stdout, &mut own_out),
                tokio::io::copy(&mut stderr, &mut own_err),
            );
            // Whoever reads our output may have had enough of it: then the command ends as with a pipe.
            copied.0.and(copied.1).map(drop)
        };
        tokio::select! {
            copied = output => copied,
            never = input => match never {},
        }
    };
    let exit = async move {
        if copying.await.is_err() {
            return Ok(128 + rustix::process::Signal::PIPE.as_raw());
        }
        ended(end).await
    };
    Ok(Process { stdin: None, stdout: None, stderr: None, exit: exit.boxed() })
}

/// Sends what comes on standard input, to its end.
async fn send_input(mut target: impl AsyncWrite + Unpin) {
    let mut pieces = own_input();
    while let Some(piece) = pieces.recv().await {
        if target.write_all(&piece).await.is_err() || target.flush().await.is_err() {
            return;
        }
    }
}

/// Standard input, read by a thread of its own: a read that waits for a person must not keep the program from ending, which one on a
/// thread of the runtime does.
fn own_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        loop {
            match io::stdin().lock().read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&piece[..length])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

async fn on_terminal(room: &Room, request: &ExecRequest) -> Result<Process, Problem> {
    let message = format!("a command cannot be run in node {}", room.node);
    let command = [paths::AGENT.to_owned(), "agent".to_owned()].into_iter();
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(true),
        cmd: Some(command.chain(exec_arguments(request, Some("--inherit"))).collect()),
        ..ExecConfig::default()
    };
    let exec = room.docker.create_exec(&room.container, config).await;
    let exec = room.running(exec, &message)?.id;
    let options = StartExecOptions { tty: true, ..StartExecOptions::default() };
    let started = room.docker.start_exec(&exec, Some(options)).await;
    let StartExecResults::Attached { mut output, input } = room.running(started, &message)? else {
        return Err(failed("exec", message));
    };
    let raw = Raw::enter().or_problem("terminal", "the terminal cannot be set")?;
    let resizes = signal(SignalKind::window_change());
    let resizes = resizes.or_problem("terminal", "the size of the terminal cannot be followed")?;
    let (docker, room, id) = (room.docker.clone(), room.clone(), exec.clone());
    let task = tokio::spawn(async move {
        let _raw = raw;
        let receiving = async {
            let mut own = tokio::io::stdout();
            while let Some(part) = output.next().await {
                let bytes = part?.into_bytes();
                own.write_all(&bytes).await?;
                own.flush().await?;
            }
            Ok::<(), Error>(())
        };
        let sending = async {
            send_input(input).await;
            std::future::pending().await
        };
        let received = tokio::select! {
            received = receiving => received,
            never = sending => match never {},
            never = follow_size(&docker, &id, resizes) => match never {},
        };
        received.or_problem("exec", format_args!("the connection to node {} broke", room.node))?;
        room.exit_code(&exec).await
    });
    let exit = ended(AbortOnDropHandle::new(task)).boxed();
    Ok(Process { stdin: None, stdout: None, stderr: None, exit })
}

/// Keeps the size of the command's terminal that of ours.
async fn follow_size(docker: &Docker, exec: &str, mut resizes: Signal) -> Infallible {
    loop {
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            let size = ResizeExecOptions { h: i32::from(size.ws_row), w: i32::from(size.ws_col) };
            // A size that is not taken is no reason to end the command.
            let _ = docker.resize_exec(exec, size).await;
        }
        if resizes.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// The terminal hands over every key as it is, until this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
