//! One question and its answer: from the folder, or from a registry and into the folder.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bivouac_spec::node::{ImageCache, Upstream};
use sha2::{Digest as _, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::Log;
use super::folder::{Folder, Incoming, Key, Tagged};
use super::http::{Head, Request};
use super::question::{Digest, Question, Reference};
use super::upstream::{Answer, Registries};

/// How long a node waits for another that is fetching the same.
const PATIENCE: Duration = Duration::from_secs(120);
const BUFFER: usize = 64 << 10;
/// What is said of the content of an answer.
const DIGEST: &str = "Docker-Content-Digest";
const MEDIA: &str = "Content-Type";

/// What all connections share.
pub(super) struct Cache {
    pub(super) config: ImageCache,
    pub(super) folder: Option<Folder>,
    pub(super) registries: Registries,
    pub(super) log: Log,
}

/// A question that can be answered.
struct Exchange<'a> {
    cache: &'a Cache,
    folder: &'a Folder,
    request: &'a Request,
    question: &'a Question,
    upstreams: &'a [Upstream],
    key: Key,
    accept: Vec<String>,
}

impl Cache {
    /// Answers a request; whether the connection can be used again.
    pub(super) fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<bool> {
        let token = request.field(&ImageCache::HEADER.to_ascii_lowercase());
        let question = Question::parse(&request.target);
        let refusal = match (&self.folder, &question) {
            _ if token != Some(&self.config.token.0) => {
                Head::refusal(403, "this is the node's own")
            }
            _ if !["GET", "HEAD"].contains(&request.method.as_str()) => {
                Head::refusal(405, "nothing can be changed here")
            }
            (None, _) => Head::refusal(503, "nodes share no folder here"),
            (_, None) => Head::refusal(404, "this cache has parts of images only"),
            (Some(folder), Some(question)) => {
                let upstreams = self.config.upstreams(&question.registry);
                let exchange = Exchange {
                    cache: self,
                    folder,
                    request,
                    question,
                    upstreams,
                    key: Key::of(question, upstreams),
                    accept: request.all("accept").map(str::to_owned).collect(),
                };
                return match &question.reference {
                    Reference::Tag(tag) => exchange.tag(tag, stream),
                    Reference::Digest(digest) => exchange.content(digest, stream),
                };
            }
        };
        refusal.write(stream)?;
        Ok(true)
    }

    fn log(&self, line: &str) {
        (self.log)(line);
    }
}

