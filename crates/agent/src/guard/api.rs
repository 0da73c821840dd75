//! incusd, asked over its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use serde_json::Value;

/// Bodies are lists of a small cluster's instances; more than this is a mistake.
const MAX_BODY: usize = 64 << 20;

/// Sends a request and gives what incusd answers, without its envelope. An operation that goes on is given as its path.
///
/// # Errors
/// A sentence: why there is no answer, or what incusd says is wrong.
pub(super) fn ask(
    socket: &Utf8Path,
    (method, path): (&str, &str),
    body: Option<&Value>,
    timeout: Duration,
) -> Result<Value, String> {
    let answer = send(socket, &request((method, path), body), timeout)?;
    let body = body_of(&answer)?;
    let mut envelope: Value = serde_json::from_slice(body)
        .map_err(|error| format!("incusd answered with no JSON: {error}"))?;
    match envelope["type"].as_str() {
        Some("sync") => Ok(envelope["metadata"].take()),
        Some("async") => Ok(envelope["operation"].take()),
        _ => {
            let said = envelope["error"].as_str().unwrap_or("it did not say why");
            Err(format!("incusd refused: {said}"))
        }
    }
}

/// Of HTTP 1.0, so that the answer is as long as the connection and comes in one piece.
fn request((method, path): (&str, &str), body: Option<&Value>) -> String {
    let body = body.map(Value::to_string).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.0\r\nHost: incus\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn send(socket: &Utf8Path, request: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + timeout;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            format!("incusd did not answer within {} s", timeout.as_secs_f64())
        }
        _ => format!("incusd cannot be asked at {socket}: {error}"),
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        // Zero would mean no limit.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        match stream.read(&mut piece).map_err(failed)? {
            0 => return Ok(answer),
            read => answer.extend_from_slice(&piece[..read]),
        }
        if answer.len() > MAX_BODY {
            return Err("incusd answered with too much".to_owned());
        }
        if Instant::now() >= deadline {
            return Err(failed(std::io::ErrorKind::TimedOut.into()));
        }
    }
}

fn body_of(answer: &[u8]) -> Result<&[u8], String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    end.map(|end| &answer[end + 4..]).ok_or_else(|| "incusd answered with no HTTP".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// It only ends what hangs.
    const PATIENCE: Duration = Duration::from_secs(120);
    const BODY: &str = "{\"action\":\"stop\"}";

    /// A server that gives one answer, and what it was asked.
    fn asked(answer: &'static str) -> (Result<Value, String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(BODY.as_bytes()) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let body = serde_json::json!({"action": "stop"});
        let got = ask(&path, ("PUT", "/1.0/x"), Some(&body), PATIENCE);
        (got, server.join().unwrap())
    }

    #[test]
    fn answers_are_taken_out_of_their_envelopes() {
        let (got, asked_for) = asked("HTTP/1.0 200 OK\r\n\r\n{\"type\":\"sync\",\"metadata\":[1]}");
        assert_eq!(got.unwrap(), serde_json::json!([1]));
        assert!(asked_for.starts_with("PUT /1.0/x HTTP/1.0\r\n"), "{asked_for}");
        assert!(asked_for.ends_with(&format!("\r\n\r\n{BODY}")), "{asked_for}");
        let (got, _) =
            asked("HTTP/1.0 202 OK\r\n\r\n{\"type\":\"async\",\"operation\":\"/1.0/o\"}");
        assert_eq!(got.unwrap(), serde_json::json!("/1.0/o"));
        let (got, _) = asked("HTTP/1.0 500 No\r\n\r\n{\"type\":\"error\",\"error\":\"no quorum\"}");
        assert_eq!(got.unwrap_err(), "incusd refused: no quorum");
        assert!(asked("nonsense").0.unwrap_err().contains("no HTTP"));
    }

    #[test]
    fn who_says_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let silent = ask(&path, ("GET", "/"), None, Duration::from_millis(50)).unwrap_err();
        assert!(silent.contains("within 0.05 s"), "{silent}");
        let absent = ask(&path.join("x"), ("GET", "/"), None, PATIENCE);
        assert!(absent.unwrap_err().contains("cannot be asked"));
    }
}
