//! What containerd asks for, as the distribution specification has it. Pure.

use std::fmt;

use url::Url;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The registry as names of images begin with it: `docker.io`.
    pub(super) registry: String,
    /// The name behind it: `library/nginx`.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) reference: Reference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Blob,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(Digest),
}

/// A SHA-256 digest: the 64 digits of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Digest(String);

impl Digest {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let fits =
            digits.len() == 64 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(digits.to_owned()))
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(sha2::Sha256::digest(bytes)))
    }

    pub(super) fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, name, reference, .. } = self;
        match reference {
            Reference::Tag(tag) => write!(f, "{registry}/{name}:{tag}"),
            Reference::Digest(digest) => write!(f, "{digest} of {registry}/{name}"),
        }
    }
}

impl Kind {
    /// The word for it in a path.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Blob => "blobs",
        }
    }
}

impl Question {
    /// Reads path and query of a request. `None` for what this cache knows nothing of, such as other digests.
    pub(super) fn parse(target: &str) -> Option<Self> {
        let url = Url::parse("http://localhost/").ok()?.join(target).ok()?;
        let registry = url.query_pairs().find(|(key, _)| key == "ns")?.1.into_owned();
        let (rest, reference) = url.path().strip_prefix("/v2/")?.rsplit_once('/')?;
        let (name, word) = rest.rsplit_once('/')?;
        let kind = [Kind::Manifest, Kind::Blob].into_iter().find(|kind| kind.word() == word)?;
        let reference = match reference.contains(':') {
            true => Reference::Digest(Digest::parse(reference)?),
            false if kind == Kind::Manifest && is_tag(reference) => {
                Reference::Tag(reference.to_owned())
            }
            false => return None,
        };
        let fits = is_name(name) && is_registry(&registry);
        fits.then(|| Self { registry, name: name.to_owned(), kind, reference })
    }

    /// Where a registry whose API is at this URL has it.
    pub(super) fn url(&self, api: &str) -> String {
        format!("{api}/{}/{}/{}", self.name, self.kind.word(), self.reference)
    }

    /// The same image's part with this digest.
    pub(super) fn by(&self, digest: Digest) -> Self {
        Self { reference: Reference::Digest(digest), ..self.clone() }
    }
}

/// It becomes the name of a file.
fn is_tag(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    (1..=128).contains(&text.len()) && !text.starts_with(['.', '-']) && text.bytes().all(fits)
}

fn is_name(text: &str) -> bool {
    let fits =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'.' | b'-');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(fits);
    text.len() <= 255 && text.split('/').all(part)
}

/// A host and its port, which becomes a part of a URL.
fn is_registry(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn questions_are_read() {
        let tag = Question::parse("/v2/library/nginx/manifests/1.27?ns=docker.io").unwrap();
        assert_eq!(tag.to_string(), "docker.io/library/nginx:1.27");
        assert_eq!(tag.url("https://a/v2"), "https://a/v2/library/nginx/manifests/1.27");
        let digest = Digest::of(b"");
        assert_eq!(digest.digits(), DIGITS);
        let blob =
            Question::parse(&format!("/v2/a/blobs/sha256:{DIGITS}?ns=a.test%3A5000")).unwrap();
        assert_eq!((blob.registry.as_str(), blob.kind), ("a.test:5000", Kind::Blob));
        assert_eq!(blob.reference, Reference::Digest(digest));
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_question() {
        let upper = DIGITS.to_uppercase();
        for target in [
            "/v2/".to_owned(),
            "/v2/a/manifests/1".to_owned(),
            "/v2/a/manifests/..?ns=a".to_owned(),
            "/v2/a/manifests/.hidden?ns=a".to_owned(),
            "/v2/a/../b/tags/list?ns=a".to_owned(),
            "/v2/A/manifests/1?ns=a".to_owned(),
            "/v2/a%2F..%2Fb/manifests/1?ns=a".to_owned(),
            "/v2/a/manifests/1?ns=user@host".to_owned(),
            "/v2/a/manifests/1?ns=a/b".to_owned(),
            "/v2/a/blobs/1?ns=a".to_owned(),
            format!("/v2/a/blobs/sha256:{upper}?ns=a"),
            format!("/v2/a/blobs/sha512:{DIGITS}?ns=a"),
        ] {
            assert_eq!(Question::parse(&target), None, "{target}");
        }
    }
}
