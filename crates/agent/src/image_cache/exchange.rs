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
use super::folder::{Folder, Incoming, Key, Origin, Tag, Tagged};
use super::http::{Head, Request};
use super::question::{Digest, Question, Reference};
use super::room::{Gone, Patience, is_full};
use super::upstream::{Found, NotFound, Registries};

/// Longer than a registry may be silent; and less than the five minutes after which containerd gives up a pull of which nothing comes.
const PATIENCE: Patience =
    Patience { quiet: Duration::from_secs(90), longest: Duration::from_secs(240) };
const BUFFER: usize = 64 << 10;
/// What a few small files need.
const LITTLE: u64 = 16 << 10;
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
                    key: Key::of(question, upstreams, &self.config.cluster),
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
            Ok(Found { answer, .. }) => {
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
            Err(NotFound::Refused(status, why)) => {
                self.folder.forget_tag(self.label(tag));
                return self.refuse(status, &why, stream);
            }
            Err(NotFound::Away(why)) => match self.folder.tag(self.label(tag)) {
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

    /// Keeps what a registry said of a tag. That it may be had is said by who sends it.
    fn learn(&self, tagged: &Tagged, tag: &str) {
        if Digest::parse(&tagged.digest).is_some() {
            let kept = self.with_room(LITTLE, || self.folder.keep_tag(self.label(tag), tagged));
            self.tell(kept, "what is known of it is not kept");
        }
    }

    fn label<'a>(&'a self, name: &'a str) -> Tag<'a> {
        Tag { key: &self.key, cluster: &self.cache.config.cluster, name }
    }

    /// What has this digest: from the folder if we may have it, or else from a registry.
    fn content(&self, digest: &Digest, stream: &mut TcpStream) -> io::Result<bool> {
        let media = self.folder.media(&self.key, self.question.kind, digest);
        match media.zip(self.folder.blob(digest)) {
            Some((media, there)) => self.send(digest, &media, there, stream),
            None if self.request.is_head() => self.describe(digest, stream),
            None => self.fetch(digest, stream),
        }
    }

    /// Hands on what a registry says of something, which proves nothing.
    fn describe(&self, digest: &Digest, stream: &mut TcpStream) -> io::Result<bool> {
        let answer = match self.ask("HEAD", self.question) {
            Ok(found) => found.answer,
            Err(why) => return self.refuse_as(why, stream),
        };
        let length = field(&answer, "Content-Length").parse().ok();
        let head = Head::ok(length).with(MEDIA, field(&answer, MEDIA));
        head.with(DIGEST, digest.to_string()).write(stream)?;
        Ok(length.is_some())
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

    /// Gets it from a registry, unless another node did and the registry says that we may have it, too.
    fn fetch(&self, digest: &Digest, stream: &mut TcpStream) -> io::Result<bool> {
        let incoming = self.with_room(LITTLE, || self.folder.receive(digest, PATIENCE));
        let incoming = match incoming {
            Ok(incoming) => Some(incoming),
            Err(why) => {
                self.cache.log(&format!("{} is not kept: {why}", self.question));
                None
            }
        };
        if let Some(there) = self.folder.blob(digest) {
            match self.right(digest) {
                Ok(Some(media)) => {
                    drop(incoming);
                    return self.send(digest, &media, there, stream);
                }
                Ok(None) => {}
                Err(why) => return self.refuse_as(why, stream),
            }
        }
        if self.request.offset() > 0 {
            return self.refuse(416, "its beginning is not kept here", stream);
        }
        match self.ask("GET", self.question) {
            Ok(found) => self.relay(digest, found, incoming, stream),
            Err(why) => self.refuse_as(why, stream),
        }
    }

    /// The media type of what is there, if we may have it: because we got it meanwhile, or a registry says so that sent it once.
    /// Any other can say so of what it never had. `None` where only having it proves the right to it.
    fn right(&self, digest: &Digest) -> Result<Option<String>, NotFound> {
        if let Some(media) = self.folder.media(&self.key, self.question.kind, digest) {
            return Ok(Some(media));
        }
        let Found { answer, origin } = self.ask("HEAD", self.question)?;
        if !self.folder.is_from(&origin, digest) {
            return Ok(None);
        }
        let media = field(&answer, MEDIA);
        self.tell(self.allow(digest, &media), "what is known of it is not kept");
        Ok(Some(media))
    }

    /// Hands on what a registry sends, and keeps it.
    fn relay(
        &self,
        digest: &Digest,
        Found { answer, origin }: Found,
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
            let rest = length.map_or(0, |length| length.saturating_sub(size as u64));
            let kept = incoming.as_mut().map_or(Ok(()), |incoming| {
                self.with_room(rest + count as u64, || incoming.write(bytes))
            });
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
            self.keep(&incoming, digest, &origin, &media);
        }
        Ok(head.keeps())
    }

    fn keep(&self, incoming: &Incoming, digest: &Digest, origin: &Origin, media: &str) {
        let kept = self.with_room(LITTLE, || self.folder.keep(incoming, digest));
        let kept =
            kept.and_then(|()| self.with_room(LITTLE, || self.folder.keep_origin(origin, digest)));
        let kept = kept.and_then(|()| self.with_room(LITTLE, || self.allow(digest, media)));
        match kept.and_then(|()| self.folder.fit(self.cache.config.size.0)) {
            Ok(gone) => self.tell_of(gone),
            Err(error) => self.tell(Err(error), "it is not kept"),
        }
    }

    /// Does something that needs so much room. Where there is none, room is made, and it is done once more.
    fn with_room<T>(&self, needed: u64, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let full = match work() {
            Err(error) if is_full(&error) => error,
            done => return done,
        };
        match self.folder.make_room(needed) {
            Ok(Gone { bytes: 0, .. }) => Err(full),
            Ok(gone) => {
                self.tell_of(gone);
                work()
            }
            Err(error) => {
                self.tell(Err(error), "no room can be made");
                Err(full)
            }
        }
    }

    fn tell_of(&self, Gone { blobs, .. }: Gone) {
        if blobs > 0 {
            self.cache.log(&format!("{blobs} were removed that were not used for long"));
        }
    }

    fn allow(&self, digest: &Digest, media: &str) -> io::Result<()> {
        self.folder.allow(&self.key, self.question, digest, media)
    }

    fn ask(&self, method: &str, question: &Question) -> Result<Found, NotFound> {
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

    fn refuse_as(&self, why: NotFound, stream: &mut TcpStream) -> io::Result<bool> {
        match why {
            NotFound::Refused(status, why) => self.refuse(status, &why, stream),
            NotFound::Away(why) => self.refuse(502, &why, stream),
        }
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
