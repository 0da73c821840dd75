//! Logs, read from the host's side of the node's log folder: a stopped node has them too.

use std::fs::File;
use std::io;
use std::time::Duration;

use bivouac_provider::{LogRequest, Reader};
use bivouac_spec::name::nearest;
use bivouac_spec::{NodeName, Problem};
use bivouac_sys::filesystem::Tail;
use camino::{Utf8Path, Utf8PathBuf};
use futures::stream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::bytes::Bytes;
use tokio_util::io::StreamReader;

use super::folder::NodeFolder;
use super::problem::OrProblem as _;

/// The agent's own log.
const AGENT: &str = "agent";

/// What the node's first process says outside of any log.
const CONSOLE: &str = "console";

/// How much is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// How often a log that is followed is looked at. Watches of the kernel are few (`fs.inotify.max_user_instances`), and nodes
/// need them themselves.
const PROBE: Duration = Duration::from_millis(100);

/// Opens a log.
pub(super) fn open(
    folder: &NodeFolder,
    node: &NodeName,
    request: &LogRequest,
) -> Result<Reader, Problem> {
    let path = find(folder, node, request.service.as_deref())?;
    let message = format!("the log {path} cannot be read");
    let mut log = Tail::open(&path).or_problem("logs", &message)?;
    if request.service.is_none() {
        // The agent's own log takes the console's place as soon as it is there.
        log = log.succeeded_by(folder.logs().join(format!("{AGENT}.log")));
    }
    if let Some(lines) = request.tail {
        log.seek_to_lines(lines).or_problem("logs", &message)?;
    }
    Ok(if request.follow { follow(log) } else { to_end(log.into_file()) })
}

/// The file of a log, by the name of its service.
fn find(
    folder: &NodeFolder,
    node: &NodeName,
    service: Option<&str>,
) -> Result<Utf8PathBuf, Problem> {
    let logs = folder.logs();
    let mut names = list(&logs);
    let wanted = service.unwrap_or(AGENT);
    if names.iter().any(|name| name == wanted) {
        return Ok(logs.join(format!("{wanted}.log")));
    }
    // An agent that failed before it opened its log has said why there.
    let console = service.is_none() || wanted == CONSOLE;
    if console && folder.console().exists() {
        return Ok(folder.console());
    }
    names.push(CONSOLE.to_owned());
    let message = format!("node {node} has no log of `{wanted}`");
    let near = nearest(wanted, names.iter().map(String::as_str));
    let help = match near {
        Some(near) => format!("ask for `{near}`, or another of: {}", names.join(", ")),
        None => format!("ask for one of: {}", names.join(", ")),
    };
    Err(Problem::usage("provider.linux.no_log", message).help(help))
}

fn list(logs: &Utf8Path) -> Vec<String> {
    let entries = logs.read_dir_utf8().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn to_end(file: File) -> Reader {
    Box::new(tokio::fs::File::from_std(file))
}

/// A log that goes on.
struct Followed {
    log: Tail,
    ticks: tokio::time::Interval,
}

impl Followed {
    async fn next(&mut self) -> io::Result<Bytes> {
        let mut block = vec![0; BLOCK];
        loop {
            match self.log.read_more(&mut block)? {
                0 => _ = self.ticks.tick().await,
                length => {
                    block.truncate(length);
                    return Ok(block.into());
                }
            }
        }
    }
}

fn follow(log: Tail) -> Reader {
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let followed = Followed { log, ticks };
    let blocks = stream::unfold(followed, |mut followed| async move {
        let block = followed.next().await;
        Some((block, followed))
    });
    Box::new(StreamReader::new(Box::pin(blocks)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use tokio::io::AsyncReadExt as _;

    fn folder(dir: &tempfile::TempDir) -> NodeFolder {
        let folder = NodeFolder(dir.path().to_owned().try_into().unwrap());
        std::fs::create_dir_all(folder.logs()).unwrap();
        folder
    }

    fn request(service: Option<&str>, tail: Option<usize>, follow: bool) -> LogRequest {
        LogRequest { service: service.map(str::to_owned), tail, follow }
    }

    async fn text(folder: &NodeFolder, tail: Option<usize>) -> String {
        let node = "worker-0".parse().unwrap();
        let mut reader = open(folder, &node, &request(Some("etcd"), tail, false)).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_end_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let path = folder.logs().join("etcd.log");
        let long = "x".repeat(BLOCK);
        for (content, tail, expected) in [
            ("a\nb\nc\n".to_owned(), None, "a\nb\nc\n".to_owned()),
            ("a\nb\nc\n".to_owned(), Some(0), String::new()),
            ("a\nb\nc\n".to_owned(), Some(1), "c\n".to_owned()),
            ("a\nb\nc".to_owned(), Some(2), "b\nc".to_owned()),
            ("a\nb\n".to_owned(), Some(9), "a\nb\n".to_owned()),
            ("\n\n\n".to_owned(), Some(2), "\n\n".to_owned()),
            (format!("a\n{long}\n{long}\n"), Some(2), format!("{long}\n{long}\n")),
            (String::new(), Some(3), String::new()),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(text(&folder, tail).await, expected);
        }
    }

    #[tokio::test]
    async fn followed_over_rotation_and_cutting() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let path = folder.logs().join("agent.log");
        std::fs::write(&path, "old\none\n").unwrap();
        let node = "worker-0".parse().unwrap();
        let mut reader = open(&folder, &node, &request(None, Some(1), true)).unwrap();
        let mut expect = async |expected: &str| {
            let mut got = vec![0; expected.len()];
            reader.read_exact(&mut got).await.unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), expected);
        };
        expect("one\n").await;
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"two\n").unwrap();
        expect("two\n").await;
        std::fs::rename(&path, path.with_extension("log.1")).unwrap();
        file.write_all(b"late\n").unwrap();
        std::fs::write(&path, "three\nfour\n").unwrap();
        expect("late\nthree\nfour\n").await;
        std::fs::write(&path, "5\n").unwrap();
        expect("5\n").await;
    }

    #[tokio::test]
    async fn the_console_until_there_is_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        std::fs::write(folder.console(), "early\n").unwrap();
        let node = "worker-0".parse().unwrap();
        let mut reader = open(&folder, &node, &request(None, None, true)).unwrap();
        let mut got = [0; 6];
        reader.read_exact(&mut got).await.unwrap();
        std::fs::write(folder.logs().join("agent.log"), "started\n").unwrap();
        let mut got = [0; 8];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"started\n");
    }

    #[test]
    fn an_unknown_service_names_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        for name in ["agent", "kubelet", "etcd"] {
            std::fs::write(folder.logs().join(format!("{name}.log")), "").unwrap();
        }
        let node = "worker-0".parse().unwrap();
        let problem = |service| {
            let Err(problem) = open(&folder, &node, &request(Some(service), None, false)) else {
                panic!("there is a log of {service}")
            };
            problem
        };
        insta::assert_json_snapshot!([problem("kubelt"), problem("../../node")]);
    }
}
