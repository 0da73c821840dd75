//! Sockets that stand in for an engine's: one that answers as an old engine does, and one behind which the engine is lost at a word.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A socket at which somebody answers. It goes with the value.
pub(crate) struct StandIn {
    path: PathBuf,
    ended: Arc<AtomicBool>,
}

impl StandIn {
    /// An engine that speaks this version of the API, and has nothing.
    pub(crate) fn of_version(path: PathBuf, api_version: &'static str) -> Self {
        Self::listen(path, move |mut stream, _| {
            let head = head(&mut stream)?;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = match path.split('?').next().unwrap_or_default() {
                "/version" => {
                    format!("{{\"ApiVersion\":\"{api_version}\",\"Version\":\"18.09.1\"}}")
                }
                "/info" => "{\"OSType\":\"linux\",\"NCPU\":2,\"MemTotal\":4294967296}".to_owned(),
                _ => "[]".to_owned(),
            };
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
        })
    }

    /// The engine at `socket`, until somebody asks it for something with `word` in it: then it is gone.
    pub(crate) fn until(path: PathBuf, socket: PathBuf, word: &'static str) -> Self {
        Self::listen(path, move |client, lost| {
            let engine = UnixStream::connect(&socket)?;
            let (mut answers, mut to_client) = (engine.try_clone()?, client.try_clone()?);
            thread::spawn(move || {
                let _ = io::copy(&mut answers, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Write);
            });
            pass_on(client, engine, word, lost)
        })
    }

    fn listen(
        path: PathBuf,
        answer: impl Fn(UnixStream, &Loss) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let loss = Loss { path: path.clone(), ended: Arc::clone(&ended) };
        let answer = Arc::new((answer, loss));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if answer.1.ended.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(stream), answer) = (stream, Arc::clone(&answer)) else { break };
                // Whoever asked sees what becomes of it.
                thread::spawn(move || drop((answer.0)(stream, &answer.1)));
            }
        });
        Self { path, ended }
    }

    /// Its name for clients.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Whether nobody answers any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        Loss { path: self.path.clone(), ended: Arc::clone(&self.ended) }.happens();
    }
}

/// The end of a listener.
struct Loss {
    path: PathBuf,
    ended: Arc<AtomicBool>,
}

impl Loss {
    fn happens(&self) {
        self.ended.store(true, Ordering::SeqCst);
        wake(&self.path);
    }
}

/// Lets a listener see that it is to end.
fn wake(path: &Path) {
    // One that has ended needs no waking.
    let _ = UnixStream::connect(path);
}

fn head(stream: &mut UnixStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, word: &str, lost: &Loss) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return to.shutdown(Shutdown::Write);
        }
        if buffer[..read].windows(word.len()).any(|part| part == word.as_bytes()) {
            lost.happens();
            from.shutdown(Shutdown::Both)?;
            return to.shutdown(Shutdown::Both);
        }
        to.write_all(&buffer[..read])?;
    }
}
