//! A command of the user's in the node.
//!
//! ```text
//!  frames --> [feed] --> stdin of the command      one loop; it sleeps until there is input, room for it,
//!                  `--> end of the stream: kill     or the end of the command
//! ```
//!
//! The command leads a session of its own, whose processes are killed together when nobody is at the other end any more. When this
//! process is killed itself, the kernel ends the command.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};

use bivouac_spec::Problem;
use bivouac_spec::node::config::Environment;
use bivouac_spec::node::stream::{Decoder, FRAME_MAX, Part};
use bivouac_sys::process::{ChildSetup, PidFd, Signal, signal_group};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{give_up, lookup, started};
use crate::processes::{PATH, command, reason};

/// The exit code for trouble of our own, as container engines have it.
const TROUBLE: u8 = 125;

/// A command to be run.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables beside those of every process of the node.
    pub environment: Environment,
    /// The command reads nothing; standard input only tells that somebody is there.
    pub no_input: bool,
    /// Become the command, on a terminal: no frames, no answer.
    pub inherit: bool,
}

/// Runs the command and returns its exit code: 128 + N when signal N ended it.
#[must_use]
pub fn exec(request: &ExecRequest) -> ExitCode {
    let search = request.environment.get("PATH").map_or(PATH, String::as_str);
    let program = lookup::find(request.command.first().map(String::as_str), search);
    let program = match program {
        Ok(program) => program,
        Err(error) if request.inherit => return complain(&error, error.exit_code()),
        Err(error) => {
            let code = error.exit_code();
            return give_up(error.into(), code);
        }
    };
    let mut command = command(&request.command, &request.environment);
    if request.inherit {
        command.envs(std::env::var_os("TERM").map(|term| ("TERM", term)));
        command.envs(&request.environment).stdin(Stdio::inherit());
        let error = command.exec();
        return complain(&refused(program.as_str(), &error), 126);
    }
    if !request.no_input {
        command.stdin(Stdio::piped());
    }
    run(command, program.as_str())
}

fn run(mut command: Command, program: &str) -> ExitCode {
    let parent_death_signal = Some(Signal::KILL);
    ChildSetup { session: true, parent_death_signal, ..ChildSetup::default() }.apply(&mut command);
    // Before the command can write: what follows this line is its own.
    started();
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return complain(&refused(program, &error), 126),
    };
    let pid = child.id();
    let ended = attend(child);
    match ended {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            let _ = signal_group(pid, Signal::KILL);
            complain(&Problem::from_error("agent.exec.failed", &error), TROUBLE)
        }
    }
}

/// As a shell says it, where no other answer can be given any more.
fn complain(what: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "bivouac: {what}");
    ExitCode::from(code)
}

fn refused(program: &str, error: &io::Error) -> String {
    format!("`{program}` cannot be run: {}", reason(error))
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(255)
}

/// Feeds the command until it ends, and ends it when the stream does.
fn attend(mut child: Child) -> io::Result<ExitStatus> {
    let process = PidFd::open(child.id()).map_err(io::Error::other)?;
    let mut feed = Feed::new(child.stdin.take())?;
    let stdin = io::stdin();
    loop {
        let is_idle = feed.pending.is_empty();
        let mut set = vec![
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), if is_idle { PollFlags::IN } else { NOTHING }),
        ];
        if let Some(input) = &feed.input {
            let wanted = if is_idle { NOTHING } else { PollFlags::OUT };
            set.push(PollFd::from_borrowed_fd(input.as_fd(), wanted));
        }
        match poll(&mut set, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let events: Vec<PollFlags> = set.iter().map(PollFd::revents).collect();
        if !events[0].is_empty() {
            return child.wait();
        }
        match events.get(2) {
            Some(events) if events.contains(PollFlags::ERR) => feed.close(),
            Some(events) if !events.is_empty() => feed.write()?,
            _ => {}
        }
        let is_there = if events[1].contains(PollFlags::IN) {
            feed.read(stdin.as_fd())?
        } else {
            // Told even while the command takes nothing and so nothing is read.
            events[1].is_empty()
        };
        if !is_there {
            signal_group(child.id(), Signal::KILL).map_err(io::Error::other)?;
            return child.wait();
        }
    }
}

const NOTHING: PollFlags = PollFlags::empty();

/// What is on its way from the stream to the command.
struct Feed {
    /// Absent when the command reads nothing, or nothing more.
    input: Option<ChildStdin>,
    decoder: Decoder,
    pending: Vec<u8>,
    buffer: Vec<u8>,
}

impl Feed {
    fn new(input: Option<ChildStdin>) -> io::Result<Self> {
        if let Some(input) = &input {
            fcntl_setfl(input, fcntl_getfl(input)? | OFlags::NONBLOCK)?;
        }
        let (decoder, buffer) = (Decoder::default(), vec![0; FRAME_MAX]);
        Ok(Self { input, decoder, pending: Vec::new(), buffer })
    }

    /// Takes what has come; false: the stream has ended, or what comes are no frames.
    fn read(&mut self, from: BorrowedFd<'_>) -> io::Result<bool> {
        let length = match rustix::io::read(from, &mut self.buffer[..]) {
            Ok(0) => return Ok(false),
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = &self.buffer[..length];
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Some(Part::Data(data))) if self.input.is_some() => {
                    self.pending.extend_from_slice(data);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Ok(false),
            }
        }
        self.write()?;
        Ok(true)
    }

    /// Gives the command what it takes now.
    fn write(&mut self) -> io::Result<()> {
        use rustix::io::Errno;
        while let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
            match rustix::io::write(input, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::PIPE) => self.close(),
                Err(error) => return Err(error.into()),
            }
        }
        if self.decoder.has_ended() {
            self.close();
        }
        Ok(())
    }

    /// The command gets no more, or wants no more.
    fn close(&mut self) {
        self.input = None;
        self.pending.clear();
    }
}
