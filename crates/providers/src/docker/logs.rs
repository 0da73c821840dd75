//! Logs of a node that does not run: its files are on the volume, and the engine reads them out as an archive.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};

use bivouac_provider::{LogRequest, Reader};
use bivouac_spec::Problem;
use bivouac_spec::name::nearest;
use bivouac_spec::node::paths;
use bollard::errors::Error;
use bollard::query_parameters::{DownloadFromContainerOptions, LogsOptions};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::io::duplex;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::task::AbortOnDropHandle;

use super::exec::Room;
use super::node::Reading;
use super::problem::{OrProblem as _, status, usage};

/// The agent's own log.
const AGENT: &str = "agent";

/// What the node's first process says outside of any log: the container's.
const CONSOLE: &str = "console";

/// Bytes that wait to be read.
const BUFFER: usize = 64 * 1024;

/// The log of a service of a node that does not run. There is nothing to follow.
pub(super) async fn of_stopped(room: &Room, request: &LogRequest) -> Result<Reader, Problem> {
    let wanted = request.service.as_deref().unwrap_or(AGENT);
    let known = names(room).await?;
    if known.iter().any(|name| name == wanted) {
        let file = format!("{}/{wanted}.log", paths::LOGS);
        let message = format!("the log of `{wanted}` of node {} cannot be read", room.node);
        return Ok(first_file(archive(room, &file), request.tail, message));
    }
    if request.service.is_none() || wanted == CONSOLE {
        return Ok(console(room, request.tail));
    }
    let known: Vec<&str> = known.iter().map(String::as_str).chain([CONSOLE]).collect();
    let message = format!("node {} has no log of `{wanted}`", room.node);
    let help = match nearest(wanted, known.iter().copied()) {
        Some(near) => format!("ask for `{near}`, or another of: {}", known.join(", ")),
        None => format!("ask for one of: {}", known.join(", ")),
    };
    Err(usage("no_log", message).help(help))
}

fn archive(room: &Room, path: &str) -> impl Stream<Item = Result<Bytes, Error>> + use<> {
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    room.docker.download_from_container(&room.container, Some(options))
}

/// The names of all logs.
async fn names(room: &Room) -> Result<Vec<String>, Problem> {
    let message = format!("the logs of node {} cannot be listed", room.node);
    let mut stream = Box::pin(archive(room, paths::LOGS).peekable());
    match stream.as_mut().peek().await {
        // It never ran.
        Some(Err(error)) if status(error) == Some(404) => return Ok(Vec::new()),
        _ => {}
    }
    let reader = StreamReader::new(stream.map_err(io::Error::other));
    let bridge = SyncIoBridge::new(reader);
    let listed = tokio::task::spawn_blocking(move || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in tar::Archive::new(bridge).entries()? {
            let entry = entry?;
            let path = entry.path()?;
            let name = path.file_name().and_then(|name| name.to_str());
            names.extend(name.and_then(|name| name.strip_suffix(".log")).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    });
    let listed = listed.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    listed.or_problem("logs", message)
}

/// The content of the first file of an archive.
fn first_file(
    stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    tail: Option<usize>,
    message: String,
) -> Reader {
    let (reader, writer) = duplex(BUFFER);
    let input = SyncIoBridge::new(StreamReader::new(Box::pin(stream.map_err(io::Error::other))));
    let mut output = SyncIoBridge::new(writer);
    let copy = move || -> io::Result<()> {
        let mut archive = tar::Archive::new(input);
        if let Some(entry) = archive.entries()?.next() {
            match tail {
                None => drop(io::copy(&mut entry?, &mut output)?),
                Some(lines) => {
                    last_lines(entry?, lines)?.iter().try_for_each(|line| output.write_all(line))?
                }
            }
        }
        output.shutdown()
    };
    // Ends, too, when nobody reads any more.
    let end = tokio::task::spawn_blocking(move || copy().or_problem("logs", message).map(|()| 0));
    Box::new(Reading { output: Box::new(reader), end: Some(AbortOnDropHandle::new(end)) })
}

fn last_lines(content: impl Read, count: usize) -> io::Result<VecDeque<Vec<u8>>> {
    let (mut content, mut lines) = (BufReader::new(content), VecDeque::new());
    loop {
        let mut line = Vec::new();
        if content.read_until(b'\n', &mut line)? == 0 {
            return Ok(lines);
        }
        lines.push_back(line);
        if lines.len() > count {
            lines.pop_front();
        }
    }
}

/// What the container's own log has.
fn console(room: &Room, tail: Option<usize>) -> Reader {
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        tail: tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
        ..LogsOptions::default()
    };
    let lines = room.docker.logs(&room.container, Some(options));
    let bytes = lines.map_ok(|line| line.into_bytes()).map_err(io::Error::other);
    Box::new(StreamReader::new(Box::pin(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_log_that_breaks_off_is_an_error() {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_cksum();
        let start = Bytes::copy_from_slice(header.as_bytes());
        let broken = Error::IOError { err: io::ErrorKind::ConnectionReset.into() };
        let pieces = [Ok(start), Ok(Bytes::from_static(b"ab")), Err(broken)];
        let mut log = first_file(futures::stream::iter(pieces), None, "no log".to_owned());
        let mut text = String::new();
        let error = log.read_to_string(&mut text).await.unwrap_err();
        assert!(error.to_string().contains("no log"), "{error}");
    }

    #[test]
    fn the_end_of_a_log() {
        for (content, count, expected) in
            [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb", 1, "b"), ("a\n", 0, ""), ("a\n", 9, "a\n")]
        {
            let lines: Vec<u8> =
                last_lines(content.as_bytes(), count).unwrap().into_iter().flatten().collect();
            assert_eq!(lines, expected.as_bytes());
        }
    }
}
