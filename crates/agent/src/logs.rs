//! Log files: what services write goes through a pipe each, so that nothing is lost when a file is rotated and the last line
//! of a service is known when it ends. One thread moves the bytes; it sleeps while nothing is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

const MAX_SIZE: u64 = 10 << 20;
const KEPT: u32 = 2;
/// Longest last line that is told.
const TAIL: usize = 400;

/// All log files of a node.
#[derive(Debug)]
pub(crate) struct Logs {
    directory: Utf8PathBuf,
    pipes: Arc<Pipes>,
    own: Mutex<Rotating>,
}

#[derive(Debug)]
struct Pipes {
    epoll: OwnedFd,
    all: Mutex<Vec<Arc<Log>>>,
}

/// The log of one service or task.
#[derive(Debug)]
pub(crate) struct Log {
    name: String,
    /// Kept open, so that a restarted service goes on with the same pipe and its children may outlive it.
    writer: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reader: OwnedFd,
    file: Rotating,
    tail: Vec<u8>,
}

impl Logs {
    /// Makes the folder and starts the thread. A folder that cannot be made loses the logs, never the node.
    pub(crate) fn open(directory: &Utf8Path) -> io::Result<Self> {
        let _ = fs::create_dir_all(directory);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let pipes = Arc::new(Pipes { epoll, all: Mutex::new(Vec::new()) });
        let theirs = Arc::clone(&pipes);
        std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(128 << 10)
            .spawn(move || theirs.follow())?;
        let own = Mutex::new(Rotating::new(directory.join("agent.log")));
        Ok(Self { directory: directory.to_owned(), pipes, own })
    }

    /// The log of that name, always the same one: two would rotate one file.
    pub(crate) fn open_log(&self, name: &str) -> io::Result<Arc<Log>> {
        let mut all = locked(&self.pipes.all);
        if let Some(log) = all.iter().find(|log| log.name == name) {
            return Ok(Arc::clone(log));
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(all.len() as u64);
        epoll::add(&self.pipes.epoll, &reader, data, epoll::EventFlags::IN)?;
        let file = Rotating::new(self.directory.join(format!("{name}.log")));
        let state = Mutex::new(State { reader, file, tail: Vec::new() });
        let log = Arc::new(Log { name: name.to_owned(), writer, state });
        all.push(Arc::clone(&log));
        Ok(log)
    }

    /// A line in the agent's own log.
    pub(crate) fn note(&self, text: &str) {
        let line = format!("{:.3} {text}\n", jiff::Timestamp::now());
        locked(&self.own).append(line.as_bytes());
    }

    /// Moves what is still in the pipes.
    pub(crate) fn drain(&self) {
        let all = locked(&self.pipes.all).clone();
        let mut buffer = vec![0; 64 << 10];
        for log in all {
            locked(&log.state).drain(&mut buffer);
        }
    }
}

impl Pipes {
    fn follow(&self) {
        let mut events = Vec::with_capacity(16);
        let mut buffer = vec![0; 64 << 10];
        loop {
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                let log = locked(&self.all).get(index).cloned();
                if let Some(log) = log {
                    locked(&log.state).drain(&mut buffer);
                }
            }
        }
    }
}

impl Log {
    /// An end of the pipe for a process.
    pub(crate) fn writer(&self) -> io::Result<OwnedFd> {
        self.writer.try_clone()
    }

    /// The last line that was written up to now.
    pub(crate) fn last_line(&self) -> Option<String> {
        let mut state = locked(&self.state);
        state.drain(&mut vec![0; 64 << 10]);
        last_line(&state.tail)
    }
}

/// The last line with anything in it.
pub(crate) fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

impl State {
    fn drain(&mut self, buffer: &mut [u8]) {
        while let Ok(count @ 1..) = rustix::io::read(&self.reader, &mut *buffer) {
            let chunk = &buffer[..count];
            self.file.append(chunk);
            self.tail.extend_from_slice(&chunk[count.saturating_sub(TAIL)..]);
            let surplus = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..surplus);
        }
    }
}

/// A file that is appended to, and set aside when it is large.
#[derive(Debug)]
struct Rotating {
    path: Utf8PathBuf,
    open: Option<(File, u64)>,
}

impl Rotating {
    fn new(path: Utf8PathBuf) -> Self {
        Self { path, open: None }
    }

    /// A full disk loses lines; the service must not suffer for it.
    fn append(&mut self, bytes: &[u8]) {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= MAX_SIZE) {
            self.set_aside();
        }
        if self.open.is_none() {
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path);
            self.open = file.ok().map(|file| {
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                (file, size)
            });
        }
        if let Some((file, size)) = &mut self.open {
            let _ = file.write_all(bytes);
            *size += bytes.len() as u64;
        }
    }

    fn set_aside(&mut self) {
        self.open = None;
        let old = |number: u32| format!("{}.{number}", self.path);
        for number in (1..KEPT).rev() {
            let _ = fs::rename(old(number), old(number + 1));
        }
        let _ = fs::rename(&self.path, old(1));
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_written_arrives_and_the_last_line_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let logs = Logs::open(directory).unwrap();
        let log = logs.open_log("one").unwrap();
        let mut writer = File::from(log.writer().unwrap());
        for number in 0..10_000 {
            writeln!(writer, "line {number}").unwrap();
        }
        writer.write_all(b"\n").unwrap();
        assert_eq!(log.last_line().as_deref(), Some("line 9999"));
        logs.drain();
        let text = fs::read_to_string(directory.join("one.log")).unwrap();
        assert_eq!(text.lines().count(), 10_001);
    }

    #[test]
    fn a_large_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("x.log");
        let mut file = Rotating::new(path.clone());
        let chunk = vec![b'x'; usize::try_from(MAX_SIZE).unwrap()];
        (0..4).for_each(|_| file.append(&chunk));
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["x.log", "x.log.1", "x.log.2"]);
        assert_eq!(fs::metadata(path).unwrap().len(), MAX_SIZE);
    }
}
