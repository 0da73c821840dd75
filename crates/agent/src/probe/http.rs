//! HTTP and HTTPS. Connections are kept between tries, because on a small machine TLS handshakes are what probing costs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bivouac_spec::node::{Expect, HttpRequest, Tls};
use camino::Utf8Path;
use serde_json::Value;
use serde_json_path::JsonPath;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::clock;
use crate::logs::locked;
use crate::processes::reason;

/// Bodies are lists of a small cluster's objects; more than this is a mistake.
const MAX_BODY: u64 = 64 << 20;
/// Longer than the pause between two questions to what is ready.
const IDLE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// One client for each identity and timeout, made when first needed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients {
    made: Arc<Mutex<BTreeMap<Key, Agent>>>,
}

type Key = (Option<Tls>, Duration);

impl Clients {
    /// Sends the request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// A sentence saying why there is no answer.
    pub(crate) fn send(&self, request: &HttpRequest, timeout: Duration) -> Result<Reply, String> {
        let client = self.client(request.tls.as_ref(), timeout)?;
        let mut builder =
            Request::builder().method(request.method.as_str()).uri(request.url.as_str());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let wrong = |error: ureq::http::Error| format!("not an HTTP request: {error}");
        let body = body(request)?;
        let sent = match &body {
            Some(body) => client.run(builder.body(body.as_ref()).map_err(wrong)?),
            None => client.run(builder.body(()).map_err(wrong)?),
        };
        read(sent).map_err(|error| explain(&error, timeout))
    }

    /// Makes all clients anew when they are next needed: certificates may have changed.
    pub(crate) fn forget(&self) {
        locked(&self.made).clear();
    }

    fn client(&self, tls: Option<&Tls>, timeout: Duration) -> Result<Agent, String> {
        let key = (tls.cloned(), timeout);
        let mut made = locked(&self.made);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("bivouac/", env!("CARGO_PKG_VERSION")))
            .max_idle_age(IDLE)
            .input_buffer_size(16 << 10)
            .output_buffer_size(16 << 10)
            .timeout_global(Some(timeout))
            .tls_config(tls.map_or_else(|| Ok(TlsConfig::default()), tls_config)?)
            .build();
        let client = Agent::new_with_config(config);
        made.insert(key, client.clone());
        Ok(client)
    }
}

/// A client for an answer that goes on and on: it may take so long to begin, and be quiet for so long.
///
/// # Errors
/// A sentence saying why there is none.
pub(crate) fn patient(tls: &Tls, begin: Duration, quiet: Duration) -> Result<Agent, String> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("bivouac/", env!("CARGO_PKG_VERSION")))
        .input_buffer_size(16 << 10)
        .output_buffer_size(4 << 10)
        .timeout_connect(Some(begin))
        .timeout_recv_response(Some(begin))
        .timeout_per_read(Some(quiet))
        .tls_config(tls_config(tls)?)
        .build();
    Ok(Agent::new_with_config(config))
}

fn read(sent: Result<Response<Body>, ureq::Error>) -> Result<Reply, ureq::Error> {
    let mut response = sent?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec()?;
    Ok(Reply { status, body })
}

/// Why there is no answer, from a client with several timeouts.
pub(crate) fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        other => explain(other, Duration::ZERO),
    }
}

fn explain(error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {}", clock::render(timeout)),
        // What the other side says of the handshake comes as an input error.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            format!("TLS: {error}")
        }
        ureq::Error::Io(error) => reason(error),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        other => other.to_string(),
    }
}

fn tls_config(tls: &Tls) -> Result<TlsConfig, String> {
    let authority = certificates(&tls.authority)?;
    let identity = match &tls.identity {
        None => None,
        Some(identity) => {
            let key = PrivateKey::from_pem(&load(&identity.key)?)
                .map_err(|_| format!("{} holds no private key", identity.key))?;
            Some(ClientCert::new_with_certs(&certificates(&identity.certificate)?, key))
        }
    };
    let roots = RootCerts::Specific(Arc::new(authority));
    Ok(TlsConfig::builder().root_certs(roots).client_cert(identity).build())
}

/// The certificates in a file.
///
/// # Errors
/// A sentence saying why there are none.
pub(crate) fn certificates(path: &Utf8Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = load(path)?;
    let items = parse_pem(&pem).filter_map(Result::ok);
    let found: Vec<_> = items
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(format!("{path} holds no certificate")) } else { Ok(found) }
}

fn load(path: &Utf8Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {path}: {}", reason(&error)))
}

/// Whether the answer is as expected.
///
/// # Errors
/// What is different: `HTTP 503: etcd is not healthy`, `2 of 3 nodes are Ready`.
pub(crate) fn judge(reply: &Reply, expect: &Expect) -> Result<(), String> {
    let status = reply.status;
    let fits = match expect.status.as_slice() {
        [] => (200..300).contains(&status),
        wanted => wanted.contains(&status),
    };
    if !fits {
        let message = message(&reply.body);
        return Err(message.map_or_else(
            || format!("HTTP {status}"),
            |message| format!("HTTP {status}: {message}"),
        ));
    }
    let Some(json) = &expect.json else { return Ok(()) };
    let query = JsonPath::parse(&json.select)
        .map_err(|error| format!("`{}` is no JSONPath query: {error}", json.select))?;
    let body: Value = serde_json::from_slice(&reply.body)
        .map_err(|_| format!("HTTP {status} without a JSON body"))?;
    let found = query.query(&body).len();
    if found >= json.at_least {
        Ok(())
    } else {
        Err(format!("{found} of {} {}", json.at_least, json.what))
    }
}

/// What is sent: what the request says, or what a file holds.
fn body(request: &HttpRequest) -> Result<Option<Cow<'_, str>>, String> {
    let Some(path) = &request.body_file else {
        return Ok(request.body.as_deref().map(Cow::Borrowed));
    };
    let read = fs::read_to_string(path);
    read.map(|text| Some(Cow::Owned(text))).map_err(|error| format!("cannot read {path}: {error}"))
}

/// What a JSON body says went wrong, as Kubernetes and many others put it.
pub(crate) fn message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let message = body.get("message")?.as_str()?.trim();
    (!message.is_empty()).then(|| message.chars().take(300).collect())
}
