//! Downloads from upstream releases: resumed, checked, and given up quickly where upstream cannot be reached.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::cancel::Cancel;
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::{Reporter, Unit};

/// To find out whether a host answers: name, connection, TLS and an answer, all together.
const PATIENCE: Duration = Duration::from_secs(3);
/// Without a byte for that long, a download is broken.
const SILENCE: Duration = Duration::from_secs(15);
/// Each attempt goes on where the last one ended.
const ATTEMPTS: u32 = 3;

/// An HTTP client that remembers which hosts answer. Respects `HTTPS_PROXY` and its kin.
pub(crate) struct Downloader {
    agent: ureq::Agent,
    reachable: Mutex<HashMap<String, bool>>,
}

impl Downloader {
    pub(crate) fn new() -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(PATIENCE))
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .new_agent();
        Self { agent, reachable: Mutex::default() }
    }

    /// Whether the URL's host answers; asked once a host.
    pub(crate) fn reachable(&self, url: &str) -> bool {
        let host = host(url).to_owned();
        let mut known = self.reachable.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(host).or_insert_with(|| {
            let request = self.agent.head(url).config().timeout_global(Some(PATIENCE)).build();
            request.call().is_ok_and(|response| response.status().as_u16() < 400)
        })
    }

    /// Brings the file into the work folder under the name of its digest.
    pub(crate) fn fetch(
        &self,
        url: &str,
        expected: &Sha256,
        work: &Utf8Path,
        reporter: Reporter<'_>,
        cancel: &Cancel,
    ) -> Result<Utf8PathBuf, Error> {
        let part = work.join(format!("{}.part", expected.hex()));
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            match self.attempt(url, &part, reporter, cancel) {
                Ok(()) => {
                    let found = Sha256::of_file(&part)?;
                    if found == *expected {
                        let path = work.join(expected.hex());
                        fs::rename(&part, &path).at("put in place", &path)?;
                        return Ok(path);
                    }
                    fs::remove_file(&part).at("remove", &part)?;
                    let (expected, found) = (expected.hex(), found.hex());
                    return Err(Error::Checksum { what: url.to_owned(), expected, found });
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Network(text)) => reason = text,
            }
        }
        Err(Error::Download { url: url.to_owned(), reason })
    }

    fn attempt(
        &self,
        url: &str,
        part: &Utf8Path,
        reporter: Reporter<'_>,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let mut done = fs::metadata(part).map_or(0, |metadata| metadata.len());
        let mut request = self.agent.get(url);
        if done > 0 {
            request = request.header("Range", format!("bytes={done}-"));
        }
        let mut response = request.call().map_err(|error| Failure::Network(error.to_string()))?;
        match response.status().as_u16() {
            206 => {}
            200 => done = 0,
            // The range begins at the end: the file is whole.
            416 => return Ok(()),
            status => return Err(Failure::Network(format!("the server answered {status}"))),
        }
        let total = response.body().content_length().map(|left| done + left);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .append(done > 0)
            .truncate(done == 0)
            .open(part)
            .at("open", part)?;
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            cancel.check()?;
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Network(error.to_string())),
            };
            file.write_all(&buffer[..count]).at("write", part)?;
            done += count as u64;
            reporter.progress(done, total, Unit::Bytes);
        }
        if total.is_some_and(|total| done < total) {
            return Err(Failure::Network("the connection ended too early".into()));
        }
        Ok(())
    }
}

enum Failure {
    /// Worth another attempt.
    Network(String),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Takes members out of a tar archive, plain or compressed, to names in a folder.
pub(crate) fn extract(
    archive: &Utf8Path,
    members: &BTreeMap<String, String>,
    into: &Utf8Path,
) -> Result<(), Error> {
    let file = fs::File::open(archive).at("open", archive)?;
    let (_, plain) = crate::stream::decompress(file).at("read", archive)?;
    let mut missing: BTreeMap<&str, &str> =
        members.iter().map(|(path, member)| (member.as_str(), path.as_str())).collect();
    let mut tar = tar::Archive::new(plain);
    for entry in tar.entries().at("read", archive)? {
        let mut entry = entry.at("read", archive)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(path) = missing.remove(name.trim_start_matches("./")) else { continue };
        let path = into.join(path);
        let mut out = fs::File::create(&path).at("create", &path)?;
        io::copy(&mut entry, &mut out).at("write", &path)?;
    }
    match missing.into_keys().next() {
        None => Ok(()),
        Some(member) => Err(Error::NotAnArchive {
            path: archive.to_string(),
            why: format!("it lacks {member}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Serves `content` for as many connections as given, each cut after `most` bytes of body.
    fn serve(content: &'static [u8], most: usize, connections: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                let mut start = 0;
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
                        start = range.trim_end_matches('-').parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let rest = &content[start..];
                let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
                let length = rest.len();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").unwrap();
                stream.write_all(&rest[..most.min(length)]).unwrap();
            }
        });
        url
    }

    fn fetch(url: &str, expected: &Sha256) -> (tempfile::TempDir, Result<Utf8PathBuf, Error>) {
        let folder = tempfile::tempdir().unwrap();
        let work = Utf8Path::from_path(folder.path()).unwrap();
        let reporter = Reporter { step: "test", on_event: &|_| () };
        let result = Downloader::new().fetch(url, expected, work, reporter, &Cancel::new());
        (folder, result)
    }

    #[test]
    fn a_broken_download_is_resumed() {
        let content = b"0123456789";
        let url = serve(content, 4, 3);
        let (_folder, path) = fetch(&url, &Sha256::of(content));
        assert_eq!(fs::read(path.unwrap()).unwrap(), content);
    }

    #[test]
    fn other_content_than_pinned_is_refused_and_not_kept() {
        let url = serve(b"evil", 4, 1);
        let (folder, result) = fetch(&url, &Sha256::of(b"good"));
        assert_eq!(result.unwrap_err().code(), "image.checksum");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_host_that_does_not_answer_is_known_at_once() {
        // A port that is given to no program that asks for any.
        let url = "http://127.0.0.1:1/file";
        let downloader = Downloader::new();
        assert!(!downloader.reachable(url));
        assert!(!downloader.reachable(url));
    }
}