impl Exchange<'_> {
    /// What a tag means now; while nobody can be asked, what it meant last.
    fn tag(&self, tag: &str, stream: &mut TcpStream) -> io::Result<bool> {
        let tagged = match self.ask("HEAD", self.question) {
            Answer::Found(answer) => {
                let Some(tagged) = tagged(&answer) else {
                    return self.refuse(
                        502,
                        "the registry does not say what the tag means",
                        stream,
                    );
                };
                self.learn(&tagged, tag);
                tagged
            }
            Answer::Refused(status, why) => {
                self.folder.forget_tag(&self.key, tag);
                return self.refuse(status, &why, stream);
            }
            Answer::Away(why) => match self.folder.tag(&self.key, tag) {
                Some(tagged) => {
                    let Tagged { digest, .. } = &tagged;
                    self.cache.log(&format!("{}: {why}; it was {digest} last", self.question));
                    tagged
                }
                None => return self.refuse(502, &why, stream),
            },
        };
        let Some(digest) = Digest::parse(&tagged.digest) else {
            return self.refuse(502, "the registry has digests that are no SHA-256", stream);
        };
        if self.request.is_head() {
            let head = Head::ok(Some(tagged.size)).with(MEDIA, tagged.media);
            head.with(DIGEST, tagged.digest).write(stream)?;
            return Ok(true);
        }
        let question = self.question.by(digest.clone());
        let (key, accept) = (self.key.clone(), self.accept.clone());
        Exchange { question: &question, key, accept, ..*self }.content(&digest, stream)
    }

    /// Keeps what a registry said of a tag.
    fn learn(&self, tagged: &Tagged, tag: &str) {
        let Some(digest) = Digest::parse(&tagged.digest) else { return };
        let kept = self.folder.keep_tag(&self.key, tag, tagged);
        let kept = kept.and_then(|()| self.allow(&digest, &tagged.media));
        self.tell(kept, "what is known of it is not kept");
    }

    /// What has this digest: from the folder if we may have it, or else from a registry.
    fn content(&self, digest: &Digest, stream: &mut TcpStream) -> io::Result<bool> {
        let allowed = self.folder.media(&self.key, digest);
        let there = self.folder.blob(digest);
        let (media, there) = match (allowed, there) {
            (Some(media), Some(there)) => (media, there),
            (None, None) | (Some(_), None) if !self.request.is_head() => {
                return self.fetch(digest, stream);
            }
            (_, there) => {
                let answer = match self.ask("HEAD", self.question) {
                    Answer::Found(answer) => answer,
                    Answer::Refused(status, why) => return self.refuse(status, &why, stream),
                    Answer::Away(why) => return self.refuse(502, &why, stream),
                };
                let media = field(&answer, MEDIA);
                self.tell(self.allow(digest, &media), "what is known of it is not kept");
                let Some(there) = there else {
                    let length = field(&answer, "Content-Length").parse().ok();
                    let head = Head::ok(length).with(MEDIA, media);
                    head.with(DIGEST, digest.to_string()).write(stream)?;
                    return Ok(length.is_some());
                };
                (media, there)
            }
        };
        self.send(digest, &media, there, stream)
    }

    /// Sends what is in the folder.
    fn send(
        &self,
        digest: &Digest,
        media: &str,
        (mut file, size): (File, u64),
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let offset = self.request.offset();
        let head = match offset {
            0 => Head::ok(Some(size)),
            _ if offset < size => Head::rest(offset, size),
            _ => return self.refuse(416, "there is no more of it", stream),
        };
        head.with(MEDIA, media).with(DIGEST, digest.to_string()).write(stream)?;
        if self.request.is_head() {
            return Ok(true);
        }
        file.seek(SeekFrom::Start(offset))?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    stream.write_all(&buffer[..count])?;
                }
            }
        }
        if offset == 0 && hex::encode(hasher.finalize()) != digest.digits() {
            // containerd sees it, too, and asks again.
            self.cache.log(&format!("{digest} was damaged and is removed"));
            self.folder.remove_blob(digest);
        }
        Ok(true)
    }

    /// Gets it from a registry, unless another node does.
    fn fetch(&self, digest: &Digest, stream: &mut TcpStream) -> io::Result<bool> {
        if self.request.offset() > 0 {
            return self.refuse(416, "its beginning is not kept here", stream);
        }
        let incoming = match self.folder.receive(digest, PATIENCE) {
            Ok(incoming) => Some(incoming),
            Err(why) => {
                self.cache.log(&format!("{} is not kept: {why}", self.question));
                None
            }
        };
        if self.folder.blob(digest).is_some() {
            drop(incoming);
            return self.content(digest, stream);
        }
        match self.ask("GET", self.question) {
            Answer::Found(answer) => self.relay(digest, *answer, incoming, stream),
            Answer::Refused(status, why) => self.refuse(status, &why, stream),
            Answer::Away(why) => self.refuse(502, &why, stream),
        }
    }

    /// Hands on what a registry sends, and keeps it.
    fn relay(
        &self,
        digest: &Digest,
        answer: Response<Body>,
        mut incoming: Option<Incoming>,
        stream: &mut TcpStream,
    ) -> io::Result<bool> {
        let media = field(&answer, MEDIA);
        let length = answer.body().content_length();
        let head = Head::ok(length).with(MEDIA, media.clone()).with(DIGEST, digest.to_string());
        head.write(stream)?;
        let mut body = answer.into_body().into_reader();
        let (mut hasher, mut buffer, mut size) = (Sha256::new(), vec![0; BUFFER], 0);
        loop {
            let count = body.read(&mut buffer).inspect_err(|error| {
                self.cache.log(&format!("{} ended after {size} bytes: {error}", self.question));
            })?;
            if count == 0 {
                break;
            }
            let bytes = &buffer[..count];
            size += count;
            hasher.update(bytes);
            let kept = incoming.as_mut().map_or(Ok(()), |incoming| incoming.write(bytes));
            if kept.is_err() {
                incoming = None;
                self.tell(kept, "it is not kept");
            }
            stream.write_all(bytes)?;
        }
        if hex::encode(hasher.finalize()) != digest.digits() {
            self.cache.log(&format!("{} came as something else", self.question));
        } else if let Some(incoming) = incoming {
            self.cache.log(&format!("{}: {size} bytes fetched", self.question));
            self.keep(&incoming, digest, &media);
        }
        Ok(head.keeps())
    }

    fn keep(&self, incoming: &Incoming, digest: &Digest, media: &str) {
        let kept = self.folder.keep(incoming, digest).and_then(|()| self.allow(digest, media));
        match kept.and_then(|()| self.folder.shrink(self.cache.config.size.0)) {
            Ok(0) => {}
            Ok(count) => {
                self.cache.log(&format!("{count} were removed that were not used for long"))
            }
            Err(error) => self.tell(Err(error), "it is not kept"),
        }
    }

    fn allow(&self, digest: &Digest, media: &str) -> io::Result<()> {
        self.folder.allow(&self.key, self.question, digest, media)
    }

    fn ask(&self, method: &str, question: &Question) -> Answer {
        self.cache.registries.ask(self.upstreams, method, question, &self.accept)
    }

    /// containerd asks the registry itself then, and shows this if that does not help either.
    fn refuse(&self, status: u16, why: &str, stream: &mut TcpStream) -> io::Result<bool> {
        if status != 404 && status != 416 {
            self.cache.log(&format!("{}: {why}", self.question));
        }
        // Whoever is told that a password is wanted looks for one.
        let status = if status == 401 { 403 } else { status };
        Head::refusal(status, why).write(stream)?;
        Ok(true)
    }

    fn tell(&self, outcome: io::Result<()>, what: &str) {
        if let Err(error) = outcome {
            self.cache.log(&format!("{}: {what}: {error}", self.question));
        }
    }
}

/// What a registry says of a tag, if it says all.
fn tagged(answer: &Response<Body>) -> Option<Tagged> {
    let size = field(answer, "Content-Length").parse().ok()?;
    let (digest, media) = (field(answer, DIGEST), field(answer, MEDIA));
    (!digest.is_empty() && !media.is_empty()).then_some(Tagged { digest, media, size })
}

fn field(answer: &Response<Body>, name: &str) -> String {
    let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
