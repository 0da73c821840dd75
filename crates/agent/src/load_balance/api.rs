//! What is asked of the API.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::time::Duration;

use bivouac_spec::node::{HttpRequest, Tls};
use serde_json::{Value, json};
use ureq::Agent;

use super::book::Book;
use super::object::Service;
use crate::probe::{Clients, patient};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The API server says at least once a minute how far it is.
const QUIET: Duration = Duration::from_secs(150);
/// Who writes.
const NAME: &str = "bivouac-load-balancer";
const NAMESPACE: &str = "kube-system";
const ADDRESSES: &str = "addresses";

/// The API.
#[derive(Clone)]
pub(super) struct Api {
    server: SocketAddr,
    tls: Tls,
    clients: Clients,
}

/// An answer that is not the one that was hoped for.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Somebody was faster.
    Conflict,
    Absent,
    /// What was seen.
    Other(String),
}

impl From<String> for Trouble {
    fn from(seen: String) -> Self {
        Self::Other(seen)
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Conflict => "somebody else changed it".to_owned(),
            Trouble::Absent => "it is not there".to_owned(),
            Trouble::Other(seen) => seen,
        }
    }
}

/// The book as it is in the API.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) book: Book,
    /// Its version; absent when there is no book.
    pub(super) version: Option<String>,
}

impl Api {
    pub(super) fn new(server: SocketAddr, tls: Tls) -> Self {
        Self { server, tls, clients: Clients::default() }
    }

    /// All objects, and their version.
    pub(super) fn list(&self, path: &str) -> Result<(Vec<Value>, String), String> {
        let mut list = self.send("GET", path, None)?;
        let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let version = version.unwrap_or_default().to_owned();
        match list["items"].take() {
            Value::Array(items) => Ok((items, version)),
            _ => Err("a list without items".to_owned()),
        }
    }

    /// A client for [`Self::watch`], which keeps a connection for it.
    pub(super) fn watcher(&self) -> Result<Agent, String> {
        patient(&self.tls, TIMEOUT, QUIET)
    }

    /// Lines of changes since this version, as they come.
    pub(super) fn watch(
        &self,
        watcher: &Agent,
        path: &str,
        version: &str,
    ) -> Result<impl BufRead + use<>, String> {
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!(
            "{path}{join}watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=3000"
        );
        let sent = watcher.get(self.url(&path)).call().map_err(|error| error.to_string())?;
        match sent.status().as_u16() {
            200 => Ok(BufReader::new(sent.into_body().into_reader())),
            status => Err(format!("HTTP {status}")),
        }
    }

    pub(super) fn service_is_there(&self, key: &str) -> Result<bool, String> {
        match self.send("GET", &service_path(key), None) {
            Ok(found) => Ok(<Service as super::object::Object>::read(&found).is_some()),
            Err(Trouble::Absent) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    /// Writes the addresses of a Service into its status.
    pub(super) fn publish(
        &self,
        key: &str,
        service: &Service,
        addresses: &[std::net::IpAddr],
    ) -> Result<(), Trouble> {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let ingress = if ingress.is_empty() { Value::Null } else { Value::Array(ingress) };
        let patch = json!({
            // Not into another one of the same name.
            "metadata": {"uid": service.uid},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let path = format!("{}/status?fieldManager={NAME}", service_path(key));
        self.send("PATCH", &path, Some(&patch)).map(drop)
    }

    pub(super) fn read_book(&self) -> Result<Stored, String> {
        let found = match self.send("GET", &book_path(), None) {
            Ok(found) => found,
            Err(Trouble::Absent) => return Ok(Stored::default()),
            Err(other) => return Err(other.into()),
        };
        // A book that cannot be read is one that is lost: what it said is in the Services' status.
        let text = found["data"][ADDRESSES].as_str().unwrap_or_default();
        let book = serde_json::from_str(text).unwrap_or_default();
        let version = found.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        Ok(Stored { book, version: version.map(str::to_owned) })
    }

    /// Writes the book, unless somebody else did since it was read.
    pub(super) fn write_book(&self, book: &Book, version: Option<&str>) -> Result<(), Trouble> {
        let text = serde_json::to_string(book).expect("addresses are written as strings");
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {ADDRESSES: text},
        });
        let (method, path) = match version {
            Some(version) => {
                object["metadata"]["resourceVersion"] = version.into();
                ("PUT", book_path())
            }
            None => ("POST", format!("/api/v1/namespaces/{NAMESPACE}/configmaps")),
        };
        self.send(method, &path, Some(&object)).map(drop)
    }

    /// Says at the Service what is wrong, once for each `mark`.
    pub(super) fn warn(
        &self,
        key: &str,
        service: &Service,
        mark: &str,
        message: &str,
    ) -> Result<(), String> {
        let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
            .unwrap_or_default()
            .to_string();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}.{mark}"), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Service", "name": name, "namespace": namespace, "uid": service.uid,
            },
            "reason": "NoLoadBalancerAddress",
            "message": message,
            "type": "Warning",
            "source": {"component": NAME},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let path = format!("/api/v1/namespaces/{namespace}/events");
        match self.send("POST", &path, Some(&event)) {
            Ok(_) | Err(Trouble::Conflict) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.server)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let mut request = HttpRequest::get(self.url(path)).tls(self.tls.clone());
        request.method = method.to_owned();
        request.body = body.map(Value::to_string);
        if body.is_some() {
            let kind =
                if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            request.headers.insert("Content-Type".to_owned(), kind.to_owned());
        }
        let reply = self.clients.send(&request, TIMEOUT)?;
        match reply.status {
            200..300 => serde_json::from_slice(&reply.body)
                .map_err(|error| Trouble::Other(format!("no JSON: {error}"))),
            404 => Err(Trouble::Absent),
            409 => Err(Trouble::Conflict),
            status => Err(Trouble::Other(match crate::probe::message(&reply.body) {
                Some(message) => format!("HTTP {status}: {message}"),
                None => format!("HTTP {status}"),
            })),
        }
    }
}

fn service_path(key: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    format!("/api/v1/namespaces/{namespace}/services/{name}")
}

fn book_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}")
}
