//! Runs a command as a person would, and keeps all that it said for whoever reads a failed test.

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use serde_json::Value;

use crate::SOON;
use crate::wait::patience;

/// A command that is about to be run.
#[derive(Debug)]
#[must_use]
pub struct Run {
    command: Command,
    input: Vec<u8>,
    within: Duration,
}

impl Run {
    /// The program with no arguments yet, nothing on standard input, and some minutes to end: more than `up` gives itself.
    pub fn new(program: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut command = Command::new(program);
        // Ctrl-C reaches a group; so does the end of a test that failed.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        Self { command, input: Vec::new(), within: 5 * SOON }
    }

    /// With these arguments too.
    pub fn args<A: AsRef<std::ffi::OsStr>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.command.args(arguments);
        self
    }

    /// With this environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without this environment variable.
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Without any environment variable of the tests' own, for those that are added after this.
    pub fn without_environment(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// In this folder.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// As a user without any right.
    pub fn as_nobody(mut self) -> Self {
        self.command.uid(65534).gid(65534);
        self
    }

    /// With this on standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self.command.stdin(Stdio::piped());
        self
    }

    /// With so much time to end.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end in time, or leaves its output open to processes that it started.
    #[track_caller]
    pub fn outcome(self) -> Outcome {
        let within = self.within;
        self.start().finish(within)
    }

    /// Runs it to its end, which must be success.
    ///
    /// # Panics
    /// As [`Run::outcome`], and when it fails.
    #[track_caller]
    pub fn success(self) -> Outcome {
        self.outcome().expect_code(0)
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut self) -> Running {
        let line = line(&self.command);
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        let said = Arc::new(Said::default());
        let stdout = child.stdout.take().expect("standard output is piped");
        let stderr = child.stderr.take().expect("standard error is piped");
        said.lock().open = 2;
        said.collect(stdout, |heard| &mut heard.stdout);
        said.collect(stderr, |heard| &mut heard.stderr);
        if let Some(mut stdin) = child.stdin.take() {
            let input = std::mem::take(&mut self.input);
            // A command that does not read all of its input is judged by how it ends.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        Running { line, child, said, ended: false }
    }
}

