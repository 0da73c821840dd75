//! The little of HTTP that containerd and this cache say to each other. Requests have no body.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// The longest head of a request: a name of an image and a token.
const MOST: usize = 32 << 10;
const FIELDS: usize = 64;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Names in lower case.
    fields: Vec<(String, String)>,
    /// Whether the client wants to ask again over the same connection.
    pub(super) keeps: bool,
}

impl Request {
    /// The next request of a connection; `None` at its end. `left` is what was read of the one after it.
    pub(super) fn read(stream: &mut impl Read, left: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let mut buffer = [0; 4 << 10];
        loop {
            if let Some((request, length)) = Self::parse(left)? {
                left.drain(..length);
                return Ok(Some(request));
            }
            if left.len() > MOST {
                return Err(io::Error::other("the head of a request is too long"));
            }
            match stream.read(&mut buffer)? {
                0 if left.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        let parsed = head.parse(bytes).map_err(io::Error::other)?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let fields: Vec<(String, String)> = head
            .headers
            .iter()
            .map(|field| (field.name.to_ascii_lowercase(), text(field.value)))
            .collect();
        let (method, target) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
        let mut request =
            Self { method: method.to_owned(), target: target.to_owned(), fields, keeps: true };
        let closes = request.field("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        // What has a body is answered, and nothing is read after it.
        let has_body = ["transfer-encoding", "content-length"]
            .iter()
            .any(|name| request.field(name).is_some_and(|value| value != "0"));
        request.keeps = head.version == Some(1) && !closes && !has_body;
        Ok(Some((request, length)))
    }

    /// A header field; its name in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All header fields of a name.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Where the answer is to begin, counted from the first byte.
    pub(super) fn offset(&self) -> u64 {
        let range = self.field("range").and_then(|range| range.strip_prefix("bytes="));
        let first = range.and_then(|range| range.split_once('-')).map(|(first, _)| first);
        first.and_then(|first| first.parse().ok()).unwrap_or(0)
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    status: u16,
    /// What containerd shows where the status is no success.
    phrase: String,
    fields: Vec<(&'static str, String)>,
    /// Bytes of the body; until the end of the connection when absent.
    length: Option<u64>,
}

impl Head {
    pub(super) fn ok(length: Option<u64>) -> Self {
        Self { status: 200, phrase: "OK".to_owned(), fields: Vec::new(), length }
    }

    /// An answer without a body, which says why in its first line.
    pub(super) fn refusal(status: u16, phrase: &str) -> Self {
        let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { ' ' };
        let phrase = phrase.chars().take(300).map(plain).collect();
        Self { status, phrase, fields: Vec::new(), length: Some(0) }
    }

    /// The rest of something, from `offset` on.
    pub(super) fn rest(offset: u64, size: u64) -> Self {
        let mut head = Self::ok(Some(size.saturating_sub(offset)));
        (head.status, head.phrase) = (206, "Partial Content".to_owned());
        let last = size.saturating_sub(1);
        head.with("Content-Range", format!("bytes {offset}-{last}/{size}"))
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value: String = value.into();
        // Of what others said.
        if !value.is_empty() && !value.contains(['\r', '\n']) {
            self.fields.push((name, value));
        }
        self
    }

    /// Whether the connection can be used again after the body.
    pub(super) const fn keeps(&self) -> bool {
        self.length.is_some()
    }

    pub(super) fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, self.phrase);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.length {
            Some(length) => text.push_str(&format!("Content-Length: {length}\r\n\r\n")),
            None => text.push_str("Connection: close\r\n\r\n"),
        }
        stream.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_one_after_another() {
        let text = "GET /v2/a?ns=b HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\nAccept: c/d\r\nRange: bytes=7-\r\n\r\n\
                    HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let (mut stream, mut left) = (text.as_bytes(), Vec::new());
        let first = Request::read(&mut stream, &mut left).unwrap().unwrap();
        assert_eq!((first.target.as_str(), first.offset(), first.keeps), ("/v2/a?ns=b", 7, true));
        assert_eq!(first.all("accept").collect::<Vec<_>>(), ["a/b", "c/d"]);
        let second = Request::read(&mut stream, &mut left).unwrap().unwrap();
        assert_eq!((second.is_head(), second.offset(), second.keeps), (true, 0, false));
        assert_eq!(Request::read(&mut stream, &mut left).unwrap(), None);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\nHost"] {
            let (mut stream, mut left) = (text.as_bytes(), Vec::new());
            assert!(Request::read(&mut stream, &mut left).is_err(), "{text:?}");
        }
        let mut endless = io::repeat(b'a');
        assert!(Request::read(&mut endless, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_others_said_cannot_end_a_line() {
        let head = Head::refusal(502, "no\r\nSet-Cookie: a").with("Content-Type", "a\r\nb: c");
        assert_eq!((head.phrase.as_str(), head.fields.len()), ("no  Set-Cookie: a", 0));
    }
}
