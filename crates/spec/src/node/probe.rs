//! Questions whose answer is yes or not yet. All waiting in bivouac is done with these; none is done by sleeping.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::quantity::Span;

/// Stands in a query for the moment of [`JsonExpect::since`].
pub const SINCE: &str = "{since}";

/// A [`Check`] and how often it is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// The question.
    pub check: Check,
    /// Time between the end of one try and the next while the answer is not yet.
    #[serde(default = "Probe::default_interval")]
    pub interval: Span,
    /// How long one try may take.
    #[serde(default = "Probe::default_timeout")]
    pub timeout: Span,
}

impl Probe {
    /// The check every 50 ms, 2 s for each try.
    #[must_use]
    pub const fn new(check: Check) -> Self {
        Self { check, interval: Self::default_interval(), timeout: Self::default_timeout() }
    }

    /// The same with another interval.
    #[must_use]
    pub const fn every(mut self, interval: Span) -> Self {
        self.interval = interval;
        self
    }

    /// The service that the question is about since it started, if it is such a question.
    #[must_use]
    pub fn since(&self) -> Option<&str> {
        let Check::Http { expect, .. } = &self.check else { return None };
        expect.json.as_ref()?.since.as_deref()
    }

    /// The same, with the moment (RFC 3339, whole seconds) at which that service was started.
    #[must_use]
    pub fn since_moment(mut self, moment: &str) -> Self {
        if let Check::Http { expect: Expect { json: Some(json), .. }, .. } = &mut self.check {
            json.select = json.select.replace(SINCE, moment);
        }
        self
    }

    const fn default_interval() -> Span {
        Span::millis(50)
    }

    const fn default_timeout() -> Span {
        Span::seconds(2)
    }
}

/// A question about a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// A Unix socket accepts connections.
    Socket(Utf8PathBuf),
    /// A TCP port accepts connections.
    Tcp(SocketAddr),
    /// An HTTP or HTTPS answer is as expected.
    Http {
        /// The request.
        request: HttpRequest,
        /// The answer that means yes.
        expect: Expect,
    },
    /// A path exists.
    File(Utf8PathBuf),
    /// A command exits with 0: program (absolute path) and arguments.
    Exec(Vec<String>),
    /// A DNS server answers a name with an address.
    Dns(Dns),
}

/// A DNS question over UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// The server.
    pub server: SocketAddr,
    /// The full name, without a dot at its end.
    pub name: String,
    /// Where the question is asked from.
    pub from: Vantage,
}

/// The network namespace that a question is asked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vantage {
    /// The node's own.
    Node,
    /// That of a pod: any one of the named network namespaces in this folder, except the one that has `server` itself.
    Pod {
        /// Where the container runtime keeps them.
        directory: Utf8PathBuf,
    },
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRequest {
    /// `GET`, `PATCH`, …
    pub method: String,
    /// `https://127.0.0.1:6443/readyz`
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: Option<String>,
    /// The body as a file in the node, so that no key is in a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_file: Option<Utf8PathBuf>,
    /// Whom to trust and who to be; for `https` only.
    #[serde(default)]
    pub tls: Option<Tls>,
}

impl HttpRequest {
    /// A plain `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        let (method, url) = ("GET".to_owned(), url.into());
        Self { method, url, headers: BTreeMap::new(), body: None, body_file: None, tls: None }
    }

    /// The same over TLS with these files.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// Files for TLS, as paths in the node, so that no key is in a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Certificates to trust, PEM.
    pub authority: Utf8PathBuf,
    /// The client's certificate and key, PEM.
    #[serde(default)]
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// Certificate, PEM.
    pub certificate: Utf8PathBuf,
    /// Key, PEM.
    pub key: Utf8PathBuf,
}

/// The answer that means yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// Status codes; empty means any 2xx.
    #[serde(default)]
    pub status: Vec<u16>,
    /// What the JSON body must hold.
    #[serde(default)]
    pub json: Option<Box<JsonExpect>>,
}

/// What a JSON body must hold: a JSONPath query (RFC 9535) that selects at least so many values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JsonExpect {
    /// The query.
    pub select: String,
    /// How many values it must select.
    pub at_least: usize,
    /// What is counted, for the sentence while waiting: `2 of 3 nodes are Ready`.
    pub what: String,
    /// A service: [`SINCE`] in the query stands for the moment at which its process was started. Such a question is not asked again
    /// once the answer is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl Expect {
    /// Any 2xx.
    #[must_use]
    pub const fn success() -> Self {
        Self { status: Vec::new(), json: None }
    }

    /// Any 2xx whose body selects at least so many values.
    pub fn json(select: impl Into<String>, at_least: usize, what: impl Into<String>) -> Self {
        let json = JsonExpect { select: select.into(), at_least, what: what.into(), since: None };
        Self { status: Vec::new(), json: Some(Box::new(json)) }
    }

    /// The same, where [`SINCE`] in the query stands for the moment at which this service was started.
    #[must_use]
    pub fn since(mut self, service: impl Into<String>) -> Self {
        if let Some(json) = &mut self.json {
            json.since = Some(service.into());
        }
        self
    }
}
