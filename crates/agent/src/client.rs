//! Talking to the agent of this node over its socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use bivouac_spec::node::{NodePhase, NodeStatus};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, PollFlags, poll};

use crate::clock;
use crate::protocol::{Reply, Request};

/// How long a follower, or who brings a config, waits for an agent that is just starting.
const START: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// Writes the status of the node as JSON to `out`: one line, or with `follow` one more whenever it changes.
///
/// A follower waits a while for an agent that is just starting, and goes on until the agent ends or nobody reads standard
/// output any more, which `out` is expected to be.
///
/// # Errors
/// No agent answers, or `out` cannot be written.
pub fn status(socket: &Utf8Path, follow: bool, out: &mut dyn Write) -> Result<(), Problem> {
    let patience = if follow { START } else { Duration::ZERO };
    let stream = connect(socket, patience)?;
    send(&stream, &Request::Status { follow }, socket)?;
    copy(stream, out).map_err(|error| {
        Problem::failed("agent.status.output", "cannot write the status").because(&error)
    })
}

/// Asks whether the node is usable, for who must know no more than that.
///
/// # Errors
/// One line that says why not.
pub fn is_healthy(socket: &Utf8Path) -> Result<(), String> {
    let mut line = Vec::new();
    let stream = connect(socket, Duration::ZERO).map_err(|problem| problem.message)?;
    send(&stream, &Request::Status { follow: false }, socket).map_err(|problem| problem.message)?;
    BufReader::new(stream)
        .read_until(b'\n', &mut line)
        .map_err(|error| lost(socket, &error).message)?;
    let status: NodeStatus =
        serde_json::from_slice(&line).map_err(|error| lost(socket, &error).message)?;
    verdict(&status)
}

fn verdict(status: &NodeStatus) -> Result<(), String> {
    let phase = match status.phase {
        NodePhase::Usable => return Ok(()),
        NodePhase::Applying | NodePhase::Starting => "starting",
        NodePhase::Degraded => "degraded",
        NodePhase::Stopping => "stopping",
        NodePhase::Failed => "failed",
    };
    let units = status.pending().map(|unit| match &unit.detail {
        Some(detail) => format!("{}: {detail}", unit.name),
        None => unit.name.clone(),
    });
    let problems = status.problems.iter().map(|problem| problem.message.clone());
    let reasons: Vec<String> = problems.chain(units).collect();
    let text = format!("node {} is {phase}: {}", status.node, reasons.join("; "));
    Err(text.replace('\n', " ").trim_end_matches([':', ' ']).to_owned())
}

/// Starts a service of the node anew.
///
/// # Errors
/// No agent answers, or there is no such service.
pub fn restart(socket: &Utf8Path, service: &str) -> Result<(), Problem> {
    ask(socket, &Request::Restart { service: service.to_owned() }, Duration::ZERO)
}

/// Makes the running node equal to its config file, which somebody has replaced. Returns when all but the units is as the config
/// has it, units have begun to become so, and the status shows the new config: whoever follows the status from now on sees nothing
/// of the one before.
///
/// An agent that is just starting is waited for a while: it may have read the file that was there before.
///
/// # Errors
/// No agent answers, it is stopping, or the config cannot be used: the node goes on as it was. Or it could be made true only in
/// part: the first thing that went wrong. The status shows the new config then and says that the node failed, its units go on as
/// they were, and applying the same config again tries again.
pub fn apply(socket: &Utf8Path) -> Result<(), Problem> {
    ask(socket, &Request::Apply {}, START)
}

/// Stops the node: everything in order, then the agent itself. Returns when the agent has begun to.
///
/// # Errors
/// No agent answers.
pub fn stop(socket: &Utf8Path) -> Result<(), Problem> {
    ask(socket, &Request::Stop {}, Duration::ZERO)
}

fn ask(socket: &Utf8Path, request: &Request, patience: Duration) -> Result<(), Problem> {
    let stream = connect(socket, patience)?;
    send(&stream, request, socket)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(|error| lost(socket, &error))?;
    match serde_json::from_str(&line) {
        Ok(Reply::Done(_) | Reply::Paused(_)) => Ok(()),
        Ok(Reply::Problem(problem)) => Err(problem),
        Err(error) => Err(lost(socket, &error)),
    }
}

/// A node in which nothing else moves, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lease {
    stream: BufReader<UnixStream>,
    socket: Utf8PathBuf,
    /// How many processes are stopped.
    pub(crate) processes: u32,
}

