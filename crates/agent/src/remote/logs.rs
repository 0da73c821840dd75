//! Logs of the node's services.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_spec::name::nearest;
use bivouac_sys::filesystem::Tail;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{refuse, started};

/// The agent's own log.
const AGENT: &str = "agent";

/// How often a log that is followed is looked at. Watches of the kernel are few (`fs.inotify.max_user_instances`), and what runs in
/// the node needs them itself.
const PROBE: Duration = Duration::from_millis(100);

/// How much is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// Which log, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// The service; the agent itself when absent.
    pub service: Option<String>,
    /// Only so many of its last lines.
    pub tail: Option<usize>,
    /// Go on until standard input ends.
    pub follow: bool,
}

/// Copies a log of this folder to standard output.
#[must_use]
pub fn logs(folder: &Utf8Path, request: &LogRequest) -> ExitCode {
    let (path, mut log) = match open(folder, request) {
        Ok(opened) => opened,
        Err(problem) => return refuse(problem),
    };
    started();
    match copy(&mut log, request.follow) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads no more has no complaint.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => refuse(unreadable(&path).because(&error)),
    }
}

fn open(folder: &Utf8Path, request: &LogRequest) -> Result<(Utf8PathBuf, Tail), Problem> {
    let path = find(folder, request.service.as_deref().unwrap_or(AGENT))?;
    let opened = Tail::open(&path).and_then(|mut log| {
        request.tail.map_or(Ok(()), |lines| log.seek_to_lines(lines))?;
        Ok(log)
    });
    match opened {
        Ok(log) => Ok((path, log)),
        Err(error) => Err(unreadable(&path).because(&error)),
    }
}

fn unreadable(path: &Utf8Path) -> Problem {
    Problem::failed("agent.logs.failed", format!("the log {path} cannot be read"))
}

/// The file of a log, by the name of its service: a name that is not listed leads nowhere.
fn find(folder: &Utf8Path, wanted: &str) -> Result<Utf8PathBuf, Problem> {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    if names.iter().any(|name| name == wanted) {
        return Ok(folder.join(format!("{wanted}.log")));
    }
    let problem = Problem::usage("agent.no_log", format!("there is no log of `{wanted}`"));
    let all = names.join(", ");
    Err(match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => problem.help(format!("ask for `{near}`, or another of: {all}")),
        None if names.is_empty() => problem,
        None => problem.help(format!("ask for one of: {all}")),
    })
}

fn copy(log: &mut Tail, follow: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let mut block = vec![0; BLOCK];
    loop {
        match log.read_more(&mut block)? {
            0 if follow && is_wanted()? => {}
            0 => return output.flush(),
            length => {
                output.write_all(&block[..length])?;
                output.flush()?;
            }
        }
    }
}

/// Waits a moment; false when nobody is at the other end any more.
fn is_wanted() -> io::Result<bool> {
    let (input, output) = (io::stdin(), io::stdout());
    let mut set = [
        PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(output.as_fd(), PollFlags::empty()),
    ];
    let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(PROBE.subsec_nanos()) };
    match poll(&mut set, Some(&moment)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(true),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    if !set[1].revents().is_empty() {
        return Ok(false);
    }
    // Whatever is said means nothing, only its end does.
    let mut said = [0; 512];
    Ok(rustix::io::read(input.as_fd(), &mut said).is_ok_and(|length| length > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_service_names_the_nearest() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(directory.path()).unwrap();
        for name in ["agent", "kubelet", "etcd"] {
            std::fs::write(folder.join(format!("{name}.log")), "").unwrap();
        }
        assert_eq!(find(folder, "etcd").unwrap(), folder.join("etcd.log"));
        let problem = find(folder, "kubelt").unwrap_err();
        assert_eq!(problem.class.exit_code(), 2);
        assert_eq!(problem.message, "there is no log of `kubelt`");
        assert_eq!(problem.help.unwrap(), "ask for `kubelet`, or another of: agent, etcd, kubelet");
        assert!(find(folder, "../agent").is_err());
    }
}
