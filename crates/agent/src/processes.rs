//! Starting processes and learning how they ended. PID 1 reaps everything, so nobody may wait for a child by itself: who
//! started one here is told, and all others come out of [`Processes::reap`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bivouac_spec::node::config::Environment;
use bivouac_sys::process::{ChildSetup, Signal};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, kill_process_group};

use crate::clock;
use crate::logs::{Log, last_line, locked};

/// Where programs of the node are.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The children of the agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    /// Held while a process is started, so that it is known before it can be reaped, and so that the standard library
    /// can itself reap a child whose program does not exist.
    waiting: Arc<Mutex<HashMap<u32, Sender<ExitStatus>>>>,
    /// Closed while the node is paused.
    gate: Arc<Gate>,
}

/// Whether processes may be started. Threads that want to wait until they may.
#[derive(Debug, Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Waits until it is open; it stays so until the guard is dropped.
    fn pass(&self) -> MutexGuard<'_, bool> {
        let mut is_closed = locked(&self.is_closed);
        while *is_closed {
            is_closed = self.opened.wait(is_closed).unwrap_or_else(PoisonError::into_inner);
        }
        is_closed
    }
}

/// A command with the environment of every process of the node, in the root folder, without input.
pub(crate) fn command(argv: &[String], environment: &Environment) -> Command {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command.args(argv.iter().skip(1)).current_dir("/").env_clear();
    command.env("PATH", PATH).env("HOME", "/root").envs(environment).stdin(Stdio::null());
    command
}

impl Processes {
    /// Lets nobody start a process until [`Self::open_gate`]. One that is being started is waited for.
    pub(crate) fn close_gate(&self) {
        *locked(&self.gate.is_closed) = true;
    }

    /// Whoever waited to start a process does.
    pub(crate) fn open_gate(&self) {
        *locked(&self.gate.is_closed) = false;
        self.gate.opened.notify_all();
    }

    /// Starts a process whose end is told by [`Self::reap`].
    pub(crate) fn start(&self, mut command: Command) -> io::Result<u32> {
        let _pass = self.gate.pass();
        let _guard = locked(&self.waiting);
        Ok(command.spawn()?.id())
    }

    /// Runs a command to its end in a session of its own; what it writes goes to the log, or its errors to the answer.
    ///
    /// # Errors
    /// A sentence: how it ended, and the last line it wrote.
    pub(crate) fn finish(
        &self,
        argv: &[String],
        timeout: Option<Duration>,
        log: Option<&Log>,
    ) -> Result<(), String> {
        let program = argv.first().map_or("", String::as_str);
        let cannot = |error: io::Error| format!("cannot run {program}: {}", reason(&error));
        let mut command = command(argv, &Environment::new());
        let mut errors = None;
        if let Some(log) = log {
            command.stdout(log.writer().map_err(cannot)?).stderr(log.writer().map_err(cannot)?);
        } else {
            let file = memfd_create("errors", MemfdFlags::CLOEXEC).map_err(|e| cannot(e.into()))?;
            command.stdout(Stdio::null()).stderr(file.try_clone().map_err(cannot)?);
            errors = Some(File::from(file));
        }
        ChildSetup { session: true, ..ChildSetup::default() }.apply(&mut command);
        let (pid, ended) = self.start_waited(command).map_err(cannot)?;
        let status = self.wait(pid, &ended, timeout);
        match status {
            Some(status) if status.success() => Ok(()),
            status => {
                let how = match (status, timeout) {
                    (Some(status), _) => describe(status),
                    (None, timeout) => {
                        format!("did not end within {}", clock::render(timeout.unwrap_or_default()))
                    }
                };
                let line = errors.map_or_else(|| log.and_then(Log::last_line), read_last_line);
                Err(line.map_or_else(|| how.clone(), |line| format!("{how}: {line}")))
            }
        }
    }

    /// Children that ended and that nobody waits for.
    pub(crate) fn reap(&self) -> Vec<(u32, ExitStatus)> {
        let mut waiting = locked(&self.waiting);
        let mut reaped = bivouac_sys::process::reap().unwrap_or_default();
        reaped.retain(|(pid, status)| match waiting.remove(pid) {
            Some(sender) => {
                let _ = sender.send(*status);
                false
            }
            None => true,
        });
        reaped
    }

    fn start_waited(&self, mut command: Command) -> io::Result<(u32, Receiver<ExitStatus>)> {
        let _pass = self.gate.pass();
        let mut waiting = locked(&self.waiting);
        let pid = command.spawn()?.id();
        let (sender, receiver) = mpsc::channel();
        waiting.insert(pid, sender);
        Ok((pid, receiver))
    }

    fn wait(
        &self,
        pid: u32,
        ended: &Receiver<ExitStatus>,
        timeout: Option<Duration>,
    ) -> Option<ExitStatus> {
        let Some(timeout) = timeout else { return ended.recv().ok() };
        match ended.recv_timeout(timeout) {
            Ok(status) => Some(status),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let waiting = locked(&self.waiting);
                // While it is in the map it is not reaped, so the number is still its own.
                let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
                if let Some(group) = group.filter(|_| waiting.contains_key(&pid)) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                None
            }
        }
    }
}

/// `exited with 1`, `was killed by signal 9 (SIGKILL)`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (_, Some(signal)) => match signal {
            9 => "was killed (SIGKILL)".to_owned(),
            11 => "crashed (SIGSEGV)".to_owned(),
            6 => "aborted (SIGABRT)".to_owned(),
            15 => "was terminated (SIGTERM)".to_owned(),
            _ => format!("was ended by signal {signal}"),
        },
        _ => "ended".to_owned(),
    }
}

/// Why a call failed, in a few words.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "no route to the network".to_owned(),
        _ => error.to_string(),
    }
}

fn read_last_line(mut file: File) -> Option<String> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(64 << 10).read_to_end(&mut text).ok()?;
    last_line(&text)
}
