//! Runs external commands: stdin closed, locale pinned, output read line by line, ended on cancellation.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8Path;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::cancel::Cancel;
use crate::error::{At, Error};
use crate::store::StoreLock;

/// Lines of stderr that a failure carries.
const TAIL: usize = 12;
/// How long a cancelled command may take to clean up.
const GRACE: Duration = Duration::from_secs(5);

/// A command and what surrounds it.
pub(crate) struct Run<'a> {
    pub(crate) command: &'a mut Command,
    /// Takes all of stderr.
    pub(crate) log: Option<&'a Utf8Path>,
    /// Becomes the child's stdin, and reads as empty: should this process be killed, the lock is held until the child
    /// has ended too, so that nobody works in the same folder.
    pub(crate) lock: Option<&'a StoreLock>,
    pub(crate) cancel: &'a Cancel,
}

/// Runs the command to its end. Every line of stderr is passed to `on_line`; stdout is returned.
pub(crate) fn run(run: Run<'_>, on_line: &mut dyn FnMut(&str)) -> Result<String, Error> {
    let Run { command, log, lock, cancel } = run;
    cancel.check()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut log = match log {
        Some(path) => Some((std::fs::File::create(path).at("create", path)?, path)),
        None => None,
    };
    let stdin = match lock {
        Some(lock) => lock.as_stdin()?,
        None => Stdio::null(),
    };
    // A group of its own: Ctrl-C on the terminal reaches this process alone, which then ends the child in its own way.
    let mut child = command
        .env("LC_ALL", "C.UTF-8")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .at("run", &program)?;
    let group = Pid::from_child(&child);
    let (running, ended) = mpsc::channel::<()>();
    let ended = Mutex::new(Some(ended));
    let on_cancel = cancel.on_cancel(move || {
        // It may be gone already.
        let _ = kill_process_group(group, Signal::TERM);
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            std::thread::spawn(move || kill_unless_ended(group, &ended));
        }
    });
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let mut tail = VecDeque::new();
    let mut logged = Ok(());
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if let Some((file, path)) = log.as_mut()
            && logged.is_ok()
        {
            logged = writeln!(file, "{line}").at("write", *path);
        }
        on_line(line);
        if !line.is_empty() {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        }
    }
    let status = child.wait().at("wait for", &program)?;
    drop((running, on_cancel));
    let output = reader.join().expect("the reader does not panic").at("read from", &program)?;
    cancel.check()?;
    logged?;
    if status.success() {
        return Ok(output);
    }
    Err(Error::Command {
        command: shell_text(command),
        status: status.to_string(),
        tail: tail.into(),
    })
}

/// Ends what does not heed SIGTERM. The other end of the channel is closed as soon as the number may be another's.
fn kill_unless_ended(group: Pid, ended: &Receiver<()>) {
    if ended.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn shell_text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut text = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if let Some(folder) = command.get_current_dir() {
        text = format!("cd {} && {text}", folder.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start<'a>(command: &'a mut Command, cancel: &'a Cancel) -> Run<'a> {
        Run { command, log: None, lock: None, cancel }
    }

    #[test]
    fn a_failure_carries_command_status_and_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = run(start(&mut command, &Cancel::new()), &mut |_| ()).unwrap_err();
        insta::assert_snapshot!(error, @r"
        `sh -c echo one; echo two >&2; exit 3` failed (exit status: 3):
          two
        ");
    }

    #[test]
    fn cancelling_ends_the_child() {
        let cancel = Cancel::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo started >&2; exec sleep 60"]);
        let error = run(start(&mut command, &cancel), &mut |_| cancel.cancel()).unwrap_err();
        assert_eq!(error.code(), "image.interrupted");
    }

    #[test]
    fn what_does_not_heed_a_request_to_end_is_killed() {
        let cancel = Cancel::new();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo started >&2; while :; do sleep 60; done"]);
        let error = run(start(&mut command, &cancel), &mut |_| cancel.cancel()).unwrap_err();
        assert_eq!(error.code(), "image.interrupted");
    }
}