impl Lease {
    /// Stops everything in the node but the caller and those who started it, for no longer than `patience`.
    ///
    /// # Errors
    /// No agent answers, or the node cannot be paused.
    pub(crate) fn take(socket: &Utf8Path, patience: Duration) -> Result<Self, Problem> {
        let stream = connect(socket, Duration::ZERO)?;
        send(&stream, &Request::Pause { patience: clock::milliseconds(patience) }, socket)?;
        let mut lease =
            Self { stream: BufReader::new(stream), socket: socket.to_owned(), processes: 0 };
        match lease.answer() {
            Some(Reply::Paused(processes)) => Ok(Self { processes, ..lease }),
            Some(Reply::Problem(problem)) => Err(problem),
            _ => Err(lost(socket, &io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
    }

    /// Lets everything go on.
    ///
    /// # Errors
    /// It did before already.
    pub(crate) fn give_back(mut self) -> Result<(), ()> {
        let sent = send(self.stream.get_ref(), &Request::Thaw {}, &self.socket);
        if sent.is_ok() && self.answer() == Some(Reply::Done(true)) {
            return Ok(());
        }
        Err(())
    }

    fn answer(&mut self) -> Option<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

/// There is more than can be copied while nodes stand still.
pub(crate) fn late(bytes: u64, patience: Duration) -> Problem {
    let (megabytes, patience) = (bytes / 1_000_000, clock::render(patience));
    let text = format!(
        "the node went on before its data was copied: {megabytes} MB were copied in the {patience} that it may stand still"
    );
    Problem::failed("agent.pause.late", text).help("have less data in the node (`du -xh -d 3 /var` in it tells where it is: volumes, images of containers), or a faster disk below it; when something else was using the disk, run the same command again")
}

fn connect(socket: &Utf8Path, patience: Duration) -> Result<UnixStream, Problem> {
    let deadline = Instant::now() + patience;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                let waited = match patience {
                    Duration::ZERO => String::new(),
                    patience => format!(" after {}", clock::render(patience)),
                };
                let message = format!("no agent answers at {socket}{waited}");
                return Err(Problem::failed("agent.absent", message).because(&error));
            }
            // A probe with a short interval: the folder of the socket may not exist yet, so there is nothing to watch.
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

fn send(mut stream: &UnixStream, request: &Request, socket: &Utf8Path) -> Result<(), Problem> {
    let mut line = serde_json::to_vec(request).expect("requests have string keys only");
    line.push(b'\n');
    stream.write_all(&line).map_err(|error| lost(socket, &error))
}

fn lost(socket: &Utf8Path, error: &dyn std::error::Error) -> Problem {
    Problem::failed("agent.lost", format!("the agent at {socket} gave no answer")).because(error)
}

/// Copies what comes until the agent ends or the reader of standard output is gone.
fn copy(mut stream: UnixStream, out: &mut dyn Write) -> io::Result<()> {
    let stdout = io::stdout();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (from_agent, to_reader) = (stream.as_fd(), stdout.as_fd());
        let mut set = [
            PollFd::from_borrowed_fd(from_agent, PollFlags::IN),
            PollFd::from_borrowed_fd(to_reader, PollFlags::empty()),
        ];
        match poll(&mut set, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // An error on the writing end of a pipe: nobody holds the reading end.
        let reader_gone = set[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        if set[0].revents().is_empty() && reader_gone {
            return Ok(());
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                let written = out.write_all(&buffer[..count]).and_then(|()| out.flush());
                match written {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    other => other?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_why_a_node_is_not_usable() {
        let said = |phase: &str, units: serde_json::Value| {
            let status = serde_json::json!({
                "cluster": "demo", "node": "worker-0", "config": "", "phase": phase, "uptime": 1, "units": units,
            });
            verdict(&serde_json::from_value(status).unwrap())
        };
        let units = serde_json::json!([
            {"name": "etcd", "kind": "service", "state": "ready"},
            {"name": "kubelet", "kind": "service", "state": "restarting", "detail": "exited with 1:\nno disk"},
        ]);
        assert_eq!(said("usable", serde_json::json!([])), Ok(()));
        assert_eq!(
            said("stopping", serde_json::json!([])).unwrap_err(),
            "node worker-0 is stopping"
        );
        assert_eq!(
            said("degraded", units).unwrap_err(),
            "node worker-0 is degraded: kubelet: exited with 1: no disk"
        );
    }
}