/// The command as it would be typed.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[derive(Debug, Default)]
struct Said {
    heard: Mutex<Heard>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    open: u8,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(
        self: &Arc<Self>,
        mut from: impl Read + Send + 'static,
        into: fn(&mut Heard) -> &mut Vec<u8>,
    ) {
        let said = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                into(&mut said.lock()).extend_from_slice(&buffer[..read]);
                said.more.notify_all();
            }
            said.lock().open -= 1;
            said.more.notify_all();
        });
    }

    /// Waits until `found` finds something in what was said; `None` when the time is over or nothing more comes.
    fn wait<T>(&self, within: Duration, mut found: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut heard = self.lock();
        loop {
            if let Some(found) = found(&heard) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || heard.open == 0 {
                return None;
            }
            heard = self.more.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A command that runs. With it ends its process group.
#[derive(Debug)]
#[must_use]
pub struct Running {
    line: String,
    child: Child,
    said: Arc<Said>,
    ended: bool,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a whole line of standard error of which `wanted` is true.
    ///
    /// # Panics
    /// When [`SOON`] is over or the command ends without it.
    #[track_caller]
    pub fn wait_for_error_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_line(what, |heard| &heard.stderr, wanted)
    }

    /// Waits for a whole line of standard output of which `wanted` is true.
    ///
    /// # Panics
    /// When [`SOON`] is over or the command ends without it.
    #[track_caller]
    pub fn wait_for_output_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_line(what, |heard| &heard.stdout, wanted)
    }

    /// Waits for a whole line of standard error of which `wanted` is true; false when the command ends without it.
    ///
    /// # Panics
    /// When [`SOON`] is over without any of both.
    #[track_caller]
    pub fn sees_error_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> bool {
        let come = self.said.wait(SOON * patience(), |heard| {
            let text = String::from_utf8_lossy(&heard.stderr);
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let is_there = whole.lines().any(&wanted);
            (is_there || heard.open == 0).then_some(is_there)
        });
        come.unwrap_or_else(|| panic!("waited for {what} from `{}`", self.line))
    }

    #[track_caller]
    fn wait_for_line(
        &self,
        what: &str,
        of: fn(&Heard) -> &Vec<u8>,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let found = self.said.wait(SOON * patience(), |heard| {
            let text = String::from_utf8_lossy(of(heard));
            let (whole, _) = text.rsplit_once('\n')?;
            whole.lines().find(|line| wanted(line)).map(str::to_owned)
        });
        found.unwrap_or_else(|| {
            let heard = self.said.lock();
            let [stdout, stderr] =
                [&heard.stdout, &heard.stderr].map(|said| String::from_utf8_lossy(said));
            panic!("waited for {what} from `{}`\nstdout: {stdout}\nstderr: {stderr}", self.line)
        })
    }

    /// Whether it has said all that it will say: it is over, or about to be.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.said.lock().open == 0
    }

    /// Kills the command, as by `kill -9`, and nothing that it started.
    pub fn kill(&self) {
        // It may have ended by itself.
        let _ = kill_process(self.pid(), Signal::KILL);
    }

    /// Kills it with all of its process group, as the end of a session does.
    pub fn kill_group(&self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
    }

    /// Interrupts it as Ctrl-C on a terminal does: the whole group.
    pub fn interrupt(&self) {
        let _ = kill_process_group(self.pid(), Signal::INT);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time, or leaves its output open to processes that it started.
    #[track_caller]
    pub fn finish(mut self, within: Duration) -> Outcome {
        let within = within * patience();
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty())
            .expect("a child that was not reaped is there");
        let timeout =
            Timespec { tv_sec: within.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
        let ended =
            poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout));
        let in_time = ended.is_ok_and(|ended| ended > 0);
        if !in_time {
            let _ = kill_process_group(self.pid(), Signal::KILL);
        }
        let status = self.child.wait().expect("a child can be waited for");
        self.ended = true;
        let closed = self.said.wait(SOON, |heard| (heard.open == 0).then_some(()));
        let heard = self.said.lock();
        let outcome = Outcome {
            line: self.line.clone(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            output: heard.stdout.clone(),
            stderr: String::from_utf8_lossy(&heard.stderr).into_owned(),
        };
        assert!(in_time, "killed after {} s: {outcome}", within.as_secs());
        assert!(
            closed.is_some(),
            "ended, and left its output open to processes that it started: {outcome}"
        );
        drop(heard);
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
#[must_use]
pub struct Outcome {
    line: String,
    /// The exit code; 128 and the signal's number for one that a signal ended.
    pub code: i32,
    /// Standard output as it is.
    pub output: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output as text.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The same, if the exit code is this.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "wanted exit code {code}: {self}");
        self
    }

    /// The same, if standard error has all of these in it.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn expect_errors(self, wanted: &[&str]) -> Self {
        for wanted in wanted {
            assert!(self.stderr.contains(wanted), "wanted `{wanted}` on standard error: {self}");
        }
        self
    }

    /// The same, if standard output has all of these in it.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn expect_output(self, wanted: &[&str]) -> Self {
        for wanted in wanted {
            assert!(self.stdout().contains(wanted), "wanted `{wanted}` on standard output: {self}");
        }
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.output)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, code, stderr, .. } = self;
        let (stdout, stderr) = (shortened(&self.stdout()), shortened(stderr));
        write!(f, "`{line}`\nexit code: {code}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// The end of a text, with the ends of long lines left out: events can be very long.
fn shortened(text: &str) -> String {
    const LINES: usize = 60;
    const WIDTH: usize = 400;
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| {
        match line.char_indices().nth(WIDTH) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => (*line).to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join("\n")
}
