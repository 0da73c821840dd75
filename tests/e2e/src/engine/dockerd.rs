//! A `dockerd` of the tests' own, with everything of it in one folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::door::Door;
use super::firewall::Firewall;
use crate::ground::disk;
use crate::{SOON, say, wait_until};

const PREFIX: &str = "bivouac-e2e-docker-";
/// Longer than an engine gives its containers to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running or halted `dockerd`.
#[derive(Debug)]
pub(super) struct Dockerd {
    folder: PathBuf,
    daemon: Mutex<Option<Child>>,
    before: Firewall,
    door: Door,
}

impl Dockerd {
    /// Starts one, in a new folder.
    ///
    /// # Panics
    /// When it cannot be started, or another one shares this machine's packet filter: an engine that starts takes away the rules
    /// of others.
    pub(super) fn start() -> Self {
        remove_remains();
        if let Some(other) = another() {
            panic!("a dockerd runs here already ({other}): name its socket in $DOCKER_HOST");
        }
        let folder = new_daemon_folder();
        let door = Door::new(&folder);
        let own = Self { folder, daemon: Mutex::new(None), before: Firewall::take(), door };
        say(&format!("starting a dockerd in {}", own.folder.display()));
        own.resume();
        own
    }

    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(super) const fn door(&self) -> &Door {
        &self.door
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// Starts it where it was halted.
    pub(super) fn resume(&self) {
        let log = self.folder.join("log");
        let file = File::options().append(true).create(true).open(&log);
        let file = file.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        // It ends with the thread that starts it, which is the one that runs the cases: also when they are killed.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "TERM",
            "dockerd",
            "--bridge",
            "none",
            "--host",
            &self.host(),
        ]);
        command.args(self.door.options());
        for (option, name) in
            [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")]
        {
            command.arg(option).arg(self.folder.join(name));
        }
        // Not in the group of the tests: Ctrl-C is for them.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run setpriv: {error}"));
        *self.daemon() = Some(child);
        wait_until("dockerd answers", SOON, || {
            let ended =
                self.daemon().as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(!ended, "dockerd ended (is Debian's docker.io installed?):\n{}", said());
            if answers(&self.socket()) { Ok(()) } else { Err(said()) }
        });
    }

    /// Stops it, its containers with it.
    pub(super) fn halt(&self) {
        if let Some(child) = self.daemon().take() {
            end(child, &self.folder);
        }
    }

    /// Stops it and removes everything of it.
    pub(super) fn remove(&self) {
        self.halt();
        self.before.restore();
        remove_folder(&self.folder);
    }

    fn daemon(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder for the data of a `dockerd` whose file `pid` is in it. What a run that is killed leaves in it, a later run removes.
///
/// # Panics
/// When none can be made.
#[must_use]
pub fn new_daemon_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(disk());
    folder.expect("a folder can be made on the disk of the tests").keep()
}

/// Stops a `dockerd`, and removes its folder with all that is mounted in it.
///
/// # Panics
/// When the folder cannot be removed.
pub fn end_daemon(child: Child, folder: &Path) {
    end(child, folder);
    remove_folder(folder);
}

fn end(mut child: Child, folder: &Path) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a child that was not reaped is there");
    // It may have ended by itself.
    let _ = kill_process(pid, Signal::TERM);
    let patience =
        Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
    let ended =
        poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&patience));
    if !ended.is_ok_and(|ended| ended > 0) {
        say(&format!("dockerd does not end and is killed, its log is {}/log", folder.display()));
        let _ = kill_process(pid, Signal::KILL);
    }
    child.wait().expect("a child can be waited for");
}

/// Whether an engine answers at a socket.
pub(super) fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split_whitespace().nth(1) == Some("200"))
}

/// The command line of another `dockerd` in this network namespace.
fn another() -> Option<String> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes
        .filter_map(|process| {
            let name = fs::read_to_string(process.join("comm")).ok()?;
            let here = fs::read_link(process.join("ns/net")).ok()? == own;
            let command = fs::read_to_string(process.join("cmdline")).ok()?.replace('\0', " ");
            (name.trim() == "dockerd" && here).then_some(command)
        })
        .next()
}

/// Removes what runs left that were killed. The daemons of runs that go on are left alone.
fn remove_remains() {
    let entries = fs::read_dir(disk()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in ours.map(|entry| entry.path()) {
        let pid = fs::read_to_string(folder.join("pid")).unwrap_or_default();
        let command = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("cmdline"));
        let text = folder.to_string_lossy().into_owned();
        if pid.is_empty() || !command.is_ok_and(|command| command.contains(&text)) {
            remove_folder(&folder);
        }
    }
}

/// Removes a folder, and what a killed daemon left mounted in it.
fn remove_folder(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table is there");
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<&str> =
        targets.filter(|target| Path::new(target).starts_with(folder)).collect();
    below.reverse();
    for target in below {
        let _ = Command::new("umount").args(["--lazy", target]).output();
    }
    fs::remove_dir_all(folder)
        .unwrap_or_else(|error| panic!("cannot remove {}: {error}", folder.display()));
}
